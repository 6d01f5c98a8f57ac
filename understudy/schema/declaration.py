"""What a table declares, and what follows from it: reading, checking, encoding, splitting, a digest.

The project's own table is declared in `understudy/table.py`; nothing here knows its columns.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.errors import UserError
from understudy.schema.columns import (
    Category,
    Cells,
    Column,
    Fault,
    Floats,
    Identifier,
    Labels,
    Number,
    Rows,
    find_faults,
    listed,
    total,
)
from understudy.schema.spelling import number

if TYPE_CHECKING:
    import pandas as pd

SMALLEST = 5e-324  # the least float above 0


@dataclass(frozen=True)
class Feature:
    """One number that the model computes with: a column, the sum of some, or the natural logarithm of either.

    Args:
        name: Of its column in the encoded form.
        of: The columns that are added up; empty means the column of the same name.
        log: Whether the natural logarithm is taken.
    """

    name: str
    of: tuple[str, ...] = ()
    log: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns it is made from."""
        return self.of or (self.name,)


@dataclass(frozen=True)
class Limits:
    """How much worse than the version in Production a new one may be; see docs/promotion.md.

    Args:
        margin: How far its area under the ROC curve may lie below that of the version it replaces, 0 to 1.
        slice_margin: How far its mean log loss on a group of rows may lie above that version's, in nats.
        milliseconds: That the answer to one row may take.
        megabytes: That its files may have, in millions of bytes.
    """

    margin: float = 0.05
    slice_margin: float = 0.05
    milliseconds: float = 300
    megabytes: float = 200


