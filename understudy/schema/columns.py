"""What a table declares of one column, and the check that finds what is wrong with rows.

Training and scoring share this check. It works on lists of cells of any type, since rows come from files and from
clients, and loads no pandas, which a server can do without. Rows without faults are looked at only once.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from operator import add
from typing import TYPE_CHECKING, Any, TypeAlias

from understudy.schema.spelling import folded, reasons

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
    """One thing that is wrong with one column: what, in which rows (1 is the first), what is allowed, perhaps why.

    It holds nothing of what is in the cells.
    """

    column: str
    problem: str
    allowed: str
    rows: tuple[int, ...] = ()
    reason: str | None = None

    def __str__(self) -> str:
        return self.text()

    def text(self, lines: Sequence[int] = ()) -> str:
        """The fault for people, with the file's line of each row if `lines` has them, from row 1 on."""
        places = f" in row {shown_rows(self.rows, lines)}" if self.rows else ""
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.column}: {self.problem}{reason}{places} (allowed: {self.allowed})"


def shown_rows(rows: Sequence[int], lines: Sequence[int] = ()) -> str:
    """The first rows for people, with their lines in the file, and how many more there are."""
    shown = ", ".join(f"{row} (line {lines[row - 1]})" if lines else str(row) for row in rows[:ROWS_SHOWN])
    more = len(rows) - ROWS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


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


def filled(cells: Cells) -> Cells:
    """Numbers with NaN for the missing ones."""
    return [math.nan if cell is None else cell for cell in cells] if None in cells else cells


def total(rows: Mapping[str, Cells], names: Sequence[str]) -> Cells:
    """Row by row the sum of some columns, NaN where one of them is missing."""
    first, *others = names
    sums = filled(rows[first])
    for name in others:
        sums = list(map(add, sums, filled(rows[name])))
    return sums


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
    times, lengths = Counter(given), {*map(len, rows.values())} if isinstance(rows, Mapping) else {len(rows)}
    if not any(lengths):
        yield Fault("the table", "no rows", "at least one")
    elif len(lengths) > 1:
        yield Fault("the table", "columns of unequal length", "a cell of each column in every row")
    yield from repeated(given, names)
    unknown = {name: place for place, name in enumerate(given) if name not in known}
    similar = {folded(column.name): f"differs from {column.name} in case, width or spaces only" for column in columns}
    yield from _columns(unknown, "column is not known", ", ".join(column.name for column in columns), names, similar)
    for column in columns:
        if column.name not in times:
            yield Fault(column.name, "column is missing", column.allowed)
        elif times[column.name] == 1:
            yield from _cell_faults(column, listed(rows[column.name]))


def repeated(given: Sequence[str], names: bool = False) -> Iterator[Fault]:
    """A fault for each column whose name has come before, called by its name or by its place."""
    first: dict[str, int] = {}
    later = {name: place for place, name in enumerate(given) if first.setdefault(name, place) != place}
    yield from _columns(later, "column is repeated", "exactly one column of this name", names)


def _columns(
    places: Mapping[str, int], problem: str, allowed: str, names: bool, similar: Mapping[str, str] | None = None
) -> Iterator[Fault]:
    """A fault for each column, up to the number that anybody would read."""
    for name, place in list(places.items())[:ROWS_SHOWN]:
        reason = similar.get(folded(name)) if similar else None
        yield Fault(name[:NAME_SHOWN] if names else f"column {place + 1}", problem, allowed, reason=reason)
    if len(places) > ROWS_SHOWN:
        yield Fault("the table", f"{problem}, for {len(places) - ROWS_SHOWN} more", allowed)


def fits(column: Column, cells: Cells) -> bool:
    """Whether nothing is wrong with a column's cells, by a quick check; see `accepts`."""
    try:
        return accepts(column)(cells)
    except (TypeError, OverflowError):
        return False


def tidied(column: Column, cells: Cells, markers: Collection[Any]) -> Cells:
    """The cells without white space around them, and None for those that are markers of a missing one.

    A cell that the column allows stays as it is.
    """
    return [_tidied(column, cell, markers) for cell in cells]


def _tidied(column: Column, cell: Any, markers: Collection[Any]) -> Any:
    is_name = isinstance(column, Identifier)
    if not is_name and problem(column, cell) is None:
        return cell
    cell = cell.strip() if isinstance(cell, str) else cell
    is_marker = isinstance(cell, str | Real) and cell in markers
    return None if is_marker and (is_name or problem(column, cell)) else cell


def _cell_faults(column: Column, cells: Cells) -> Iterator[Fault]:
    """Everything that is wrong with the cells of one column, one fault for each kind of problem."""
    if fits(column, cells):
        return
    problem_of = _problem_of_identifiers(column) if isinstance(column, Identifier) else partial(problem, column)
    reason = reasons(column.values if isinstance(column, Category) else (), column.is_text)
    places: dict[tuple[str, str | None], list[int]] = {}
    for row, cell in enumerate(cells, start=1):
        if text := problem_of(cell):
            places.setdefault((text, reason(cell)), []).append(row)
    yield from (Fault(column.name, text, column.allowed, tuple(rows), why) for (text, why), rows in places.items())


def problem(column: Column, cell: Any) -> str | None:
    """What is wrong with a cell by itself; None if nothing is."""
    if cell is None:
        return None if column.missing else "missing"
    if column.is_text and not isinstance(cell, str):
        return "not text"
    if not column.is_text and (not isinstance(cell, Real) or isinstance(cell, bool)):
        return "not a number"
    return None if isinstance(column, Identifier) or column.holds(cell) else column.outside


def _problem_of_identifiers(column: Identifier) -> Callable[[Any], str | None]:
    seen: set[str] = set()

    def problem_of(cell: Any) -> str | None:
        if text := problem(column, cell):
            return text
        if cell in seen:
            return "repeated"
        seen.add(cell)
        return None

    return problem_of
