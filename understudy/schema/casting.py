"""Casts the columns of a file or a database to the types that a table declares."""

import math
from collections.abc import Collection, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import pandas as pd

from understudy.errors import UserError
from understudy.schema.columns import Column, Fault, Identifier, fits, listed, shown_rows, tidied
from understudy.schema.file_formats import LINE
from understudy.schema.spelling import MARKER, folded

Series: TypeAlias = "pd.Series[Any]"


def cast(rows: pd.DataFrame, columns: Sequence[Column], markers: Collection[Any]) -> pd.DataFrame:
    """The rows with the cells of each known column as `typed` gives them; unchanged if a column is repeated."""
    if not rows.columns.is_unique:
        return rows
    known = {column.name: column for column in columns}
    cells = {name: typed(rows[name], known[name], markers) if name in known else rows[name] for name in rows}
    return pd.DataFrame(cells, index=rows.index)


def typed(cells: Series, column: Column, markers: Collection[Any] = ("",)) -> Series:
    """The cells cast to the column's type; what does not fit stays as it is, and the check refuses it.

    Numbers and booleans in a column of text become the text that a CSV file would have, so that the code of a category
    is not taken for one of its values. Markers of a missing cell become NaN.
    """
    as_stored = _cast(cells, column)
    if not isinstance(column, Identifier) and fits(column, listed(as_stored)):
        return as_stored
    tidy = pd.Series(tidied(column, listed(as_stored), markers), index=cells.index, name=cells.name, dtype=object)
    return tidy.infer_objects() if column.is_text else _cast(tidy, column)


def misfit(place: str, rows: pd.DataFrame, faults: Sequence[Fault]) -> UserError:
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
    if not _is_number(cell):
        return cell
    if math.isfinite(cell) and cell == int(cell):
        return str(int(cell))  # exact, as a float or its digits would not be
    return format(cell, "f").rstrip("0") if isinstance(cell, Decimal) else np.format_float_positional(float(cell))


def _is_numeric(cells: Series) -> bool:
    return pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)


def _is_number(cell: object) -> TypeGuard[float | Decimal]:
    return isinstance(cell, Real | Decimal) and not isinstance(cell, bool | np.bool_)
