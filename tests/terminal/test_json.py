"""What scripts print for programs: one object on stdout, whatever comes of it."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from types import ModuleType
from typing import Any

import mlflow
import pytest

import promote
from tests.conftest import Ended, is_refusal
from understudy.table import TABLE

Call = Callable[..., Ended]


@pytest.fixture
def ask(call: Call) -> Callable[..., tuple[int, Mapping[str, Any]]]:
    """Calls a script with --json; returns its exit code, and the object that is all of what it printed."""

    def ask(script: ModuleType, *arguments: str) -> tuple[int, Mapping[str, Any]]:
        ended = call(script, *arguments, "--json")
        assert ended.out.count("\n") == 1, ended
        return ended.code, json.loads(ended.out)

    return ask


Ask = Callable[..., tuple[int, Mapping[str, Any]]]


def test_a_move_and_its_checks_are_an_object(registered: str, ask: Ask) -> None:
    code, staged = ask(promote, "staging", "--version", "1")
    assert (code, staged["moved"], staged["stage"], staged["before"]) == (0, True, "staging", None)
    assert staged["next"] == "python promote.py production"
    code, moved = ask(promote, "production")
    assert (code, moved["version"], moved["moved"], moved["refused"]) == (0, "1", True, None)
    gate = moved["gate"]
    assert (gate["allowed"], gate["rule"], gate["against"]) == (True, "not-worse", None)
    [area] = [check for check in gate["checks"] if check["name"] == "ROC AUC"]
    assert area["passed"]
    assert area["low"] < area["value"] < area["high"]
    assert area["limit"] == "interval above 0.500"
    assert gate["counts"]["rows"] == 186
    again = ask(promote, "production", "--version", "1")[1]
    assert (again["version"], again["moved"], again["gate"], again["record"]) == ("1", False, None, None)
    assert again.keys() == moved.keys()


def test_a_refusal_is_an_object_too_with_the_checks_and_exit_3(in_production: str, ask: Ask, call: Call) -> None:
    call(promote, "staging", "--version", "2")
    code, refused = ask(promote, "production", "--rule", "better")
    assert (code, refused["moved"], refused["gate"]["allowed"], refused["next"]) == (3, False, False, None)
    assert refused["refused"] == refused["gate"]["why"]
    assert "too few rows" in refused["refused"]
    assert (refused["version"], refused["before"]) == ("2", "1")
    assert any(check["passed"] is False for check in refused["gate"]["checks"])


def test_a_mistake_leaves_stdout_empty(registered: str, call: Call) -> None:
    ended = call(promote, "--json", "production")
    assert ended.out == ""
    assert is_refusal(ended)


def test_what_happened_is_an_object_with_times_in_utc(in_production: str, ask: Ask) -> None:
    code, shown = ask(promote)
    assert (code, shown["name"], shown["newest"]) == (0, TABLE.name, "2")
    assert shown["stages"]["production"] == {"version": "1", "recorded": "1"}
    assert [record["action"] for record in shown["records"]] == ["staging", "production"]
    record = shown["records"][1]
    assert str(datetime.fromisoformat(record["time"]).tzinfo) == "UTC"
    assert (record["outcome"], record["version"], record["forced"]) == ("completed", "1", False)
    assert record["figures"]["ROC AUC"]["low"] < record["figures"]["ROC AUC"]["value"]
    known = ask(promote, "show", "1")[1]
    assert known["lineage"]["family"] == "LogisticRegression"
    assert known["records"] == shown["records"]
    then = ask(promote, "show", "--at", record["time"])[1]
    assert then["version"] == "1"
    assert then["at"] == record["time"]


def test_findings_are_an_object_with_exit_4(in_production: str, ask: Ask) -> None:
    assert ask(promote, "check")[1]["findings"] == []
    mlflow.MlflowClient(in_production).set_registered_model_alias(TABLE.name, "production", "2")
    code, checked = ask(promote, "check")
    assert code == 4
    assert checked["next"] in {finding["fix"] for finding in checked["findings"]} | {"python promote.py check --repair"}
    assert all(finding.keys() == {"what", "fix"} for finding in checked["findings"])
