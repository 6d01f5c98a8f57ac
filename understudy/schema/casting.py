"""Casts the columns of a file or a database to the types that a table declares."""

from decimal import Decimal
from numbers import Integral, Real
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import pandas as pd

from understudy.schema.columns import Column

Series: TypeAlias = "pd.Series[Any]"


def typed(cells: Series, column: Column) -> Series:
    """The cells cast to the column's type; what does not fit stays as it is, and the check refuses it.

    Numbers and booleans in a column of text become the text that a CSV file would have, so that the code of a category
    is not taken for one of its values.
    """
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
    return str(int(cell)) if isinstance(cell, Integral) else np.format_float_positional(float(cell), trim="-")


def _is_numeric(cells: Series) -> bool:
    return pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)


def _is_number(cell: object) -> TypeGuard[Real | Decimal]:
    return isinstance(cell, Real | Decimal) and not isinstance(cell, bool | np.bool_)
