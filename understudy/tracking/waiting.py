"""Waiting for the tracking server, which people are told of, and for others who write at the same time."""

import os
import random
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import ParamSpec, TypeVar

import mlflow
from mlflow import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE, ErrorCode
from mlflow.utils import credentials, rest_utils

P = ParamSpec("P")
T = TypeVar("T")

TRIES = 8
# Two processes insert the same row; SQLite's and MySQL's ways to say that one has to wait. All of them undo the write.
UNDONE = ("IntegrityError", "database is locked", "Deadlock found", "Lock wait timeout")
RETRYABLE = {ErrorCode.Name(code) for code in (BAD_REQUEST, INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE)}
HTTP_TRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"

PATIENCE = 5.0  # seconds without an answer before people are told
AWAY = {408, 429, 500, 502, 503, 504}  # the answers after which MLflow's client asks again
# MLflow's client takes these from the environment alone, and reads them again for each request.
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # seconds for one answer
# Asks again after 0, 2, 4, 8, ... 120 seconds, where MLflow's own factor of 2 sleeps through the end of a short outage.
WAITING = {HTTP_TRIES: "8", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
FAIL_FAST = {HTTP_TRIES: "1", TIMEOUT: "3"}  # asks again at once: the server may just have closed the connection
HURRY = {HTTP_TRIES: "0", TIMEOUT: "1"}


def insist(write: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that writes until nobody is in its way; only for writes that may be done twice."""
    for number in range(TRIES - 1):
        try:
            return write(*args, **kwargs)
        except MlflowException as error:
            if not is_undone(error):
                raise
        pause(number)
    return write(*args, **kwargs)


def is_undone(error: MlflowException) -> bool:
    """Whether the store says that somebody was in the way, and that it has written nothing."""
    return error.error_code in RETRYABLE and any(words in str(error) for words in UNDONE)


def is_unclear(error: MlflowException) -> bool:
    """Whether a server's answer was lost or a failure of its own: it may have written or not."""
    return error.error_code == ErrorCode.Name(INTERNAL_ERROR) and "API request to" in str(error)


def pause(number: int) -> None:
    """Wait before the next try, longer each time, and by chance, so that two writers do not meet again."""
    time.sleep(random.uniform(0.5, 1) * min(0.05 * 2**number, 2))  # noqa: S311


@contextmanager
def one_try() -> Iterator[None]:
    """Keep MLflow's client from sending a request again by itself, which it does for two minutes.

    The environment is the only place where MLflow's client takes this from.
    """
    before = os.environ.get(HTTP_TRIES)
    os.environ[HTTP_TRIES] = "0"
    try:
        yield
    finally:
        os.environ.pop(HTTP_TRIES)
        if before is not None:
            os.environ[HTTP_TRIES] = before


def patience(fail_fast: bool) -> None:
    """Let MLflow's client wait four minutes for a server that goes away, or not at all.

    Where the environment says how often and how soon MLflow is to ask again, that counts, except for `fail_fast`.
    """
    os.environ |= FAIL_FAST if fail_fast else {**WAITING, **os.environ}


def watch(client: mlflow.MlflowClient, uri: str) -> None:
    """Tell people, once an outage, that the server does not answer, for as long as its client is in use."""
    threading.Thread(target=_watch, args=(weakref.ref(client), uri), daemon=True).start()


def hurry(uri: str) -> None:
    """Let MLflow ask only once from now on if the server is away: a process that ends does not wait a second time."""
    if _outage(uri, timeout=1):
        os.environ |= HURRY


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
            print(f"waiting for the tracking server at {without_password(uri)}: {outage}", file=sys.stderr)
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
    return f"error {answer.status_code}" if answer.status_code in AWAY else None


def without_password(uri: str) -> str:
    """An address as people may see it."""
    return re.sub("//[^/]*@", "//", uri)
