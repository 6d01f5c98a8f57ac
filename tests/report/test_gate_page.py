"""The page of a verdict: what the gate decided, and each check beside its limit, as gate.json has it."""

import json
from collections.abc import Callable
from dataclasses import asdict
from html import unescape

import mlflow
import pytest

import promote
from tests.conftest import Ended
from tests.report.conftest import stands_alone
from understudy.figures import cards
from understudy.registry import records
from understudy.registry.records import Record
from understudy.report import gate_page, page
from understudy.table import TABLE


@pytest.fixture
def refused(in_production: str, call: Callable[..., Ended], client: mlflow.MlflowClient) -> tuple[str, str]:
    """The page and the gate.json of a refusal."""
    call(promote, "staging", "--version", "2")
    assert call(promote, "production", "--rule", "better").code == 3
    run = records.find(client, TABLE.name)[-1].run_id
    files = (mlflow.artifacts.load_text(f"runs:/{run}/{name}") for name in (page.FILE, records.GATE))
    return next(files), next(files)


def test_a_refusal_has_a_page_that_says_each_check_as_it_was(
    refused: tuple[str, str], looked_at: Callable[[str], None]
) -> None:
    html, kept = unescape(refused[0]), json.loads(refused[1])
    assert f"The gate does not let version 2 go to Production in place of version 1: {kept['why']}." in html
    assert f"{TABLE.name} version 2 to Production" in html
    for check in kept["checks"][:9]:
        assert check["name"] in html
        if check["low"] is not None:
            assert cards.interval((check["value"], check["low"], check["high"])) in html
    assert html.count("✗ fail") == sum(check["passed"] is False for check in kept["checks"]) == 1
    assert f"<dt>On</dt><dd>{kept['rows']} rows that were held out</dd>" in html
    assert "<dt>Compared with</dt><dd>version 1</dd>" in html
    assert "<dt>Rule</dt><dd>better: it has to predict better</dd>" in html
    checks, _, beside = html.partition("<h2>Beside the checks</h2>")
    assert "decides nothing" not in checks.partition("<h2>Slices</h2>")[0]
    assert "McNemar's p" in beside
    assert stands_alone(refused[0])
    looked_at(refused[0])


def test_what_passes_says_so_and_leaves_no_check_out(in_production: str, client: mlflow.MlflowClient) -> None:
    run = records.find(client, TABLE.name)[-1].run_id
    html, kept = (mlflow.artifacts.load_text(f"runs:/{run}/{name}") for name in (page.FILE, records.GATE))
    checks = json.loads(kept)["checks"]
    assert "The gate lets version 1 go to Production: no check failed." in html
    assert html.count("✓ pass") == sum(check["passed"] is True for check in checks) > 3
    assert "none, since there is none to compare with" in html
    assert ">300</text>" in html  # the limit of milliseconds, and not 3e+2
    unmeasured = {**checks[0], "value": None, "low": None, "high": None, "passed": None, "note": "a note"}
    aside = gate_page.html("A", asdict(Record("staging", "1", "staging", who="anna")), {"checks": [unmeasured]})
    assert "not measured" in aside
    assert "decides nothing" in aside
    assert "<li>a note</li>" in aside


def test_what_is_forced_says_so() -> None:
    forced = Record("production", "2", "production", forced=True, why="too slow", who="bo", asker="anna", reason="now")
    html = gate_page.html("A", asdict(forced), {})
    assert "A person lets version 2 go to Production, although the gate does not: too slow." in html
    for label, value in (("Asked by", "anna"), ("Approved by", "bo"), ("Reason", "now")):
        assert f"<dt>{label}</dt><dd>{value}</dd>" in html


def test_a_gate_that_cannot_decide_has_a_page_without_checks() -> None:
    record = Record("production", "2", "production", why="the gate cannot decide: <gone>", who="anna")
    html = gate_page.html("A", asdict(record), {})
    assert "the gate cannot decide: &lt;gone&gt;." in html
    assert "Nothing was measured." in html
    assert "Compared with" not in html


def test_a_page_that_cannot_be_drawn_keeps_nobody_from_promoting(
    registered: str, client: mlflow.MlflowClient, call: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise ValueError("no font")

    monkeypatch.setattr(gate_page, "html", fail)
    ended = call(promote, "staging", "--version", "1")
    assert ended.code == 0
    assert "ValueError: no font" in ended.err
    assert ended.err.endswith("warning: report.html could not be drawn, and is left out\n")
    record = records.find(client, TABLE.name)[-1]
    assert (record.outcome, record.version) == ("completed", "1")
    assert page.FILE not in {file.path for file in client.list_artifacts(record.run_id)}
