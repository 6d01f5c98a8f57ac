"""Reads a table: casts the columns of a file or a database to the types that it declares, checks and names the rows."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import date
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import pandas as pd

from understudy.errors import UserError
from understudy.reading import reader
from understudy.reading.file_formats import LINE
from understudy.schema.columns import Column, Identifier, is_date, listed, unlisted
from understudy.schema.declaration import Table
from understudy.schema.faults import Fault, find_faults, fits, shown_rows, tidied
from understudy.schema.spelling import MARKER, folded

Series: TypeAlias = "pd.Series[Any]"


def read(table: Table, address: str | Path) -> pd.DataFrame:
    """Read a table's rows from a file or a database, checked and in the order of their identifiers.

    Args:
        table: Declares what the rows are.
        address: Anything that `--data` takes; see `reader`.

    Returns:
        A frame with the identifier, the columns and the target; categories as they are declared, numbers as float64,
        missing cells as NaN.

    Raises:
        UserError: It cannot be read, or rows break the table's rules: all faults at once.
    """
    rows, place = reader.read(str(address)), reader.shown(str(address))
    rows = rows.loc[:, [not table.ignores(str(name)) for name in rows]]
    if table.identifier and not isinstance(table.identifier, str):
        rows = _named_together(table, rows, place)
    rows = _cast_all(rows, table.labelled, table.markers)
    if not table.identifier:
        rows = rows.assign(**{table.row_id: _digests(table, rows)})
    if faults := _faults(table, rows):
        raise _misfit(place, rows, faults)
    if not table.identifier:
        print(f"{place}: a digest of cells names each row, so a row that is corrected may change sides of the split")
    elif near := near_duplicates(rows[table.row_id]):
        print(f"{place}: {table.row_id} has {near}")
    for column in table.categories:
        if count := unlisted(column, listed(rows[column.name])):
            print(f"{place}: {count} rows have a value of {column.name} that is not listed; they count as other")
    # A model's answers are text, also where a table says 0 and 1.
    rows[table.target.name] = rows[table.target.name].map({value: str(value) for value in table.target.values})
    return rows[[column.name for column in table.labelled]].sort_values(table.row_id, ignore_index=True)


def _faults(table: Table, rows: pd.DataFrame) -> list[Fault]:
    """Everything that is wrong with rows to be trained on."""
    faults = [*find_faults(rows, table.labelled, names=True), *table.logarithm_faults(rows)]
    name = table.target.name
    if name in rows and rows.columns.is_unique and len(rows[name].dropna().unique()) == 1:
        faults.append(Fault(name, "one class only", f"both {table.negative} and {table.positive}"))
    return faults


def _named_together(table: Table, rows: pd.DataFrame, place: str) -> pd.DataFrame:
    """The rows with one column that names them, made from those that do it together; what is not declared is gone."""
    names = [*(table.identifier or ())]
    if missing := [name for name in names if list(rows).count(name) != 1]:
        raise _misfit(place, rows, [Fault(name, "column is missing", "part of a row's name") for name in missing])
    parts = [listed(typed(rows[name], Identifier(name), table.markers)) for name in names]
    joined = [None if None in cells else json.dumps(cells, ensure_ascii=False) for cells in zip(*parts, strict=True)]
    declared = {column.name for column in table.labelled}
    return rows.drop(columns=[name for name in names if name not in declared]).assign(
        **{table.row_id: pd.Series(joined, index=rows.index, dtype=object)}
    )


def _digests(table: Table, rows: pd.DataFrame) -> list[str]:
    """A name for each row, from what is in its columns; equal rows are numbered from the second on."""
    known = [listed(rows[column.name]) for column in table.columns if list(rows).count(column.name) == 1]
    times: Counter[str] = Counter()
    names = []
    for cells in zip(*known, strict=True) if known else [()] * len(rows):
        name = hashlib.sha256(json.dumps(cells, default=str).encode()).hexdigest()[:16]
        times[name] += 1
        names.append(name if times[name] == 1 else f"{name} {times[name]}")
    return names


def _cast_all(rows: pd.DataFrame, columns: Sequence[Column], markers: Collection[Any]) -> pd.DataFrame:
    """The rows with the cells of each known column as `typed` gives them; unchanged if a column is repeated."""
    if not rows.columns.is_unique:
        return rows
    known = {column.name: column for column in columns}
    cells = {name: typed(rows[name], known[name], markers) if name in known else rows[name] for name in rows}
    return pd.DataFrame(cells, index=rows.index)


def typed(cells: Series, column: Column, markers: Collection[Any] = ("",)) -> Series:
    """The cells cast to the column's type; what does not fit stays as it is, and the check refuses it.

    Numbers, booleans and dates in a column of text become the text that a CSV file would have, so that the code of a
    category is not taken for one of its values. Markers of a missing cell become NaN.
    """
    as_stored = _cast(cells, column)
    if not isinstance(column, Identifier) and fits(column, listed(as_stored)):
        return as_stored
    tidy = pd.Series(tidied(column, listed(as_stored), markers), index=cells.index, name=cells.name, dtype=object)
    return tidy.infer_objects() if column.is_text else _cast(tidy, column)


def _misfit(place: str, rows: pd.DataFrame, faults: Sequence[Fault]) -> UserError:
    """All that is wrong with rows; and their lines in the file, where row 1 is not in line 2 and so on."""
    lines = rows.index.tolist() if rows.index.name == LINE else []
    lines = [] if lines == list(range(2, len(lines) + 2)) else lines
    texts = "; ".join(fault.text(lines) for fault in faults)
    declared = ', as missing=("NA",)' if MARKER in {fault.reason for fault in faults} else ""
    return UserError(
        f"{place} does not fit the table (row 1 is the first below the header): {texts}",
        f"correct it, or say in understudy/table.py what is allowed{declared}",
    )


def near_duplicates(identifiers: Series) -> str | None:
    """What to tell people of identifiers that another one is like but for case, width or the form of a number."""
    places = (np.flatnonzero(identifiers.map(folded).duplicated(keep=False)) + 1).tolist()
    if not places:
        return None
    return f"near-duplicates, which only case, width or the form of a number tells apart, in row {shown_rows(places)}"


def _cast(cells: Series, column: Column) -> Series:
    if column.is_text:
        return cells if cells.dtype == "str" else cells.astype(object).map(_text, na_action="ignore").infer_objects()
    stored = cells if _is_numeric(cells) or cells.dtype == "str" else _readable(cells)
    numbers = pd.to_numeric(stored, errors="coerce").astype(float)
    unreadable = numbers.isna() & cells.notna()
    return cells.astype(object).where(unreadable, numbers) if unreadable.any() else numbers


def _readable(cells: Series) -> Series:
    """The cells without those that pandas would wrongly take for numbers, such as booleans and dates."""
    return cells.astype(object).where(cells.map(lambda cell: isinstance(cell, str) or _is_number(cell)))


def _text(cell: object) -> object:
    if isinstance(cell, bool | np.bool_):
        return str(bool(cell))
    if isinstance(cell, date):
        text = cell.isoformat()
        return text[:10] if is_date(text[:10]) and text[10:] in ("", "T00:00:00") else text
    if not _is_number(cell):
        return cell
    if math.isfinite(cell) and cell == int(cell):
        return str(int(cell))  # exact, as a float or its digits would not be
    return format(cell, "f").rstrip("0") if isinstance(cell, Decimal) else np.format_float_positional(float(cell))


def _is_numeric(cells: Series) -> bool:
    return pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)


def _is_number(cell: object) -> TypeGuard[float | Decimal]:
    return isinstance(cell, Real | Decimal) and not isinstance(cell, bool | np.bool_)
