"""The model families and their search grids: swap them for your own, the rest follows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from sklearn import dummy, ensemble, linear_model, tree
from sklearn.base import BaseEstimator

from understudy.errors import UserError

FLOOR = "DummyClassifier"
Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Family:
    """A classifier, the quick grid that is searched by default, and the textbook's.

    The types are those of other libraries than scikit-learn, LightGBM and XGBoost that its models may be made of.
    """

    classifier: BaseEstimator
    quick: Grid
    book: Grid
    types: Collection[str] = ()

    def __post_init__(self) -> None:
        called, known = type(self.classifier).__name__, self.classifier.get_params()
        for name, values in (*self.quick.items(), *self.book.items()):
            if name not in known:
                close = ", ".join(get_close_matches(name, known, 3)) or ", ".join(known)
                raise UserError(f"the grid of {called} has {name}, which it does not take", f"write one of {close}")
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                fix = f'write "{name}": [first, second] in understudy/families.py'
                raise UserError(f"the grid of {called} has no list of values for {name}", fix)
        if isinstance(self.types, str):
            raise UserError(f"the types of {called} are a text", f'write types=("{self.types}",)')
        if not hasattr(self.classifier, "predict_proba"):
            fix = "choose one that has, or wrap it in scikit-learn's CalibratedClassifierCV"
            raise UserError(f"{called} has no predict_proba as it is set up", fix)


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
