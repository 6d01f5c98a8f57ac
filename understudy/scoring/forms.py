"""Rows in any of the forms that clients send, as columns, and the refusal of anything else."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from understudy.schema.columns import Cells, Column, Declared, filled
from understudy.schema.declaration import Table
from understudy.schema.faults import ROWS_SHOWN, Fault, accepts, find_faults, repeated, tidied
from understudy.schema.spelling import number

Columns = Mapping[str, Cells]

ID_LENGTH = 200  # characters of a row's id at most
LARGEST_ID = 10**18  # of those that are numbers


class RowsRefused(Exception):  # noqa: N818
    """Rows or params are not allowed; `faults` says why, and holds nothing of what is in the cells."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(f"rows refused (row 1 is the first): {'; '.join(map(str, faults))}")
        self.faults = list(faults)

    def body(self) -> dict[str, Any]:
        """The answer as JSON takes it: each fault with its first 20 rows, how many there are, and a reason if known."""
        faults = []
        for fault in self.faults:
            known = {name: value for name, value in vars(fault).items() if value is not None}
            faults.append({**known, "rows": list(fault.rows[:ROWS_SHOWN]), "count": len(fault.rows)})
        return {"error_code": "INVALID_PARAMETER_VALUE", "message": str(self), "faults": faults}


class Form:
    """One of the two forms of a table's rows, raw or encoded.

    Args:
        name: "raw" or "encoded".
        columns: That rows of this form have.
        encoders: One for each feature, which makes it from such rows.
        faults: Finds everything that is wrong with rows, and takes its time.
        markers: Cells that stand for a missing one.
    """

    def __init__(
        self,
        name: str,
        columns: Sequence[Declared],
        encoders: Sequence[Callable[[Columns], Cells]],
        faults: Callable[[Columns], list[Fault]],
        markers: Collection[Any],
    ) -> None:
        self.name = name
        self.columns = {column.name: column for column in columns}
        self._checks = [(column.name, accepts(column)) for column in columns]
        self._encoders, self._faults, self._markers = encoders, faults, markers

    def features(self, rows: Columns) -> tuple[Columns, list[Cells]]:
        """Rows as they are understood, and their features, shape (features, n), NaN where missing.

        White space around cells is left out, and None stands for each marker of a missing cell.

        Raises:
            RowsRefused: There are faults.
        """
        try:
            if self._accepts(rows):
                return rows, [encode(rows) for encode in self._encoders]
        except (TypeError, ValueError, OverflowError):
            pass  # something cannot be compared or computed, which the slow search below names
        known = self.columns.keys() & rows.keys()
        rows = {**rows, **{name: tidied(self.columns[name], rows[name], self._markers) for name in known}}
        if faults := self._faults(rows):
            raise RowsRefused(faults)
        return rows, [encode(rows) for encode in self._encoders]

    def _accepts(self, rows: Columns) -> bool:
        lengths = {*map(len, rows.values())}
        fits = rows.keys() == self.columns.keys() and len(lengths) == 1 and 0 not in lengths
        return fits and all(check(rows[name]) for name, check in self._checks)


def forms(table: Table) -> tuple[Form, Form]:
    """The raw and the encoded form of a table's rows."""
    encoded = table.encoded
    unchanged = [partial(_filled, column.name) for column in encoded]
    return (
        Form("raw", table.columns, table.encoders(), table.faults, table.markers),
        Form("encoded", encoded, unchanged, lambda rows: list(find_faults(rows, encoded)), table.markers),
    )


def _filled(name: str, rows: Columns) -> Cells:
    return filled(rows[name])


def is_encoded(table: Table, names: Sequence[str]) -> bool:
    """Whether more of the names are found in the encoded form alone than in the raw form alone."""
    raw, encoded = ({column.name for column in columns} for columns in (table.columns, table.encoded))
    return len({*names} & (encoded - raw)) > len({*names} & (raw - encoded))


