"""The tracking store: its address, a client of it, and all that a search finds."""

import logging
import os
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import requests
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
    ErrorCode,
)
from mlflow.store.entities import PagedList

from understudy import errors
from understudy.errors import UserError
from understudy.tracking import waiting

T = TypeVar("T")
PROJECT = Path(__file__).resolve().parents[2]
EMBEDDED = f"sqlite:///{PROJECT / 'mlflow.db'}"
NOT_THERE = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
DATABASE_AWAY = ErrorCode.Name(TEMPORARILY_UNAVAILABLE)  # in MLflow's answers

# MLflow has no other switch for these two either. The page to open is named by the scripts, once.
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}


def connect(fail_fast: bool = False) -> mlflow.MlflowClient:
    """A client of `MLFLOW_TRACKING_URI`, or else of `mlflow.db` in the project's folder.

    It waits four minutes for a server that goes away, or for the server's database, and says so after five seconds.
    Where the environment says how often and how soon MLflow is to ask again, that counts, except for `fail_fast`.

    Args:
        fail_fast: Whether to give up at once instead.

    Raises:
        UserError: The server does not answer, what answers is not MLflow, or there is no place to make the file.
    """
    os.environ |= {**QUIET, **os.environ}
    address = uri()
    if is_server():
        _check_server(address)
        waiting.patience(fail_fast)
    elif address.startswith("sqlite:///"):
        _check_folder(Path(address.removeprefix("sqlite:///").split("?")[0]))
    logging.getLogger("mlflow.store.artifact.artifact_repo").setLevel(logging.WARNING)
    # MLflow logs the traceback of what it then raises.
    logging.getLogger("mlflow.store.db.utils").addFilter(_is_no_error)
    mlflow.set_tracking_uri(address)
    client = mlflow.MlflowClient(address)
    if is_server() and not fail_fast:
        waiting.watch(client, address)
    return client


def uri() -> str:
    """The store's address."""
    return os.environ.get("MLFLOW_TRACKING_URI") or EMBEDDED


def is_server() -> bool:
    """Whether the store is behind a server, which has MLflow's UI."""
    return uri().startswith(("http://", "https://"))


def page(experiment_id: str) -> str:
    """Where MLflow's UI shows an experiment as model training, whatever the browser showed last."""
    address = f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    if is_server():  # which may have workspaces, and else asks each browser once for one
        return f"{uri().rstrip('/')}{address}&workspace=default"
    return f"http://127.0.0.1:5000{address}"


def pages(search: Callable[..., PagedList[T]], *arguments: Any, **options: Any) -> Iterator[T]:
    """All that one of MLflow's searches finds, which hands it out in pages."""
    token = None
    while True:
        page = search(*arguments, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def _check_server(uri: str) -> None:
    """Refuse an address at which no MLflow server answers; MLflow's own client would try for two minutes."""
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=10)
    except requests.RequestException:
        problem, fix = "no tracking server answers at", "start it, or correct MLFLOW_TRACKING_URI"
    else:
        if answer.status_code == HTTPStatus.OK and answer.text.strip() == "OK":
            return
        # With workspaces MLflow asks its database even for this; the next request waits for it, or says it is away.
        if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE and DATABASE_AWAY in answer.text:
            return
        problem, fix = "there is no MLflow server at", "correct MLFLOW_TRACKING_URI"
    raise UserError(f"{problem} {waiting.without_password(uri)}", fix)


def _check_folder(file: Path) -> None:
    """Refuse a file in a folder that is read-only; MLflow would try for minutes to make it."""
    folder = next(path for path in file.absolute().parents if path.exists())
    if not file.exists() and not os.access(folder, os.W_OK):
        raise UserError(f"cannot make {file}: {folder} is read-only", errors.MAKE_WRITABLE)
