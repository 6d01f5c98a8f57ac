"""What a table promises to those who send rows: as a JSON Schema, and what another table breaks of it.

Compared are two declarations, and no rows.
"""

import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from understudy.schema.columns import OTHER, Category, Date, Declared, Number
from understudy.schema.declaration import Feature, Table

Numbers: TypeAlias = Mapping[str, Number]
NAME = {"type": ["string", "integer", "null"], "description": "names the row, and is no input of the model"}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def row_schema(table: Table) -> dict[str, Any]:
    """The schema of a raw row; `$defs` has that of the encoded form, and the negative and the positive label."""
    named = {table.row_id: NAME} if isinstance(table.identifier, str) else {}
    raw, encoded = _object_schema(table.columns, named, table.ignore), _object_schema(table.encoded, named)
    label = {"title": table.target.name, "enum": list(table.target.values)}
    return {"$schema": DIALECT, "title": table.name, **raw, "$defs": {"encoded": encoded, "label": label}}


def _object_schema(
    columns: tuple[Declared, ...], named: Mapping[str, Any], ignored: Sequence[str] = ()
) -> dict[str, Any]:
    anything: dict[str, Any] = {name: {} for name in ignored if "*" not in name}
    return {
        "type": "object",
        "properties": {column.name: _cell_schema(column) for column in columns} | {**named, **anything},
        "required": [column.name for column in columns],
        "additionalProperties": len(anything) < len(ignored),
    }


def _cell_schema(column: Declared) -> dict[str, Any]:
    if isinstance(column, Category) and not column.other:
        return {"enum": [*column.values, *([None] if column.missing else [])]}
    kind = "string" if column.is_text else "number"
    allowed: dict[str, Any] = {"type": [kind, "null"] if column.missing else kind}
    if isinstance(column, Category):
        return {**allowed, "examples": list(column.values)}
    if isinstance(column, Date):
        return {**allowed, "format": "date", "description": column.allowed}
    limits = {"minimum": column.low, "maximum": column.high}
    finite = {name: limit for name, limit in limits.items() if math.isfinite(limit)}
    return {**allowed, **finite, "description": column.unit}


def breaking_changes(old: Table, new: Table) -> list[str]:
    """Why `new` refuses rows that `old` accepts, or takes them to mean something else; a text for each reason.

    Without a text every row that `old` accepts, raw or encoded, is accepted by `new`. A change of meaning is one that
    no check of rows can see: another unit, other codes, other answers.

    Two things are judged with more care than rows would need, so that a text may name a row that cannot come. A range
    counts as it is declared, also where a logarithm refuses a part of it. And of the logarithms of `old` each says by
    itself that its sum is above 0; what several of them say together is not worked out.
    """
    encoded = [*_columns(old.encoded, new.encoded), *_meanings(old, new)]
    return [
        *_answers(old, new),
        *(
            f"{marker!r} does not stand for a missing cell any more"
            for marker in old.missing
            if marker not in new.missing
        ),
        *(f"{name}: is not ignored any more" for name in old.ignore if not new.ignores(name)),
        *_names(old, new),
        *_columns(old.columns, new.columns),
        *_logarithms(old, new),
        *(f"encoded rows: {text}" for text in encoded),
    ]


def _answers(old: Table, new: Table) -> Iterator[str]:
    if new.target.name != old.target.name:
        yield f"predicts {new.target.name} instead of {old.target.name}"
    if new.target.values != old.target.values:
        yield f"negative and positive label are {new.target.allowed} instead of {old.target.allowed}"


def _names(old: Table, new: Table) -> Iterator[str]:
    name = old.identifier
    if isinstance(name, str) and name != new.identifier and not new.ignores(name):
        yield f"{name}: does not name rows any more"


