"""Writes a drafted declaration as the Python of `understudy/table.py`, laid out as `ruff format` leaves it."""

import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from understudy.declare.draft import Draft
from understudy.schema.columns import Category, Date, Number

WIDTH = 120
KINDS = (Category, Date, Number)
SHOWN = ("name", "path", "identifier", "target", "columns", "missing", "ignore", "select_by")
HEAD = '''"""The table: the one place that says what a row is. Swap it for your own; the rest follows.

A draft from the rows of the table. It trains as it is; a question mark begins what only you can answer.
"""

from understudy.schema.columns import {kinds}
from understudy.schema.declaration import Table

'''
OF_COLUMNS = (
    '? A number\'s unit: say it in place of "units". Its range is what the rows have, and half of that width again on '
    "each side, rounded; what is never below 0 stays so.",
)


def source(draft: Draft) -> str:
    """The module's text."""
    table = draft.table
    used = {type(column) for column in (table.target, *table.columns)}
    head = HEAD.format(kinds=", ".join(kind.__name__ for kind in KINDS if kind in used))
    lines = ["TABLE = Table("]
    for field in fields(table):
        if field.name in SHOWN and (value := getattr(table, field.name)) != field.default:
            lines += _setting(field.name, value, draft)
    return head + "\n".join([*lines, ")"]) + "\n"


def _setting(name: str, value: Any, draft: Draft) -> list[str]:
    """The lines of one of the table's arguments, below the notes on it."""
    notes = OF_COLUMNS if name == "columns" and any(isinstance(item, Number) for item in value) else ()
    lines = _comments([*draft.settings.get(name, ()), *notes], 4)
    inside = []
    for item in value if name in ("columns", "ignore") else ():
        inside += _comments(draft.columns[item if isinstance(item, str) else item.name], 8)
        inside += _laid_out("", item, 8)
    if len(inside) < 2:  # ruff leaves a single item beside its brackets, if it fits
        return [*lines, *_laid_out(f"{name}=", value, 4)]
    return [*lines, f"    {name}=(", *inside, "    ),"]


def _comments(notes: Sequence[str], indent: int) -> list[str]:
    first = " " * indent + "# "
    return [
        line for note in notes for line in textwrap.wrap(note, WIDTH, initial_indent=first, subsequent_indent=first)
    ]


def _laid_out(before: str, value: Any, indent: int) -> list[str]:
    """An argument and its comma: in one line if that is not too long, else each of its own arguments in one."""
    space, parts = " " * indent, _parts(value)
    line = f"{space}{before}{_in_line(value)},"
    if len(line) <= WIDTH or not parts:
        return [line]
    opening = "(" if isinstance(value, tuple) else f"{type(value).__name__}("
    inside = [line for name, part in parts for line in _laid_out(name, part, indent + 4)]
    return [f"{space}{before}{opening}", *inside, f"{space}),"]


def _in_line(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool | int):
        return f"{value:_}" if type(value) is int and abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return repr(value).replace("e+", "e")
    inside = ", ".join(f"{name}{_in_line(part)}" for name, part in _parts(value))
    if isinstance(value, tuple):
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return f"{type(value).__name__}({inside})"


def _parts(value: Any) -> list[tuple[str, Any]]:
    """What stands between a value's brackets, each with what is before it."""
    if isinstance(value, tuple):
        return [("", item) for item in value]
    if not isinstance(value, KINDS):
        return []
    return [(_before(field), part) for field in fields(value) if (part := getattr(value, field.name)) != field.default]


def _before(field: "Field[Any]") -> str:
    return "" if field.default is MISSING else f"{field.name}="


def _text(text: str) -> str:
    """A text in double quotes, or in single ones where that spares escapes."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    escaped = "".join(
        f"\\{character}"
        if character in (quote, "\\")
        else character
        if character.isprintable()
        else ascii(character)[1:-1]
        for character in text
    )
    return f"{quote}{escaped}{quote}"