def named(rows: Any, known: Collection[Collection[str]]) -> Columns | None:
    """Rows that name their columns, as columns; None for rows that are lists of cells.

    The known sets of names, if any record has one of them, are what other records are held against; else it is the
    first record.

    Raises:
        RowsRefused: They are neither, or not all of one form.
    """
    if isinstance(rows, list | dict) and not rows:
        raise RowsRefused([Fault("the table", "no rows", "at least one")])
    if isinstance(rows, dict) and {*map(type, rows.values())} <= {list}:
        return rows
    if isinstance(rows, list) and len(kinds := {*map(type, rows)}) == 1:
        if kinds == {dict}:
            return _of_records(rows, known)
        if kinds == {list}:
            return None
    raise RowsRefused([Fault("the table", "not rows of one form and equal length", "at least one row")])


def stripped(rows: Columns) -> dict[str, Cells]:
    """Rows under names without white space around them.

    Raises:
        RowsRefused: Two names are the same then.
    """
    names = [str(name).strip() for name in rows]
    if len({*names}) < len(names):
        raise RowsRefused(list(repeated(names)))
    return dict(zip(names, rows.values(), strict=True))


def with_names(rows: list[Cells], names: Sequence[str]) -> Columns:
    """Unnamed rows as columns.

    Raises:
        RowsRefused: Rows of another length.
    """
    if {*map(len, rows)} == {len(names)}:
        return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    places = _places(rows, lambda row: len(row) != len(names))
    raise RowsRefused([Fault("the row", "wrong number of values", f"{len(names)}: {', '.join(names)}", places)])


def identifiers(name: str, cells: Cells) -> list[str | None]:
    """Cells that name rows, as text; None for a missing one.

    Args:
        name: What brings them, for people.
        cells: Texts or whole numbers.

    Raises:
        RowsRefused: Some are neither, too long, or hold what cannot be shown.
    """
    texts = [_identifier(cell) for cell in cells]
    if faulty := tuple(number for number, text in enumerate(texts, 1) if text is None):
        allowed = f"text of at most {ID_LENGTH} characters that can be shown, or a whole number"
        raise RowsRefused([Fault(name, "names no row", allowed, faulty)])
    return [text or None for text in texts]


def _identifier(cell: Any) -> str | None:
    """A cell as text, empty for a missing one; None if it names nothing."""
    if isinstance(cell, float) and cell.is_integer():  # pandas has no whole numbers beside missing ones
        cell = int(cell)
    if type(cell) is int and abs(cell) < LARGEST_ID:
        return str(cell)
    text = "" if cell is None else cell.strip() if isinstance(cell, str) else None
    return text if text is not None and len(text) <= ID_LENGTH and text.isprintable() else None


def from_text(cells: Sequence[str], column: Column | None) -> Cells:
    """Cells of a CSV file as JSON would bring them: numbers where the column has numbers, None for empty ones.

    What is no number stays text, and the check refuses it.
    """
    if column is None or column.is_text:
        return [cell or None for cell in cells]
    return [number(cell) if cell else None for cell in cells]


def _of_records(records: list[dict[str, Any]], known: Collection[Collection[str]]) -> Columns:
    names: Collection[str] = records[0].keys()
    try:
        if {*map(len, records)} == {len(names)}:
            return {name: [record[name] for record in records] for name in names}
    except KeyError:
        pass  # as many columns, but others
    fitting = next((record.keys() for record in records if record.keys() in known), None)
    places = _places(records, lambda record: record.keys() != (names if fitting is None else fitting))
    problem = "other columns than the first row" if fitting is None else "other columns than the table"
    raise RowsRefused([Fault("the row", problem, "the same in every row", places)])


def _places(rows: list[Any], is_wrong: Callable[[Any], bool]) -> tuple[int, ...]:
    """The numbers of wrong rows; 1 is the first."""
    return tuple(number for number, row in enumerate(rows, start=1) if is_wrong(row))
