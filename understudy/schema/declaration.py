"""What a table declares, and what follows from it: reading, checking, encoding, splitting, a digest.

The project's own table is declared in `understudy/table.py`; nothing here knows its columns.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.errors import UserError
from understudy.schema.columns import (
    OTHER,
    Category,
    Cells,
    Column,
    Declared,
    Floats,
    Identifier,
    Labels,
    Number,
    Rows,
    column_of,
    listed,
    mistake,
    repeated,
)
from understudy.schema.columns import Feature as Feature
from understudy.schema.faults import Fault, find_faults, find_faults_of_sum
from understudy.schema.limits import Limits as Limits
from understudy.schema.limits import Live as Live
from understudy.schema.limits import Probation as Probation
from understudy.schema.spelling import number

if TYPE_CHECKING:
    import pandas as pd

SELECTIONS = ("accuracy", "AUC", "log loss", "cost")


@dataclass(frozen=True)
class Table:
    """A labelled table of rows with two classes, and how its rows become features.

    Args:
        name: The registered model's and the experiment's name.
        path: The table that is used when no other is given, relative to the project's folder.
        identifier: The column that names a row, or several that name it together. It alone decides the side a row is
            on. Where nothing names rows it is (), and a digest of the columns does: equal rows are on one side, and a
            row that is corrected becomes another row, which may be on the other side.
        target: The column to predict; its two values are the negative and the positive label.
        columns: What the model takes as raw rows.
        features: What the model computes with, in the order of the encoded form; empty means the columns.
        held_out: The share of rows kept from training, 0 to 1.
        split_seed: Part of the hash that picks them. Changing it mixes rows that earlier models
            were trained on into the held-out side.
        false_positive_cost: What a wrong positive answer costs, in any unit, above 0.
        false_negative_cost: What a wrong negative answer costs, in the same unit, above 0.
        limits: How much worse a new version may be, and who lets it in.
        select_by: What decides in cross-validation which values of a grid, and which family, are best: accuracy at a
            probability of 0.5, AUC, log loss, or the cost of wrong answers.
        ignore: Columns that rows may have and no model sees; `*` stands for any text, so ("*",) is any other column.
        missing: Texts that stand for a missing cell, wherever rows come from, beside empty text. What a column allows
            is a value there and no marker.
        live: Where the live server, its row log and the labels of its rows are.
    """

    name: str
    path: str
    identifier: str | tuple[str, ...] | None = None
    target: Category = None  # type: ignore[assignment]
    columns: tuple[Declared, ...] = ()
    features: tuple[Feature, ...] = ()
    held_out: float = 0.30
    split_seed: int = 0
    false_positive_cost: float = 1
    false_negative_cost: float = 1
    limits: Limits = Limits()
    select_by: str = "accuracy"
    ignore: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    live: Live = Live()

    def __post_init__(self) -> None:
        for what in (*self._mistakes_of_columns(), *self._mistakes_of_features(), *self._mistakes_of_settings()):
            raise mistake(f"Table {self.name}: {what}")

    def _mistakes_of_columns(self) -> Iterator[str]:
        if self.identifier is None:
            yield 'no identifier says what names a row: a column, several as ("a", "b"), or () for none'
        if not isinstance(self.target, Category) or len(self.target.values) != 2 or self.target.missing:
            yield "the target has to be a Category of two values, never missing: the negative and the positive label"
        if (
            not isinstance(self.columns, tuple)
            or not self.columns
            or not all(isinstance(c, Declared) for c in self.columns)
        ):
            yield "columns have to be a tuple of Category, Number and Date, with at least one of them"
        names = [self.row_id, self.target.name, *(column.name for column in self.columns)]
        yield from (f"{name} is declared twice" for name in repeated(names))
        yield from (f"{name} is a column, and may not be ignored" for name in names if name in self.ignore)

    def _mistakes_of_features(self) -> Iterator[str]:
        by_name = {column.name: column for column in self.columns}
        yield from (f"feature {name} is declared twice" for name in repeated(f.name for f in self.features))
        for feature in self.features:
            for name in feature.sources:
                if name not in by_name:
                    similar = "".join(f"; did you mean {close}?" for close in get_close_matches(name, by_name, 1))
                    yield f"feature {feature.name} is made from {name}, which is no column{similar}"
            sources = [by_name[name] for name in feature.sources if name in by_name]
            if (len(feature.sources) > 1 or feature.log) and not all(isinstance(c, Number) for c in sources):
                yield f"feature {feature.name}: only columns of numbers have sums and logarithms"
            elif feature.log and sum(column.high for column in sources if isinstance(column, Number)) <= 0:
                yield f"feature {feature.name} is the logarithm of what is never above 0"

    def _mistakes_of_settings(self) -> Iterator[str]:
        if self.select_by not in SELECTIONS:
            yield f"select_by is {self.select_by!r}; allowed: {', '.join(SELECTIONS)}"
        if not 0 < self.held_out < 1:
            yield f"held_out is {self.held_out!r}, not a share between 0 and 1"
        if not (self.false_positive_cost > 0 and self.false_negative_cost > 0):
            yield "the costs of wrong answers have to be above 0"
        if lists := [name for name in ("ignore", "missing") if isinstance(getattr(self, name), str)]:
            yield f'{lists[0]} has to be a tuple: {lists[0]}=("{getattr(self, lists[0])}",)'

    @property
    def row_id(self) -> str:
        """The column of rows that were read which names each row."""
        return (
            self.identifier if isinstance(self.identifier, str) else " + ".join(self.identifier or ()) or "row digest"
        )

    def ignores(self, column: str) -> bool:
        """Whether rows may have such a column, which no model sees and nothing declares."""
        if not any(column == name or fnmatchcase(column, name) for name in self.ignore):
            return False
        names = self.identifier if isinstance(self.identifier, tuple) else ()
        return column not in {*names, *(declared.name for declared in self.labelled)}

    @property
    def markers(self) -> frozenset[str | float]:
        """What stands for a missing cell, as text and as the number that it says."""
        return frozenset({"", *self.missing, *map(number, self.missing)})

    @property
    def labelled(self) -> tuple[Column, ...]:
        """The columns of a training table."""
        return (Identifier(self.row_id), *self.columns, self.target)

    def without_sensitive(self) -> "Table":
        """The same table for a model that neither learns from nor accepts its sensitive columns."""
        hidden = {column.name for column in self.categories if column.sensitive}
        columns = tuple(column for column in self.columns if column.name not in hidden)
        features = tuple(feature for feature in self.features if not hidden & set(feature.sources))
        return replace(self, columns=columns, features=features)

    @property
    def negative(self) -> str:
        """The target's first value."""
        return str(self.target.values[0])

    @property
    def positive(self) -> str:
        """The target's second value."""
        return str(self.target.values[1])

    @property
    def break_even(self) -> float:
        """The probability of the positive label at which both answers cost the same."""
        return self.false_positive_cost / (self.false_positive_cost + self.false_negative_cost)

    @property
    def categories(self) -> tuple[Category, ...]:
        """The columns that are categories."""
        return tuple(column for column in self.columns if isinstance(column, Category))

    @property
    def encoded(self) -> tuple[Category | Number, ...]:
        """The columns of the encoded form, one per feature: codes, numbers, natural logarithms."""
        by_name = {column.name: column for column in self.columns}
        return tuple(feature.encoded([by_name[name] for name in feature.sources]) for feature in self.all_features)

    @property
    def sources(self) -> tuple[tuple[str, ...], ...]:
        """For each feature the columns that it is made from."""
        return tuple(feature.sources for feature in self.all_features)

    @property
    def all_features(self) -> tuple[Feature, ...]:
        """The features; where none are declared, one for each column."""
        return self.features or tuple(Feature(column.name) for column in self.columns)

    def faults(self, rows: Rows) -> list[Fault]:
        """Everything that is wrong with raw rows to be scored."""
        return [*find_faults(rows, self.columns), *self.logarithm_faults(rows)]

    def logarithm_faults(self, rows: Rows) -> Iterator[Fault]:
        """Sums that are not above 0 although each of their columns is within its range."""
        by_name = {column.name: column for column in self.columns}
        for sources in (feature.sources for feature in self.all_features if feature.log):
            yield from find_faults_of_sum(rows, [by_name[name] for name in sources])

    def encode(self, rows: Rows) -> Floats:
        """Checked raw rows, shape (n, columns), as features, shape (n, features).

        Categories become the index of their value, missing cells NaN; nothing is fitted.
        """
        cells = {column.name: listed(rows[column.name]) for column in self.columns}
        return np.array([encoder(cells) for encoder in self.encoders()], dtype=float).T

    def encoders(self) -> list[Callable[[Mapping[str, Cells]], Cells]]:
        """For each feature a function that makes it from checked raw rows; ValueError for the logarithm of 0."""
        by_name = {column.name: column for column in self.columns}
        return [feature.encoder(by_name[feature.sources[0]]) for feature in self.all_features]

    def groups(self, rows: "pd.DataFrame") -> "pd.DataFrame":
        """The categories of checked rows, as far as the rows have them, with `OTHER` for what is not listed."""
        groups = rows[[column.name for column in self.categories if column.name in rows]].astype(object)
        for column in self.categories:
            if column.other and column.name in groups:
                is_listed = groups[column.name].isin(column.values) | groups[column.name].isna()
                groups[column.name] = groups[column.name].where(is_listed, OTHER)
        return groups

    def labels(self, rows: "pd.DataFrame") -> Labels:
        """1 where the target is positive, else 0; shape (n,)."""
        return (rows[self.target.name] == self.positive).to_numpy().astype(int)

    def split(self, rows: "pd.DataFrame", folds: int = 1) -> "tuple[pd.DataFrame, pd.DataFrame]":
        """Training and held-out rows; a row's side depends on its identifier alone.

        Raises:
            UserError: A class has no held-out row, or fewer training rows than `folds`.
        """
        is_held_out = np.array([self._draw(name) < self.held_out for name in rows[self.row_id]], dtype=bool)
        sides = rows[~is_held_out].reset_index(drop=True), rows[is_held_out].reset_index(drop=True)
        for label in (self.negative, self.positive):
            counts = [(side[self.target.name] == label).sum() for side in sides]
            if counts[0] < folds or counts[1] < 1:
                raise UserError(
                    f"too few rows with {self.target.name} {label}: {counts[0]} to train on, {counts[1]} held out",
                    f"give a table with at least {folds} to train on and 1 held out for each class",
                )
        return sides

    def _draw(self, row_id: str) -> float:
        # Equal rows without an identifier have one digest, and a number behind it; see `casting`.
        name = row_id if self.identifier else row_id.partition(" ")[0]
        digest = hashlib.sha256(f"{self.split_seed}:{name}".encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64

    def digest(self, rows: "pd.DataFrame") -> str:
        """12 hexadecimal digits of the SHA-256 of the rows' content, as `read` orders it."""
        content = rows.to_csv(index=False, lineterminator="\n").encode()
        return hashlib.sha256(content).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """The declaration as JSON takes it; `Table.of` reads it."""
        return asdict(self)

    @classmethod
    def of(cls, declared: dict[str, Any]) -> "Table":
        """The table of a declaration that `as_dict` has written."""
        identifier = declared["identifier"]
        parts = {
            "identifier": identifier if isinstance(identifier, str) else tuple(identifier),
            "target": column_of(declared["target"]),
            "columns": tuple(map(column_of, declared["columns"])),
            "features": tuple(Feature(**{**part, "of": tuple(part["of"])}) for part in declared["features"]),
            "limits": _limits(declared["limits"]),
            # Versions of 0.2 declare neither.
            "ignore": tuple(declared.get("ignore", ())),
            "missing": tuple(declared.get("missing", ())),
            "live": Live(**declared.get("live", {})),
        }
        return cls(**{**declared, **parts})


def _limits(declared: dict[str, Any]) -> Limits:
    probation = declared.get("probation")
    return Limits(**{**declared, "probation": Probation(**probation) if probation else None})
