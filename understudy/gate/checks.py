"""What is held against a limit before a version takes over: numbers in, one check each out.

docs/promotion.md says what each is for, and bench/gate.py how often it errs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from understudy.figures import metrics
from understudy.figures.metrics import Floats, Labels

Rule: TypeAlias = Literal["not-worse", "better", "point"]

ERROR = 0.05  # how often an interval misses the truth, half of that on either side
DIFFERENCE = "ROC AUC less champion's"
FEWEST = 30  # rows of a slice
MOST_ROWS = 1e9  # that anybody is told to wait for


@dataclass(frozen=True)
class Check:
    """One figure held against its limit.

    Args:
        name: What was measured, with its unit.
        value: The figure; not a number where it could not be measured.
        limit: What was asked for, in words.
        passed: None where the figure decides nothing.
        low: The lower bound, where there is an interval.
        high: The upper one.
        note: Why it failed, or what was waived; part of a sentence.
    """

    name: str
    value: float
    limit: str
    passed: bool | None
    low: float | None = None
    high: float | None = None
    note: str = ""

    def printed(self) -> dict[str, str]:
        """Column to text, for one row of a table."""
        interval = "" if self.low is None else f"{self.low:.3f} to {self.high:.3f}"
        result = {True: "pass", False: "fail", None: ""}[self.passed]
        return {
            "check": self.name,
            "value": _shown(self.value),
            "interval": interval,
            "limit": self.limit,
            "result": result,
        }


def at_most(name: str, value: float, limit: float) -> Check:
    """A figure that has no interval; what is not a number fails."""
    passed = bool(value <= limit)
    note = "" if passed else f"{name}: {_shown(value)}, not at most {limit:g}"
    return Check(name, value, f"at most {limit:g}", passed, note=note)


def above(name: str, value: float, draws: Floats, limit: float, rows: int) -> Check:
    """A figure whose 95 % interval has to be above a limit.

    Args:
        name: Of the figure.
        value: On the held-out rows.
        draws: The same in resamples of those rows, shape (draws,).
        limit: To be above.
        rows: How many were held out.
    """
    low, high = bounds(draws)
    note = "" if low > limit else _shortfall(name, value, low, limit, rows)
    return Check(name, float(value), f"interval above {limit:.3f}", not note, low, high, note)


def _shortfall(name: str, value: float, low: float, limit: float, rows: int) -> str:
    if value <= limit:
        return f"{name} is {value:.3f}, not above {limit:.3f}, and more rows like these would not help"
    # An interval narrows as the square root of the rows grows.
    enough = min(MOST_ROWS, rows * ((value - low) / (value - limit)) ** 2)
    unit = 10 ** max(0, int(math.log10(enough)) - 1)
    return (
        f"too few rows to tell whether {name} is above {limit:.3f}: {rows:,} were held out, "
        f"about {math.ceil(enough / unit) * unit:,} would do if it stays at {value:.3f}"
    )


def least(rule: Rule, margin: float) -> float:
    """What the difference in ROC AUC, challenger less champion, has to be above; or at least, by the rule `point`."""
    return -margin if rule == "not-worse" else 0.0


def compare(value: float, draws: Floats, rule: Rule, margin: float, rows: int) -> Check:
    """The difference in ROC AUC by one of the rules; the rest as in `above`."""
    if rule != "point":
        return above(DIFFERENCE, value, draws, least(rule, margin), rows)
    note = "" if value >= 0 else f"{DIFFERENCE} is {value:.3f}"
    return Check(DIFFERENCE, float(value), "at least 0.000", not note, *bounds(draws), note)


def mcnemar(labels: Labels, mine: Labels, champions: Labels) -> Check:
    """Whether one of two is right on more rows, by the rows that only one gets right; decides nothing.

    The exact form of McNemar's test (Note on the sampling error of the difference between correlated proportions or
    percentages, Psychometrika 12, 1947): those rows would fall to either like a coin.
    """
    won = int(np.sum((mine == labels) & (champions != labels)))
    lost = int(np.sum((mine != labels) & (champions == labels)))
    value = float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return Check(f"McNemar's p, {won} rows won, {lost} lost", value, "none", None)


def slices(labels: Labels, mine: Floats, champions: Floats, groups: pd.DataFrame, margin: float) -> list[Check]:
    """Mean log loss less the champion's in each slice of at least 30 rows, the worst first.

    The intervals are Student's for a paired mean, and hold together with 95 % (Bonferroni): one by one, each slice
    more would be one more chance to refuse an equal challenger.

    Args:
        labels: True ones, 0 or 1, shape (n,).
        mine: Probabilities of label 1, shape (n,).
        champions: The champion's, shape (n,).
        groups: Columns whose values, missing ones too, make the slices, shape (n, columns).
        margin: In nats. A slice fails if it is worse by more and its interval is above 0.
    """
    losses = metrics.log_losses(labels, mine) - metrics.log_losses(labels, champions)
    found = [(name, losses[rows]) for name, rows in _members(groups) if rows.sum() >= FEWEST]
    checks = [_slice(name, part, margin, ERROR / len(found)) for name, part in found]
    return sorted(checks, key=lambda check: check.low or 0, reverse=True)


def _members(groups: pd.DataFrame) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for column in groups:
        codes, values = pd.factorize(groups[column], use_na_sentinel=False)
        for code, value in enumerate(values):
            shown = "missing" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else value
            yield f"{column} {shown}", codes == code


def _slice(name: str, losses: Floats, margin: float, error: float) -> Check:
    value = float(losses.mean())
    spread = losses.std(ddof=1) / math.sqrt(len(losses))
    half = float(stats.t.ppf(1 - error / 2, len(losses) - 1) * spread)
    passed = value <= margin or value - half <= 0
    note = "" if passed else f"log loss on {name} is {value:.3f} above champion's"
    name = f"log loss less champion's, {name}, {len(losses)} rows"
    limit = f"at most {margin:.3f}, or interval not above 0"
    return Check(name, value, limit, passed, value - half, value + half, note)


def bounds(draws: Floats) -> tuple[float, float]:
    """Lower and upper 95 % bound: percentiles of draws, shape (draws,)."""
    low, high = np.percentile(draws, (50 * ERROR, 100 - 50 * ERROR))
    return float(low), float(high)


def _shown(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}" if round(value, 3) or value == 0 else f"{value:.0e}"
