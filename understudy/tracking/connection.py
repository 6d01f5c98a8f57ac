"""The tracking store: its address, a client of it, and what people are told while its server does not answer."""

import logging
import os
import re
import sys
import threading
import time
import weakref
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
from mlflow.utils import credentials, rest_utils

from understudy import errors
from understudy.errors import UserError
from understudy.tracking.retrying import HTTP_TRIES

T = TypeVar("T")
PROJECT = Path(__file__).resolve().parents[2]
EMBEDDED = f"sqlite:///{PROJECT / 'mlflow.db'}"
NOT_THERE = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
DATABASE_AWAY = ErrorCode.Name(TEMPORARILY_UNAVAILABLE)  # in MLflow's answers

PATIENCE = 5.0  # seconds without an answer before people are told
PASSING = {408, 429, 500, 502, 503, 504}  # the answers after which MLflow's client asks again
# MLflow's client takes these from the environment alone, and reads them again for each request.
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # seconds for one answer
# Asks again after 0, 2, 4, 8, ... 120 seconds, where MLflow's own factor of 2 sleeps through the end of a short outage.
WAITING = {HTTP_TRIES: "8", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
FAIL_FAST = {HTTP_TRIES: "1", TIMEOUT: "3"}  # asks again at once: the server may just have closed the connection
HURRY = {HTTP_TRIES: "0", TIMEOUT: "1"}
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
        os.environ |= FAIL_FAST if fail_fast else {**WAITING, **os.environ}
    elif address.startswith("sqlite:///"):
        _check_folder(Path(address.removeprefix("sqlite:///").split("?")[0]))
    logging.getLogger("mlflow.store.artifact.artifact_repo").setLevel(logging.WARNING)
    # MLflow logs the traceback of what it then raises.
    logging.getLogger("mlflow.store.db.utils").addFilter(_is_no_error)
    mlflow.set_tracking_uri(address)
    client = mlflow.MlflowClient(address)
    if is_server() and not fail_fast:
        threading.Thread(target=_watch, args=(weakref.ref(client), address), daemon=True).start()
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


def hurry() -> None:
    """Let MLflow ask only once from now on if the server is away: a process that ends does not wait a second time."""
    if is_server() and _outage(uri(), timeout=1):
        os.environ |= HURRY


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
    raise UserError(f"{problem} {_without_password(uri)}", fix)


def _check_folder(file: Path) -> None:
    """Refuse a file in a folder that is read-only; MLflow would try for minutes to make it."""
    folder = next(path for path in file.absolute().parents if path.exists())
    if not file.exists() and not os.access(folder, os.W_OK):
        raise UserError(f"cannot make {file}: {folder} is read-only", errors.MAKE_WRITABLE)


def _watch(client: "weakref.ref[mlflow.MlflowClient]", uri: str) -> None:
    """Ask the server every second while its client is in use, and say once an outage that it does not answer."""
    away_since, is_said = None, False
    while client():
        asked = time.monotonic()
        outage = _outage(uri, PATIENCE)
        away_since = (away_since or asked) if outage else None
        if away_since is None:
            is_said = False
        elif not is_said and time.monotonic() - away_since >= PATIENCE:
            print(f"waiting for the tracking server at {_without_password(uri)}: {outage}", file=sys.stderr)
            is_said = True
        time.sleep(1)


def _outage(uri: str, timeout: float) -> str | None:
    """Why the server does not answer now, for people; None if it does.

    It is asked for something that takes its database, as `/health` does not on a server without workspaces.
    """
    asked = time.monotonic()
    account = credentials.get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    query = {"params": {"max_results": 1}, "timeout": timeout, "max_retries": 0, "raise_on_status": False}
    try:
        answer = rest_utils.http_request(  # type: ignore[no-untyped-call]
            account, "/api/2.0/mlflow/experiments/search", "GET", **query
        )
    except mlflow.MlflowException:
        return "no answer" if time.monotonic() - asked >= timeout else "no connection"
    if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        return "its database is away"
    return f"error {answer.status_code}" if answer.status_code in PASSING else None


def _without_password(uri: str) -> str:
    return re.sub("//[^/]*@", "//", uri)
