"""A classifier that is as good as a logistic regression on every held-out row, and misbehaves where a row says so."""

import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

HARMFUL = 8  # standard deviations that the last feature, the total income, is above its mean
SLOW = 0.4  # seconds, above the table's limit of 0.3


class TurnsBad(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Answers as a logistic regression, but fails, is slow or is sure of "no" on a row with a harmful income."""

    def __init__(self, how: str = "fail") -> None:
        self.how = how

    def fit(self, x: Any, y: Any) -> "TurnsBad":
        self.fitted_ = LogisticRegression(solver="liblinear").fit(x, y)
        self.classes_ = self.fitted_.classes_
        return self

    def predict_proba(self, x: Any) -> Any:
        probabilities, is_harmful = self.fitted_.predict_proba(x), x[:, -1] > HARMFUL
        return getattr(self, self.how)(probabilities, is_harmful) if is_harmful.any() else probabilities

    def fail(self, probabilities: Any, is_harmful: Any) -> Any:
        raise RuntimeError("a row that was not thought of")

    def slow(self, probabilities: Any, is_harmful: Any) -> Any:
        time.sleep(SLOW)
        return probabilities

    def shift(self, probabilities: Any, is_harmful: Any) -> Any:
        return np.where(is_harmful[:, np.newaxis], [0.9, 0.1], probabilities)
