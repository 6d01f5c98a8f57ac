"""Writes that fail because somebody else writes at the same time, and are tried again."""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from mlflow import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE, ErrorCode

P = ParamSpec("P")
T = TypeVar("T")

TRIES = 8
# Two processes insert the same row; SQLite's and MySQL's ways to say that one has to wait. All of them undo the write.
UNDONE = ("IntegrityError", "database is locked", "Deadlock found", "Lock wait timeout")
PASSING = {ErrorCode.Name(code) for code in (BAD_REQUEST, INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE)}
HTTP_TRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


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
    return error.error_code in PASSING and any(words in str(error) for words in UNDONE)


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
