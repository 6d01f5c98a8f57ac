"""The tracking store: its address, a client of it, and all that a search finds."""

import logging
import os
import shlex
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import mlflow
import sqlalchemy
from mlflow.entities import ViewType
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
from understudy.tracking import naming, waiting

T = TypeVar("T")
PROJECT, uri = naming.PROJECT, naming.uri
CURRENT_USER = "/api/2.0/mlflow/users/current"  # of MLflow's accounts
PATIENCE = 8.0  # seconds for the first answer of a server or a database
NOT_THERE = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
DATABASE_AWAY = ErrorCode.Name(TEMPORARILY_UNAVAILABLE)  # in MLflow's answers

# MLflow has no other switch for these either. The scripts name the page to open, once; its progress bars last moments.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def connect(fail_fast: bool = False, is_moved: bool = False) -> mlflow.MlflowClient:
    """A client of `MLFLOW_TRACKING_URI`, or else of `mlflow.db` in the project's folder.

    It waits four minutes for a server that goes away, or for the server's database, and says so after five seconds.
    Where the environment says how often and how soon MLflow is to ask again, that counts, except for `fail_fast`.

    Args:
        fail_fast: Whether to give up at once instead.
        is_moved: Whether the project's own store may look for its artifacts in another folder.

    Raises:
        UserError: The address is none, the server or the database does not answer, what answers is not MLflow, there is
            no place to make the file, or the project's own store was moved or copied here.
    """
    os.environ |= {**QUIET, **os.environ}
    address = uri()
    naming.check_uri(address)
    if is_server():
        _check_server(address)
        waiting.patience(fail_fast)
    elif address.startswith("sqlite"):
        _check_file(address)
    else:
        _check_database(address)
    logging.getLogger("mlflow.store.artifact.artifact_repo").setLevel(logging.WARNING)
    # MLflow logs the traceback of what it then raises.
    logging.getLogger("mlflow.store.db.utils").addFilter(_is_no_error)
    mlflow.set_tracking_uri(address)
    client = mlflow.MlflowClient(address)
    if is_server() and not fail_fast:
        waiting.watch(client, address)
    if not is_moved and (folders := moved_from(client)):
        problem = f"the project was moved or copied to {PROJECT}, and its artifacts are still looked for in"
        raise UserError(f"{problem} {', '.join(map(str, folders))}", "python promote.py relocate")
    return client


def is_server() -> bool:
    """Whether the store is behind a server, which has MLflow's UI."""
    return uri().startswith(("http://", "https://"))


def is_embedded() -> bool:
    """Whether the store is the project's own file."""
    return uri().startswith("sqlite") and _file(uri()).resolve() == PROJECT / "mlflow.db"


def account() -> str | None:
    """The name of the account by which the server knows this process; None without a server that has accounts.

    It is the server's word, since the environment may spell the name otherwise, or not have it: MLflow's client also
    takes accounts from a file. MLflow's own client for accounts is not used: to load it takes the packages of a server.
    """
    if not is_server():
        return None
    known_by = credentials.get_default_host_creds(uri())  # type: ignore[no-untyped-call]
    options = {"raise_on_status": False}
    answer = rest_utils.http_request(known_by, CURRENT_USER, "GET", **options)  # type: ignore[no-untyped-call]
    if answer.status_code == HTTPStatus.NOT_FOUND:
        return None
    checked = rest_utils.verify_rest_response(answer, CURRENT_USER)
    return str(checked.json()["user"]["username"])


def moved_from(client: mlflow.MlflowClient) -> list[Path]:
    """The folders that the project's own store was in when it made its experiments, if they are not the project's.

    Such a folder is gone, or the artifacts of an experiment lie in the project's folder as well, since it is a copy.
    MLflow makes the experiment Default by itself, for the folder that one happens to be in; it counts if it is used.
    """
    folders = set()
    for experiment in pages(client.search_experiments, view_type=ViewType.ALL) if is_embedded() else ():
        path, number = naming.path_of(experiment.artifact_location), experiment.experiment_id
        if path and path.parent.name == naming.ARTIFACTS and not _is_project(folder := path.parents[1]):
            is_here = (PROJECT / naming.ARTIFACTS / path.name).exists()
            is_used = number != "0" or bool(client.search_runs([number], run_view_type=ViewType.ALL, max_results=1))
            folders |= {folder} if is_here or (is_used and not folder.exists()) else set()
    return sorted(folders)


