"""Models of every make that training may write, fitted quickly, to compare a model with that somebody else brings."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid, StratifiedKFold
from sklearn.pipeline import Pipeline

from understudy.families import Family, Grid
from understudy.schema.declaration import Table
from understudy.scoring import pipelines

MOST_ROWS = 500  # of each class, which a model is fitted on


def shapes(table: Table, rows: pd.DataFrame, family: Family) -> Iterator[Pipeline]:
    """Fitted Pipelines of every make that a search over one of a family's grids may find, quickly.

    They differ from what a search finds in numbers only: of each parameter's numbers the first is tried, and of trees
    two. So they show what a model of the family is made of, whatever it has learned. The rows have their target, and
    at least `FOLDS` of each class.
    """
    folds = StratifiedKFold(pipelines.FOLDS, shuffle=True, random_state=0)
    for candidate in {repr(values): values for grid in (family.quick, family.book) for values in _makes(grid)}.values():
        classifier = clone(family.classifier).set_params(**candidate)
        few = {"n_estimators": 2, "random_state": 0}
        classifier.set_params(**{name: value for name, value in few.items() if name in classifier.get_params()})
        for calibrated_on in (None, folds):
            decided = pipelines.decided(table, clone(classifier), calibrated_on, 0.5)
            features, *steps = pipelines.build(table, decided).steps
            fitted = Pipeline(steps).fit(features[1].transform(rows), rows[table.target.name].to_numpy())
            yield Pipeline([features, *fitted.steps])


def _makes(grid: Grid) -> list[Mapping[str, Any]]:
    """A grid's candidates with the first number of each parameter only."""
    kinds = {name: {_kind(value): value for value in reversed(values)} for name, values in grid.items()}
    return list(ParameterGrid({name: list(values.values()) for name, values in kinds.items()}))


def _kind(value: object) -> str:
    return "a number" if type(value) in (int, float) else repr(value)


def some(table: Table, rows: pd.DataFrame) -> pd.DataFrame:
    """At most `MOST_ROWS` of each class, and at least `FOLDS`, some of them repeated if there are fewer.

    A column that is missing in all of them gets a value in one: the rows that a model has learned from may have some.
    """
    classes = [rows[rows[table.target.name] == label][:MOST_ROWS] for label in (table.negative, table.positive)]
    enough = pd.concat([pd.concat([part] * -(-pipelines.FOLDS // len(part))) for part in classes], ignore_index=True)
    for column in table.columns:
        if enough[column.name].isna().all():
            cells = enough[column.name].astype(object)
            enough[column.name] = cells.where(enough.index > 0, column.example).infer_objects()
    return enough
