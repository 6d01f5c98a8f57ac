"""A version that has passed the gate and then misbehaves goes back by itself: real servers, and their logs."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

import promote
import register
import train
from tests.probation.conftest import HARMFUL, NAME, Call, address, ask, is_forward
from tests.serving.conftest import served, until
from understudy.registry import records
from understudy.registry.records import SavedRecord


def last(client: MlflowClient) -> SavedRecord:
    return records.find(client, NAME)[-1]


def test_a_version_that_refuses_what_the_one_before_takes_goes_back(
    in_production: str, client: MlflowClient, tmp_path: Path, call: Call, watches: Call
) -> None:
    assert call(train, "--models", "LogisticRegression", "--without-sensitive").code == 0
    assert call(register).code == 0
    log = tmp_path / "rows"
    with served(tmp_path, in_production, "--log", str(log)) as live:
        until(lambda: live.version() == "1")
        assert ask(live, 150) == {200}
        is_forward(call, "--force", "--breaking", "--reason", "who needs genders")
        until(lambda: live.version() == "3")
        assert ask(live, 60) == {400}
        ended = watches(address(live), "--log", str(log))
        until(lambda: live.version() == "1")
        assert ask(live, 3) == {200}
    assert (ended.code, ended.err) == (7, "")
    assert "Loan_prediction version 1 is in Production again, version 3 is archived" in ended.out
    record = last(client)
    assert (record.action, record.version, record.before, record.by) == ("rollback", "1", "3", "probation")
    assert (record.outcome, record.figures["refused share"]) == ("completed", 1)
    shown = call(promote).out
    assert "Production: version 1" in shown
    assert re.search("  rollback +version 1 in place of version 3  ", shown)
    assert '"refused: 20 of 20 requests' in shown
    assert "by probation" in shown
    assert "refused share: 1" in call(promote, "show", "1").out
    again = watches(address(live))
    assert (again.code, again.out) == (7, f"version 1 of {NAME} came back to Production, and is not on probation\n")


@pytest.mark.parametrize(("how", "status", "said"), [("fail", 500, "answered with 5xx"), ("slow", 200, "slow")])
def test_a_version_that_fails_or_is_slow_goes_back(
    how: str,
    status: int,
    said: str,
    in_production: str,
    client: MlflowClient,
    tmp_path: Path,
    turns_bad: Callable[[str], None],
    watches: Call,
) -> None:
    with served(tmp_path, in_production) as live:
        until(lambda: live.version() == "1")
        assert ask(live, 120) == {200}
        turns_bad(how)
        until(lambda: live.version() == "3")
        assert ask(live, 20) == {200}
        assert ask(live, 10, HARMFUL) == {status}
        ended = watches(address(live))
        until(lambda: live.version() == "1")
    assert (ended.code, ended.err) == (7, ""), ended.out
    assert last(client).reason == f"{said}: 10 of 30 requests (33.3%), before 0 of 120 requests"
    assert last(client).figures[f"{said} share"] == pytest.approx(1 / 3)


def test_a_version_whose_scores_are_others_than_on_held_out_rows_goes_back(
    in_production: str, client: MlflowClient, tmp_path: Path, turns_bad: Callable[[str], None], watches: Call
) -> None:
    turns_bad("shift")
    log = tmp_path / "rows"
    with served(tmp_path, in_production, "--log", str(log)) as live:
        until(lambda: live.version() == "3")
        assert ask(live, 30) | ask(live, 90, HARMFUL) == {200}
    with served(tmp_path, in_production, "--log", str(log)) as live:
        ended = watches(address(live), "--log", str(log))
    assert (ended.code, ended.err) == (7, ""), ended.out
    assert "scores: on average -0." in str(last(client).reason)
    assert last(client).figures["score shift high"] < -0.1
