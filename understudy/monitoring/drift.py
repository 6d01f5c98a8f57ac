"""Whether later rows are like those that a version has learned from: frames and arrays in, dataclasses out.

Each test asks how probable samples as different as these two are if both come from one distribution. An alarm is a
p-value below a level; the population stability index (PSI) says how large a shift is, and raises none. Why these tests
and levels, and how often they err: docs/decisions/0022-drift.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from understudy.figures import metrics
from understudy.figures.windows import DrawnColumn
from understudy.monitoring import two_samples
from understudy.schema.columns import OTHER, Category, Date, Declared, Floats, Labels

ALPHA = 0.01  # the share of windows without drift in which one kind of comparison may alarm
LEAST_ROWS = 20  # fewer show a shift by one standard deviation in less than half of the windows
MOST_ROWS = 20_000  # of either sample, that the classifier sees: more take longer, and tell no more that matters
MOST_COLUMNS = 3  # that a joint shift is said to be in
TOO_FEW = "too few rows"  # the test where there is none to make


@dataclass(frozen=True)
class ColumnDrift:
    """A column of a window beside the same column of the reference.

    Args:
        column: Its name.
        test: Of its values, or why there was none: "too few rows", "one value".
        p: Of that test, 0 to 1; None without one.
        level: What `p` or `missing_p` has to be below to alarm.
        alarm: Whether one of them is.
        psi: Population stability index of the values, at least 0; None if there are too few.
        missing: Share of the window's cells that are missing.
        missing_before: The same of the reference.
        missing_p: Of the test that these two shares are equal; None if all cells are missing or none is.
        rows: The window's cells that are not missing.
    """

    column: str
    test: str
    p: float | None
    level: float
    alarm: bool
    psi: float | None
    missing: float
    missing_before: float
    missing_p: float | None
    rows: int


@dataclass(frozen=True)
class ScoreDrift:
    """A version's probabilities for a window beside those for the rows that were held out from it.

    Args:
        test: Or why there was none: "too few rows".
        p: 0 to 1; None without a test.
        alarm: Whether it is below the level.
        psi: Population stability index; None without a test.
        mean: Of the window's probabilities; NaN without rows.
        mean_before: Of the reference's.
        rows: In the window.
    """

    test: str
    p: float | None
    alarm: bool
    psi: float | None
    mean: float
    mean_before: float
    rows: int


@dataclass(frozen=True)
class TogetherDrift:
    """How well a classifier tells the rows of a window from those of the reference, on rows that it has not seen.

    Args:
        test: Or why there was none: "too few rows".
        auc: Its area under the ROC curve; 0.5 if nothing tells them apart. None without a test.
        p: That it is above 0.5 by chance; None without a test.
        alarm: Whether it is below the level.
        columns: Those that tell most if there is an alarm, the first most of all.
        rows: In the window.
    """

    test: str
    auc: float | None
    p: float | None
    alarm: bool
    columns: tuple[str, ...]
    rows: int


def compare_columns(
    declared: Sequence[Declared], reference: pd.DataFrame, window: pd.DataFrame, alpha: float = ALPHA
) -> list[ColumnDrift]:
    """Compare each column's values, and its share of missing cells.

    Numbers and dates are compared by Kolmogorov and Smirnov's test; categories by chi-square, by Fisher's exact test or
    by simulation where cells are few. Values that a category does not list count as one.

    Args:
        declared: The columns of raw rows (`table.columns`), or of encoded ones (`table.encoded`).
        reference: Checked rows that the version has learned from, with these columns by name; others do not matter.
        window: Checked rows that were scored, likewise.
        alpha: How probable an alarm of any column may be without drift, 0 to 1. Each of the two tests of each column
            gets an equal part (Bonferroni), also where it has nothing to compare, so that windows have one level.

    Returns:
        A comparison for each column, in the order of `declared`.
    """
    level = alpha / (2 * len(declared))
    return [
        _column(column, level, _numbers(column, reference[column.name]), _numbers(column, window[column.name]))
        for column in declared
    ]


def compare_scores(reference: Floats, window: Floats, alpha: float = ALPHA) -> ScoreDrift:
    """Compare the distributions of a version's probabilities by Kolmogorov and Smirnov's test.

    Args:
        reference: Probabilities for rows that the version has not learned from, 0 to 1, shape (m,).
        window: Those for the window's rows, shape (n,).
        alpha: How probable an alarm may be without drift, 0 to 1.
    """
    test, p, psi = TOO_FEW, None, None
    if min(len(reference), len(window)) >= LEAST_ROWS:
        test, p = two_samples.same_numbers(reference, window)
        psi = two_samples.stability(two_samples.deciles(reference, window))
    return ScoreDrift(test, p, _below(alpha, p), psi, _mean(window), _mean(reference), len(window))


def compare_together(
    declared: Sequence[Declared], reference: pd.DataFrame, window: pd.DataFrame, alpha: float = ALPHA, seed: int = 0
) -> TogetherDrift:
    """Compare all columns at once: can a classifier tell the samples apart better than by chance?

    Boosted trees learn from half of both samples, and rank the other half; Mann and Whitney's test says whether the
    window's rows rank higher there. So it sees shifts that no single column shows.

    Args:
        declared: As for `compare_columns`.
        reference: As for `compare_columns`.
        window: As for `compare_columns`.
        alpha: How probable an alarm may be without drift, 0 to 1.
        seed: Of the halves and the trees.

    Source: Lopez-Paz and Oquab, Revisiting classifier two-sample tests, ICLR 2017.
    """
    if min(len(reference), len(window)) < LEAST_ROWS:
        return TogetherDrift(TOO_FEW, None, None, False, (), len(window))
    rng = np.random.default_rng(seed)
    drawn = [rows.iloc[rng.permutation(len(rows))[:MOST_ROWS]] for rows in (reference, window)]
    samples = [pd.DataFrame({c.name: _numbers(c, rows[c.name]) for c in declared}) for rows in drawn]
    learned, _ = _half(samples, 0)
    known = learned.columns[learned.notna().any()]  # scikit-learn takes no column without any value
    if known.empty:
        return TogetherDrift(two_samples.ONE_VALUE, None, None, False, (), len(window))
    # With so few rows threads mostly wait for each other.
    with threadpool_limits(1, user_api="openmp"):
        auc, p, columns = _told_apart([sample[known] for sample in samples], alpha, seed)
    return TogetherDrift("boosted trees", auc, p, p < alpha, columns, len(window))


def _told_apart(samples: Sequence[pd.DataFrame], alpha: float, seed: int) -> tuple[float, float, tuple[str, ...]]:
    """Area under the ROC curve, p, and the columns that tell most if p is below alpha."""
    trees = HistGradientBoostingClassifier(
        max_iter=50, early_stopping=False, class_weight="balanced", random_state=seed
    ).fit(*_half(samples, 0))

    def score(rows: pd.DataFrame) -> Floats:
        scores: Floats = trees.predict_proba(rows)[:, 1]
        return scores

    rows, is_new = _half(samples, 1)
    scores = score(rows)
    ranks = stats.mannwhitneyu(scores[is_new == 1], scores[is_new == 0], alternative="greater", method="asymptotic")
    auc, p = float(ranks.statistic / (is_new.sum() * (1 - is_new).sum())), float(ranks.pvalue)
    if p >= alpha:
        return auc, p, ()
    losses = metrics.importance(score, rows, is_new, repeats=2).mean()
    # What is below a tenth of the largest loss is mostly chance.
    return auc, p, tuple(losses[losses > max(losses.max(), 0) / 10].nlargest(MOST_COLUMNS).index)


def drawn(
    name: str, column: Declared, compared: ColumnDrift, reference: "pd.Series[Any]", window: "pd.Series[Any]"
) -> DrawnColumn:
    """What `figures.windows` draws of a column that was compared, under a name, from the cells of both samples."""
    values = (*map(str, column.values), *[OTHER] * column.other) if isinstance(column, Category) else ()
    before, now = _numbers(column, reference), _numbers(column, window)
    p = min((p for p in (compared.p, compared.missing_p) if p is not None), default=None)
    return DrawnColumn(name, before, now, values, compared.psi, p, compared.alarm)


def _column(column: Declared, level: float, before: Floats, now: Floats) -> ColumnDrift:
    gone_before, gone = np.isnan(before), np.isnan(now)
    cells = [cells[~np.isnan(cells)] for cells in (before, now)]
    test, p, psi = TOO_FEW, None, None
    if min(map(len, cells)) >= LEAST_ROWS:
        if isinstance(column, Category):
            counts = two_samples.counts(*cells)
            test, p = two_samples.same_shares(counts, level)
        else:
            counts = two_samples.deciles(*cells)
            test, p = two_samples.same_numbers(*cells)
        psi = two_samples.stability(counts)
    missing_p = None
    if min(len(before), len(now)) >= LEAST_ROWS:
        _, missing_p = two_samples.same_shares(two_samples.counts(gone_before, gone), level)
    return ColumnDrift(
        column=column.name,
        test=test,
        p=p,
        level=level,
        alarm=_below(level, p, missing_p),
        psi=psi,
        missing=_mean(gone),
        missing_before=_mean(gone_before),
        missing_p=missing_p,
        rows=len(cells[1]),
    )


def _half(samples: Sequence[pd.DataFrame], start: int) -> tuple[pd.DataFrame, Labels]:
    """Every second row of two samples from `start` on, and 1 for those of the second sample."""
    halves = [sample[start::2] for sample in samples]
    return pd.concat(halves, ignore_index=True), np.repeat([0, 1], [len(half) for half in halves])


def _below(level: float, *probabilities: float | None) -> bool:
    """Whether the p of any test that was made is below a level."""
    return any(p is not None and p < level for p in probabilities)


def _mean(values: NDArray[Any]) -> float:
    """The mean; NaN of nothing."""
    return float(values.mean()) if len(values) else math.nan


def _numbers(column: Declared, cells: "pd.Series[Any]") -> Floats:
    """Cells as numbers: a category's as the index of their value, a date's as days; NaN for missing ones."""
    if isinstance(column, Category):
        codes = cells.astype(object).map({value: code for code, value in enumerate(column.values)})
        cells = codes.where(codes.notna() | cells.isna(), len(column.values))
    elif isinstance(column, Date):
        cells = cells.map({day: column.days(day) for day in cells.dropna().unique()})
    numbers: Floats = pd.to_numeric(cells).to_numpy(float, na_value=math.nan)
    return numbers
