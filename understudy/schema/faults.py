"""What is wrong with rows: finds it, and says it in words that hold nothing of what is in the cells.

Training and scoring share this check. It works on lists of cells of any type, since rows come from files and from
clients, and loads no pandas, which a server can do without. Rows without faults are looked at only once.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

from understudy.schema.columns import Category, Cells, Column, Date, Identifier, Rows, listed, total
from understudy.schema.spelling import folded, reasons

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


def accepts(column: Column) -> Callable[[Cells], bool]:
    """A quick check of a column's cells. If it says yes nothing is wrong with them; a no may be a false alarm.

    The check raises TypeError or OverflowError instead of saying no to cells that cannot be compared.
    """
    empty = {None} if column.missing else set()
    if isinstance(column, Identifier):
        return lambda cells: set(map(type, cells)) == {str} and len(set(cells)) == len(cells)
    if isinstance(column, Date):
        return lambda cells: all(cell in empty if cell is None else column.holds(cell) for cell in cells)
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


def fits(column: Column, cells: Cells) -> bool:
    """Whether nothing is wrong with a column's cells, by a quick check; see `accepts`."""
    try:
        return accepts(column)(cells)
    except (TypeError, OverflowError):
        return False


def problem(column: Column, cell: Any) -> str | None:
    """What is wrong with a cell by itself; None if nothing is."""
    if cell is None:
        return None if column.missing else "missing"
    if column.is_text and not isinstance(cell, str):
        return "not text"
    if not column.is_text and (not isinstance(cell, Real) or isinstance(cell, bool)):
        return "not a number"
    return None if isinstance(column, Identifier) or column.holds(cell) else column.outside


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


def find_faults_of_sum(rows: Rows, columns: Sequence[Column]) -> Iterator[Fault]:
    """The rows in which a sum is not above 0, as its logarithm needs, although each column is within its range."""
    cells = {column.name: listed(rows[column.name]) for column in columns if list(rows).count(column.name) == 1}
    faults = list(find_faults(cells, columns))
    if all(fault.rows for fault in faults):  # else a column is missing, or there are no rows
        wrong = {row for fault in faults for row in fault.rows}
        right = [row for row in range(1, len(cells[columns[0].name]) + 1) if row not in wrong]
        sums = total({name: [of[row - 1] for row in right] for name, of in cells.items()}, list(cells))
        if places := tuple(row for row, value in zip(right, sums, strict=True) if value <= 0):
            yield Fault(" + ".join(cells), "out of range", "above 0", places)


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


def tidied(column: Column, cells: Cells, markers: Collection[Any]) -> Cells:
    """The cells without white space around them, and None for those that are markers of a missing one.

    A cell that the column allows stays as it is.
    """
    return [_tidied(column, cell, markers) for cell in cells]


def _tidied(column: Column, cell: Any, markers: Collection[Any]) -> Any:
    if _is_plain(column, cell):
        return cell
    cell = cell.strip() if isinstance(cell, str) else cell
    is_marker = isinstance(cell, str | Real) and cell in markers
    return None if is_marker and not _is_plain(column, cell) else cell


def _is_plain(column: Column, cell: Any) -> bool:
    """Whether a cell is a value that the column allows by itself, not as any name or any other value would be."""
    if isinstance(column, Identifier) or problem(column, cell):
        return False
    return cell is None or not isinstance(column, Category) or column.lists(cell)


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
