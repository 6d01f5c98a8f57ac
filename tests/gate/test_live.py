"""Live rows that both versions have answered, with what came true, decide where they are enough."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray

import promote
from tests.conftest import SAMPLE, Ended, is_refusal
from tests.gate.test_evidence import last
from tests.monitoring.conftest import COLUMNS, ID, TARGET, WrittenLog, drawn
from understudy.figures.metrics import Floats
from understudy.gate import attempts
from understudy.gate.attempts import Question
from understudy.gate.decision import Answers
from understudy.gate.live import LiveRows, counted
from understudy.monitoring import labels, window
from understudy.reading import table_rows
from understudy.registry import records, registration
from understudy.schema.columns import listed
from understudy.schema.declaration import Live
from understudy.scoring.scorer import PROBABILITY, Scorer
from understudy.table import TABLE
from understudy.tracking import batch_rows

Call = Callable[..., Ended]
Ask = Callable[..., Ended]
Both = Callable[..., pd.DataFrame]
LATER = -1  # days ago: a day after the versions were made, however long the tests before this one took


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    return WrittenLog(tmp_path / "kept")


@pytest.fixture
def models(in_production: str, call: Call) -> dict[str, Scorer]:
    """Version 1, which is in Production, and version 2, which is in Staging."""
    call(promote, "staging")
    client = MlflowClient(in_production)
    return {n: window.reference(client, client.get_model_version(TABLE.name, n)).model for n in ("1", "2")}


@pytest.fixture
def both(log: WrittenLog, models: dict[str, Scorer]) -> Callable[..., pd.DataFrame]:
    """Writes rows into the log with what both versions answer; returns the rows."""

    def both(
        rows: pd.DataFrame, live: str = "1", shadow: str = "2", days: float = LATER, **options: Any
    ) -> pd.DataFrame:
        given = {name: listed(rows[name]) for name in COLUMNS}
        mine, other = (models[number].predict(given, PROBABILITY) for number in (live, shadow))
        log.answer(rows, mine, days, live, shadow=(shadow, other), **options)
        return rows

    return both


@pytest.fixture
def ask(call: Call, log: WrittenLog, tmp_path: Path) -> Callable[..., Ended]:
    """Asks for Production with the log, and with the labels of rows."""

    def ask(rows: pd.DataFrame, *options: str) -> Ended:
        rows[[ID, TARGET]].to_csv(tmp_path / "labels.csv", index=False)
        labels = str(tmp_path / "labels.csv")
        return call(promote, "production", "--log", str(log.folder), "--labels", labels, *options)

    return ask


def kept_rows(client: MlflowClient) -> pd.DataFrame:
    """The held-out rows of version 2."""
    return registration.kept_rows(client, TABLE.name, "2", batch_rows.HELD_OUT)


def is_line(ended: Ended, *words: str) -> bool:
    """Whether a line of the output begins with these words, however far apart they stand."""
    return any(" ".join(line.split()).startswith(" ".join(words)) for line in ended.out.splitlines())


def test_live_rows_decide_where_they_are_enough(both: Both, ask: Ask, call: Call, client: MlflowClient) -> None:
    rows = both(drawn(300))
    ended = ask(rows, "--rule", "point")
    assert (ended.code, ended.err) == (0, "")
    enough, rarer = (TABLE.labels(part).tolist().count(0) for part in (kept_rows(client), rows))
    assert ended.out.startswith("live: 300 rows were answered by both versions, 300 of them have a label\n")
    why = f"of the rarer label there are {rarer} live rows, and {enough} are enough"
    assert f"\ndecided by 300 live rows: {why}\n" in ended.out
    assert rarer > enough > 50
    assert any(
        re.match(r" *live ROC AUC less champion's .* at least 0.000 +pass$", of) for of in ended.out.splitlines()
    )
    assert any(re.match(r" *ROC AUC less champion's .* none *$", line) for line in ended.out.splitlines())
    record = last(client)
    assert (record.outcome, record.decided_by, record.against) == ("completed", "300 live rows", "1")
    [*_, line, _] = call(promote, "show").out.splitlines()
    assert re.search("  production +version 2 in place of version 1  ", line)
    assert line.endswith("  by 300 live rows")
    assert {"live/ROC AUC", "live/ROC AUC less champions low", "ROC AUC"} <= {*record.figures}
    assert (record.figures["live rows"], record.figures["rows"]) == (300, 186)
    decided = json.loads(mlflow.artifacts.load_text(f"runs:/{record.run_id}/gate.json"))
    assert decided["decided by"] == "300 live rows"
    assert {check["name"]: check["passed"] for check in decided["checks"]}["ROC AUC"] is None
    marked = mlflow.artifacts.load_text(f"runs:/{record.run_id}/{attempts.FILE}").splitlines()
    assert {*marked} == {*attempts.marks(pd.concat([rows[ID], kept_rows(client)[ID]])).splitlines()}


def test_what_came_true_refuses_a_version_that_the_held_out_rows_would_let_in(
    both: Both, ask: Ask, client: MlflowClient
) -> None:
    rows = both(drawn(300))
    wrong = rows.assign(**{TARGET: rows[TARGET].map({"Y": "N", "N": "Y"})})
    refused = ask(wrong)
    assert refused.code == 3
    assert refused.err.startswith("refused: live ROC AUC is 0.")
    assert last(client).decided_by == "300 live rows"
    few = ask(wrong[:60])
    assert (few.code, few.err) == (0, "")
    assert is_line(few, "live ROC AUC 0.")
    assert is_line(few, "decided by 186 held-out rows: of the rarer label there are")
    assert last(client).decided_by == "186 held-out rows"


def test_to_ask_again_of_a_log_that_has_grown_is_another_attempt(both: Both, ask: Ask, client: MlflowClient) -> None:
    rows = both(drawn(300))

    def attempt(asked: pd.DataFrame, *options: str) -> float:
        assert ask(asked.assign(**{TARGET: np.resize(["Y", "N"], len(asked))}), *options).code == 3
        return last(client).figures["attempt on these rows"]

    assert [attempt(rows), attempt(rows), attempt(rows, "--rule", "better")] == [1, 1, 1]
    grown = pd.concat([rows, both(drawn(100, 1))])
    assert [attempt(grown), attempt(grown), attempt(rows)] == [2, 2, 1]
    assert next(record.rows for record in records.find(client, TABLE.name) if record.rows) == last(client).rows


def test_rows_that_were_looked_at_and_did_not_decide_are_seen_too(client: MlflowClient, both: Both, ask: Ask) -> None:
    rows = both(drawn(300))
    assert ask(rows[:40], "--rule", "better").code == 3
    known, nothing = records.find(client, TABLE.name), rows[ID][:0]

    def number(version: str, deciding: pd.Series, beside: pd.Series = nothing) -> int:
        return attempts.on_such_rows(client, known, Question(version, "1", deciding, beside))

    held_out = kept_rows(client)[ID]
    assert (number("3", rows[ID][:50]), number("3", rows[ID]), number("3", rows[ID][100:])) == (2, 1, 1)
    assert (number("2", rows[ID]), number("2", rows[ID][100:])) == (2, 1)  # the same two, as the log grows
    assert (number("3", held_out), number("2", held_out)) == (2, 1)  # the log's growth is no question on held-out rows
    assert number("2", held_out, rows[ID]) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--log", "kept"), "live rows are taken from --log and --labels, and --labels is missing"),
        (("--labels", "labels.csv"), "and --log is missing"),
        (("--log", "none", "--labels", str(SAMPLE)), "there is no folder none"),
        (("--log", "{log}", "--labels", "none.csv"), "there is no file none.csv"),
        (("--log", "{log}", "--labels", "{log}/other.csv"), "has no column Loan_ID or id, but a"),
        (("--log", "{log}/broken", "--labels", str(SAMPLE)), "is broken Parquet"),
    ],
)
def test_live_rows_that_cannot_be_read_end_in_two_lines(
    options: tuple[str, ...], said: str, log: WrittenLog, in_production: str, client: MlflowClient, call: Call
) -> None:
    call(promote, "staging")
    (log.folder / "other.csv").write_text("a\n1\n")
    part = log.folder / "broken" / "day=2099-01-01" / "part.parquet"
    part.parent.mkdir(parents=True)
    part.write_text("no Parquet")
    before = len(records.find(client, TABLE.name))
    ended = call(promote, "production", *(option.format(log=log.folder) for option in options))
    assert is_refusal(ended)
    assert said in ended.err
    assert len(records.find(client, TABLE.name)) == before


def test_a_log_without_rows_of_both_says_so_and_the_held_out_rows_decide(
    both: Both, ask: Ask, log: WrittenLog, call: Call, client: MlflowClient
) -> None:
    rows = drawn(300)
    both(rows[:100], days=1)  # before the versions were made: of an earlier model with the same numbers
    log.answer(rows[100:200], days=LATER)
    log.answer(rows[200:250], days=LATER, shadow=("3", [0.5] * 50))
    log.answer(rows[250:], days=LATER, shadow=("2", [None] * 50))
    log.refuse(["Gender: missing"], days=LATER)
    ended = ask(rows)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("live: no row of the log was answered by both versions since both were made\n")
    assert is_line(ended, "decided by 186 held-out rows: of the rarer label there are 0 live rows")
    assert "live ROC" not in ended.out
    assert last(client).rows == attempts.Question("2", "1", kept_rows(client)[ID], rows[ID][:0]).rows


def test_labels_that_are_missing_or_all_alike_decide_nothing(both: Both, ask: Ask) -> None:
    rows = both(drawn(100))
    none = ask(rows.assign(**{TARGET: None}), "--rule", "better")
    assert (none.code, none.out.startswith("live: 100 rows were answered by both versions, 0 of them")) == (3, True)
    alike = ask(rows[rows[TARGET] == "Y"], "--rule", "better")
    assert alike.code == 3
    assert re.search(r"^ *live rows +7[0-9] +none *$", alike.out, re.MULTILINE)
    assert "decided by 186 held-out rows" in alike.out
    assert "refused: too few rows to tell whether ROC AUC less" in alike.err


def test_rows_that_a_version_has_learned_from_are_left_out_and_counted(both: Both, ask: Ask) -> None:
    training, _ = TABLE.split(table_rows.read(TABLE, SAMPLE))
    rows = both(pd.concat([drawn(50), training[:70].assign(**{ID: training[ID].str.lower()})]))
    ended = ask(rows)
    assert ended.out.startswith("live: 50 rows were answered by both versions, 50 of them have a label\n")
    assert "live: 70 more are left out, since one of the versions has learned from them\n" in ended.out


def test_where_the_table_says_where_they_are_live_rows_are_asked_for(
    both: Both, call: Call, log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = both(drawn(300))
    rows[[ID, TARGET]].to_csv(tmp_path / "labels.csv", index=False)
    monkeypatch.setattr(promote, "TABLE", replace(TABLE, live=Live(str(log.folder))))  # as for a probation
    assert "live" not in call(promote, "production", "--rule", "better").out
    declared = replace(TABLE, live=Live(str(log.folder), str(tmp_path / "labels.csv")))
    monkeypatch.setattr(promote, "TABLE", declared)
    assert "decided by 300 live rows" in call(promote, "production", "--rule", "better").out


def test_rows_to_which_the_log_has_other_answers_than_the_versions_give_count_as_without_a_label(
    both: Both, ask: Ask, log: WrittenLog, client: MlflowClient
) -> None:
    rows, forged = both(drawn(100)), drawn(200, 1)
    is_positive = TABLE.labels(forged)
    log.answer(forged, (1.0 - is_positive).tolist(), LATER, shadow=("2", (1.0 * is_positive).tolist()))
    ended = ask(pd.concat([rows, forged]), "--rule", "better")
    assert ended.code == 3
    assert ended.out.startswith("live: 300 rows were answered by both versions, 100 of them have a label\n")
    assert "live: 200 rows count as without a label, since the versions answer otherwise now than" in ended.out


def of_both(client: MlflowClient, log: WrittenLog, true: pd.DataFrame, path: Path) -> LiveRows:
    true.to_csv(path, index=False)
    return labels.of_both(client, TABLE.name, log.folder, str(path), "1", "2")


def test_rows_are_paired_whichever_of_the_two_was_in_production(
    log: WrittenLog, client: MlflowClient, in_production: str, tmp_path: Path
) -> None:
    rows = drawn(6).assign(**{ID: [*"abcdef"]})
    log.answer(rows[:3], [0.1, 0.2, 0.9], LATER, shadow=("2", [0.3, 0.6, 0.7]))
    log.answer(rows[2:5], [0.4, 0.5, 0.6], 2 * LATER, "2", shadow=("1", [0.8, 0.45, None]))
    true = pd.DataFrame({"id": [*"abcx"], "label": [*"YNYN"]})
    live = of_both(client, log, true, tmp_path / "labels.csv")
    assert live.ids.tolist() == [*"abcd"]
    assert live.champion.probabilities.tolist() == [0.1, 0.2, 0.8, 0.45]
    assert live.challenger.probabilities.tolist() == [0.3, 0.6, 0.4, 0.5]
    assert live.answered.tolist() == [0, 0, 0, 1]
    assert (live.champion.labels.tolist(), live.challenger.labels.tolist()) == ([0, 0, 1, 0], [0, 1, 0, 1])
    assert live.labels[:3].tolist() == [1, 0, 1]
    assert np.isnan(live.labels[3])
    assert [*live.counts.values()] == [1, 0, 1]


def test_slices_have_the_rows_whose_columns_the_log_has(
    log: WrittenLog, client: MlflowClient, in_production: str, tmp_path: Path
) -> None:
    rows = drawn(9)
    for part, form in ((rows[:3], "encoded"), (rows[3:6], "raw"), (rows[6:], "raw")):
        log.answer(part, [0.6] * 3, LATER, shadow=("2", [0.7] * 3), form=form)
    newest = max(log.folder.glob("day=*/*.parquet"), key=lambda path: int(path.stem.rpartition("-")[2]))
    pd.read_parquet(newest).drop(columns=["Gender", "day"], errors="ignore").to_parquet(newest, index=False)
    live = of_both(client, log, rows[[ID, TARGET]], tmp_path / "labels.csv")
    evidence = counted(live, ()).evidence
    assert len(evidence.labels) == 9
    groups = {name: [*cells.index] for name, cells in evidence.groups.items()}
    assert (groups["Gender"], groups["Married"]) == ([3, 4, 5], [3, 4, 5, 6, 7, 8])
    assert evidence.groups["Married"].tolist() == rows["Married"][3:].tolist()


def paired(champion: Floats, challenger: Floats, is_known: NDArray[np.bool_]) -> LiveRows:
    """Rows that the champion has answered in Production, of which some have a label."""
    given, other = (Answers(of, (of >= 0.5).astype(int)) for of in (champion, challenger))
    known = np.where(is_known, np.resize([0.0, 1.0], len(champion)), np.nan)
    ids = pd.Series([f"r{number}" for number in range(len(champion))])
    return LiveRows(ids, known, given.labels, other, given, {}, {})


def test_where_labels_are_selective_only_rows_count_that_both_would_choose() -> None:
    champion = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1])
    generous = np.array([0.95, 0.5, 0.9, 0.85, 0.8, 0.75, 0.7, 0.1])  # answers 1 to all but the last
    live = counted(paired(champion, generous, champion >= 0.5), ())
    # The champion chooses 4 of 8, so that the four best of the other count: the rows 0, 2, 3 and 4.
    assert live.ids.tolist() == ["r0", "r2", "r3"]
    assert live.lines[-1] == (
        "live: labels are selective: rows answered N seldom have one, so only the 3 that both versions would answer Y "
        "count, each as often as the other"
    )
    strict = np.array([0.9, 0.2, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1])  # answers 1 to two rows
    assert counted(paired(champion, strict, champion >= 0.5), ()).ids.tolist() == ["r0"]
    tied = np.array([0.9, 0.6, 0.6, 0.6, 0.6, 0.1, 0.1, 0.1])  # five of which no four are the best
    assert counted(paired(champion, tied, champion >= 0.5), ()).ids.tolist() == ["r0"]
    refused = counted(paired(champion, champion, champion < 0.5), ())
    assert refused.ids.tolist() == ["r4", "r5", "r6", "r7"]
    assert "rows answered Y seldom have one" in refused.lines[-1]


def test_labels_are_fair_where_both_answers_have_half_as_many_and_more() -> None:
    champion = np.repeat([0.9, 0.1], 8)
    half, less = (np.arange(16) < 8 + count for count in (4, 3))
    assert len(counted(paired(champion, champion, half), ()).ids) == 12
    assert len(counted(paired(champion, champion, less), ()).ids) == 8
    one_answer = counted(paired(champion[:8], champion[:8], half[:8]), ())
    assert (len(one_answer.ids), "selective" in one_answer.lines[-1]) == (8, False)
