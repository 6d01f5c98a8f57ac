"""What a table declares of one column, and the check that finds what is wrong with rows.

Training and scoring share this check. It works on lists of cells of any type, since rows come from files and from
clients, and loads no pandas, which a server can do without. Rows without faults are looked at only once.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

Cells: TypeAlias = list[Any]
Rows: TypeAlias = "Mapping[str, Any] | pd.DataFrame"
Floats: TypeAlias = "NDArray[np.float64]"
Labels: TypeAlias = "NDArray[np.int_]"

ROWS_SHOWN = 20  # and as many columns that are not known
NAME_SHOWN = 60  # characters of a column's name


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one column: what, in which rows (1 is the first), and what is allowed.

    It holds nothing of what is in the cells.
    """

    column: str
    problem: str
    allowed: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.rows[:ROWS_SHOWN]))
        more = len(self.rows) - ROWS_SHOWN
        places = f" in row {shown}{f' and {more} more' if more > 0 else ''}" if self.rows else ""
        return f"{self.column}: {self.problem}{places} (allowed: {self.allowed})"


@dataclass(frozen=True)
class Category:
    """A column whose values come from a list; their order gives the codes 0, 1, ...

    If it is `sensitive`, every run reports how the model treats each of its groups.
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

    def holds(self, cell: Any) -> bool:
        """Whether a cell of the right kind is one of the values."""
        return bool(cell in self.values)


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

    def holds(self, cell: Any) -> bool:
        """Whether a number is finite and within the range."""
        try:
            return bool(self.low <= cell <= self.high and math.isfinite(cell))
        except OverflowError:  # an integer that no float holds
            return False


@dataclass(frozen=True)
class Identifier:
    """A column of text that names each row; no two rows share a name."""

    name: str
    missing = False
    is_text = True
    allowed = "a name of its own in every row"


Column = Category | Number | Identifier


def listed(cells: Any) -> Cells:
    """The cells of one column as a list, with None for a missing one.

    In a Series NaN is a missing cell. In a list, as JSON makes it, NaN stays, and is a fault.
    """
    as_list: Cells = cells if isinstance(cells, list) else cells.to_numpy(dtype=object, na_value=None).tolist()
    return as_list


def accepts(column: Column) -> Callable[[Cells], bool]:
    """A quick check of a column's cells. If it says yes nothing is wrong with them; a no may be a false alarm.

    The check raises TypeError or OverflowError instead of saying no to cells that cannot be compared.
    """
    empty = {None} if column.missing else set()
    if isinstance(column, Identifier):
        return lambda cells: set(map(type, cells)) == {str} and len(set(cells)) == len(cells)
    if isinstance(column, Category) and column.is_text:
        return frozenset({*column.values, *empty}).issuperset
    kinds = frozenset({int, float, *map(type, empty)})
    if isinstance(column, Category):
        values = frozenset({*column.values, *empty})
        return lambda cells: kinds.issuperset(map(type, cells)) and values.issuperset(cells)
    low, high = column.low, column.high

    def within(cells: Cells) -> bool:
        if len(cells) == 1:
            [cell] = cells
            return type(cell) in kinds and (cell is None or (low <= cell <= high and math.isfinite(cell)))
        if not kinds.issuperset(map(type, cells)):
            return False
        numbers = [cell for cell in cells if cell is not None] if None in cells else cells
        # A sum is not finite where a number is not, and NaN would slip through a minimum.
        return not numbers or (math.isfinite(sum(numbers)) and low <= min(numbers) and max(numbers) <= high)

    return within


def find_faults(rows: Rows, columns: Sequence[Column], names: bool = False) -> Iterator[Fault]:
    """Everything that is wrong with rows that should have exactly these columns, in any order.

    Args:
        rows: As columns.
        columns: That they should have.
        names: Whether to call an unknown column by its name, which is whatever a client sent; else by its place.
    """
    given, known = list(map(str, rows)), {column.name for column in columns}
    counts = {len(rows[name]) for name in list[Any](rows)}
    if not any(counts):
        yield Fault("the table", "no rows", "at least one")
    elif len(counts) > 1:
        yield Fault("the table", "columns of unequal length", "a cell of each column in every row")
    yield from repeated(given, names)
    unknown = {name: place for place, name in enumerate(given) if name not in known}
    yield from _columns(unknown, "column is not known", ", ".join(column.name for column in columns), names)
    for column in columns:
        if column.name not in rows:
            yield Fault(column.name, "column is missing", column.allowed)
        elif given.count(column.name) == 1:
            yield from _cell_faults(column, listed(rows[column.name]))


def repeated(given: Sequence[str], names: bool = False) -> Iterator[Fault]:
    """A fault for each column whose name has come before, called by its name or by its place."""
    first: dict[str, int] = {}
    later = {name: place for place, name in enumerate(given) if first.setdefault(name, place) != place}
    yield from _columns(later, "column is repeated", "exactly one column of this name", names)


def _columns(places: Mapping[str, int], problem: str, allowed: str, names: bool) -> Iterator[Fault]:
    """A fault for each column, up to the number that anybody would read."""
    shown = [name[:NAME_SHOWN] if names else f"column {place + 1}" for name, place in places.items()]
    yield from (Fault(name, problem, allowed) for name in shown[:ROWS_SHOWN])
    if len(shown) > ROWS_SHOWN:
        yield Fault("the table", f"{problem}, for {len(shown) - ROWS_SHOWN} more", allowed)


def _cell_faults(column: Column, cells: Cells) -> Iterator[Fault]:
    """Everything that is wrong with the cells of one column, one fault for each kind of problem."""
    try:
        if accepts(column)(cells):
            return
    except (TypeError, OverflowError):
        pass
    problem = _problem_of_identifiers() if isinstance(column, Identifier) else partial(_problem, column)
    places: dict[str, list[int]] = {}
    for row, cell in enumerate(cells, start=1):
        if text := problem(cell):
            places.setdefault(text, []).append(row)
    yield from (Fault(column.name, text, column.allowed, tuple(rows)) for text, rows in places.items())


def _problem(column: Category | Number, cell: Any) -> str | None:
    if cell is None:
        return None if column.missing else "missing"
    if column.is_text and not isinstance(cell, str):
        return "not text"
    if not column.is_text and (not isinstance(cell, Real) or isinstance(cell, bool)):
        return "not a number"
    return None if column.holds(cell) else column.outside


def _problem_of_identifiers() -> Callable[[Any], str | None]:
    seen: set[str] = set()

    def problem(cell: Any) -> str | None:
        if not isinstance(cell, str):
            return "missing" if cell is None else "not text"
        if cell in seen:
            return "repeated"
        seen.add(cell)
        return None

    return problem
