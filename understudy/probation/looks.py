"""Whether a version misbehaves, by counts and arrays: pure, so that bench/probation.py measures what decides.

It is looked at growing numbers of requests, and all looks together send a good version back in at most 5 %. Why these
tests: docs/decisions/0025-probation.md.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from understudy.figures.metrics import Floats
from understudy.gate import checks

FIRST, GROWTH = 20, 1.5  # requests of the first look, and how many times as many each next one has
TESTS = 4  # that share the error of a look
ENOUGH = 100  # requests of the version before, fewer than which say nothing
LATE = 0.01  # the share of answers that may take longer than the limit


class Share(NamedTuple):
    """How many of a version's requests went wrong, and how many there were."""

    wrong: int
    requests: int

    @property
    def value(self) -> float:
        """The share, 0 to 1; NaN of none."""
        return self.wrong / self.requests if self.requests else math.nan

    def __str__(self) -> str:
        percent = f" ({self.value:.1%})" if self.wrong else ""
        return f"{self.wrong:,} of {self.requests:,} requests{percent}"


@dataclass(frozen=True)
class Kind:
    """One way for requests to go wrong.

    Args:
        called: What went wrong with them.
        least: How far a share has to be above that of the version before; a smaller difference harms nobody.
        bound: The share that is held against where the version before has too few requests.
        is_bound_always: Whether a share has to be above the bound in any case.
    """

    called: str
    least: float
    bound: float
    is_bound_always: bool = False


FAILED = Kind("answered with 5xx", 0.005, 0.01)
REFUSED = Kind("refused", 0.02, 0.05)
SLOW = Kind("slow", 0.005, LATE, is_bound_always=True)


@dataclass(frozen=True)
class Sign:
    """What one test says of a version.

    Args:
        text: What was seen, for people.
        is_bad: Whether it is misbehaviour.
        figures: By the names of the record's metrics.
    """

    text: str
    is_bad: bool
    figures: dict[str, float] = field(default_factory=dict)


def is_bad(signs: Iterable[Sign]) -> bool:
    """Whether one of the signs is misbehaviour."""
    return any(sign.is_bad for sign in signs)


def size(number: int) -> int:
    """How many requests the look of a number has, 1 for the first."""
    return math.ceil(FIRST * GROWTH ** (number - 1))


def number(requests: int) -> int:
    """The last look for which there are enough requests; 0 if there are too few for any."""
    last = 0
    while size(last + 1) <= requests:
        last += 1
    return last


def level(number: int) -> float:
    """How often one test of a look may err; those of all looks add up to `checks.SPENT`."""
    return checks.share(number) / TESTS


def share(kind: Kind, now: Share, before: Share, look: int) -> Sign:
    """Whether more requests go wrong than under the version before, or than a bound where that has too few.

    Args:
        kind: What has gone wrong with them.
        now: Of the version on probation.
        before: Of the version before.
        look: The number of the look.

    Source:
        Fisher's exact test, one-sided (The logic of inductive inference, Journal of the Royal Statistical Society 98,
        1935), and the binomial test.
    """
    values, is_compared = [], before.requests >= ENOUGH
    if is_compared:
        table = [[now.wrong, now.requests - now.wrong], [before.wrong, before.requests - before.wrong]]
        values.append(float(stats.fisher_exact(table, alternative="greater").pvalue))
    if kind.is_bound_always or not is_compared:
        values.append(float(stats.binomtest(now.wrong, now.requests, kind.bound, alternative="greater").pvalue))
    p = max(values)
    is_apart = not is_compared or now.value - before.value >= kind.least
    against = f"before {before}" if is_compared else f"held against {kind.bound:.0%}"
    figures = {f"{kind.called} share": now.value, f"{kind.called} p": p}
    figures |= {f"{kind.called} share before": before.value} if is_compared else {}
    return Sign(f"{kind.called}: {now}, {against}", p < level(look) and is_apart, figures)


def scores(
    differences: Floats, requests: NDArray[np.int_] | Sequence[int], held_out: Floats, bound: float, look: int
) -> Sign:
    """Whether the mean probability is farther than a bound from what is expected, with its whole interval.

    Expected is that the two versions are as far apart on the rows that they are asked as on held-out ones. Rows of one
    request are alike, so the standard error is that of a mean over requests.

    Args:
        differences: The version's probabilities less those that the one before gives to the same rows, shape (n,).
        requests: The number of the request that brought each row, shape (n,).
        held_out: The same differences on the version's held-out rows, shape (m,).
        bound: Above 0, below 1.
        look: The number of the look.
    """
    names, numbers = np.unique(requests, return_inverse=True)
    groups = len(names)
    if groups < 2:
        return Sign("scores: too few requests to tell", False)
    value, expected = float(differences.mean()), float(held_out.mean())
    sums = np.bincount(numbers, weights=differences - value)
    variance = groups / (groups - 1) * float(sums @ sums) / len(differences) ** 2 + float(stats.sem(held_out)) ** 2
    half_width = float(stats.t.isf(level(look) / 2, groups - 1)) * math.sqrt(variance)
    shift = value - expected
    figures = {"score shift": shift, "score shift low": shift - half_width, "score shift high": shift + half_width}
    interval = f"{shift - half_width:.3f} to {shift + half_width:.3f}"
    text = f"scores: on average {shift:+.3f} from what is expected ({interval}) on {len(differences):,} rows"
    return Sign(text, abs(shift) - half_width > bound, figures)
