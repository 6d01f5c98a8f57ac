"""The model families and their search grids: swap them for your own, the rest follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn import dummy, ensemble, linear_model, tree
from sklearn.base import BaseEstimator

FLOOR = "DummyClassifier"
Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Family:
    """A classifier, the quick grid that is searched by default, and the textbook's."""

    classifier: BaseEstimator
    quick: Grid
    book: Grid


FAMILIES = {
    "DecisionTreeClassifier": Family(
        tree.DecisionTreeClassifier(),
        quick={"max_depth": [3, 5, 7], "criterion": ["gini", "entropy"]},
        book={"max_depth": [3, 5, 7, 9, 11, 13], "criterion": ["gini", "entropy"]},
    ),
    "LogisticRegression": Family(
        linear_model.LogisticRegression(solver="liblinear"),
        quick={"C": [10, 1, 0.1], "l1_ratio": [0]},
        book={"C": [100, 10, 1, 0.1, 0.01], "l1_ratio": [1, 0]},
    ),
    "RandomForestClassifier": Family(
        ensemble.RandomForestClassifier(),
        quick={"n_estimators": [100], "max_depth": [5, 15]},
        book={
            "n_estimators": [400, 700],
            "max_depth": [15, 20, 25],
            "criterion": ["gini", "entropy"],
            "max_leaf_nodes": [50, 100],
        },
    ),
    FLOOR: Family(dummy.DummyClassifier(strategy="prior"), quick={}, book={}),
}
