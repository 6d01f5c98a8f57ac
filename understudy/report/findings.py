"""What a batch shows: whether its families can be told apart, where they disagree, and how even their answers are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from understudy.families import FLOOR
from understudy.figures import cards
from understudy.figures.metrics import Floats, Interval, Labels, Scored

ERROR = 0.05  # how often one of all the intervals of differences misses the truth
FEWEST_ROWS = 30  # of a group whose gap is named
MOST_DISPUTED = 25  # rows that are listed


@dataclass(frozen=True)
class Evaluated:
    """How good a family's model is on n held-out rows.

    Args:
        name: The family's.
        run: The id of its run.
        scored: The model on these rows.
        metrics: On these rows, each with its 95 % interval.
        cv_score: The mean score in cross-validation.
        params: The best values of its grid.
        costs: What each threshold costs, as `threshold.curve` gives it, by the rows that it was measured on.
        slices: As `metrics.slices` gives them, of all columns; None where the table has no categories.
    """

    name: str
    run: str
    scored: Scored
    metrics: Mapping[str, Interval]
    cv_score: float
    params: Mapping[str, str]
    costs: Mapping[str, pd.DataFrame]
    slices: pd.DataFrame | None


def searched(families: Sequence[Evaluated]) -> list[Evaluated]:
    """The families but the floor."""
    return [family for family in families if family.name != FLOOR]


def differences(labels: Labels, families: Sequence[Evaluated]) -> dict[tuple[str, str], Interval]:
    """The difference in ROC AUC of each two families, the first less the second; the intervals hold together with 95 %.

    Labels have the shape (n,), both present.

    Source:
        DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
        characteristic curves, Biometrics 44, 1988; the error of 5 % is shared among all pairs (Bonferroni).
    """
    pairs = list(combinations(families, 2))
    if not pairs:
        return {}
    won = {family.name: _won(labels == 1, family.scored.probabilities) for family in families}
    width, found = float(stats.norm.isf(ERROR / 2 / len(pairs))), {}
    for one, other in pairs:
        apart = [mine - theirs for mine, theirs in zip(won[one.name], won[other.name], strict=True)]
        half = width * math.sqrt(sum(float(side.var(ddof=min(1, len(side) - 1))) / len(side) for side in apart))
        value = float(apart[0].mean())
        found[one.name, other.name] = (value, value - half, value + half)
    return found


def _won(positive: NDArray[np.bool_], probabilities: Floats) -> tuple[Floats, Floats]:
    """For each positive row the share of negative rows that have less, and for each negative row of those with more."""
    ranks, own = stats.rankdata(probabilities), np.empty(len(probabilities))
    for side in (positive, ~positive):
        own[side] = stats.rankdata(probabilities[side])
    others = np.where(positive, (~positive).sum(), positive.sum())
    less = (ranks - own) / others
    return less[positive], 1 - less[~positive]


def told_apart(compared: Mapping[tuple[str, str], Interval], rows: int) -> str:
    """In one sentence, whether families can be told apart by differences as `differences` gives them."""
    if not compared:
        return "There is one family, so there is nothing to tell apart."
    better = [
        (one, other) if low > 0 else (other, one)
        for (one, other), (_, low, high) in compared.items()
        if low > 0 or high < 0
    ]
    on = f"On these {rows:,} held-out rows"
    if not better:
        return f"{on} the families cannot be told apart: each difference in AUC may as well be none."
    named = "; ".join(f"{one} is better than {other}" for one, other in better)
    rest = "" if len(better) == len(compared) else "; no other two can be told apart"
    return f"{on}, by AUC, {named}{rest}."


@dataclass(frozen=True)
class Gap:
    """How far apart two groups of a column are in a rate, of those with enough rows.

    Args:
        column: Whose values make the groups.
        low: The value with the lowest rate.
        high: The value with the highest.
        rates: Of the two, 0 to 1.
    """

    column: str
    low: str
    high: str
    rates: tuple[float, float]

    @property
    def size(self) -> float:
        """The one rate less the other."""
        return self.rates[1] - self.rates[0]

    def __str__(self) -> str:
        low, high = self.rates
        return f"{self.column}: {low:.3f} for {self.low}, {high:.3f} for {self.high}, a gap of {self.size:.3f}"


def gaps(slices: pd.DataFrame | None, rate: str) -> list[Gap]:
    """The gap in a rate of each column with two groups of at least 30 rows, the smallest first."""
    if slices is None:
        return []
    enough = slices[(slices["rows"] >= FEWEST_ROWS) & slices[rate].notna()]
    found = []
    for column, groups in enough.groupby("column", sort=False):
        if len(groups) > 1:
            low, high = groups.iloc[groups[rate].argmin()], groups.iloc[groups[rate].argmax()]
            rates = float(low[rate]), float(high[rate])
            found.append(Gap(str(column), cards.cell(low["value"]), cards.cell(high["value"]), rates))
    return sorted(found, key=lambda gap: gap.size)


def gap_sentences(slices: pd.DataFrame | None) -> list[str]:
    """The smallest and the largest gap in accuracy and in positive answers, by name."""
    lines = []
    for rate, said in (("accuracy", "accuracy"), ("positive rate", "share of positive answers")):
        found = gaps(slices, rate)
        if len(found) > 1:
            lines.append(f"The smallest gap in {said} is that of {found[0]}.")
        lines += [f"The largest gap in {said} is that of {found[-1]}."] if found else []
    return lines


@dataclass(frozen=True)
class Disputed:
    """A row that some families answer rightly and others wrongly.

    Args:
        row: What names it.
        label: Its true label, 0 or 1.
        answers: Of each family: whether it is right, and its probability of label 1.
    """

    row: str
    label: int
    answers: tuple[tuple[bool, float], ...]


def disputed(
    rows: Sequence[object], labels: Labels, families: Sequence[Evaluated]
) -> tuple[NDArray[np.int_], list[Disputed]]:
    """How often each family is right where another one is wrong, and the rows on which they are furthest apart.

    Returns:
        Counts of rows, shape (families, families): those that the family of the line answers rightly and that of the
        column wrongly. And at most 25 of these rows, the largest range of probabilities first.
    """
    right = np.array([family.scored.called == (labels == 1) for family in families])
    counts = (right[:, None] & ~right[None]).sum(axis=2)
    probabilities = np.array([family.scored.probabilities for family in families])
    places = np.flatnonzero(right.any(axis=0) & ~right.all(axis=0))
    furthest = places[np.argsort(-np.ptp(probabilities[:, places], axis=0), kind="stable")][:MOST_DISPUTED]
    found = [
        Disputed(
            str(rows[place]),
            int(labels[place]),
            tuple(
                (bool(is_right), float(value))
                for is_right, value in zip(right[:, place], probabilities[:, place], strict=True)
            ),
        )
        for place in furthest
    ]
    return counts, found
