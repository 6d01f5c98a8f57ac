"""The rules of a table on Arrow arrays: the same declaration that the list check reads, for many rows at once.

Rows that do not surely pass go to the list check of `schema/faults.py`, which decides, and words what is wrong.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from understudy.reading.table_rows import typed
from understudy.schema.columns import Cells, Declared, Feature, Floats, Number, listed
from understudy.schema.declaration import Table
from understudy.schema.faults import Fault, problem, tidied
from understudy.schema.spelling import number
from understudy.scoring.forms import Form, RowsRefused, from_text

Mask: TypeAlias = NDArray[np.bool_]

PLAIN = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"  # numbers that Arrow and Python read alike
EXACT = 2**53  # up to which every integer is a float


class ArrowForm:
    """A form of a table's rows, raw or encoded, for rows that Arrow holds."""

    def __init__(self, table: Table, form: Form) -> None:
        self.columns, self._form, self._markers = [*form.columns.values()], form, table.markers
        is_raw = form.name == "raw"
        self._features = table.all_features if is_raw else [Feature(column.name) for column in self.columns]
        texts = [marker for marker in table.markers if isinstance(marker, str) and isinstance(number(marker), str)]
        self._texts = pa.array(texts, pa.string())
        self._numbers = [marker for marker in table.markers if not isinstance(marker, str)]

    def features(self, rows: pa.RecordBatch) -> tuple[Floats, Mask, list[Fault]]:
        """Features of the rows that are allowed, shape (allowed, features); which those are, shape (n,); and faults.

        The faults are of all other rows; their rows are numbered from 0.
        """
        features, is_allowed = self._quickly(rows)
        doubtful, faults = np.flatnonzero(~is_allowed), list[Fault]()
        if len(doubtful):
            allowed, columns, faults = self._closely(rows.take(pa.array(doubtful)))
            is_allowed[doubtful[allowed]] = True
            features[doubtful[allowed]] = np.array(columns, dtype=float).T
            faults = [replace(fault, rows=tuple(doubtful[[*fault.rows]].tolist())) for fault in faults]
        return features[is_allowed], is_allowed, faults

    def _quickly(self, rows: pa.RecordBatch) -> tuple[Floats, Mask]:
        """Features of rows, shape (n, features), which say nothing where a row does not surely pass; and which do."""
        values, passes = {}, np.ones(rows.num_rows, dtype=bool)
        for column in self.columns:
            values[column.name], fits = self._values(column, _plain(rows.column(column.name)))
            passes &= fits
        features = np.empty((rows.num_rows, len(self._features)), order="F")
        for place, feature in enumerate(self._features):
            total = reduce(np.add, (values[name] for name in feature.sources))
            if feature.log:
                passes &= ~(total <= 0)
                # Like `math.log`, and unlike NumPy's, it is the C library's.
                total = pc.ln(pa.array(total)).to_numpy(zero_copy_only=False)
            features[:, place] = total
        return features, passes

    def _values(self, column: Declared, cells: pa.Array) -> tuple[Floats, Mask]:
        """What a column adds to its features, NaN where missing; and which cells are surely allowed."""
        if pa.types.is_nested(cells.type):
            return np.full(len(cells), np.nan), np.zeros(len(cells), dtype=bool)
        return self._numbers_of(column, cells) if isinstance(column, Number) else self._codes(column, cells)

    def _codes(self, column: Declared, cells: pa.Array) -> tuple[Floats, Mask]:
        """Those of a category or of dates: each different cell goes through the list check once."""
        encoded = cells.dictionary_encode()
        different = [*tidied(column, _cells(column, encoded.dictionary, self._markers), self._markers), None]
        allowed = np.array([problem(column, cell) is None for cell in different])
        values = np.full(len(different), np.nan)
        given = {column.name: [cell for cell, is_allowed in zip(different, allowed, strict=True) if is_allowed]}
        values[allowed] = Feature(column.name).encoder(column)(given)
        places = encoded.indices.fill_null(len(different) - 1).to_numpy()
        return values[places], allowed[places]

    def _numbers_of(self, column: Number, cells: pa.Array) -> tuple[Floats, Mask]:
        kind, is_exact = cells.type, np.ones(len(cells), dtype=bool)
        if pa.types.is_string(kind):
            cells, is_exact = _parsed(pc.if_else(pc.is_in(cells, self._texts), None, cells))
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            return np.full(len(cells), np.nan), np.zeros(len(cells), dtype=bool)
        values = cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        is_present = ~np.isnan(values) if pa.types.is_floating(kind) else cells.is_valid().to_numpy(False)
        fits = (values >= column.low) & (values <= column.high) & np.isfinite(values)
        is_present &= fits | ~np.isin(values, self._numbers)
        if pa.types.is_integer(kind):
            is_exact = ~(np.abs(values) > EXACT)
        return np.where(is_present, values, np.nan), np.where(is_present, fits, column.missing) & is_exact

    def _closely(self, rows: pa.RecordBatch) -> tuple[list[int], list[Cells], list[Fault]]:
        """The places of rows that the list check allows, their features, and the faults of all others."""
        arrays = {column: _plain(rows.column(column.name)) for column in self.columns}
        cells = {column.name: _cells(column, array, self._markers) for column, array in arrays.items()}
        try:
            return [*range(rows.num_rows)], self._form.features(cells)[1], []
        except RowsRefused as refused:
            faults = [replace(fault, rows=tuple(row - 1 for row in fault.rows)) for fault in refused.faults]
        wrong = {row for fault in faults for row in fault.rows}
        places = [row for row in range(rows.num_rows) if row not in wrong]
        if not places:
            return [], [[]] * len(self._features), faults
        return places, self._form.features({name: [of[row] for row in places] for name, of in cells.items()})[1], faults


def _plain(cells: pa.Array) -> pa.Array:
    """The cells as one of few kinds of array; what has no kind is text that is missing."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    return cells.cast(pa.string()) if cells.type in (pa.null(), pa.large_string(), pa.string_view()) else cells


def _parsed(texts: pa.Array) -> tuple[pa.Array, Mask]:
    """Texts as numbers, and which of them Arrow can be trusted with."""
    try:
        return texts.cast(pa.float64()), np.ones(len(texts), dtype=bool)
    except pa.ArrowInvalid:  # one is enough
        is_plain = pc.match_substring_regex(texts, PLAIN).fill_null(True)
        return pc.if_else(is_plain, texts, None).cast(pa.float64()), is_plain.to_numpy(zero_copy_only=False)


def _cells(column: Declared, cells: pa.Array, markers: Sequence[Any] | frozenset[Any]) -> Cells:
    """The cells as JSON would bring them, for the list check."""
    if pa.types.is_string(cells.type):
        return from_text(cells.to_pylist(), column)
    if not column.is_text and (pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type)):
        return [None if cell != cell else cell for cell in cells.to_pylist()]
    return listed(typed(pd.Series(cells.to_pylist(), dtype=object), column, markers))
