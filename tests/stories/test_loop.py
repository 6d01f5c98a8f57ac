"""The loop after a promotion: rows are answered and kept, a shadow plays along, labels come, the world moves."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import monitor
import promote
import register
import train
from tests.conftest import Ended
from tests.serving.conftest import Live, served, until
from understudy.probation import watch
from understudy.schema import declaration
from understudy.schema.declaration import Limits, Probation
from understudy.table import TABLE
from understudy.tracking import connection

COLUMNS = [column.name for column in TABLE.columns]
SENT = 200  # rows of a request


def send(live: Live, rows: pd.DataFrame) -> None:
    """Ask for the answers to a table's rows, each with its identifier."""
    for first in range(0, len(rows), SENT):
        part = rows[first : first + SENT]
        records = json.loads(part[[TABLE.row_id, *COLUMNS]].to_json(orient="records"))
        assert live.ask({"dataframe_records": records}).status == 200


def test_a_model_is_watched_and_its_successor_plays_along(
    store: str, backend: str, tmp_path: Path, call: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    def does(script: Any, *arguments: str) -> str:
        ended = call(script, *arguments)
        assert (ended.code, ended.err) == (0, "")
        return ended.out

    log, labels, table = tmp_path / "rows", tmp_path / "labels.csv", connection.PROJECT / TABLE.path
    rows = pd.read_csv(table, dtype={"Dependents": str})
    does(train)
    does(register, "--model", "LogisticRegression")
    does(promote, "staging")
    assert "version 1 is in Production" in does(promote, "production")
    options = ("--log", str(log), "--shadow", "staging")

    with served(tmp_path, store, *options) as live:
        until(lambda: live.version() == "1")
        send(live, rows[:SENT])
        assert "version 2 registered" in does(register, "--model", "RandomForestClassifier")
        does(promote, "staging")
        until(lambda: live.metric('shadow_version{name="Loan_prediction",version="2"}') == 1)
        send(live, rows[SENT:])
        live.ask({"dataframe_records": [{**dict.fromkeys(COLUMNS), "Gender": "X"}]})
    kept = pd.read_parquet(log).sort_values("time")
    accepted = kept[kept["fault"].isna()]
    assert {*accepted["version"]} == {"1"}
    assert {*accepted["shadow_version"].dropna()} == {"2"}
    shadowed = accepted[accepted["shadow_version"].notna()]
    assert len(shadowed) >= len(rows) - SENT
    assert shadowed["shadow_probability"].between(0, 1).all()
    assert (shadowed["shadow_probability"] != shadowed["probability"]).any()

    rows[[TABLE.row_id, TABLE.target.name]].to_csv(labels, index=False)
    ended = call(monitor, "--log", str(log), "--labels", str(labels))
    assert (ended.code, ended.err) == (0, ""), ended.out

    drifted = rows.assign(ApplicantIncome=rows["ApplicantIncome"] * 2, Property_Area="Rural")
    drifted[TABLE.row_id] = "new" + drifted[TABLE.row_id]
    with served(tmp_path, store, *options) as live:
        until(lambda: live.version() == "1")
        until(lambda: live.metric('shadow_version{name="Loan_prediction",version="2"}') == 1)
        send(live, drifted)
    pd.concat([rows, drifted]).to_csv(table, index=False)  # the labels have come, and the table has grown
    ended = call(monitor, "--log", str(log), "--retrain")
    assert (ended.code, ended.err) == (5, ""), ended.out
    assert "version 3 is in Staging" in ended.out
    shown = does(promote)
    assert "Production: version 1" in shown
    assert "Staging: version 3" in shown

    # What came true of the drifted rows decides, for neither version has learned from them.
    drifted[[TABLE.row_id, TABLE.target.name]].to_csv(labels, index=False)
    live_rows = ("--log", str(log), "--labels", str(labels))
    out = does(promote, "production", "--version", "2", *live_rows)
    assert f"rows were answered by both versions, {len(rows)} of them have a label" in out
    assert f"decided by {len(rows)} live rows" in out
    assert "version 2 is in Production, version 1 is archived" in out
    assert re.search(f"version 2 in place of version 1 .* by {len(rows)} live rows", does(promote))

    # A version without the sensitive columns passes, but refuses what people go on to send, and goes back by itself.
    watched = replace(TABLE, limits=Limits(margin=0.3, probation=Probation()), live=declaration.Live(log=str(log)))
    for place in (monitor, promote):
        monkeypatch.setattr(place, "TABLE", watched)
    monkeypatch.setattr("understudy.gate.evidence.TABLE", watched)
    monkeypatch.setattr(watch, "EVERY", 0.2)
    with served(tmp_path, store, *options) as live:
        until(lambda: live.version() == "2")
        for first in range(0, SENT, 2):
            send(live, rows[first : first + 2])
        does(train, "--without-sensitive", "--models", "LogisticRegression")
        assert "version 4 registered" in does(register)
        does(promote, "staging", "--breaking")
        does(promote, "production", "--breaking")
        assert "probation: version 4 of Loan_prediction is on probation since" in does(promote, "check")
        until(lambda: live.version() == "4")
        records = json.loads(rows[:1][COLUMNS].to_json(orient="records"))
        assert {live.ask({"dataframe_records": records}).status for _ in range(40)} == {400}
        ended = call(monitor, "--probation", f"http://127.0.0.1:{live.port}")
        assert (ended.code, ended.err) == (7, ""), ended.out
        until(lambda: live.version() == "2")
    assert re.search("  rollback +version 2 in place of version 4  ", does(promote))
