"""Models of every make that training may write, fitted quickly, to compare a model with.

That model is one that somebody else brings, or one that training has just made of another library's types: what could
not be let in later is not saved.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.model_selection import ParameterGrid, StratifiedKFold
from sklearn.pipeline import Pipeline
from skops import io as skops

from understudy.errors import UserError, visible
from understudy.families import FAMILIES, Family, Grid
from understudy.schema.declaration import Table
from understudy.scoring import model_files, pipelines
from understudy.verification.skops_structure import Place, structure

MOST_ROWS = 500  # of each class, which a model is fitted on
SHOWN = 200  # characters of what is foreign
OF_THE_PROJECT = {"numpy", "scipy", "sklearn", "understudy"}  # packages whose types need no name
# What LightGBM's and XGBoost's models are made of besides; `booster_structure` knows what these have learned.
KNOWN = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
}


def known(table: Table, enough: pd.DataFrame, family: Family) -> frozenset[Place]:
    """The places that a model of a family may have; the rows are `some`."""
    made = (skops.dumps(pipeline) for pipeline in shapes(table, enough, family))
    return frozenset[Place]().union(*(structure(data, family.types) for data in made))


def foreign(file: Path | bytes, family: Family, known: frozenset[Place]) -> str | None:
    """What a skops file has that no model of its family has, for people; None if there is nothing."""
    places = structure(file, family.types) - known
    return _named(min(places, key=lambda place: (len(place), place))) if places else None


def _named(place: Place) -> str:
    """Where something is in a model, and what it is, for people."""
    *way, last = [step for step in place if step not in ("content", "*") and "Node builtins." not in step]
    keys = [step for step in way if " " not in step]
    return visible(f"{'.'.join(keys)} is {last.rpartition(' ')[2] if 'Node ' in last else last}"[:SHOWN])


def check_trained(name: str, pipeline: Pipeline, table: Table, rows: pd.DataFrame) -> None:
    """Refuse a model of a family that nobody could register, with a library in it that the project does not know.

    The rows, with their target, are those that `register.py` will compare it on.

    Raises:
        UserError: It has types that the family does not name, or something that follows from the rows.
    """
    family, classifier = FAMILIES[name], pipelines.classifier(pipeline)
    parts = [classifier, *classifier.get_params().values()]
    if {_package(f"{type(part).__module__}.") for part in parts} <= {*OF_THE_PROJECT, "builtins"}:
        return  # models of scikit-learn's classifiers are alike: docs/decisions/0009-manifest.md
    kinds = [kind for kind in model_files.types(pipeline) if kind not in KNOWN]
    others = [kind for kind in kinds if _package(kind) not in OF_THE_PROJECT]
    if unnamed := [kind for kind in others if kind not in family.types]:
        fix = f"if you trust that library, write into its Family in understudy/families.py: types={(*others,)}"
        raise UserError(f"{name} is made of types that its family does not name: {', '.join(unnamed)}", fix)
    if what := foreign(skops.dumps(pipeline), family, known(table, some(table, rows), family)):
        fix = "choose another classifier: no model of this one can be told from what somebody else has planted"
        raise UserError(f"{name} is made of something that follows from its rows: {what}", fix)


def _package(kind: str) -> str:
    return kind.partition(".")[0]


def shapes(table: Table, rows: pd.DataFrame, family: Family) -> Iterator[Pipeline]:
    """Fitted Pipelines of every make that a search over one of a family's grids may find, quickly.

    They differ from what a search finds in numbers only: of each parameter's numbers the first is tried, and of trees
    two. So they show what a model of the family is made of, whatever it has learned. The rows have their target, and
    at least `FOLDS` of each class.
    """
    folds = StratifiedKFold(pipelines.FOLDS, shuffle=True, random_state=0)
    for candidate in {repr(values): values for grid in (family.quick, family.book) for values in _makes(grid)}.values():
        classifier = pipelines.unfitted(family.classifier, candidate)
        few = {"n_estimators": 2, "random_state": 0}
        classifier.set_params(**{name: value for name, value in few.items() if name in classifier.get_params()})
        for calibrated_on in (None, folds):
            decided = pipelines.decided(table, classifier, calibrated_on, 0.5)
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