def _is_project(folder: Path) -> bool:
    return folder.exists() and folder.samefile(PROJECT)


def page(path: str) -> str:
    """The address of a page of MLflow's UI, such as `experiments/1/runs`, once `make ui` or a server shows it."""
    server = uri().rstrip("/") if is_server() else "http://127.0.0.1:5000"
    return f"{server}/{link(path)}"


def link(path: str, **query: str) -> str:
    """What follows a server's address to show a page as model training, whatever the browser showed last.

    As it is, it leads there from any other page of the UI, as from a description.
    """
    shown = {**query, "workflowType": "machine_learning"}
    if is_server():  # which may have workspaces, and else asks each browser once for one
        shown["workspace"] = "default"
    return f"#/{path}?{urlencode(shown)}"


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


def _check_database(address: str) -> None:
    """Refuse a database that cannot be used now; drivers and MLflow would try for two minutes."""
    from mlflow.store.db.utils import create_sqlalchemy_engine  # takes half a second, and a server is asked without it

    outcome: list[Exception | None] = []

    def attempt() -> None:
        try:
            create_sqlalchemy_engine(address).connect().close()
            outcome.append(None)
        except Exception as error:  # each driver has errors of its own
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if outcome != [None]:
        url = sqlalchemy.make_url(address)
        error = outcome[0] if outcome else None
        reason = str(getattr(error, "orig", error) if error else f"no answer within {PATIENCE:.0f} seconds")
        reason = reason.replace(str(url.password or "\0"), "***")
        place = f"{url.drivername}://{url.host or ''}/{url.database or ''}"
        raise UserError(f"the database {place} cannot be used: {reason}", "start it, or correct MLFLOW_TRACKING_URI")


def _check_server(uri: str) -> None:
    """Refuse an address at which no MLflow server answers; MLflow's own client would try for two minutes."""
    account = credentials.get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    options = {"timeout": PATIENCE, "max_retries": 0, "raise_on_status": False}
    try:
        answer = rest_utils.http_request(account, "/health", "GET", **options)  # type: ignore[no-untyped-call]
    except mlflow.MlflowException:
        problem, fix = "no tracking server answers at", "start it, or correct MLFLOW_TRACKING_URI"
    else:
        if answer.status_code == HTTPStatus.OK and answer.text.strip() == "OK":
            return
        # With workspaces MLflow asks its database even for this; the next request waits for it, or says it is away.
        if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE and DATABASE_AWAY in answer.text:
            return
        problem, fix = "there is no MLflow server at", "correct MLFLOW_TRACKING_URI"
    raise UserError(f"{problem} {waiting.without_password(uri)}", fix)


def _file(address: str) -> Path:
    return Path(sqlalchemy.make_url(address).database or "").absolute()


def _check_file(address: str) -> None:
    """Refuse a file that MLflow would try for minutes to make, and one that a path means which nobody has escaped."""
    file, unescaped = _file(address), Path(address.partition(":///")[2]).absolute()
    if not file.exists() and unescaped.parent != file.parent and unescaped.parent.is_dir():
        fix = f"export MLFLOW_TRACKING_URI={shlex.quote(naming.sqlite(unescaped))}"
        raise UserError(f"MLFLOW_TRACKING_URI means {file}, since % and ? have a meaning in an address", fix)
    folder = next(path for path in file.parents if path.exists())
    if not file.exists() and not os.access(folder, os.W_OK):
        raise UserError(f"cannot make {file}: {folder} is read-only", errors.MAKE_WRITABLE)
