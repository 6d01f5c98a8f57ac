"""The columns of the row log, which the live server writes and the monitor reads; docs/scoring.md says what each is.

Raw and encoded rows have one schema: what every row has, then the cells of raw rows, then those of encoded ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from understudy.schema.declaration import Table
from understudy.schema.faults import Fault

Outcome: TypeAlias = tuple[str | None, float | None, str | None]  # label and probability of a row, or its fault

TIME, DAY = "time", "day"  # when a row was answered, and the day of that, which names the folder that its file is in
# What the log has of every row, and whether it is text.
COLUMNS = {
    TIME: False,
    "id": True,
    "request": True,
    "version": True,
    "stage": True,
    "threshold": False,
    "form": True,
    "label": True,
    "probability": False,
    "fault": True,
    "shadow_version": True,
    "shadow_label": True,
    "shadow_probability": False,
    "shadow_fault": True,
}


class Cause(NamedTuple):
    """Why rows were refused, in words that no client can choose; rows are numbered from 1, none stand for them all."""

    column: str
    fault: str
    rows: tuple[int, ...]

    @classmethod
    def of(cls, fault: Fault, table: Table) -> "Cause":
        """The cause that a fault of a table's rows is."""
        known = {column.name for column in (*table.columns, *table.encoded)}
        # A label that clients could choose would grow the metrics without bound.
        column = fault.column if fault.column in known or not fault.problem.startswith("column") else "other"
        return cls(column, fault.problem.partition(", for ")[0], fault.rows)


def first_causes(causes: Iterable[Cause]) -> dict[int, str]:
    """For each row that is refused, 0 for all rows, the first thing that is wrong with it."""
    return {row: f"{cause.column}: {cause.fault}" for cause in reversed([*causes]) for row in cause.rows or (0,)}


class LoggedVersion(NamedTuple):
    """The version that answered: number, stage and threshold; negative and positive label; and its table's columns.

    Args:
        types: Form ("raw", "encoded") to column to whether its cells are text.
    """

    number: str
    stage: str
    threshold: float
    labels: tuple[str, str]
    types: dict[str, dict[str, bool]]


class LoggedAnswer(NamedTuple):
    """The rows of a request that were accepted, n of them, and what was answered when.

    Args:
        version: As `LoggedVersion` has it.
        time: In seconds since 1970.
        request: The request's id.
        form: "raw" or "encoded".
        rows: As columns.
        ids: That the rows brought.
        probabilities: Of the positive label, shape (n,).
        faults: Row, 1 is the first, to why it was refused, 0 for all of them; if there are any, nothing else is kept.
        sent: A refused request's body and Content-Type, for the shadow alone.
        shadow_version: The shadow that was asked; None if none was, or if it gave no answer.
        outcomes: What that says of each row of the log; of a refused one often nothing but that it refuses it or not.
    """

    version: tuple[Any, ...]
    time: float
    request: str
    form: str | None = None
    rows: dict[str, list[Any]] | None = None
    ids: list[str | None] | None = None
    probabilities: list[float] = []  # noqa: RUF012
    faults: dict[int, str] = {}  # noqa: RUF012
    sent: tuple[bytes, str] | None = None
    shadow_version: str | None = None
    outcomes: list[Outcome] = []  # noqa: RUF012

    @property
    def size(self) -> int:
        """How many rows of the log it makes."""
        return len(self.probabilities) or len(self.faults)

    @property
    def labels(self) -> list[str]:
        """The answers, shape (n,)."""
        version = LoggedVersion(*self.version)
        return [version.labels[probability >= version.threshold] for probability in self.probabilities]


def name(form: str, column: str) -> str:
    """What the log calls a cell's column, in rows of the form "raw" or "encoded"."""
    if form == "encoded":
        return f"encoded_{column}"
    return f"row_{column}" if column in (*COLUMNS, DAY) else column


def row_ids(ids: Sequence[str | None] | None, request: str, count: int) -> list[str]:
    """The ids of a request's rows: those that they bring, and for others the request's id and their number from 1 on.

    Args:
        ids: Of each row; None for rows, or for all of them, that bring none.
        request: The request's id.
        count: How many rows there are.
    """
    return [given or f"{request}:{number}" for number, given in enumerate(ids or [None] * count, 1)]


def columns(types: Mapping[str, Mapping[str, bool]]) -> dict[str, bool]:
    """All columns of the log in their order, and whether each holds text.

    Args:
        types: Form to column of a table to whether its cells are text.
    """
    cells = {name(form, column): is_text for form in types for column, is_text in types[form].items()}
    return COLUMNS | cells
