"""The model families and their search grids: swap them for your own, the rest follows.

Every family is one scikit-learn Pipeline from checked raw rows to labels; whatever it learns, imputation and scaling
included, it learns from the rows it is fitted on.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import joblib
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn import dummy, ensemble, linear_model, tree
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from understudy.columns import Category
from understudy.errors import UserError
from understudy.schema import Table

FOLDS = 5
FLOOR = "DummyClassifier"
SCORES = ("accuracy", "roc_auc", "neg_log_loss")
SECONDS_TO_START = 2  # what joblib's processes take to import scikit-learn

Grid = Mapping[str, Sequence[Any]]
Cells: TypeAlias = NDArray[Any]


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


def choose(names: str) -> list[str]:
    """The families asked for, by name with commas between or "all", and the floor that every batch has.

    Raises:
        UserError: There is no such family.
    """
    known = [name for name in FAMILIES if name != FLOOR]
    chosen = known if names == "all" else names.split(",")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise UserError(f"--models: there is no family {', '.join(unknown)}", f"choose from {', '.join(known)}, or all")
    return [*dict.fromkeys(chosen), FLOOR]


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


@dataclass(frozen=True)
class Search:
    """What a search over a grid found.

    Args:
        values: The best grid values, by the classifier's own names.
        scores: At the best values, each of `SCORES` to its values on the folds, shape (FOLDS,).
        pipeline: Fitted on all training rows with the best values; takes raw rows.
    """

    values: Mapping[str, Any]
    scores: Mapping[str, NDArray[np.float64]]
    pipeline: Pipeline


def search(table: Table, rows: pd.DataFrame, family: Family, grid: Grid, seed: int, jobs: int) -> Search:
    """Cross-validated search over a grid, as GridSearchCV does it: the first candidate of the best mean accuracy.

    What candidates have in common is computed once: the features, each fold's preparation, a forest's trees.

    Args:
        table: What the rows are.
        rows: The training rows, with their target.
        family: The classifier.
        grid: Values to try for each of the classifier's parameters.
        seed: Of the folds and of the classifier, where it draws at random.
        jobs: Processes; -1 is one per core. The result does not depend on it.
    """
    whole = pipeline(table, clone(family.classifier))
    if "random_state" in whole[-1].get_params():
        whole[-1].set_params(random_state=seed)
    x, y = whole[0].transform(rows), rows[table.target.name].to_numpy()
    candidates = list(ParameterGrid(grid))
    chains = _chains(whole[-1], candidates)
    tasks = (
        delayed(_chain_scores)(whole[-1], [candidates[i] for i in chain], *fold)
        for fold in _folds(whole[1:-1], x, y.astype(str), seed)  # on Python objects scores take as long as fits
        for chain in chains
    )
    found = _computed(tasks, FOLDS * len(chains), jobs)
    scores = np.empty((len(candidates), FOLDS, len(SCORES)))
    for number, chain_scores in enumerate(found):
        fold, chain = divmod(number, len(chains))
        scores[chains[chain], fold] = chain_scores
    best = int(scores[:, :, 0].mean(axis=1).argmax())
    whole[-1].set_params(**candidates[best])
    fitted = Pipeline([whole.steps[0], *whole[1:].fit(x, y).steps])
    return Search(candidates[best], dict(zip(SCORES, scores[best].T, strict=True)), fitted)


def _chains(classifier: BaseEstimator, candidates: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The candidates' indices; in one list, by size, those that a warm start makes from one another."""
    grows = {"n_estimators", "warm_start"} <= classifier.get_params().keys()
    chains: dict[str, list[int]] = {}
    for i in sorted(range(len(candidates)), key=lambda i: candidates[i].get("n_estimators", 0)):
        rest = {**candidates[i], "n_estimators": None} if grows else i
        chains.setdefault(repr(rest), []).append(i)
    return list(chains.values())


def _folds(prepare: Pipeline, x: Cells, y: Cells, seed: int) -> Iterator[tuple[Cells, Cells, Cells, Cells]]:
    """Prepared rows and labels to fit on, and to score, for each fold; nothing is learned from those to score."""
    for fitted, kept in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
        own = clone(prepare)
        yield own.fit_transform(x[fitted]), y[fitted], own.transform(x[kept]), y[kept]


def _chain_scores(
    classifier: BaseEstimator, chain: Sequence[Mapping[str, Any]], x: Cells, y: Cells, kept_x: Cells, kept_y: Cells
) -> list[list[float]]:
    """The candidates' scores on the rows that were kept, in the order of `SCORES`."""
    classifier = clone(classifier)
    if len(chain) > 1:
        # A forest of 400 trees is the first 400 of the 700 with the same seed.
        classifier.set_params(warm_start=True)
    scores = []
    for candidate in chain:
        classifier.set_params(**candidate).fit(x, y)
        scored = check_scoring(classifier, scoring=list(SCORES))(classifier, kept_x, kept_y)
        scores.append([scored[name] for name in SCORES])
    return scores


def _computed(tasks: Iterator[Any], count: int, jobs: int) -> list[Any]:
    """The results of `count` tasks, in processes if the first one says that starting them pays."""
    started = time.perf_counter()
    function, arguments, _ = next(tasks)
    first = function(*arguments)
    left = (time.perf_counter() - started) * (count - 1)
    return [first, *Parallel(n_jobs=jobs if left > SECONDS_TO_START else 1)(tasks)]


def params(searched: Search) -> dict[str, object]:
    """The best grid values, under the classifier's own names and, for the logistic, the textbook's `penalty`."""
    best = dict(searched.values)
    if "l1_ratio" in best:
        best["penalty"] = {0: "l2", 1: "l1"}[best.pop("l1_ratio")]
    return best


def digest(pipeline: Pipeline) -> str:
    """32 hexadecimal digits that two fitted Pipelines share if all they have learned is equal, to the last bit.

    Not for a Pipeline that was loaded from a file: its objects are put together in another way.
    """
    return str(joblib.hash(pipeline[1:]))


def metrics(searched: Search) -> dict[str, float]:
    """Cross-validation's figures for the best grid values: accuracy and its spread over folds, ROC AUC, log loss."""
    accuracy, area, log_likelihood = (searched.scores[name] for name in SCORES)
    return {
        "Mean CV score": float(accuracy.mean()),
        "cv/score std": float(accuracy.std()),
        "cv/score min": float(accuracy.min()),
        "cv/score max": float(accuracy.max()),
        "cv/AUC": float(area.mean()),
        "cv/log loss": float(-log_likelihood.mean()),
    }
