"""How good a version's answers were, less how good they were when it was promoted; without labels an estimate."""

from dataclasses import dataclass

import numpy as np

from understudy.figures import metrics
from understudy.figures.metrics import Interval, Labels, Scored

# What decides whether a version has become worse, and whether more of it is better. Few, since each shares the error.
DECIDING = {"Accuracy": True, "AUC": True, "Log loss": False}
ESTIMATED = ("Accuracy", "AUC")
ERROR = 0.05  # how often any of their intervals misses the truth, half of that on either side
FEWEST_ROWS, FEWEST_OF_A_LABEL = 30, 10  # below that nothing is decided


@dataclass(frozen=True)
class Outcome:
    """Metrics on rows of which the true label is known.

    Args:
        rows: How many there are.
        positive: How many of them have the positive label.
        answered_positive: How many of them were answered with the positive label.
        metrics: Each with its 95 % interval; empty if there are too few rows.
        before: The same on the rows that were held out from the version, as when it was promoted.
        change: Now less before; the intervals of the metrics that decide hold together with 95 % (Bonferroni).
        worse: The metrics that decide whose whole interval says worse.
    """

    rows: int
    positive: int
    answered_positive: int
    metrics: dict[str, Interval]
    before: dict[str, Interval]
    change: dict[str, Interval]
    worse: tuple[str, ...]

    @property
    def is_decided(self) -> bool:
        """Whether there are enough labels."""
        return bool(self.metrics)


def measure(labels: Labels, scored: Scored, labels_before: Labels, before: Scored) -> Outcome:
    """How good answers were, and how good the version's answers to its held-out rows were.

    Args:
        labels: True labels, 0 or 1, shape (n,).
        scored: The version on these rows.
        labels_before: Of the held-out rows, shape (m,).
        before: The version on the held-out rows.
    """
    positive = int(labels.sum())
    counts = (len(labels), positive, int(scored.called.sum()))
    if len(labels) < FEWEST_ROWS or min(positive, len(labels) - positive) < FEWEST_OF_A_LABEL:
        return Outcome(*counts, {}, {}, {}, ())
    error = ERROR / len(DECIDING)
    now, then, change = metrics.change((labels, scored), (labels_before, before), error)
    worse = [name for name, more_is_better in DECIDING.items() if _is_worse(change[name], more_is_better)]
    return Outcome(*counts, now, then, change, tuple(worse))


def _is_worse(change: Interval, more_is_better: bool) -> bool:
    _, low, high = change
    return high < 0 if more_is_better else low > 0


@dataclass(frozen=True)
class Estimate:
    """What accuracy and AUC would be if the version's probabilities were true, each by its name.

    They are if the probabilities are calibrated and rows mean for their label what they meant in training.

    Args:
        expected: Of the window's rows.
        expected_before: Of the rows that were held out from the version.
        true_before: What came true of the held-out rows: so far off may such an estimate be.
    """

    expected: dict[str, float]
    expected_before: dict[str, float]
    true_before: dict[str, float]


def estimate(scored: Scored, labels_before: Labels, before: Scored) -> Estimate:
    """Accuracy and AUC without labels; the arguments are those of `measure`."""
    weights = np.ones((1, len(labels_before)))
    true = {name: float(value[0]) for name, value in metrics.weighted(labels_before, before, weights).items()}
    every = (metrics.expected(scored), metrics.expected(before), true)
    return Estimate(*({name: values[name] for name in ESTIMATED} for values in every))
