"""What a table declares of one column, and of a feature; a mistake in it is a `UserError` when it is made."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from operator import add
from typing import TYPE_CHECKING, Any, TypeAlias

from understudy.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

Cells: TypeAlias = list[Any]
Rows: TypeAlias = "Mapping[str, Any] | pd.DataFrame"
Floats: TypeAlias = "NDArray[np.float64]"
Labels: TypeAlias = "NDArray[np.int_]"

OTHER = "other"  # what the values are called together that a category does not list
SMALLEST = 5e-324  # the least float above 0
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
DAYS_SINCE = "days since "


def mistake(what: str, fix: str = "correct it in understudy/table.py") -> UserError:
    """A mistake in a declaration."""
    return UserError(what, fix)


def repeated(values: Iterable[Any]) -> list[Any]:
    """The values that come more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


def check_name(name: Any, kind: str) -> None:
    """Refuse what names no column. Raises `UserError`."""
    if not isinstance(name, str) or not name or name != name.strip():
        raise mistake(f"{kind} {name!r} needs a name, a text without white space around it")


@dataclass(frozen=True)
class Category:
    """A column whose values come from a list; their order gives the codes 0, 1, ...

    If it is `sensitive`, every run reports how the model treats each of its groups. With `other` any further value is
    allowed too; together they are one more value, whose code is the last.
    """

    name: str
    values: tuple[str, ...] | tuple[int, ...]
    missing: bool = False
    sensitive: bool = False
    other: bool = False
    outside = "unknown category"

    def __post_init__(self) -> None:
        check_name(self.name, "Category")
        called, values = f"Category {self.name}", self.values
        if not isinstance(values, tuple) or not values:
            raise mistake(f"{called} needs its values in a tuple, not {values!r}", 'write them as in ("no", "yes")')
        kinds = {str if isinstance(value, str) else type(value) for value in values}
        if kinds - {str} and kinds - {int, float}:
            fix = 'write all in quotes, or none; True and False in rows are the texts "True" and "False"'
            raise mistake(f"the values of {called} are neither all text nor all numbers", fix)
        if twice := repeated(values):
            raise mistake(f"{called} lists {twice[0]!r} twice")
        if not all(value.strip() for value in values if isinstance(value, str)):
            raise mistake(f"{called} lists an empty text, which no cell can be", "write missing=True instead")
        if self.other and OTHER in values:
            raise mistake(f"{called} lists {OTHER!r}, and allows other values too", f"leave {OTHER!r} out of the list")

    @property
    def allowed(self) -> str:
        """The values, for people."""
        return ", ".join(map(str, self.values)) + (", or another value" if self.other else "")

    @property
    def is_text(self) -> bool:
        """Whether its values are text, else numbers."""
        return isinstance(self.values[0], str)

    @property
    def example(self) -> str | int:
        """A cell that it allows."""
        return self.values[0]

    def lists(self, cell: Any) -> bool:
        """Whether a cell is one of the values that are listed."""
        return bool(cell in self.values)

    def holds(self, cell: Any) -> bool:
        """Whether a cell of the right kind is allowed."""
        return self.lists(cell) or (self.other and (self.is_text or abs(cell) < math.inf))


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

    def __post_init__(self) -> None:
        check_name(self.name, "Number")
        if not isinstance(self.unit, str):
            raise mistake(f"the unit of Number {self.name} is no text", 'write it in quotes, as in "months"')
        if {*map(type, (self.low, self.high))} - {int, float} or not self.low <= self.high:
            raise mistake(f"Number {self.name} has no range: from {self.low!r} to {self.high!r}")

    @property
    def allowed(self) -> str:
        """The range and the unit, for people."""
        low = "at most" if self.low == -math.inf else f"{self.low:.12g} to"
        return f"{low} {self.high:.12g} {self.unit}"

    @property
    def example(self) -> float:
        """A cell that it allows."""
        return self.high

    def holds(self, cell: Any) -> bool:
        """Whether a number is finite and within the range."""
        try:
            return bool(self.low <= cell <= self.high and math.isfinite(cell))
        except OverflowError:  # an integer that no float holds
            return False


