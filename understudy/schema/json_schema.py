"""Describes a table's rows as a JSON Schema, for programs that send rows."""

import math
from typing import Any

from understudy.schema.columns import Category, Number
from understudy.schema.declaration import Table

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def row_schema(table: Table) -> dict[str, Any]:
    """The schema of a raw row; that of the encoded form is in it under `$defs`."""
    encoded = _object(table.encoded)
    return {"$schema": DIALECT, "title": table.name, **_object(table.columns), "$defs": {"encoded": encoded}}


def _object(columns: tuple[Category | Number, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {column.name: _cell(column) for column in columns},
        "required": [column.name for column in columns],
        "additionalProperties": False,
    }


def _cell(column: Category | Number) -> dict[str, Any]:
    if isinstance(column, Category):
        return {"enum": [*column.values, *([None] if column.missing else [])]}
    limits = {"minimum": column.low, "maximum": column.high}
    finite = {name: limit for name, limit in limits.items() if math.isfinite(limit)}
    return {"type": ["number", "null"] if column.missing else "number", **finite, "description": column.unit}
