"""What a served model computes with: arrays that were read from JSON and ONNX; features in, probabilities out.

It repeats what the fitted Pipeline does after its first step, in the same order and in float64, so that both answer
alike; see docs/decisions/0012-onnx.md. `convert.py` writes what is read here.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import mul
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Spread: TypeAlias = Sequence[tuple[Floats, Floats]]

TREES = "trees.onnx"
CORES = os.cpu_count() or 1
MANY_ROWS = 1_000  # that pay for threads


class Preparation:
    """Features to numbers without gaps: each category as one column of 0 or 1 per value, then the scaled numbers.

    Args:
        written: `fill`: what a missing feature becomes, shape (features,). `categories` and `numbers`: the features'
            places. `counts`: how many values each category has. `mean` and `scale`: of the numbers.
    """

    def __init__(self, written: Mapping[str, Any]) -> None:
        self.fill = np.array(written["fill"], dtype=float)
        self.categories = np.array(written["categories"], dtype=int)
        self.numbers = np.array(written["numbers"], dtype=int)
        self.ends = np.cumsum([0, *written["counts"]])
        self.mean, self.scale = np.array(written["mean"]), np.array(written["scale"])
        self._codes = list(zip(self.categories.tolist(), self.ends.tolist(), strict=False))
        self._scales = list(zip(self.numbers.tolist(), self.mean.tolist(), self.scale.tolist(), strict=True))
        self._fill, self._zeros = self.fill.tolist(), [0.0] * int(self.ends[-1])

    def __call__(self, features: Floats) -> Floats:
        """Features, shape (n, features), NaN where missing, as numbers, shape (n, columns)."""
        filled = np.where(np.isnan(features), self.fill, features)
        prepared = np.zeros((len(features), self.ends[-1] + len(self.numbers)))
        codes = filled[:, self.categories].astype(int)
        prepared[np.arange(len(features))[:, None], codes + self.ends[:-1]] = 1
        prepared[:, self.ends[-1] :] = (filled[:, self.numbers] - self.mean) / self.scale
        return prepared

    def one(self, features: Sequence[float]) -> list[float]:
        """The same for one row, without arrays, which take longer to make than to compute with."""
        filled = [fill if cell != cell else cell for cell, fill in zip(features, self._fill, strict=True)]
        prepared = self._zeros.copy()
        for place, start in self._codes:
            prepared[start + int(filled[place])] = 1.0
        return prepared + [(filled[place] - mean) / scale for place, mean, scale in self._scales]

    def places(self) -> list[Sequence[int]]:
        """For each feature the columns that it became."""
        found: list[Sequence[int]] = [[]] * len(self.fill)
        for number, place in enumerate(self.categories):
            found[place] = range(self.ends[number], self.ends[number + 1])
        for number, place in enumerate(self.numbers):
            found[place] = [int(self.ends[-1]) + number]
        return found


class Linear:
    """A logistic regression, with its calibration if it has one.

    Args:
        prepare: What its columns are made with.
        written: `weights` of the columns and `intercept`, of the log odds; `mean` of each column in training.
    """

    unit = "log_odds"

    def __init__(self, prepare: Preparation, written: Mapping[str, Any]) -> None:
        self.prepare = prepare
        self.weights, self.intercept = np.array(written["weights"]), float(written["intercept"])
        self.mean, self._weights = np.array(written["mean"]), self.weights.tolist()

    def probabilities(self, features: Floats) -> Floats:
        """Of the positive label, shape (n,)."""
        return expit(self.prepare(features) @ self.weights + self.intercept)

    def probability(self, features: Sequence[float]) -> float:
        """The same for one row."""
        log_odds = sum(map(mul, self.prepare.one(features), self._weights)) + self.intercept
        return 1 / (1 + math.exp(-log_odds)) if log_odds > 0 else math.exp(log_odds) / (1 + math.exp(log_odds))

    def effects(self, features: Floats) -> Floats:
        """What each feature adds to the log odds, less what it adds on average in training, shape (n, features)."""
        parts = (self.prepare(features) - self.mean) * self.weights
        return np.column_stack([parts[:, list(columns)].sum(axis=1) for columns in self.prepare.places()])


class Trees:
    """Decision trees in ONNX Runtime, added up in float64.

    Args:
        prepare: What its columns are made with.
        written: `rounded`: whether the trees see columns as float32, as scikit-learn's own do. `divisor` of the sum
            and `base` to add. `link`: none if that is a probability, or a and b where it is expit(a * that + b).
        folder: Where the trees are.
        spread: See `marginal`.
    """

    unit = "probability"

    def __init__(self, prepare: Preparation, written: Mapping[str, Any], folder: Path, spread: Spread) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or importing it reports to its makers
        import onnxruntime  # takes 0.1 s and 20 MB that a linear model does not need

        options = onnxruntime.SessionOptions()
        # More threads wait longer for each other than one row takes, and add up in another order.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.prepare = prepare
        self.session = onnxruntime.InferenceSession(folder / TREES, options, providers=["CPUExecutionProvider"])
        self.rounded, self.link = bool(written["rounded"]), written["link"]
        self.divisor, self.base = float(written["divisor"]), float(written["base"])
        self.spread = spread

    def probabilities(self, features: Floats) -> Floats:
        """Of the positive label, shape (n,)."""
        return self._scored(self.prepare(features))

    def probability(self, features: Sequence[float]) -> float:
        """The same for one row."""
        return float(self._scored(np.array([self.prepare.one(features)]))[0])

    def _scored(self, prepared: Floats) -> Floats:
        if self.rounded:
            prepared = prepared.astype(np.float32).astype(float)
        response = self._sums(prepared) / self.divisor + self.base
        return response if self.link is None else expit(self.link[0] * response + self.link[1])

    def _sums(self, prepared: Floats) -> Floats:
        if len(prepared) < MANY_ROWS:
            return self._run(prepared)
        # Each row is still added up by one thread, so the answers do not depend on their number.
        with ThreadPoolExecutor(CORES) as pool:
            return np.concatenate(list(pool.map(self._run, np.array_split(prepared, CORES))))

    def _run(self, prepared: Floats) -> Floats:
        sums: Floats = self.session.run(None, {"columns": prepared})[0][:, 0]
        return sums

    def effects(self, features: Floats) -> Floats:
        """See `marginal`."""
        return marginal(self.probabilities, features, self.spread)


def marginal(probabilities: Callable[[Floats], Floats], features: Floats, spread: Spread) -> Floats:
    """How far a probability is from its mean were one feature drawn from training, for each, shape (n, features).

    For a linear score that is a weight times the distance from the mean. Friedman's partial dependence (Greedy function
    approximation, Annals of Statistics 29, 2001) is the same mean, over all other features too.

    Args:
        probabilities: Of the positive label, by features.
        features: Shape (n, features).
        spread: For each feature values in training, and their shares, which add up to 1.
    """
    own, effects = probabilities(features), np.empty(features.shape)
    for place, (values, shares) in enumerate(spread):
        drawn = np.repeat(features, len(values), axis=0)
        drawn[:, place] = np.tile(values, len(features))
        effects[:, place] = own - probabilities(drawn).reshape(len(features), len(values)) @ shares
    return effects


def expit(x: Floats) -> Floats:
    """The logistic function, without overflow."""
    return np.exp(-np.logaddexp(0, -x))
