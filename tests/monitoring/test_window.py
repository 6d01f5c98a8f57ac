"""Which rows are in a window, of the row log or of an address, and how many were refused."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SAMPLE
from tests.monitoring.conftest import COLUMNS, ID, NOW, WrittenLog, ago, drawn
from understudy.errors import UserError
from understudy.monitoring import log_rows, window
from understudy.monitoring.window import Reference, Window
from understudy.table import TABLE

ENCODED = [column.name for column in TABLE.encoded]


def of_log(log: WrittenLog, since: datetime | None = None, version: str = "1") -> Window:
    return window.from_log(log.folder, version, TABLE, since)


def test_a_window_has_the_rows_of_one_version_after_a_time(log: WrittenLog) -> None:
    log.answer(drawn(20, 1), days=9)
    log.answer(drawn(30, 2), [0.25] * 30, days=2)
    log.answer(drawn(40, 3), days=1, version="2")
    seen = of_log(log, ago(3))
    assert (seen.accepted, seen.until) == (30, ago(2))
    pd.testing.assert_frame_equal(seen.rows["raw"], drawn(30, 2)[COLUMNS], check_dtype=False)
    assert seen.probabilities.tolist() == [0.25] * 30
    assert of_log(log).accepted == 50
    assert of_log(log, ago(9)).accepted == 30  # the window begins after that time
    assert of_log(log, version="2").accepted == 40


def test_raw_and_encoded_rows_are_each_in_their_own_columns(log: WrittenLog) -> None:
    log.answer(drawn(20, 1))
    log.answer(drawn(30, 2), form="encoded")
    rows = of_log(log).rows
    assert ([*rows["raw"]], len(rows["raw"])) == (COLUMNS, 20)
    assert ([*rows["encoded"]], len(rows["encoded"])) == (ENCODED, 30)
    np.testing.assert_array_equal(rows["encoded"], TABLE.encode(drawn(30, 2)))


def test_refused_rows_are_counted_by_fault(log: WrittenLog) -> None:
    log.answer(drawn(5))
    log.refuse(["Gender: unknown category", "LoanAmount: missing", "Gender: unknown category"])
    log.refuse(["Gender: unknown category"], days=5)
    seen = of_log(log, ago(2))
    assert seen.faults == {"Gender: unknown category": 2, "LoanAmount: missing": 1}
    assert (seen.accepted, seen.refused) == (5, 3)


def test_of_many_rows_a_sample_is_compared_and_always_the_same(
    log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_rows, "SAMPLE", 100)
    for number in range(10):
        log.answer(drawn(90, number), [number / 10] * 90)
    first, second = of_log(log), of_log(log)
    assert (first.accepted, len(first.probabilities), len(first.rows["raw"])) == (900, 100, 100)
    assert first.probabilities.tolist() == second.probabilities.tolist()
    times = pd.Series(first.probabilities).value_counts()
    assert (len(times), times.max() < 25) == (10, True)  # some of each file


def test_nothing_to_compare_is_a_mistake(log: WrittenLog, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no rows of version 1$"):
        of_log(log)
    log.answer(drawn(5), days=3)
    with pytest.raises(UserError, match="no rows of version 1 after"):
        of_log(log, ago(1))
    log.refuse(["Gender: missing"] * 3)
    with pytest.raises(UserError, match="all 3 rows were refused, 3 for Gender: missing"):
        of_log(log, ago(2))
    with pytest.raises(UserError, match="there is no folder"):
        window.from_log(tmp_path / "none", "1", TABLE, None)


def test_a_file_that_is_being_written_is_passed_over_and_a_broken_one_is_named(log: WrittenLog) -> None:
    log.answer(drawn(5))
    [path] = log.folder.glob("day=*/*.parquet")
    path.with_name(".begun.parquet").write_bytes(b"PAR1")
    assert of_log(log).accepted == 5
    (path.parent / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"broken\.parquet is broken Parquet"):
        of_log(log)


def test_days_before_the_window_are_not_opened(log: WrittenLog) -> None:
    log.answer(drawn(5), days=1)
    old = log.folder / f"day={ago(5):%Y-%m-%d}"
    old.mkdir()
    (old / "broken.parquet").write_bytes(b"PAR1 and no more")
    assert of_log(log, ago(3)).accepted == 5


def test_rows_at_an_address_are_checked_and_scored(reference: Reference, tmp_path: Path) -> None:
    rows = pd.read_csv(SAMPLE, dtype=str)[:50]
    rows.loc[[3, 4], "Gender"] = "X"
    rows.loc[[4, 5], "ApplicantIncome"] = "-1"
    rows.to_csv(tmp_path / "new.csv", index=False)
    seen = window.from_address(str(tmp_path / "new.csv"), "1", reference.model, NOW)
    assert (seen.accepted, seen.refused) == (47, 3)
    assert seen.faults == {"Gender: unknown category": 2, "ApplicantIncome: out of range": 1}
    assert [*seen.rows["raw"]] == COLUMNS
    assert seen.answers is not None
    assert seen.answers["id"].to_pylist() == rows[ID].drop([3, 4, 5]).tolist()
    encoded = pd.DataFrame(TABLE.encode(drawn(20)), columns=ENCODED)
    encoded.to_parquet(tmp_path / "encoded.parquet")
    rows_by_form = window.from_address(str(tmp_path / "encoded.parquet"), "1", reference.model, NOW).rows
    assert [*rows_by_form["encoded"]] == ENCODED
    rows.drop(columns="Married").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(UserError, match="has no column Married"):
        window.from_address(str(tmp_path / "less.csv"), "1", reference.model, NOW)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("12h", NOW - timedelta(hours=12)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2026-11-26", datetime(2026, 11, 26, tzinfo=UTC)),
        ("2026-11-26T12:00+02:00", datetime(2026, 11, 26, 10, tzinfo=UTC)),
    ],
)
def test_a_time_is_a_moment_or_how_long_ago(text: str, time: datetime) -> None:
    assert window.moment(text, NOW) == time


@pytest.mark.parametrize("text", ["soon", "7w", "2026-13-01", "9999999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no time"):
        window.moment(text, NOW)
