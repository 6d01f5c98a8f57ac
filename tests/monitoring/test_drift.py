"""The statistics of drift: each alarms where rows have shifted, and none where they have not."""

import runpy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.drift import MAKER, turned
from understudy.monitoring import drift, two_samples
from understudy.monitoring.drift import ColumnDrift
from understudy.schema.columns import OTHER, Category, Date, Declared, Number
from understudy.table import TABLE

Shift = Callable[[pd.DataFrame], pd.DataFrame]
ROWS: pd.DataFrame = runpy.run_path(str(MAKER))["make"](5_500)
REFERENCE, WINDOW = ROWS[:5_000], ROWS[5_000:].reset_index(drop=True)
AMOUNT = Number("amount", "euros", 0, 1e9, missing=True)
COLOUR = Category("colour", ("red", "green", "blue"), missing=True)


def alarms(reference: pd.DataFrame, window: pd.DataFrame) -> list[str]:
    return [column.column for column in drift.compare_columns(TABLE.columns, reference, window) if column.alarm]


def one(column: Declared, before: Sequence[object], now: Sequence[object]) -> ColumnDrift:
    """The comparison of one column."""
    reference, window = (pd.DataFrame({column.name: np.array(cells, dtype=object)}) for cells in (before, now))
    [compared] = drift.compare_columns([column], reference, window)
    return compared


@pytest.mark.parametrize("size", [5_000, 428])
def test_nothing_alarms_where_nothing_has_shifted(size: int) -> None:
    reference = REFERENCE[:size]
    assert alarms(reference, WINDOW) == []
    assert not drift.compare_together(TABLE.columns, reference, WINDOW).alarm
    names = [column.name for column in TABLE.encoded]
    before, now = (pd.DataFrame(TABLE.encode(rows), columns=names) for rows in (reference, WINDOW))
    compared = drift.compare_columns(TABLE.encoded, before, now)
    assert [column.column for column in compared] == names
    assert not any(column.alarm for column in compared)
    assert not drift.compare_together(TABLE.encoded, before, now).alarm


def more_of(column: str, value: str, share: float) -> Shift:
    """Another value for the first rows that have not this one, as many as that its share rises by so much."""

    def shift(rows: pd.DataFrame) -> pd.DataFrame:
        others = rows.index[rows[column] != value][: int(share * len(rows))]
        return rows.assign(**{column: rows[column].where(~rows.index.isin(others), value)})

    return shift


@pytest.mark.parametrize(
    ("shift", "column"),
    [
        (lambda rows: rows.assign(ApplicantIncome=rows["ApplicantIncome"] * 1.2), "ApplicantIncome"),
        (more_of("Property_Area", "Semiurban", 0.15), "Property_Area"),
        (lambda rows: rows.assign(LoanAmount=rows["LoanAmount"].where(rows.index % 10 > 0)), "LoanAmount"),
        (lambda rows: rows.assign(Credit_History=None), "Credit_History"),
        (lambda rows: rows.assign(Dependents="2"), "Dependents"),
    ],
)
def test_the_column_that_has_shifted_alarms_and_no_other(shift: Shift, column: str) -> None:
    assert alarms(REFERENCE, shift(WINDOW)) == [column]


def test_a_shift_that_no_column_shows_is_seen_in_all_together() -> None:
    window = turned(WINDOW, np.random.default_rng(0))
    assert sorted(window["LoanAmount"].dropna()) == sorted(WINDOW["LoanAmount"].dropna())
    assert alarms(REFERENCE, window) == []
    together = drift.compare_together(TABLE.columns, REFERENCE, window)
    assert together.alarm
    assert together.auc is not None
    assert together.auc > 0.55
    assert set(together.columns[:2]) == {"LoanAmount", "ApplicantIncome"}
    assert drift.compare_together(TABLE.columns, REFERENCE, window) == together


def test_two_columns_whose_correlation_turns_are_told_apart_by_more_than_a_line() -> None:
    rng = np.random.default_rng(0)
    columns = [Number(name, "", -10, 10) for name in ("a", "b", "c")]
    before, now = (
        pd.DataFrame(
            rng.multivariate_normal([0, 0, 0], np.array([[1, sign / 2, 0], [sign / 2, 1, 0], [0, 0, 1]]), n),
            columns=[*"abc"],
        )
        for sign, n in [(1, 2_000), (-1, 500)]
    )
    assert not any(column.alarm for column in drift.compare_columns(columns, before, now))
    together = drift.compare_together(columns, before, now)
    assert together.alarm
    assert set(together.columns[:2]) == {"a", "b"}


