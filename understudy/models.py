"""The model families and their search grids: swap them for your own, the rest follows.

Every family is one scikit-learn Pipeline from checked raw rows to labels; whatever it learns, imputation and scaling
included, it learns from the rows it is fitted on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import pandas as pd
from sklearn import dummy, ensemble, linear_model, tree
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from understudy.columns import Category
from understudy.schema import Table

FOLDS = 5
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


def pipeline(table: Table, classifier: BaseEstimator) -> Pipeline:
    """Raw rows -> features -> numbers without gaps on one scale -> label."""
    columns = table.encoded
    values = {i: column.values for i, column in enumerate(columns) if isinstance(column, Category)}
    categories, codes = list(values), list(values.values())
    numbers = [i for i in range(len(columns)) if i not in values]
    one_hot = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(categories=codes))
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    prepare = ColumnTransformer([("categories", one_hot, categories), ("numbers", scaled, numbers)])
    return Pipeline([("features", FunctionTransformer(table.encode)), ("prepare", prepare), ("classifier", classifier)])


def search(table: Table, rows: pd.DataFrame, family: Family, grid: Grid, seed: int, jobs: int) -> GridSearchCV:
    """Cross-validated search over a grid, refitted on all rows with the values of the best mean accuracy.

    Args:
        table: What the rows are.
        rows: The training rows, with their target.
        family: The classifier.
        grid: Values to try for each of the classifier's parameters.
        seed: Of the folds and of the classifier, where it draws at random.
        jobs: Processes; -1 is one per core. The result does not depend on it.

    Returns:
        The fitted search; its `best_estimator_` takes raw rows.
    """
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    features, *learned = pipeline(table, clone(family.classifier)).steps
    seeds = {name: seed for name in ["classifier__random_state"] if name in Pipeline(learned).get_params()}
    searched = GridSearchCV(
        Pipeline(learned).set_params(**seeds),
        {f"classifier__{name}": values for name, values in grid.items()},
        scoring={"accuracy": "accuracy", "roc_auc": "roc_auc", "neg_log_loss": "neg_log_loss"},
        refit="accuracy",
        cv=folds,
        n_jobs=jobs,
    )
    # The features depend on nothing that is fitted: computed once here, not again in every fold.
    searched.fit(features[1].transform(rows), rows[table.target.name])
    searched.best_estimator_ = Pipeline([features, *searched.best_estimator_.steps])
    return searched


def params(searched: GridSearchCV) -> dict[str, object]:
    """The best grid values, under the classifier's own names and, for the logistic, the textbook's `penalty`."""
    best = {name.removeprefix("classifier__"): value for name, value in searched.best_params_.items()}
    if "l1_ratio" in best:
        best["penalty"] = {0: "l2", 1: "l1"}[best.pop("l1_ratio")]
    return best


def digest(pipeline: Pipeline) -> str:
    """32 hexadecimal digits that two fitted Pipelines share if all they have learned is equal, to the last bit.

    Not for a Pipeline that was loaded from a file: its objects are put together in another way.
    """
    return str(joblib.hash(pipeline[1:]))


def metrics(searched: GridSearchCV) -> dict[str, float]:
    """Cross-validation's figures for the best grid values: accuracy and its spread over folds, ROC AUC, log loss."""
    at_best = {name: values[searched.best_index_] for name, values in searched.cv_results_.items()}
    folds = [at_best[f"split{fold}_test_accuracy"] for fold in range(FOLDS)]
    return {
        "Mean CV score": at_best["mean_test_accuracy"],
        "cv/score std": at_best["std_test_accuracy"],
        "cv/score min": min(folds),
        "cv/score max": max(folds),
        "cv/AUC": at_best["mean_test_roc_auc"],
        "cv/log loss": -at_best["mean_test_neg_log_loss"],
    }
