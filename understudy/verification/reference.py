"""Models of every make that training may write, fitted quickly, to compare a model with that somebody else brings."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid, StratifiedKFold
from sklearn.pipeline import Pipeline

from understudy import families
from understudy.schema.declaration import Table
from understudy.scoring import pipelines


def shapes(table: Table, rows: pd.DataFrame, family: families.Family) -> Iterator[Pipeline]:
    """Fitted Pipelines of every make that a search over one of a family's grids may find, quickly.

    They differ from what a search finds in numbers only: of each parameter's numbers the first is tried, and of trees
    two. So they say what a model of the family is made of, whatever it has learned.

    Args:
        table: What the rows are.
        rows: With their target, at least `FOLDS` of each class.
        family: The classifier and its grids.
    """
    folds = StratifiedKFold(pipelines.FOLDS, shuffle=True, random_state=0)
    for candidate in {repr(values): values for grid in (family.quick, family.book) for values in _makes(grid)}.values():
        classifier = clone(family.classifier).set_params(**candidate)
        few = {"n_estimators": 2, "random_state": 0}
        classifier.set_params(**{name: value for name, value in few.items() if name in classifier.get_params()})
        for calibrated_on in (None, folds):
            features, *steps = pipelines.build(
                table, pipelines.decided(table, clone(classifier), calibrated_on, 0.5)
            ).steps
            fitted = Pipeline(steps).fit(features[1].transform(rows), rows[table.target.name].to_numpy())
            yield Pipeline([features, *fitted.steps])


def _makes(grid: families.Grid) -> list[Mapping[str, Any]]:
    """A grid's candidates with the first number of each parameter only."""
    kinds = {name: {_kind(value): value for value in reversed(values)} for name, values in grid.items()}
    return list(ParameterGrid({name: list(values.values()) for name, values in kinds.items()}))


def _kind(value: object) -> str:
    return "a number" if type(value) in (int, float) else repr(value)