def test_scores_that_have_shifted_alarm() -> None:
    rng = np.random.default_rng(0)
    held_out, same, other = rng.beta(2, 2, 186), rng.beta(2, 2, 500), rng.beta(4, 2, 500)
    assert not drift.compare_scores(held_out, same).alarm
    shifted = drift.compare_scores(held_out, other)
    assert shifted.alarm
    assert (shifted.mean, shifted.mean_before) == (other.mean(), held_out.mean())
    assert drift.compare_scores(np.full(186, 0.5), np.full(500, 0.5)).test == "one value"
    assert not drift.compare_scores(held_out, other[:10]).alarm


@pytest.mark.parametrize("count", [0, 1, 10, drift.LEAST_ROWS - 1])
def test_a_window_of_few_rows_says_so_and_never_alarms(count: int) -> None:
    few = WINDOW[:count].assign(ApplicantIncome=1e6, LoanAmount=None)
    for reference, window in [(REFERENCE, few), (few, REFERENCE)]:
        compared = drift.compare_columns(TABLE.columns, reference, window)
        assert {(column.test, column.p, column.missing_p, column.alarm) for column in compared} == {
            ("too few rows", None, None, False)
        }
        together = drift.compare_together(TABLE.columns, reference, window)
        assert (together.test, together.p, together.alarm) == ("too few rows", None, False)


