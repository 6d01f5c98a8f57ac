"""A classifier that a model is saved with, and that does harm to its process where a row says so."""

import os
import re
import signal
import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

HARMFUL = 8  # standard deviations that the last feature, the total income, is above its mean


class Misbehaving(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Answers every row with the classes' shares, but crashes, hangs or eats memory on one with a harmful income."""

    def __init__(self, how: str = "crash") -> None:
        self.how = how

    def fit(self, x: Any, y: Any) -> "Misbehaving":
        self.classes_, counts = np.unique(y, return_counts=True)
        self.shares_ = counts / len(y)
        return self

    def predict_proba(self, x: Any) -> Any:
        if (x[:, -1] > HARMFUL).any():
            getattr(self, self.how)()
        return np.tile(self.shares_, (len(x), 1))

    def crash(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def hang(self) -> None:
        re.match("(a+)+$", "a" * 100 + "b")  # in C, so that no other thread of the process goes on

    def memory(self) -> None:
        eaten = np.zeros(100_000_000)
        eaten[::512] = 1  # one cell of each page is enough, and quick also on a busy machine
        time.sleep(3_600)
