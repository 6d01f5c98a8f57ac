"""From which probability on the answer is positive, by what wrong answers cost. Arrays in, numbers out."""

import numpy as np
import pandas as pd

from understudy.figures.metrics import Floats, Labels
from understudy.schema.declaration import Table


def curve(table: Table, labels: Labels, probabilities: Floats) -> pd.DataFrame:
    """What every hundredth, and the break-even of `choose`, costs as a threshold.

    Args:
        table: Declares the costs of wrong answers.
        labels: 0 or 1, shape (n,).
        probabilities: Of label 1, 0 to 1, shape (n,).

    Returns:
        A row per `threshold`, ascending: the shares of all rows that are `false positives` and `false negatives`,
        the mean `cost` of a row, and `error`, the standard error of what it costs more than the cheapest.
    """
    thresholds = np.union1d(np.arange(1, 100) / 100, table.break_even)
    shares = np.array([wrong_shares(labels, probabilities, threshold) for threshold in thresholds])
    costs = np.array([table.false_positive_cost, table.false_negative_cost])
    cost = shares @ costs
    # Two thresholds differ on the rows between them, whose shares are what the wrong answers' shares differ by.
    between, more = np.abs(shares - shares[cost.argmin()]), cost - cost.min()
    errors = np.sqrt(np.maximum(between @ costs**2 - more**2, 0) / len(labels))
    wrong = {"false positives": shares[:, 0], "false negatives": shares[:, 1]}
    return pd.DataFrame({"threshold": thresholds, **wrong, "cost": cost, "error": errors})


def choose(table: Table, curve: pd.DataFrame) -> float:
    """Of the thresholds within one standard error of the cheapest, the nearest to the break-even.

    The break-even is right for probabilities that are exact (Elkan, The Foundations of Cost-Sensitive Learning,
    IJCAI 2001); the rows move it only where they can tell. The rule of one standard error is that of Breiman,
    Friedman, Olshen and Stone, Classification and Regression Trees, 1984.
    """
    near = curve[curve["cost"] - curve["cost"].min() <= curve["error"]]["threshold"].to_numpy()
    return float(near[np.abs(near - table.break_even).argmin()])


def wrong_shares(labels: Labels, probabilities: Floats, threshold: float) -> tuple[float, float]:
    """The shares of all rows that are false positives, and false negatives, if answers are positive from it on."""
    positive = probabilities >= threshold
    return float(np.mean(positive & (labels == 0))), float(np.mean(~positive & (labels == 1)))
