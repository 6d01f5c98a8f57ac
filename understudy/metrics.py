"""Numbers about predictions, each with a 95 % bootstrap interval. Arrays in, numbers out."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int_]
Interval = tuple[float, float, float]

RESAMPLES = 1_000


def evaluate(labels: Labels, probabilities: Floats, seed: int = 0) -> dict[str, Interval]:
    """Value, lower and upper 95 % bound of each metric.

    Args:
        labels: 0 or 1, shape (n,), both present.
        probabilities: Of label 1, 0 to 1, shape (n,).
        seed: Of the resampling.

    Returns:
        Name to (value, low, high): accuracy and f1 at a threshold of 0.5, the areas under the ROC and the
        precision-recall curve, log loss in nats, Brier score. The bounds are percentiles 2.5 and 97.5 over
        resamples of the rows (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
    """
    n = len(labels)
    resampled = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)
    values = weighted(labels, probabilities, np.ones((1, n)))
    draws = weighted(labels, probabilities, resampled)
    lows, highs = ({name: float(np.nanpercentile(draw, q)) for name, draw in draws.items()} for q in (2.5, 97.5))
    return {name: (float(value[0]), lows[name], highs[name]) for name, value in values.items()}


def weighted(labels: Labels, probabilities: Floats, weights: Floats) -> Mapping[str, Floats]:
    """Every metric under each row of weights, shape (draws, n) -> name to shape (draws,).

    A bootstrap resample is a row of counts, so that all of them are a few matrix products. NaN where a draw has
    one class only. With weights of one the values are scikit-learn's.
    """
    positive = labels == 1
    called = probabilities > 0.5
    total = weights.sum(axis=1)
    sure = np.clip(np.where(positive, probabilities, 1 - probabilities), np.finfo(float).eps, 1)
    hits = weights @ (called & positive)
    order = np.argsort(-probabilities, kind="stable")
    last_of_tie = np.append(np.diff(probabilities[order]) != 0, True)
    true = np.cumsum((weights * positive)[:, order], axis=1)[:, last_of_tie]
    false = np.cumsum((weights * ~positive)[:, order], axis=1)[:, last_of_tie]
    gained = np.diff(true, axis=1, prepend=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = gained / true[:, -1:]
        precision = np.nan_to_num(true / (true + false))
        false_rate = np.diff(false, axis=1, prepend=0) / false[:, -1:]
        return {
            "Accuracy": weights @ (called == positive) / total,
            "f1-score": 2 * hits / (weights @ called + weights @ positive),
            "AUC": np.sum(false_rate * (true - gained / 2), axis=1) / true[:, -1],
            "PR AUC": np.sum(recall * precision, axis=1),
            "Log loss": weights @ -np.log(sure) / total,
            "Brier score": weights @ (probabilities - positive) ** 2 / total,
        }