@dataclass(frozen=True)
class Table:
    """A labelled table of rows with two classes, and how its rows become features.

    Args:
        name: The registered model's and the experiment's name.
        path: The table that is used when no other is given, relative to the project's folder.
        identifier: The column that names a row; it alone decides the side a row is on.
        target: The column to predict; its two values are the negative and the positive label.
        columns: What the model takes as raw rows.
        features: What the model computes with, in the order of the encoded form; empty means the columns.
        held_out: The share of rows kept from training, 0 to 1.
        split_seed: Part of the hash that picks them. Changing it mixes rows that earlier models
            were trained on into the held-out side.
        false_positive_cost: What a wrong positive answer costs, in any unit, above 0.
        false_negative_cost: What a wrong negative answer costs, in the same unit, above 0.
        limits: How much worse a new version may be.
        missing: Texts that stand for a missing cell, wherever rows come from, beside empty text. What a column allows
            is a value there and no marker.
    """

    name: str
    path: str
    identifier: str
    target: Category
    columns: tuple[Category | Number, ...]
    features: tuple[Feature, ...] = ()
    held_out: float = 0.30
    split_seed: int = 0
    false_positive_cost: float = 1
    false_negative_cost: float = 1
    limits: Limits = Limits()
    missing: tuple[str, ...] = ()

    @property
    def markers(self) -> frozenset[str | float]:
        """What stands for a missing cell, as text and as the number that it says."""
        return frozenset({"", *self.missing, *map(number, self.missing)})

    @property
    def labelled(self) -> tuple[Column, ...]:
        """The columns of a training table."""
        return (Identifier(self.identifier), *self.columns, self.target)

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
    def categories(self) -> tuple[Category, ...]:
        """The columns that are categories."""
        return tuple(column for column in self.columns if isinstance(column, Category))

    @property
    def encoded(self) -> tuple[Category | Number, ...]:
        """The columns of the encoded form, one per feature: codes, numbers, natural logarithms."""
        return tuple(map(self._encoded, self._features))

    @property
    def sources(self) -> tuple[tuple[str, ...], ...]:
        """For each feature the columns that it is made from."""
        return tuple(feature.sources for feature in self._features)

    @property
    def _features(self) -> tuple[Feature, ...]:
        return self.features or tuple(Feature(column.name) for column in self.columns)

    def _encoded(self, feature: Feature) -> Category | Number:
        sources = [column for column in self.columns if column.name in feature.sources]
        numbers = [column for column in sources if isinstance(column, Number)]
        missing = any(column.missing for column in sources)
        if isinstance(sources[0], Category):
            return Category(feature.name, tuple(range(len(sources[0].values))), missing)
        low, high, unit = sum(n.low for n in numbers), sum(n.high for n in numbers), numbers[0].unit
        if feature.log:
            low = math.log(max(low, SMALLEST))
            high, unit = math.log(high), f"(natural logarithm of {unit})"
        return Number(feature.name, unit, low, high, missing)

    def read(self, path: str | Path) -> "pd.DataFrame":
        """Read this table from a file or a database, checked and in the order of its identifiers.

        Args:
            path: Anything that `--data` takes; see `reader`.

        Returns:
            A frame with the identifier, the columns and the target; categories as they are declared, numbers as
            float64, missing cells as NaN.

        Raises:
            UserError: It cannot be read, or rows break the table's rules: all faults at once.
        """
        # They load what reads files and databases, which neither --help nor a served model needs.
        from understudy.schema import casting, reader

        shown = reader.shown(str(path))
        rows = casting.cast(reader.read(str(path)), self.labelled, self.markers)
        if faults := self._training_faults(rows):
            raise casting.misfit(shown, rows, faults)
        if near := casting.near_duplicates(rows[self.identifier]):
            print(f"{shown}: {self.identifier} has {near}")
        # A model's answers are text, also where a table says 0 and 1.
        rows[self.target.name] = rows[self.target.name].map({value: str(value) for value in self.target.values})
        return rows[[column.name for column in self.labelled]].sort_values(self.identifier, ignore_index=True)

    def faults(self, rows: Rows) -> list[Fault]:
        """Everything that is wrong with raw rows to be scored."""
        return [*find_faults(rows, self.columns), *self._logarithm_faults(rows)]

    def encoded_faults(self, rows: Rows) -> list[Fault]:
        """Everything that is wrong with rows of the encoded form to be scored."""
        return list(find_faults(rows, self.encoded))

    def _training_faults(self, rows: "pd.DataFrame") -> list[Fault]:
        faults = [*find_faults(rows, self.labelled, names=True), *self._logarithm_faults(rows)]
        name = self.target.name
        if name in rows and rows.columns.is_unique and len(rows[name].dropna().unique()) == 1:
            faults.append(Fault(name, "one class only", f"both {self.negative} and {self.positive}"))
        return faults

    def _logarithm_faults(self, rows: Rows) -> Iterator[Fault]:
        """Sums that are not above 0 although each of their columns is within its range."""
        for feature in self._features:
            summed = [column for column in self.columns if column.name in feature.sources]
            cells = {column.name: listed(rows[column.name]) for column in summed if list(rows).count(column.name) == 1}
            if feature.log and not list(find_faults(cells, summed)):
                totals = enumerate(total(cells, feature.sources), start=1)
                if places := tuple(row for row, value in totals if value <= 0):
                    yield Fault(" + ".join(feature.sources), "out of range", "above 0", places)

    def encode(self, rows: Rows) -> Floats:
        """Checked raw rows, shape (n, columns), as features, shape (n, features).

        Categories become the index of their value, missing cells NaN; nothing is fitted.
        """
        cells = {column.name: listed(rows[column.name]) for column in self.columns}
        return np.array([encoder(cells) for encoder in self.encoders()], dtype=float).T

    def encoders(self) -> list[Callable[[Mapping[str, Cells]], Cells]]:
        """For each feature a function that makes it from checked raw rows; ValueError for the logarithm of 0."""
        by_name = {column.name: column for column in self.columns}
        return [_encoder(feature, by_name[feature.sources[0]]) for feature in self._features]

    def labels(self, rows: "pd.DataFrame") -> Labels:
        """1 where the target is positive, else 0; shape (n,)."""
        return (rows[self.target.name] == self.positive).to_numpy().astype(int)

    def split(self, rows: "pd.DataFrame", folds: int = 1) -> "tuple[pd.DataFrame, pd.DataFrame]":
        """Training and held-out rows; a row's side depends on its identifier alone.

        Raises:
            UserError: A class has no held-out row, or fewer training rows than `folds`.
        """
        is_held_out = np.array([self._draw(name) < self.held_out for name in rows[self.identifier]], dtype=bool)
        sides = rows[~is_held_out].reset_index(drop=True), rows[is_held_out].reset_index(drop=True)
        for label in (self.negative, self.positive):
            counts = [(side[self.target.name] == label).sum() for side in sides]
            if counts[0] < folds or counts[1] < 1:
                raise UserError(
                    f"too few rows with {self.target.name} {label}: {counts[0]} to train on, {counts[1]} held out",
                    f"give a table with at least {folds} to train on and 1 held out for each class",
                )
        return sides

    def _draw(self, identifier: str) -> float:
        digest = hashlib.sha256(f"{self.split_seed}:{identifier}".encode()).digest()
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
        parts = {
            "target": _column(declared["target"]),
            "columns": tuple(map(_column, declared["columns"])),
            "features": tuple(Feature(**{**part, "of": tuple(part["of"])}) for part in declared["features"]),
            "limits": Limits(**declared["limits"]),
            "missing": tuple(declared.get("missing", ())),  # versions of 0.2 declare none
        }
        return cls(**{**declared, **parts})


def _column(declared: dict[str, Any]) -> Any:
    if "values" in declared:
        return Category(**{**declared, "values": tuple(declared["values"])})
    return Number(**declared)


def _encoder(feature: Feature, column: Category | Number) -> Callable[[Mapping[str, Cells]], Cells]:
    sources = feature.sources
    if isinstance(column, Category):
        codes = {None: math.nan, **{value: float(code) for code, value in enumerate(column.values)}}
        return lambda rows: list(map(codes.__getitem__, rows[sources[0]]))
    if feature.log:
        return lambda rows: list(map(math.log, total(rows, sources)))
    return lambda rows: total(rows, sources)
