"""A version that has passed the gate and then misbehaves goes back by itself: real servers, and their logs."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

import promote
import register
import train
from tests.conftest import Ended
from tests.probation.conftest import Watches
from tests.scoring.test_scoring import APPLICANT
from tests.serving.conftest import Live, served, until
from understudy.registry import records
from understudy.table import TABLE

NAME = TABLE.name
Call = Callable[..., Ended]


def address(live: Live) -> str:
    return f"http://127.0.0.1:{live.port}"


def ask(live: Live, times: int) -> set[int]:
    """The statuses of so many requests of one row each."""
    rows = ({**APPLICANT, "ApplicantIncome": 1_000 + number} for number in range(times))
    return {live.ask({"dataframe_records": [row]}).status for row in rows}


@pytest.fixture
def breaking(in_production: str, call: Call) -> str:
    """Version 1 is in Production, and version 3, which knows fewer columns, in Staging."""
    assert call(train, "--models", "LogisticRegression", "--without-sensitive").code == 0
    assert call(register).code == 0
    assert call(promote, "staging", "--breaking").code == 0
    return in_production


def test_a_version_that_refuses_what_the_one_before_takes_goes_back(
    breaking: str, tmp_path: Path, call: Call, watches: Watches
) -> None:
    log = tmp_path / "rows"
    with served(tmp_path, breaking, "--log", str(log)) as live:
        until(lambda: live.version() == "1")
        assert ask(live, 150) == {200}
        promoted = call(promote, "production", "--force", "--breaking", "--reason", "who needs genders")
        assert promoted.code == 0
        until(lambda: live.version() == "3")
        assert ask(live, 60) == {400}
        ended = watches(address(live), "--log", str(log))
        until(lambda: live.version() == "1")
        assert ask(live, 3) == {200}
    assert (ended.code, ended.err) == (7, "")
    [record] = [of for of in records.find(mlflow.MlflowClient(), NAME) if of.action == records.ROLLBACK]
    assert (record.version, record.before, record.by, record.outcome) == ("1", "3", "probation", "completed")
    assert record.figures["refused share"] == 1
    assert record.figures["refused share before"] == 0
    shown = call(promote).out
    assert "Production: version 1" in shown
