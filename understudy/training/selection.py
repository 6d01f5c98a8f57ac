"""Which of a batch's families is the best in cross-validation, by what the table selects by."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from mlflow.entities import Run

from understudy.errors import UserError
from understudy.families import FLOOR
from understudy.schema.declaration import Table
from understudy.table import TABLE
from understudy.tracking import family_runs, runs

# What of cross-validation `Table.select_by` decides by; the lowest of several figures counts.
FIGURES = {
    "accuracy": ("Mean CV score",),
    "AUC": ("cv/AUC",),
    "log loss": ("cv/log loss", "cv/log loss calibrated"),
    "cost": ("cv/cost",),
}
LOWER_IS_BETTER = ("log loss", "cost")
TIE = 0.0005  # two figures that look alike to three digits


def figure(select_by: str, metric: Callable[[str], float]) -> float:
    """The figure of a family that decides; `metric` gives its metrics by name."""
    return min(map(metric, FIGURES[select_by]))


def ranked(candidates: list[Run]) -> list[Run]:
    """The runs by what the table selects by, of equal ones by log loss, the best first; without the floor's."""
    searched = [run for run in candidates if family_runs.family_name(run) != FLOOR]
    deciding = (TABLE.select_by, "log loss")
    return sorted(
        searched, key=lambda run: [_merit(select_by, partial(runs.metric, run)) for select_by in deciding], reverse=True
    )


def best_family(candidates: list[Run]) -> Run:
    """The first of those that are `ranked`.

    Raises:
        UserError: There is none but the floor.
    """
    if not (searched := ranked(candidates)):
        raise UserError(f"of the newest batch no run but that of {FLOOR} is left", "python train.py")
    return searched[0]


def doubts(table: Table, families: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """What should make people doubt the choice of the best of a batch.

    The families, the floor among them, have the metrics of cross-validation.
    """
    merits = {name: _merit(table.select_by, metrics.__getitem__) for name, metrics in families.items()}
    floor = merits.pop(FLOOR)
    if max(merits.values()) < floor + TIE:
        advice = ': try select_by="AUC" in understudy/table.py' if table.select_by == "accuracy" else ""
        yield f"by {table.select_by} no family is better than {FLOOR} ({abs(floor):.3f}){advice}"
    if table.select_by == "accuracy" and table.false_positive_cost != table.false_negative_cost:
        yield 'the costs of wrong answers choose thresholds but not the best: select_by="cost" in understudy/table.py'


def _merit(select_by: str, metric: Callable[[str], float]) -> float:
    value = figure(select_by, metric)
    return -value if select_by in LOWER_IS_BETTER else value