@dataclass(frozen=True)
class Date:
    """A column of dates as text, 2026-11-01, from `low` to `high`, both included; a model sees days, as `unit` says."""

    name: str
    unit: str = "days since 2000-01-01"
    low: str = "1900-01-01"
    high: str = "2100-12-31"
    missing: bool = False
    outside = "not a date in range"
    is_text = True

    def __post_init__(self) -> None:
        check_name(self.name, "Date")
        if not str(self.unit).startswith(DAYS_SINCE) or not all(map(is_date, (self._first, self.low, self.high))):
            fix = f'write Date("{self.name}", unit="{DAYS_SINCE}2000-01-01", low="1900-01-01", high="2100-12-31")'
            raise mistake(f"Date {self.name} has a unit that is not days since a date, or no range of dates", fix)
        if self.low > self.high:
            raise mistake(f"Date {self.name} has no range: from {self.low} to {self.high}")

    @property
    def allowed(self) -> str:
        """The range and the form, for people."""
        return f"a date from {self.low} to {self.high}, written as 2026-11-01"

    @property
    def example(self) -> str:
        """A cell that it allows."""
        return self.high

    def holds(self, cell: Any) -> bool:
        """Whether a text is a date within the range."""
        return is_date(cell) and self.low <= cell <= self.high

    def days(self, cell: str) -> float:
        """How many days after the unit's date a date is."""
        return float((date.fromisoformat(cell) - date.fromisoformat(self._first)).days)

    @property
    def _first(self) -> str:
        return self.unit.removeprefix(DAYS_SINCE)


def is_date(cell: str) -> bool:
    """Whether a text is a date of the calendar as ISO 8601 writes it, 2026-11-01."""
    try:
        return bool(ISO_DATE.fullmatch(cell) and date.fromisoformat(cell))
    except ValueError:
        return False


@dataclass(frozen=True)
class Identifier:
    """A column of text that names each row; no two rows share a name."""

    name: str
    missing = False
    is_text = True
    allowed = "a name of its own in every row"


Declared: TypeAlias = Category | Number | Date
Column: TypeAlias = Declared | Identifier


def column_of(declared: dict[str, Any]) -> Any:
    """The column of a declaration that JSON has held."""
    if "values" in declared:
        return Category(**{**declared, "values": tuple(declared["values"])})
    return Date(**declared) if isinstance(declared["low"], str) else Number(**declared)


@dataclass(frozen=True)
class Feature:
    """One number that the model computes with: a column, the sum of some, or the natural logarithm of either.

    Args:
        name: Of its column in the encoded form.
        of: The columns that are added up; empty means the column of the same name.
        log: Whether the natural logarithm is taken.
    """

    name: str
    of: tuple[str, ...] = ()
    log: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "Feature")
        if not isinstance(self.of, tuple):
            raise mistake(f"Feature {self.name} needs its columns in a tuple, not {self.of!r}", 'write of=("a", "b")')

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns it is made from."""
        return self.of or (self.name,)

    def encoded(self, sources: Sequence[Declared]) -> Category | Number:
        """The feature's column in the encoded form: codes, numbers, natural logarithms."""
        missing, first = any(column.missing for column in sources), sources[0]
        if isinstance(first, Category):
            return Category(self.name, tuple(range(len(first.values) + first.other)), missing)
        ranges = [column for column in sources if isinstance(column, Number)]
        low, high, unit = sum(n.low for n in ranges), sum(n.high for n in ranges), first.unit
        if isinstance(first, Date):
            low, high = map(first.days, (first.low, first.high))
        if self.log:
            low, high, unit = math.log(max(low, SMALLEST)), math.log(high), f"(natural logarithm of {unit})"
        return Number(self.name, unit, low, high, missing)

    def encoder(self, column: Declared) -> Callable[[Mapping[str, Cells]], Cells]:
        """What makes the feature from checked raw rows, of which `column` is the first that it takes.

        It raises ValueError for the logarithm of 0.
        """
        sources, name = self.sources, self.sources[0]
        if isinstance(column, Category):
            codes = {None: math.nan, **{value: float(code) for code, value in enumerate(column.values)}}
            others = float(len(column.values))
            if column.other:
                return lambda rows: [codes.get(cell, others) for cell in rows[name]]
            return lambda rows: list(map(codes.__getitem__, rows[name]))
        if isinstance(column, Date):
            return lambda rows: [math.nan if cell is None else column.days(cell) for cell in rows[name]]
        if self.log:
            return lambda rows: list(map(math.log, total(rows, sources)))
        return lambda rows: total(rows, sources)


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


def unlisted(column: Declared, cells: Iterable[Any]) -> int:
    """How many checked cells of a column count as `OTHER`."""
    if not (isinstance(column, Category) and column.other):
        return 0
    return sum(cell is not None and not column.lists(cell) for cell in cells)