def _columns(old: Sequence[Declared], new: Sequence[Declared]) -> Iterator[str]:
    before, after = ({column.name: column for column in columns} for columns in (old, new))
    yield from (f"{name}: is not accepted any more" for name in before if name not in after)
    yield from (f"{name}: is asked for, and was not before" for name in after if name not in before)
    for name in before:
        if name in after:
            yield from (f"{name}: {text}" for text in _cells(before[name], after[name]))


def _cells(old: Declared, new: Declared) -> Iterator[str]:
    if old.missing and not new.missing:
        yield "may not be missing any more"
    if old.is_text != new.is_text:
        yield "takes text instead of numbers" if new.is_text else "takes numbers instead of text"
    elif not _holds(old, new):
        yield f"takes {new.allowed} instead of {old.allowed}"
    elif isinstance(old, Number) and isinstance(new, Number) and old.unit != new.unit:
        yield f"is in {new.unit} instead of {old.unit}"


def _holds(old: Declared, new: Declared) -> bool:
    """Whether each value of `old` is one of `new`; both are text, or both are numbers."""
    if isinstance(new, Category) and new.other:
        return True
    if isinstance(old, Category):
        return not old.other and all(map(new.holds, old.values))
    if isinstance(new, Category):
        return old.low == old.high and old.low in new.values
    return bool(new.low <= old.low and old.high <= new.high)  # type: ignore[operator]


def _meanings(old: Table, new: Table) -> Iterator[str]:
    """Where encoded rows mean something else although they may be accepted; rows without names go by their order."""
    before, after = ([column.name for column in table.encoded] for table in (old, new))
    if before != after and set(before) == set(after):
        yield f"their order is {', '.join(after)} instead of {', '.join(before)}"
    for name in before:
        if name in after:
            yield from (f"{name}: {text}" for text in _meaning(*_made_from(old, name), *_made_from(new, name)))


def _made_from(table: Table, name: str) -> tuple[Feature, Declared]:
    """A feature, and the first of the columns that it is made from."""
    feature = {feature.name: feature for feature in table.features}.get(name, Feature(name))
    return feature, next(column for column in table.columns if column.name in feature.sources)


def _meaning(old: Feature, was: Declared, new: Feature, now: Declared) -> Iterator[str]:
    if set(old.sources) != set(new.sources):
        yield f"stands for {' + '.join(new.sources)} instead of {' + '.join(old.sources)}"
    elif Category in {type(was), type(now)} and any(map(operator.ne, _coded(was), _coded(now))):
        yield f"its codes stand for {now.allowed} instead of {was.allowed}"


def _coded(column: Declared) -> Iterable[object]:
    """What 0, 1, ... stand for."""
    if not isinstance(column, Category):
        return itertools.count()
    return (*column.values, OTHER) if column.other else column.values


def _logarithms(old: Table, new: Table) -> Iterator[str]:
    """Sums that `new` wants above 0 and that may be 0 or less in rows that `old` accepts."""
    before, after = ({c.name: c for c in table.columns if isinstance(c, Number)} for table in (old, new))
    positive = [{*feature.sources} for feature in old.features if feature.log]
    for feature in new.features:
        names = {*feature.sources}
        if feature.log and names <= before.keys() & after.keys() and _may_be_zero(names, positive, before, after):
            yield f"{' + '.join(feature.sources)}: has to be above 0"


def _may_be_zero(names: set[str], positive: Sequence[set[str]], before: Numbers, after: Numbers) -> bool:
    """Whether a sum may be 0 or less within both ranges of its columns, if each of the `positive` sums is above 0."""
    lows = {name: max(before[name].low, after[name].low) for name in names}
    if any(low > min(before[name].high, after[name].high) for name, low in lows.items()) or sum(lows.values()) > 0:
        return False
    for known in positive:
        # A row without one of its columns has no such sum, and so says nothing of the others.
        is_said = not any(before[name].missing for name in known - names)
        more, less = (lows[name] for name in names - known), (before[name].high for name in known - names)
        if is_said and sum(more) >= sum(less):
            return False
    return True
