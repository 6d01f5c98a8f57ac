"""Curves as points: those that scikit-learn computes, and as few of them as a page has room for."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, roc_curve

from understudy.figures.metrics import Floats, Labels

MOST_POINTS = 60
BINS = 8  # of equal counts, in which probabilities are compared with what came true
Points = list[tuple[float, float]]


def roc(labels: Labels, probabilities: Floats) -> Points:
    """True positive rate by false positive rate; labels and probabilities have the shape (n,)."""
    false, true, _ = roc_curve(labels, probabilities)
    return thinned(false, true)


def precision_recall(labels: Labels, probabilities: Floats) -> Points:
    """Precision by recall, from a recall of 0 on."""
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    return thinned(recall[::-1], precision[::-1])


def calibration(labels: Labels, probabilities: Floats) -> Points:
    """The observed share of label 1 by the predicted probability, in bins of equal counts."""
    observed, predicted = calibration_curve(labels, probabilities, n_bins=BINS, strategy="quantile")
    return thinned(predicted, observed)


def costs(curve: pd.DataFrame) -> Points:
    """The mean cost of a row by threshold, of a curve as `threshold.curve` gives it."""
    return thinned(curve["threshold"].to_numpy(), curve["cost"].to_numpy())


def thinned(x: Sequence[float] | Floats, y: Sequence[float] | Floats) -> Points:
    """The points of a curve, or some of them that lie about equally far apart along it, with both ends."""
    points = np.column_stack([x, y]).astype(float)
    if len(points) > MOST_POINTS:
        ways = np.concatenate([[0.0], np.hypot(*np.diff(points, axis=0).T).cumsum()])
        wanted = np.linspace(0, ways[-1], MOST_POINTS)
        points = points[np.unique(np.minimum(np.searchsorted(ways, wanted), len(points) - 1))]
    return [(float(a), float(b)) for a, b in points]
