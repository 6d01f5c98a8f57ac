"""The Pipeline from checked raw rows to labels that every model family is, before and after it is fitted.

Whatever it learns, imputation and scaling included, it learns from the rows it is fitted on.
"""

from typing import Any

import joblib
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import FixedThresholdClassifier, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from understudy.schema.columns import Category, Floats
from understudy.schema.declaration import Table

FOLDS = 5


def build(table: Table, classifier: BaseEstimator) -> Pipeline:
    """Raw rows -> features -> numbers without gaps on one scale -> label."""
    columns = table.encoded
    values = {place: column.values for place, column in enumerate(columns) if isinstance(column, Category)}
    categories, codes = list(values), list(values.values())
    numbers = [place for place in range(len(columns)) if place not in values]
    one_hot = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(categories=codes))
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    prepare = ColumnTransformer([("categories", one_hot, categories), ("numbers", scaled, numbers)])
    return Pipeline([("features", FunctionTransformer(table.encode)), ("prepare", prepare), ("classifier", classifier)])


def decided(
    table: Table, classifier: BaseEstimator, calibrated_on: StratifiedKFold | None, cut: float
) -> FixedThresholdClassifier:
    """A classifier behind its threshold, and behind a sigmoid if there are folds to calibrate it on."""
    if calibrated_on:
        classifier = CalibratedClassifierCV(classifier, cv=calibrated_on, ensemble=False)
    return FixedThresholdClassifier(
        classifier, threshold=cut, pos_label=table.positive, response_method="predict_proba"
    )


def classifier(pipeline: Pipeline) -> BaseEstimator:
    """The classifier of a fitted Pipeline, without the calibration and the threshold around it."""
    estimator = pipeline[-1].estimator
    return estimator.estimator if isinstance(estimator, CalibratedClassifierCV) else estimator


def positive(pipeline: Pipeline, rows: Any, table: Table) -> Floats:
    """Probabilities of the table's positive label, shape (n,)."""
    column = list(pipeline.classes_).index(table.positive)
    probabilities: Floats = pipeline.predict_proba(rows)[:, column]
    return probabilities


def digest(pipeline: Pipeline) -> str:
    """32 hexadecimal digits that two fitted Pipelines share if all they have learned is equal, to the last bit.

    Not for a Pipeline that was loaded from a file: its objects are put together in another way.
    """
    return str(joblib.hash(pipeline[1:]))


def table(pipeline: Pipeline) -> Table:
    """The table that a Pipeline was fitted on."""
    fitted: Table = pipeline["features"].func.__self__
    return fitted
