"""A tracking server that keeps us waiting: MLflow asks again and again, and this says so once an outage.

MLflow's client repeats what fails by itself, and says nothing for minutes. It tells its header providers of every
request, and urllib3 logs every answer and every failure, so that nothing of theirs has to be replaced.
"""

import logging
import os
import re
import sys
import threading
import time
from http import HTTPStatus

from mlflow.tracking.request_header import registry

from understudy.tracking.retrying import HTTP_TRIES

PATIENCE = 5.0  # seconds before it is said
# Asks again after 0, 2, 4, 8, ... 120 seconds, where MLflow's own factor of 2 sleeps through the end of a short outage.
WAITING = {HTTP_TRIES: "8", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # seconds for one answer
FAIL_FAST = {HTTP_TRIES: "1", TIMEOUT: "3"}  # again at once: the server may just have closed a connection it kept
HURRY = {HTTP_TRIES: "0", TIMEOUT: "1"}
PASSING = {408, 429, 500, 502, 503, 504}  # what MLflow asks again after
ANSWERED, BROKEN = 8, 3  # how many values urllib3 logs of an answer, and of a connection that failed


class _Watch(logging.Filter):
    """Since when an answer is missing, and why."""

    def __init__(self) -> None:
        super().__init__()
        self.uri, self.why, self.since, self.said = "", "", 0.0, False

    def in_context(self) -> bool:
        """Called by MLflow before each request, for headers that we have not."""
        self.since = self.since or time.monotonic()
        return False

    def filter(self, record: logging.LogRecord) -> bool:
        """Called by urllib3 after each answer and each failure; whether anybody else should read it."""
        said = record.args if isinstance(record.args, tuple) else ()
        if len(said) == ANSWERED and isinstance(said[6], int):
            if said[6] not in PASSING:
                self.since, self.said, self.why = 0.0, False, ""
            else:
                self.why = "its database is away" if said[6] == HTTPStatus.SERVICE_UNAVAILABLE else f"error {said[6]}"
        elif len(said) == BROKEN and isinstance(said[1], Exception):
            self.why = "no connection"
            return False
        return record.levelno >= logging.WARNING

    def run(self) -> None:
        while True:
            time.sleep(PATIENCE / 10)
            if self.since and not self.said and time.monotonic() - self.since >= PATIENCE:
                self.said = True
                print(f"waiting for the tracking server at {self.uri}: {self.why or 'no answer'}", file=sys.stderr)


_watch = _Watch()


def watch(uri: str, fail_fast: bool) -> None:
    """Wait for a server's answers for four minutes, saying so after five seconds; or if `fail_fast`, do not wait.

    Where the environment says how often and how soon MLflow is to ask again, that counts, except for `fail_fast`.
    """
    os.environ |= FAIL_FAST if fail_fast else {**WAITING, **os.environ}
    _watch.uri = re.sub("//[^/]*@", "//", uri)
    log = logging.getLogger("urllib3.connectionpool")
    if _watch not in log.filters:
        log.addFilter(_watch)
        log.setLevel(logging.DEBUG)
        registry._request_header_provider_registry.register(lambda: _watch)  # type: ignore[no-untyped-call]
    if not fail_fast and not any(thread.name == __name__ for thread in threading.enumerate()):
        threading.Thread(target=_watch.run, name=__name__, daemon=True).start()


def hurry() -> None:
    """Ask once and shortly from now on, if the server owes us an answer: a process that ends waits no second time."""
    if _watch.since and time.monotonic() - _watch.since > 1:
        os.environ |= HURRY
