"""Numbers about predictions, with 95 % intervals. Arrays in, numbers out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from understudy import terminal

Floats = NDArray[np.float64]
Labels = NDArray[np.int_]
Interval = tuple[float, float, float]

RESAMPLES = 1_000
MANY_ROWS = 10_000  # from here on a fifth of the resamples; what that does to the bounds: bench/intervals.py
CELLS = 300_000  # of the matrix of resamples at once: what fits a processor's cache, not what fits memory


@dataclass(frozen=True)
class Scored:
    """A model's probabilities for n rows, and the threshold at which it decides.

    Args:
        probabilities: Of label 1, 0 to 1, shape (n,).
        threshold: The answer is label 1 from this probability on.
    """

    probabilities: Floats
    threshold: float

    @property
    def called(self) -> NDArray[np.bool_]:
        """Where the answer is label 1, shape (n,)."""
        return self.probabilities >= self.threshold


Measure = Callable[[Floats], Mapping[str, Floats]]


def evaluate(labels: Labels, scored: Scored, seed: int = 0) -> dict[str, Interval]:
    """Value, lower and upper 95 % bound of each metric.

    Args:
        labels: 0 or 1, shape (n,), both present.
        scored: The model on these rows.
        seed: Seed of the bootstrap.

    Returns:
        Name to (value, low, high): accuracy and f1 of the answers, the areas under the ROC and the
        precision-recall curve, log loss in nats, Brier score. The bounds are percentiles 2.5 and 97.5 over
        resamples of the rows (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
    """
    return _intervals(len(labels), seed, lambda weights: weighted(labels, scored, weights))


def difference(labels: Labels, mine: Scored, other: Scored, seed: int = 0) -> dict[str, Interval]:
    """The difference in each metric, mine less the other's, as `evaluate` gives metrics; both see each resample."""

    def measure(weights: Floats) -> dict[str, Floats]:
        others = weighted(labels, other, weights)
        return {name: value - others[name] for name, value in weighted(labels, mine, weights).items()}

    return _intervals(len(labels), seed, measure)


def change(
    now: tuple[Labels, Scored], before: tuple[Labels, Scored], error: float, seed: int = 0
) -> tuple[dict[str, Interval], dict[str, Interval], dict[str, Interval]]:
    """Each metric on two samples of different rows, now and before, as `evaluate` gives it, and the change in it.

    Args:
        now: Labels, 0 or 1, both present, shape (n,), and the model on these rows.
        before: The same of m other rows.
        error: How often an interval of the change misses the truth, 0 to 1, half of that on either side.
        seed: Seed of the bootstrap, which draws from each sample by itself.
    """
    others, other_draws = _drawn(len(before[0]), seed, partial(weighted, *before))
    values, draws = _drawn(len(now[0]), seed + 1, partial(weighted, *now))
    changes = {name: value - others[name] for name, value in values.items()}
    differences = {name: np.subtract.outer(draw, other_draws[name]) for name, draw in draws.items()}
    return _bounded(values, draws), _bounded(others, other_draws), _bounded(changes, differences, error)


def expected(scored: Scored) -> dict[str, float]:
    """Each metric of `evaluate` as it would be expected if the probabilities are true ones; no labels are needed.

    Each row counts as label 1 by its probability and as label 0 by the rest, so that the counts that a metric is made
    of are expected counts.

    Source:
        Bialek, Kivimaki, Kuberski and Perrakis, Estimating model performance under covariate shift without labels
        (NeurIPS 2025, arXiv 2401.08348), where it is called confidence-based performance estimation.
    """
    twice = np.concatenate([scored.probabilities, scored.probabilities])
    labels = np.repeat([1, 0], len(scored.probabilities))
    weights = np.concatenate([scored.probabilities, 1 - scored.probabilities])[None]
    values = weighted(labels, Scored(twice, scored.threshold), weights)
    return {name: float(value[0]) for name, value in values.items()}


def _intervals(n: int, seed: int, measure: Measure) -> dict[str, Interval]:
    """Value and 95 % bounds of what `measure` makes of each row of weights."""
    return _bounded(*_drawn(n, seed, measure))


def _drawn(n: int, seed: int, measure: Measure) -> tuple[Mapping[str, Floats], dict[str, Floats]]:
    """What `measure` makes of n rows, and of resamples of them: name to shape (1,) and to shape (draws,)."""
    parts = [measure(part) for part in _resamples(n, RESAMPLES, seed)]
    return measure(np.ones((1, n))), {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _bounded(values: Mapping[str, Floats], draws: Mapping[str, Floats], error: float = 0.05) -> dict[str, Interval]:
    ends = (100 * error / 2, 100 - 100 * error / 2)
    bounds = {name: np.nanpercentile(draw, ends).tolist() for name, draw in draws.items()}
    return {name: (float(value[0]), *bounds[name]) for name, value in values.items()}


def _resamples(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each of n rows is drawn, in parts of shape (draws, n); for many rows in a fifth of the resamples."""
    rng = np.random.default_rng(seed)
    at_once = max(10, CELLS // n)
    resamples = resamples if n <= MANY_ROWS else resamples // 5
    with terminal.bar(total=resamples, unit=" resamples") as progress:
        for done in range(0, resamples, at_once):
            drawn = min(at_once, resamples - done)
            yield rng.multinomial(n, np.full(n, 1 / n), drawn).astype(float)
            progress.update(drawn)


def areas(labels: Labels, scores: Sequence[Floats], resamples: int, seed: int = 0) -> tuple[Floats, Floats]:
    """The area under the ROC curve of several models on the same rows and on the same resamples of them.

    Args:
        labels: 0 or 1, shape (n,), both present.
        scores: Of each model, higher for label 1, shape (n,).
        resamples: How many; a fifth of them for many rows.
        seed: Seed of the bootstrap.

    Returns:
        The models' areas, shape (models,), and those in each resample that has both classes, shape (models, draws).
    """
    values = [area(labels, score, np.ones((1, len(labels)))) for score in scores]
    parts = [[area(labels, score, part) for score in scores] for part in _resamples(len(labels), resamples, seed)]
    draws = np.concatenate(parts, axis=1)
    return np.concatenate(values), draws[:, np.isfinite(draws).all(axis=0)]


def importance(
    score: Callable[[pd.DataFrame], Floats], rows: pd.DataFrame, labels: Labels, repeats: int = 5
) -> pd.DataFrame:
    """Loss of ROC AUC when one column is shuffled (Breiman, Random Forests, 2001).

    Args:
        score: Rows to probabilities of label 1, shape (n,); called once a column, with all its shuffled copies.
        rows: The n rows, with the columns to shuffle.
        labels: 0 or 1, shape (n,), both present.
        repeats: Times that each column is shuffled.

    Returns:
        A column for each of `rows`' columns, a row for each repeat.
    """
    rng = np.random.default_rng(0)
    whole = roc_auc_score(labels, score(rows))
    copies = pd.concat([rows] * repeats, ignore_index=True)
    losses = {}
    for name in rows.columns:
        order = np.concatenate([rng.permutation(len(rows)) for _ in range(repeats)])
        shuffled = copies.copy()
        shuffled[name] = rows[name].array[order]
        losses[name] = [whole - roc_auc_score(labels, scores) for scores in score(shuffled).reshape(repeats, -1)]
    return pd.DataFrame(losses)


def weighted(labels: Labels, scored: Scored, weights: Floats) -> Mapping[str, Floats]:
    """Every metric under each row of weights, shape (draws, n) -> name to shape (draws,).

    A bootstrap resample is a row of counts, so that all of them take a few matrix products. NaN where a draw has
    one class only. With weights of 1 the values are those of scikit-learn's functions.
    """
    positive, probabilities, called = labels == 1, scored.probabilities, scored.called
    total = weights.sum(axis=1)
    hits = weights @ (called & positive)
    true, false = _ranked(labels, probabilities, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.diff(true, axis=1, prepend=0) / true[:, -1:]
        precision = np.nan_to_num(true / (true + false))
        return {
            "Accuracy": weights @ (called == positive) / total,
            "f1-score": 2 * hits / (weights @ called + weights @ positive),
            "AUC": _area(true, false),
            "PR AUC": np.sum(recall * precision, axis=1),
            "Log loss": weights @ log_losses(labels, probabilities) / total,
            "Brier score": weights @ (probabilities - positive) ** 2 / total,
        }


def area(labels: Labels, probabilities: Floats, weights: Floats) -> Floats:
    """The area under the ROC curve alone, as `weighted` gives it."""
    return _area(*_ranked(labels, probabilities, weights))


def log_losses(labels: Labels, probabilities: Floats) -> Floats:
    """Each row's log loss in nats, shape (n,); finite also where a model was sure of the wrong label."""
    of_label = np.where(labels == 1, probabilities, 1 - probabilities)
    losses: Floats = -np.log(np.clip(of_label, np.finfo(float).eps, 1))
    return losses


def _ranked(labels: Labels, probabilities: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weights of the true and of the false positives at each threshold from the highest: (draws, thresholds) each."""
    order = np.argsort(-probabilities, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(probabilities[order]) != 0, True))
    ranked = weights[:, order]
    true = np.cumsum(ranked * (labels == 1)[order], axis=1)[:, last_of_tie]
    return true, np.cumsum(ranked, axis=1)[:, last_of_tie] - true


def _area(true: Floats, false: Floats) -> Floats:
    gained, lost = (np.diff(counts, axis=1, prepend=0) for counts in (true, false))
    with np.errstate(invalid="ignore", divide="ignore"):
        # Dividing once, and last, keeps equal areas equal to the last bit, however the ranks are tied.
        area: Floats = np.sum(lost * (true - gained / 2), axis=1) / (true[:, -1] * false[:, -1])
    return area


def slices(labels: Labels, called: NDArray[np.bool_], values: pd.Series) -> pd.DataFrame:
    """How well the rows with each value of a column are answered, with 95 % intervals.

    Args:
        labels: 0 or 1, shape (n,).
        called: Whether the model answered the positive label, shape (n,).
        values: The column, shape (n,); missing cells make a slice of their own.

    Returns:
        A row per value: the count of `rows`, and `positive rate` (share answered positive), `true positive rate`,
        `false positive rate` and `accuracy`, each with its bounds in ` low` and ` high`, NaN where no row counts; and
        `ratio`, its positive rate over that of the value with most rows.
        The bounds are Wilson's (Wilson, Probable inference, Journal of the American Statistical Association 22, 1927).
    """
    slices = []
    cells = values.astype(object).where(values.notna(), "missing").to_numpy()
    for value in dict.fromkeys(sorted(cells, key=str)):
        rows = cells == value
        truth, answer = labels[rows] == 1, called[rows]
        rates = {
            "positive rate": answer,
            "true positive rate": answer[truth],
            "false positive rate": answer[~truth],
            "accuracy": answer == truth,
        }
        slices.append({"column": values.name, "value": value, "rows": int(rows.sum())} | _shares(rates))
    table = pd.DataFrame(slices)
    largest = table["positive rate"].iloc[table["rows"].argmax()]
    return table.assign(ratio=table["positive rate"] / largest)


def _shares(rates: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """The share of each rate's rows that are true, with its bounds."""
    shares: dict[str, float] = {}
    for name, hits in rates.items():
        value = low = high = float("nan")
        if len(hits):
            interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
            value, low, high = float(hits.mean()), float(interval.low), float(interval.high)
        shares |= {name: value, f"{name} low": low, f"{name} high": high}
    return shares
