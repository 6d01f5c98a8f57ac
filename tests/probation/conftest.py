"""Version 1 is in Production; others take its place on a live server, and are on probation."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

import monitor
import promote
from tests.conftest import PROJECT, Ended, environment
from tests.probation.misbehaving import TurnsBad
from tests.scoring.test_scoring import APPLICANT
from tests.serving.conftest import Live
from tests.serving.test_following import made_with
from understudy.probation import watch
from understudy.schema.declaration import Limits, Probation
from understudy.schema.declaration import Live as Places
from understudy.table import TABLE

NAME = TABLE.name
HARMFUL = {**APPLICANT, "ApplicantIncome": 1_000_000, "CoapplicantIncome": 1_000_000}
LONGEST = 200  # seconds that a watch may take
Call = Callable[..., Ended]
# Watches as `monitor.py --probation` does, with a probation of its own and without pauses.
PROGRAM = """
import sys
import threading
from dataclasses import replace
from understudy import errors, table
from understudy.schema.limits import Limits, Probation
minutes, rows = sys.argv.pop(1).split()
table.TABLE = replace(table.TABLE, limits=Limits(probation=Probation(float(minutes), int(rows))))
import monitor
from understudy.probation import watch
watch.EVERY, watch.TELL = 0.2, 0.2
errors.run(monitor.main)
"""


def address(live: Live) -> str:
    return f"http://127.0.0.1:{live.port}"


def ask(live: Live, times: int, row: dict[str, Any] = APPLICANT) -> set[int]:
    """The statuses of so many requests of one row each."""
    return {live.ask({"dataframe_records": [row]}).status for _ in range(times)}


def is_forward(call: Call, *options: str) -> None:
    """Put the newest version into Staging and from there into Production, as people do."""
    for stage in ("staging", "production"):
        ended = call(promote, stage, *options)
        assert ended.code == 0, ended.err


@pytest.fixture
def watches(call: Call, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Watch the version on probation by a probation of these settings, without pauses."""
    monkeypatch.setattr(watch, "EVERY", 0.2)
    signal.signal(signal.SIGALRM, signal.default_int_handler)

    def watches(server: str, *options: str, **settings: Any) -> Ended:
        limits = Limits(probation=Probation(**settings))
        monkeypatch.setattr(monitor, "TABLE", replace(TABLE, limits=limits, live=Places()))
        signal.alarm(LONGEST)
        try:
            return call(monitor, "--probation", server, *options)
        finally:
            signal.alarm(0)

    return watches


@contextmanager
def watching(uri: str, server: str, *options: str, minutes: float = 60, rows: int = 1_000) -> Iterator["Watching"]:
    """The same in a process of its own, until the block ends."""
    command = [sys.executable, "-c", PROGRAM, f"{minutes} {rows}", "--probation", server, *options]
    process = subprocess.Popen(
        command, cwd=PROJECT, env=environment(MLFLOW_TRACKING_URI=uri), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    timer = threading.Timer(LONGEST, process.kill)
    timer.start()
    try:
        yield Watching(process)
    finally:
        timer.cancel()
        process.kill()
        process.communicate()  # closes its pipe


class Watching:
    """A process that watches."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process, self.lines = process, []  # type: ignore[var-annotated]

    def says(self, words: str) -> str:
        """Its next line with these words."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.decode())
            if words in self.lines[-1]:
                return str(self.lines[-1])
        raise AssertionError("".join(self.lines))


@pytest.fixture
def turns_bad(in_production: str, call: Call, tmp_path: Path) -> Callable[[str], None]:
    """Make a version that misbehaves in a way, and let the gate put it in the place of version 1."""

    def turns_bad(how: str) -> None:
        client = MlflowClient(in_production)
        version = made_with(in_production, tmp_path / "model", TurnsBad(how))
        known, own = (client.get_model_version(NAME, number).tags for number in ("1", version))
        for tag in known.keys() - own.keys():
            client.set_model_version_tag(NAME, version, tag, known[tag])
        is_forward(call)

    return turns_bad


@pytest.fixture
def client(in_production: str) -> MlflowClient:
    return mlflow.MlflowClient(in_production)
