"""What is held against a limit before a version takes over: figures in, a `Check` out.

docs/promotion.md says what each check is for, and bench/gate.py measures how often it errs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from scipy import stats

from understudy.figures import cards, metrics
from understudy.figures.metrics import Floats, Labels

Rule: TypeAlias = Literal["not-worse", "better", "point"]
Groups: TypeAlias = "pd.DataFrame | Mapping[str, pd.Series[Any]]"

ERROR = 0.05  # how often an interval misses the truth, half of that on either side
SPENT = 0.05  # how often one of all the challengers that are asked about on the same rows passes and should not
DIFFERENCE = "ROC AUC less champion's"
EARLIER = "ROC AUC less earlier champion's"
ATTEMPT = "attempt on these rows"
LOSSES = "attempt by not-worse since one was better"  # which widens the interval of `EARLIER`
LIVE = "live "  # what the names of figures on live rows begin with
FEWEST_ROWS = 30  # of a slice that is checked
MOST_ROWS = 1e9  # that a verdict tells anybody to wait for


@dataclass(frozen=True)
class Check:
    """One figure held against its limit.

    Args:
        name: What was measured, with its unit.
        value: The figure; NaN where it could not be measured.
        limit: What was asked for, in words.
        passed: None where the figure decides nothing.
        low: The lower bound of the figure's interval; None where it has none.
        high: The upper bound.
        note: Why the check failed, or what people should know although it passed, as part of a sentence; None where
            there is nothing to say.
        bound: The limit as a number; None where the figure decides nothing.
    """

    name: str
    value: float
    limit: str
    passed: bool | None
    low: float | None = None
    high: float | None = None
    note: str | None = None
    bound: float | None = None

    def printed(self) -> dict[str, str]:
        """Column to text, for one row of the table that people see."""
        return {
            "check": self.name,
            "value": _shown(self.value),
            "interval": "" if self.low is None else f"{self.low:.3f} to {self.high:.3f}",
            "limit": self.limit,
            "result": {True: "pass", False: "fail", None: ""}[self.passed],
        }


def at_most(name: str, value: float, limit: float) -> Check:
    """A figure without an interval; NaN fails."""
    passed = bool(value <= limit)
    note = None if passed else f"{name}: {_shown(value)}, not at most {limit:g}"
    return Check(name, value, f"at most {limit:g}", passed, note=note, bound=limit)


def above(name: str, value: float, interval: tuple[float, float], limit: float, rows: int) -> Check:
    """A figure whose whole interval has to be above a limit.

    Args:
        name: What was measured.
        value: The figure on the rows.
        interval: Its lower and its upper bound.
        limit: What the interval has to be above.
        rows: How many rows there are.
    """
    low, high = interval
    note = None if low > limit else _shortfall(name, value, low, limit, rows)
    return Check(name, float(value), f"interval above {limit:.3f}", note is None, low, high, note, limit)


def _shortfall(name: str, value: float, low: float, limit: float, rows: int) -> str:
    if value <= limit:
        return f"{name} is {value:.3f}, not above {limit:.3f}, and more rows like these would not help"
    # An interval narrows as the square root of the rows grows.
    enough = min(MOST_ROWS, rows * ((value - low) / (value - limit)) ** 2)
    unit = 10 ** max(0, int(math.log10(enough)) - 1)
    counted = "count" if name.startswith(LIVE) else "were held out"
    return (
        f"too few rows to tell whether {name} is above {limit:.3f}: {rows:,} {counted}, "
        f"about {math.ceil(enough / unit) * unit:,} would do if it stays at {value:.3f}"
    )


def least_difference(rule: Rule, margin: float) -> float:
    """What the difference in ROC AUC has to be above, or at least equal to by the rule `point`."""
    return -margin if rule == "not-worse" else 0.0


def share(attempt: int) -> float:
    """How often the attempt of a number, 1 for the first, may pass and should not; all of them add up to `SPENT`.

    What is left after k attempts is `SPENT` / (k + 1). Why these shares: docs/decisions/0023-attempts.md.
    """
    return SPENT / (attempt * (attempt + 1))


def difference(
    value: float,
    draws: Floats,
    rule: Rule,
    margin: float,
    labels: Labels,
    attempt: int = 1,
    name: str = DIFFERENCE,
) -> Check:
    """The difference in ROC AUC, challenger less champion, by one of the rules.

    Args:
        value: The difference on the rows.
        draws: The difference on resamples of those rows, shape (draws,).
        rule: `better` asks for an interval above 0, `not-worse` for one above the negative margin, `point` for a
            difference of at least 0, whatever its interval.
        margin: How much worse the challenger may be by the rule `not-worse`, 0 to 1.
        labels: True labels of the rows, 0 or 1, shape (n,), both present.
        attempt: The number of the challenger among those that were asked about; the interval is the wider, the greater
            it is. See `share`.
        name: What was measured.
    """
    interval = paired(value, draws, labels, share(attempt))
    if rule != "point":
        check = above(name, value, interval, least_difference(rule, margin), len(labels))
        is_worse = check.passed and interval[1] < 0
        worse = f"the challenger is worse than the champion, though within the margin of {margin:.3f}"
        return replace(check, note=worse) if is_worse else check
    note = None if value >= 0 else f"{name} is {value:.3f}"
    return Check(name, float(value), "at least 0.000", note is None, *interval, note, 0.0)


def paired(value: float, draws: Floats, labels: Labels, error: float) -> tuple[float, float]:
    """Bounds of a difference, each of which misses the truth with the probability `error`.

    They are as many standard errors away as Student's distribution says, with as many degrees of freedom as the rarer
    label has rows, less one: the percentiles of draws that such small errors ask for would take too many draws.

    Args:
        value: The difference.
        draws: On resamples of the rows, shape (draws,).
        labels: True labels of the rows, 0 or 1, shape (n,), both present.
        error: Above 0, below 0.5.
    """
    positive = int(labels.sum())
    freedom = max(1, min(positive, len(labels) - positive) - 1)
    half_width = float(stats.t.isf(error, freedom) * draws.std(ddof=1))
    return float(value) - half_width, float(value) + half_width


def attempts(attempt: int, name: str = ATTEMPT) -> Check:
    """How many challengers have been asked about, and what that costs; decides nothing by itself."""
    left = SPENT / (attempt + 1)
    return Check(name, attempt, f"{share(attempt):.2%} of error spent, {left:.2%} left", None)


def mcnemar(labels: Labels, challenger: Labels, champion: Labels, of: str = "") -> Check:
    """Whether one of the two answers more rows rightly, by the rows that only one of them does; decides nothing.

    Source:
        The exact form of McNemar's test (Note on the sampling error of the difference between correlated proportions
        or percentages, Psychometrika 12, 1947): if both are equally good, each such row is the toss of a coin.
    """
    won = int(np.sum((challenger == labels) & (champion != labels)))
    lost = int(np.sum((challenger != labels) & (champion == labels)))
    value = float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return Check(f"{of}McNemar's p, {won} rows won, {lost} lost", value, "none", None)


def slices(
    labels: Labels,
    challenger: Floats,
    champion: Floats,
    groups: Groups,
    margin: float,
    of: str = "",
) -> list[Check]:
    """The challenger's mean log loss less the champion's in each slice of at least 30 rows, the worst slice first.

    The intervals are Student's for a paired mean, and hold together with 95 % (Bonferroni): with an interval of its
    own each, every slice more would be one more chance to refuse an equal challenger.

    Args:
        labels: True labels, 0 or 1, shape (n,).
        challenger: The challenger's probabilities of label 1, shape (n,).
        champion: The champion's, shape (n,).
        groups: Column to the cells whose values, missing ones too, make the slices; by the places, 0 to n - 1, of the
            rows that have the column.
        margin: In nats. A slice fails if it is worse by more than this and its interval is above 0.
        of: What the checks' names begin with.
    """
    losses = pd.Series(metrics.log_losses(labels, challenger) - metrics.log_losses(labels, champion))
    parts = {
        f"{column} {cards.cell(value)}": part
        for column, cells in groups.items()
        for value, part in losses[cells.index].groupby(cells.to_numpy(), sort=False, dropna=False)
        if len(part) >= FEWEST_ROWS
    }
    checks = [_slice(name, part, margin, ERROR / len(parts), of) for name, part in parts.items()]
    return sorted(checks, key=lambda check: check.low or 0, reverse=True)


def aside(check: Check) -> Check:
    """The same figure where it decides nothing."""
    return replace(check, limit="none", passed=None, note=None, bound=None)


def _slice(name: str, losses: "pd.Series[float]", margin: float, error: float, of: str) -> Check:
    value = float(losses.mean())
    half_width = float(stats.t.ppf(1 - error / 2, len(losses) - 1) * stats.sem(losses))
    passed = value <= margin or value - half_width <= 0
    note = None if passed else f"{of}log loss on {name} is {value:.3f} above champion's"
    name = f"{of}log loss less champion's, {name}, {len(losses)} rows"
    limit = f"at most {margin:.3f}, or interval not above 0"
    return Check(name, value, limit, passed, value - half_width, value + half_width, note, margin)


def bounds(draws: Floats) -> tuple[float, float]:
    """The lower and the upper 95 % bound: percentiles of draws, shape (draws,)."""
    low, high = np.percentile(draws, (50 * ERROR, 100 - 50 * ERROR))
    return float(low), float(high)


def _shown(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}" if round(value, 3) or value == 0 else f"{value:.0e}"
