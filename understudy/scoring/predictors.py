"""What computes the probabilities of a served model: features in; probabilities, and what moved them, out.

A converted model repeats what the fitted Pipeline does after its first step, in the same order and in float64, so that
both answer alike; see docs/decisions/0012-onnx.md. `conversion.py` writes what is read here. A model that could not be
converted asks the Pipeline itself.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from understudy.schema.columns import Floats
from understudy.schema.declaration import Table

Spread: TypeAlias = Sequence[tuple[Floats, Floats]]

TREES = "trees.onnx"
SKLEARN = "sklearn"  # the kind of a model that could not be converted
XGBOOST = "xgboost"  # the kind of its trees; code of earlier versions asks the Pipeline instead
CORES = os.cpu_count() or 1
ROWS_FOR_THREADS = 1_000  # from which on threads pay


class Predictor(ABC):
    """What gives the probabilities of a model.

    Args:
        spread: For each feature some values that it had in training, and their shares, which add up to 1.
    """

    unit = "probability"

    def __init__(self, spread: Spread) -> None:
        self.spread = spread

    @abstractmethod
    def probabilities(self, features: Floats) -> Floats:
        """Of the positive label, shape (n,), from features, shape (n, features), NaN where missing."""

    def probability(self, features: Sequence[float]) -> float:
        """The same for one row, shape (features,)."""
        return float(self.probabilities(np.array([features], dtype=float))[0])

    def effects(self, features: Floats) -> Floats:
        """How far each feature moved the score, in `unit`, shape (n, features).

        For each feature the distance of the probability from its mean over the values that the feature had in training.
        For a linear score that is a weight times the distance from the mean. Friedman's partial dependence (Greedy
        function approximation, Annals of Statistics 29, 2001) is the same mean, over all other features too.
        """
        probabilities, effects = self.probabilities(features), np.empty(features.shape)
        for place, (values, shares) in enumerate(self.spread):
            redrawn = np.repeat(features, len(values), axis=0)
            redrawn[:, place] = np.tile(values, len(features))
            means = self.probabilities(redrawn).reshape(len(features), len(values)) @ shares
            effects[:, place] = probabilities - means
        return effects


class Preparation:
    """Turns features into numbers without gaps: for each category one column of 0 or 1 per value, then scaled numbers.

    Args:
        written: `fill` replaces missing features, shape (features,). `categories` and `numbers` are the features'
            places, `counts` says how many values each category has; `mean` and `scale` are those of the numbers.

    `codes` are a category's place and its first column; `scales` a number's place, mean and scale.
    """

    def __init__(self, written: Mapping[str, Any]) -> None:
        self.fill = np.array(written["fill"], dtype=float)
        self.categories = np.array(written["categories"], dtype=int)
        self.numbers = np.array(written["numbers"], dtype=int)
        self.starts = np.cumsum([0, *written["counts"]])  # of the categories' columns, then of the numbers
        self.mean, self.scale = np.array(written["mean"]), np.array(written["scale"])
        self.codes = list(zip(self.categories.tolist(), self.starts.tolist(), strict=False))
        self.scales = list(zip(self.numbers.tolist(), self.mean.tolist(), self.scale.tolist(), strict=True))
        # One row is prepared without arrays, which take longer to make than to compute with.
        self._fill, self._zeros = self.fill.tolist(), [0.0] * int(self.starts[-1])

    def filled(self, features: Floats) -> Floats:
        """Features, shape (n, features), with what replaces those that are NaN."""
        return np.where(np.isnan(features), self.fill, features)

    def rows(self, features: Floats) -> Floats:
        """Features, shape (n, features), NaN where missing, as numbers, shape (n, columns)."""
        filled = self.filled(features)
        prepared = np.zeros((len(features), self.starts[-1] + len(self.numbers)))
        codes = filled[:, self.categories].astype(int)
        prepared[np.arange(len(features))[:, None], codes + self.starts[:-1]] = 1
        prepared[:, self.starts[-1] :] = (filled[:, self.numbers] - self.mean) / self.scale
        return prepared

    def row(self, features: Sequence[float]) -> list[float]:
        """The same for one row."""
        filled = [fill if cell != cell else cell for cell, fill in zip(features, self._fill, strict=True)]
        prepared = self._zeros.copy()
        for place, start in self.codes:
            prepared[start + int(filled[place])] = 1.0
        return prepared + [(filled[place] - mean) / scale for place, mean, scale in self.scales]

    def columns(self) -> list[Sequence[int]]:
        """For each feature the columns that it becomes."""
        columns: list[Sequence[int]] = [[]] * len(self.fill)
        for number, place in enumerate(self.categories):
            columns[place] = range(self.starts[number], self.starts[number + 1])
        for number, place in enumerate(self.numbers):
            columns[place] = [int(self.starts[-1]) + number]
        return columns


class LinearPredictor(Predictor):
    """A logistic regression, with its calibration if it has one.

    Args:
        written: `prepare`, see `Preparation`; `weights` of the columns and `intercept`, of the log odds; `mean` of
            each column in training.
        spread: See `Predictor`.
    """

    unit = "log_odds"

    def __init__(self, written: Mapping[str, Any], spread: Spread) -> None:
        super().__init__(spread)
        self.prepare = Preparation(written["prepare"])
        self.weights, self.intercept = np.array(written["weights"]), float(written["intercept"])
        self.mean, self._weights = np.array(written["mean"]), self.weights.tolist()
        self._scaled = self._weights[self.prepare.starts[-1] :]

    def probabilities(self, features: Floats) -> Floats:
        """See `Predictor`."""
        filled, log_odds = self.prepare.filled(features), np.zeros(len(features))
        # Feature by feature: a matrix product adds up in an order that depends on how many rows there are.
        for place, start in self.prepare.codes:
            log_odds += self.weights[start + filled[:, place].astype(int)]
        for (place, mean, scale), weight in zip(self.prepare.scales, self._scaled, strict=True):
            log_odds += (filled[:, place] - mean) / scale * weight
        return _expit(log_odds + self.intercept)

    def probability(self, features: Sequence[float]) -> float:
        """The same for one row, to the last bit."""
        log_odds = 0.0
        for cell, weight in zip(self.prepare.row(features), self._weights, strict=True):
            log_odds += cell * weight  # `sum` would round in another way from Python 3.12 on
        return float(_expit(np.array(log_odds + self.intercept)))

    def effects(self, features: Floats) -> Floats:
        """What each feature adds to the log odds, less what it adds on average in training, shape (n, features)."""
        parts = (self.prepare.rows(features) - self.mean) * self.weights
        return np.column_stack([parts[:, list(columns)].sum(axis=1) for columns in self.prepare.columns()])


class TreePredictor(Predictor):
    """Decision trees in ONNX Runtime, added up in float64, or in float32 as XGBoost does.

    Args:
        written: `prepare`, see `Preparation`. `rounded` says whether the trees see columns as float32, as
            scikit-learn's own do. The response is the sum divided by `divisor` plus `base`; of XGBoost's trees it is
            expit(`sign` * sum). It is the probability if `link` is null, else expit(a * response + b) is, where `link`
            is a and b.
        spread: See `Predictor`.
        folder: Where the trees are.
    """

    def __init__(self, written: Mapping[str, Any], spread: Spread, folder: Path) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or importing it reports to its makers
        import onnxruntime  # takes 0.1 s and 20 MB that a linear model does not need

        super().__init__(spread)
        options = onnxruntime.SessionOptions()
        # More threads wait longer for each other than one row takes, and add up in another order.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(folder / TREES, options, providers=["CPUExecutionProvider"])
        self.prepare = Preparation(written["prepare"])
        self.rounded, self.link = bool(written["rounded"]), written["link"]
        self.divisor, self.base = float(written["divisor"]), float(written["base"])
        self.is_xgboost, self.sign = written["kind"] == XGBOOST, written.get("sign")

    def probabilities(self, features: Floats) -> Floats:
        """See `Predictor`."""
        return self._probabilities(self.prepare.rows(features))

    def probability(self, features: Sequence[float]) -> float:
        """The same for one row."""
        return float(self._probabilities(np.array([self.prepare.row(features)]))[0])

    def _probabilities(self, columns: Floats) -> Floats:
        if self.rounded:
            columns = columns.astype(np.float32)
        if self.is_xgboost:
            response = _expit(self.sign * self._sums(columns).astype(float))
        else:
            response = self._sums(columns.astype(float, copy=False)) / self.divisor + self.base
        return response if self.link is None else _expit(self.link[0] * response + self.link[1])

    def _sums(self, columns: Floats) -> Floats:
        if len(columns) < ROWS_FOR_THREADS:
            return self._run(columns)
        # Each row is still added up by one thread, so the answers do not depend on their number.
        with ThreadPoolExecutor(CORES) as pool:
            return np.concatenate(list(pool.map(self._run, np.array_split(columns, CORES))))

    def _run(self, columns: Floats) -> Floats:
        sums: Floats = self.session.run(None, {"columns": columns})[0][:, 0]
        return sums


class PipelinePredictor(Predictor):
    """The fitted Pipeline itself, of a saved model that could not be converted."""

    def __init__(self, spread: Spread, folder: Path, table: Table) -> None:
        from skops import io as skops  # loads scikit-learn, which the others do without

        super().__init__(spread)
        file = folder / "model.skops"
        # Registering the version has decided which types these may be.
        self.pipeline = skops.load(file, trusted=skops.get_untrusted_types(file=file))[1:]
        self.column = list(self.pipeline.classes_).index(table.positive)

    def probabilities(self, features: Floats) -> Floats:
        """See `Predictor`."""
        probabilities: Floats = self.pipeline.predict_proba(features)[:, self.column]
        return probabilities


def load(folder: Path, table: Table, written: Mapping[str, Any]) -> Predictor:
    """The predictor of a saved model's folder, whose `scorer.json` says what is `written`."""
    spread = [(np.array(values, dtype=float), np.array(shares)) for values, shares in written["spread"]]
    if written["kind"] == "linear":
        return LinearPredictor(written, spread)
    if written["kind"] in ("trees", XGBOOST):
        return TreePredictor(written, spread, folder)
    return PipelinePredictor(spread, folder, table)


def _expit(x: Floats) -> Floats:
    """The logistic function, without overflow."""
    return np.exp(-np.logaddexp(0, -x))
