"""What can be said about one column, and what is wrong with rows that should follow it.

The one check of training and of scoring. It works on cells of any type, since rows come from files and from clients.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Cells: TypeAlias = "pd.Series[Any]"
Mask: TypeAlias = NDArray[np.bool_]

ROWS_SHOWN = 20


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one column: what, in which rows (1 is the first), and what is allowed.

    It holds nothing of what the rows said.
    """

    column: str
    problem: str
    allowed: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.rows[:ROWS_SHOWN]))
        more = len(self.rows) - ROWS_SHOWN
        where = f" in row {shown}" if self.rows else ""
        where += f" and {more} more" if more > 0 else ""
        return f"{self.column}: {self.problem}{where} (allowed: {self.allowed})"


@dataclass(frozen=True)
class Category:
    """A column whose values come from a list; their order gives the codes 0, 1, ...

    Where `sensitive`, every run reports how the groups that it makes fare.
    """

    name: str
    values: tuple[str, ...] | tuple[int, ...]
    missing: bool = False
    sensitive: bool = False
    outside = "unknown category"

    @property
    def allowed(self) -> str:
        """The values, for people."""
        return ", ".join(map(str, self.values))

    @property
    def is_text(self) -> bool:
        """Whether its values are text, else numbers."""
        return isinstance(self.values[0], str)

    def holds(self, cells: Cells) -> Mask:
        """Which cells have one of the values."""
        return cells.isin(self.values).to_numpy()


@dataclass(frozen=True)
class Number:
    """A column of finite numbers from `low` to `high`, both included, in `unit`."""

    name: str
    unit: str
    low: float
    high: float
    missing: bool = False
    outside = "out of range"
    is_text = False

    @property
    def allowed(self) -> str:
        """The range and the unit, for people."""
        low = "at most" if self.low == -math.inf else f"{self.low:.12g} to"
        return f"{low} {self.high:.12g} {self.unit}"

    def holds(self, cells: Cells) -> Mask:
        """Which cells are within the range."""
        numbers: NDArray[np.float64] = cells.to_numpy(dtype=float)
        return np.isfinite(numbers) & (self.low <= numbers) & (numbers <= self.high)


@dataclass(frozen=True)
class Identifier:
    """A column of text that names each row, once."""

    name: str
    missing = False
    outside = "repeated"
    is_text = True
    allowed = "a name of its own in every row"

    def holds(self, cells: Cells) -> Mask:
        """Which cells have not come before."""
        return ~cells.duplicated().to_numpy()


Column = Category | Number | Identifier


def faults(rows: pd.DataFrame, columns: Sequence[Column]) -> Iterator[Fault]:
    """Everything that is wrong with rows that should have exactly these columns, in any order."""
    names = [column.name for column in columns]
    if not len(rows):
        yield Fault("the table", "no rows", "at least one")
    for name in dict.fromkeys(map(str, rows.columns[rows.columns.duplicated()])):
        yield Fault(name, "column is repeated", "exactly one column of this name")
    for name in dict.fromkeys(map(str, rows.columns)):
        if name not in names:
            yield Fault(name, "column is not known", ", ".join(names))
    for column in columns:
        if column.name not in rows:
            yield Fault(column.name, "column is missing", column.allowed)
        elif isinstance(cells := rows[column.name], pd.Series):
            yield from _cell_faults(column, cells)


def fault(column: str, problem: str, allowed: str, where: Mask) -> Iterator[Fault]:
    """One fault if it is anywhere, shape (n,), else none."""
    rows = np.flatnonzero(where)
    if len(rows):
        yield Fault(column, problem, allowed, tuple(int(row) + 1 for row in rows))


def typed(cells: Cells, column: Column) -> Cells:
    """Cells of a file or a database as the column's type; what does not fit stays as it is, for `faults` to find.

    Numbers and booleans in a column of text become what a CSV file would say; so codes of categories are no category.
    """
    if column.is_text:
        return cells if cells.dtype == "str" else cells.astype(object).map(_text, na_action="ignore").infer_objects()
    stored = cells if _is_numeric(cells) or cells.dtype == "str" else _readable(cells)
    numbers = pd.to_numeric(stored, errors="coerce").astype(float)
    unread = numbers.isna() & cells.notna()
    return cells.astype(object).where(unread, numbers) if unread.any() else numbers


def _readable(cells: Cells) -> Cells:
    """Without what pandas would take for numbers although it is none: booleans, dates."""
    return cells.astype(object).where(cells.map(lambda cell: isinstance(cell, str) or _is_number(cell)))


def _text(cell: object) -> object:
    if isinstance(cell, bool | np.bool_):
        return str(bool(cell))
    if not _is_number(cell):
        return cell
    return str(int(cell)) if isinstance(cell, Integral) else np.format_float_positional(float(cell), trim="-")


def _cell_faults(column: Column, cells: Cells) -> Iterator[Fault]:
    empty = cells.isna().to_numpy()
    wrong = ~empty & ~_is_kind(cells, column.is_text)
    outside = ~empty & ~wrong
    outside[outside] = ~column.holds(cells[outside])
    if not column.missing:
        yield from fault(column.name, "missing", column.allowed, empty)
    yield from fault(column.name, "not text" if column.is_text else "not a number", column.allowed, wrong)
    yield from fault(column.name, column.outside, column.allowed, outside)


def _is_kind(cells: Cells, text: bool) -> Mask:
    if _is_numeric(cells):
        return np.full(len(cells), not text)
    if isinstance(cells.dtype, pd.StringDtype):
        return np.full(len(cells), text)
    if text:
        return np.array([isinstance(cell, str) for cell in cells], dtype=bool)
    return np.array([_is_number(cell) for cell in cells], dtype=bool)


def _is_numeric(cells: Cells) -> bool:
    return pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)


def _is_number(cell: object) -> TypeGuard[Real | Decimal]:
    return isinstance(cell, Real | Decimal) and not isinstance(cell, bool | np.bool_)
