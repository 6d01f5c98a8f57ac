"""The Pipeline from checked raw rows to labels that every model family is, before and after it is fitted.

Whatever it learns, imputation and scaling included, it learns from the rows it is fitted on.
"""

import timeit
from collections.abc import Mapping
from typing import Any

import joblib
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import FixedThresholdClassifier, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from understudy.schema.columns import Category, Floats
from understudy.schema.declaration import Table

FOLDS = 5
ALL_CORES = {"lightgbm", "xgboost"}  # libraries whose classifiers take every core by themselves
AROUND = (FixedThresholdClassifier, CalibratedClassifierCV, OneVsRestClassifier)


def unfitted(classifier: BaseEstimator, values: Mapping[str, Any]) -> BaseEstimator:
    """A clone of a family's classifier with some grid values.

    It computes in one thread unless the family says otherwise: the search has a process for each core, one row is
    answered sooner, and training again gives the same to the last bit.
    """
    copy = clone(classifier).set_params(**values)
    return copy.set_params(n_jobs=1) if _library(copy) in ALL_CORES and copy.n_jobs is None else copy


def _library(classifier: BaseEstimator) -> str:
    """The package of a classifier, below what may be around it."""
    return type(_below(classifier)).__module__.partition(".")[0]


def _below(classifier: BaseEstimator) -> BaseEstimator:
    while type(classifier) in AROUND:
        classifier = classifier.estimator
    return classifier


def build(table: Table, classifier: BaseEstimator) -> Pipeline:
    """Raw rows -> features -> numbers without gaps on one scale -> label."""
    columns = table.encoded
    values = {place: column.values for place, column in enumerate(columns) if isinstance(column, Category)}
    categories, codes = list(values), list(values.values())
    numbers = [place for place in range(len(columns)) if place not in values]
    one_hot = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(categories=codes))
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    # XGBoost would take the zeros of a sparse matrix for missing.
    dense = {"sparse_threshold": 0} if _library(classifier) == "xgboost" else {}
    prepare = ColumnTransformer([("categories", one_hot, categories), ("numbers", scaled, numbers)], **dense)
    return Pipeline([("features", FunctionTransformer(table.encode)), ("prepare", prepare), ("classifier", classifier)])


def decided(
    table: Table, classifier: BaseEstimator, calibrated_on: StratifiedKFold | None, cut: float
) -> FixedThresholdClassifier:
    """A classifier behind its threshold, and behind a sigmoid if there are folds to calibrate it on."""
    if _library(classifier) == "xgboost":  # knows no labels but 0 and 1, which this makes of them
        classifier = OneVsRestClassifier(classifier)
    if calibrated_on:
        classifier = CalibratedClassifierCV(classifier, cv=calibrated_on, ensemble=False)
    return FixedThresholdClassifier(
        classifier, threshold=cut, pos_label=table.positive, response_method="predict_proba"
    )


def classifier(pipeline: Pipeline) -> BaseEstimator:
    """The classifier of a fitted Pipeline, without the calibration and the threshold around it."""
    return _below(pipeline[-1])


def positive(pipeline: Pipeline, rows: Any, table: Table) -> Floats:
    """Probabilities of the table's positive label, shape (n,)."""
    column = list(pipeline.classes_).index(table.positive)
    probabilities: Floats = pipeline.predict_proba(rows)[:, column]
    return probabilities


def seconds_a_row(pipeline: Pipeline, rows: Any) -> float:
    """What a fitted Pipeline takes for the probability of one row: the shortest of a few times."""
    [(_, features), *_], learned = pipeline.steps, pipeline[1:]
    row = features.transform(rows[:1])
    return min(timeit.repeat(lambda: learned.predict_proba(row), number=1, repeat=10))


def digest(pipeline: Pipeline) -> str:
    """32 hexadecimal digits that two fitted Pipelines share if all they have learned is equal, to the last bit.

    Not for a Pipeline that was loaded from a file: its objects are put together in another way.
    """
    return str(joblib.hash(pipeline[1:]))


def table(pipeline: Pipeline) -> Table:
    """The table that a Pipeline was fitted on."""
    fitted: Table = pipeline["features"].func.__self__
    return fitted