def test_the_least_number_of_rows_shows_a_shift_by_a_standard_deviation_half_of_the_time() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for count in (drift.LEAST_ROWS // 2, drift.LEAST_ROWS):
        ps = [stats.ks_2samp(rng.normal(size=5_000), rng.normal(1, size=count)).pvalue for _ in range(300)]
        shares.append(np.mean(np.array(ps) < drift.ALPHA / 22))
    assert shares[0] < 0.4 < 0.5 < shares[1] < 0.7


@pytest.mark.parametrize(
    ("column", "before", "now", "test", "alarm"),
    [
        (AMOUNT, [1.0] * 100, [1.0] * 50, "one value", False),
        (AMOUNT, [1.0] * 100, [2.0] * 50, "Kolmogorov-Smirnov", True),
        (AMOUNT, [1, 2] * 50, [2, 1] * 25, "Kolmogorov-Smirnov", False),
        (AMOUNT, [None] * 100, [None] * 50, "too few rows", False),
        (AMOUNT, [None] * 100, [1] * 50, "too few rows", True),
        (AMOUNT, [1] * 100, [None] * 50, "too few rows", True),
        (AMOUNT, [1] * 40 + [None] * 60, [1] * 5 + [None] * 45, "too few rows", True),
        (COLOUR, ["red"] * 100, ["red"] * 50, "one value", False),
        (COLOUR, ["red"] * 100, ["red", "blue"] * 25, "chi-square", True),
        (COLOUR, ["red"] * 100, ["red"] * 48 + ["blue"] * 2, "Fisher's exact", False),
        (COLOUR, ["red", "green"] * 50, ["red", "green"] * 24 + ["blue"] * 2, "chi-square, simulated", False),
        (COLOUR, ["red", "green"] * 50, ["red", "green"] * 17 + ["blue"] * 9, "chi-square, simulated", True),
        (Category("digit", (0, 1)), [0, 1] * 50, [0.0, 1.0] * 25, "chi-square", False),
        (
            Date("day"),
            ["2026-01-01", "2026-01-02"] * 50,
            ["2026-01-01", "2026-01-02"] * 25,
            "Kolmogorov-Smirnov",
            False,
        ),
        (Date("day"), ["2026-01-01", "2026-01-02"] * 50, ["2026-02-01", None] * 25, "Kolmogorov-Smirnov", True),
    ],
)
def test_cells_of_every_kind_are_compared(
    column: Declared, before: Sequence[object], now: Sequence[object], test: str, alarm: bool
) -> None:
    compared = one(column, before, now)
    assert (compared.test, compared.alarm) == (test, alarm)
    assert compared.missing == now.count(None) / len(now)
    assert compared.missing_before == before.count(None) / len(before)
    assert compared.rows == len(now) - now.count(None)
    assert compared.level == drift.ALPHA / 2


def test_values_that_are_not_listed_are_one_group() -> None:
    colour = replace(COLOUR, other=True)
    names = [f"a colour of its own {number}" for number in range(100)]
    few = one(colour, ["red"] * 900 + names, ["red"] * 450 + names[:50])
    assert (few.test, few.alarm) == ("chi-square", False)
    assert few == one(Category("colour", ("red", OTHER)), ["red"] * 900 + [OTHER] * 100, ["red"] * 450 + [OTHER] * 50)
    assert one(colour, ["red"] * 900 + names, ["red"] * 400 + names).alarm


def test_columns_without_any_value_and_constant_ones_do_not_keep_the_others_from_being_compared() -> None:
    def spoilt(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(LoanAmount=None, Gender="Male")

    assert not drift.compare_together(TABLE.columns, spoilt(REFERENCE), spoilt(WINDOW)).alarm
    assert drift.compare_together(TABLE.columns, REFERENCE, spoilt(WINDOW)).alarm
    nothing = pd.DataFrame({"amount": [None] * 100})
    assert drift.compare_together([AMOUNT], nothing, nothing).test == "one value"


cells = st.lists(st.one_of(st.none(), st.floats(0, 1e9), st.sampled_from([1.0, 2.0])), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(cells, cells)
def test_any_cells_are_compared_and_equal_samples_never_alarm(before: Sequence[object], now: Sequence[object]) -> None:
    compared, same = one(AMOUNT, before, now), one(AMOUNT, before, before)
    for p in (compared.p, compared.missing_p):
        assert p is None or 0 <= p <= 1
    assert compared.psi is None or compared.psi >= 0
    assert not same.alarm
    assert same.psi is None or same.psi == pytest.approx(0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=2, max_size=6).filter(
        lambda pairs: all(map(sum, zip(*pairs, strict=True)))
    )
)
def test_equal_shares_are_tested_as_scipy_does_and_in_whatever_order(pairs: list[tuple[int, int]]) -> None:
    counts = np.array([pair for pair in pairs if any(pair)]).T
    test, p = two_samples.same_shares(counts, 0.01)
    assert test == two_samples.same_shares(counts[::-1], 0.01)[0]
    if test == "chi-square":
        assert p == pytest.approx(stats.chi2_contingency(counts, correction=False).pvalue)
    assert two_samples.stability(counts) == pytest.approx(two_samples.stability(counts[:, ::-1]))
    assert two_samples.stability(counts) >= 0


def test_the_stability_index_is_the_symmetric_divergence_of_smoothed_shares() -> None:
    before, now = np.array([100.5, 0.5]) / 101, np.array([50.5, 50.5]) / 101
    expected = stats.entropy(before, now) + stats.entropy(now, before)
    assert two_samples.stability(np.array([[100, 0], [50, 50]])) == pytest.approx(expected)


def test_numbers_are_binned_by_the_deciles_of_the_reference() -> None:
    numbers = np.arange(1, 101, dtype=float)
    assert two_samples.deciles(numbers, np.array([0, 10, 11, 1_000], float)).tolist() == [
        [10] * 10,
        [2, 1, *[0] * 7, 1],
    ]
    tied = np.array([1.0] * 85 + [2.0] * 15)
    assert two_samples.deciles(tied, tied).tolist() == [[85, 15, 0]] * 2


def test_what_is_drawn_of_a_column_is_what_was_compared() -> None:
    colour = replace(COLOUR, other=True)
    before, now = pd.Series(["red", "blue"] * 50), pd.Series(["a colour of its own", None, "green"] * 10)
    [compared] = drift.compare_columns([colour], before.to_frame("colour"), now.to_frame("colour"))
    drawn = drift.drawn("encoded_colour", colour, compared, before, now)
    assert (drawn.name, drawn.psi, drawn.alarm) == ("encoded_colour", compared.psi, True)
    assert drawn.values == ("red", "green", "blue", OTHER)
    assert drawn.now[:3].tolist() == pytest.approx([3, np.nan, 1], nan_ok=True)
    assert compared.p is not None
    assert compared.missing_p is not None
    assert drawn.p == min(compared.p, compared.missing_p)
    amount = drift.drawn("amount", AMOUNT, one(AMOUNT, [1], [2]), pd.Series([1]), pd.Series([2]))
    assert (amount.values, amount.p) == ((), None)
