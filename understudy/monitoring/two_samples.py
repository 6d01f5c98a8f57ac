"""Are two samples of one column from the same distribution, and how far are they apart? Arrays in, numbers out."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from understudy.schema.columns import Floats

FEW = 5  # expected rows in a cell, below which chi-square is no good approximation (Cochran, Biometrics 10, 1954)
ONE_VALUE = "one value"  # the test where there is none to make

Counts = NDArray[np.int_]


def counts(before: NDArray[Any], now: NDArray[Any]) -> Counts:
    """How often each value that any of two samples has comes in both of them, shape (2, values)."""
    values = np.unique(np.concatenate([before, now]))
    return np.array([np.bincount(np.searchsorted(values, cells), minlength=len(values)) for cells in (before, now)])


def deciles(before: Floats, now: Floats) -> Counts:
    """How many cells of both samples lie between the first one's deciles, shape (2, 10 or less if some are equal)."""
    edges = np.unique(np.quantile(before, np.arange(1, 10) / 10, method="inverted_cdf"))
    places = [np.searchsorted(edges, cells) for cells in (before, now)]
    return np.array([np.bincount(place, minlength=len(edges) + 1) for place in places])


def same_numbers(before: Floats, now: Floats) -> tuple[str, float | None]:
    """The test that two samples of numbers are from one distribution, and its p; ties make it conservative."""
    if min(before.min(), now.min()) == max(before.max(), now.max()):
        return ONE_VALUE, None
    return "Kolmogorov-Smirnov", float(stats.ks_2samp(before, now).pvalue)


def same_shares(counts: Counts, level: float) -> tuple[str, float | None]:
    """The test that two samples have each value equally often, and its p, of their counts, shape (2, values)."""
    if counts.shape[1] == 1:
        return ONE_VALUE, None
    if stats.contingency.expected_freq(counts).min() >= FEW:
        return "chi-square", float(stats.chi2_contingency(counts, correction=False).pvalue)
    if counts.shape[1] == 2:
        return "Fisher's exact", float(stats.fisher_exact(counts).pvalue)
    # Enough of them that a p-value well below the level is possible, and the same ones each time.
    tables = stats.MonteCarloMethod(n_resamples=math.ceil(10 / level), rng=np.random.default_rng(0))
    return "chi-square, simulated", float(stats.chi2_contingency(counts, correction=False, method=tables).pvalue)


def stability(counts: Counts) -> float:
    """The population stability index of counts, shape (2, groups): the symmetric Kullback-Leibler divergence.

    Half a row is added to each group, so that an empty one has a share too.
    """
    before, now = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
    return float(np.sum((now - before) * np.log(now / before)))
