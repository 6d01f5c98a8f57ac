"""Cells of a file or a database as the types that a table's columns have."""

from decimal import Decimal
from numbers import Integral, Real
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import pandas as pd

from understudy.schema.columns import Column

Cells: TypeAlias = "pd.Series[Any]"


def typed(cells: Cells, column: Column) -> Cells:
    """Cells as the column's type; what does not fit stays as it is, for the check to find.

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


def _is_numeric(cells: Cells) -> bool:
    return pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)


def _is_number(cell: object) -> TypeGuard[Real | Decimal]:
    return isinstance(cell, Real | Decimal) and not isinstance(cell, bool | np.bool_)
