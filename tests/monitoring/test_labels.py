"""Labels that come later: read, counted, and joined with what was answered."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy

from tests.conftest import PROJECT
from tests.monitoring.conftest import ID, TARGET, WrittenLog, ago, drawn
from understudy.errors import UserError
from understudy.monitoring import labels, log_rows
from understudy.monitoring.labels import JoinedLabels, KnownLabels
from understudy.table import TABLE


def known(tmp_path: Path, **columns: Sequence[str | int | None]) -> KnownLabels:
    pd.DataFrame(columns).to_csv(tmp_path / "labels.csv", index=False)
    return labels.read(str(tmp_path / "labels.csv"), TABLE)


def joined(log: WrittenLog, true: KnownLabels, days: float | None = None) -> JoinedLabels:
    return labels.join(true, log_rows.answers(log.folder, None), "1", None if days is None else ago(days))


def test_labels_have_the_tables_names_or_plain_ones(tmp_path: Path) -> None:
    expected, named = {"a": True, "b": False}, {ID: ["a", "b"], TARGET: ["Y", " N"], "more": ["1", "2"]}
    assert known(tmp_path, **named).of.to_dict() == expected
    assert known(tmp_path, id=["a", "b"], label=["Y", "N"]).of.to_dict() == expected
    pd.DataFrame({"id": [17, 18], "label": ["Y", "N"]}).to_parquet(tmp_path / "labels.parquet")
    assert labels.read(str(tmp_path / "labels.parquet"), TABLE).of.to_dict() == {"17": True, "18": False}
    address = f"sqlite:///{tmp_path / 'came.db'}"
    engine = sqlalchemy.create_engine(address)
    pd.DataFrame({ID: ["a", "b"], "label": ["Y", "N"]}).to_sql("true", engine, index=False)
    engine.dispose()
    assert labels.read(f"{address}#true", TABLE).of.to_dict() == expected


def test_empty_repeated_and_contradicting_labels_are_counted(tmp_path: Path) -> None:
    ids, cells = ["a", "a", "b", "c", "c", "d"], ["Y", "Y", "N", "Y", "N", None]
    true = known(tmp_path, id=ids, label=cells)
    assert true.of.to_dict() == {"a": True, "b": False}
    assert (true.repeated, true.contradicting, true.undecided, true.missing) == (1, 1, 1, 1)


def test_of_contradicting_labels_the_one_that_was_known_last_counts(tmp_path: Path) -> None:
    ids, cells = ["a", "a", "a", "b", "b"], ["Y", "N", "Y", "Y", "N"]
    times = ["2026-01-03", "2026-01-02T10:00", "2026-01-01", "2026-01-01", "2026-01-01"]
    true = known(tmp_path, id=ids, label=cells, known_at=times)
    assert true.of.to_dict() == {"a": True}
    assert (true.repeated, true.contradicting, true.undecided) == (1, 2, 1)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"name": ["a"], "label": ["Y"]}, "has no column Loan_ID or id, but name, label"),
        ({"id": ["a"], "came_true": ["Y"]}, "has no column Loan_Status or label, but id, came_true"),
        ({"id": ["a", "b"], "label": ["Y", "yes"]}, "label: unknown category in row 2 (allowed: N, Y)"),
        ({"id": ["a", None], "label": ["Y", "N"]}, "has a row without id"),
        ({"id": ["a"], "label": ["Y"], "known_at": ["tomorrow"]}, "has what is no time in known_at"),
    ],
)
def test_what_is_no_label_is_refused(columns: dict[str, list[str | None]], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        known(tmp_path, **columns)
    assert said in refused.value.problem


def test_each_label_is_joined_with_the_newest_answer_to_its_id(log: WrittenLog, tmp_path: Path) -> None:
    rows = drawn(6).assign(**{ID: ["a", "b", "c", "d", "e", "f"]})
    log.answer(rows[:2], [0.1, 0.2], days=9)
    log.answer(rows[1:4], [0.3, 0.4, 0.5], days=2)
    log.answer(rows[4:5], [0.6], days=2, version="2")
    log.refuse(["Gender: missing"])
    both = joined(log, known(tmp_path, id=["a", "b", "c", "e", "x", "y"], label=[*"YNYYYN"]), days=5)
    assert sorted(zip(both.probabilities.tolist(), both.labels.tolist(), strict=True)) == [(0.1, 1), (0.3, 0), (0.4, 1)]
    assert (both.late, both.again, both.elsewhere, both.unknown, both.unlabelled) == (1, 1, 1, 2, 1)


def test_labels_of_rows_that_nobody_has_answered_join_nothing(log: WrittenLog, tmp_path: Path) -> None:
    log.answer(drawn(5))
    both = joined(log, known(tmp_path, id=["x"], label=["Y"]))
    assert (len(both.labels), both.unknown, both.unlabelled) == (0, 1, 5)
    nothing = joined(log, known(tmp_path, id=[], label=[]))
    assert (len(nothing.labels), nothing.unknown, nothing.unlabelled) == (0, 0, 5)


def test_rows_without_an_id_join_nothing() -> None:
    answers = pa.table({"id": pa.array([None], pa.string()), "version": ["1"], "time": [ago(1)], "probability": [0.5]})
    true = KnownLabels(pd.Series({"a": True}), 0, 0, 0, 0)
    both = labels.join(true, [answers], "1", None)
    assert (len(both.labels), both.unlabelled) == (0, 1)


def test_the_pages_three_lines_join_the_same(log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = drawn(300)
    log.answer(rows, [number / 300 for number in range(300)], days=3)
    log.answer(rows[:50], [0.9] * 50, days=2)
    log.answer(rows[50:60], days=2, version="2")
    log.refuse(["Gender: missing"])
    true = known(tmp_path, id=rows[ID][:200].tolist(), label=rows[TARGET][:200].tolist())
    [lines] = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "monitoring.md").read_text(), re.DOTALL)
    values: dict[str, Any] = {"pd": pd}
    exec(lines, values)  # noqa: S102 - the page's own lines
    page, ours = values["joined"], joined(log, true)
    assert len(page) == len(ours.labels) == 200
    assert sorted(page["probability"]) == sorted(ours.probabilities)
    assert (page["label_true"] == "Y").sum() == ours.labels.sum()
