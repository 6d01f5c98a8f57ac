"""What can be said about a table, and what follows from it: reading, checking, splitting, encoding.

The table itself is declared in `table.py`; nothing here knows its columns.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from understudy.errors import UserError

Mask = NDArray[np.bool_]

ROWS_SHOWN = 20


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one column: what, in which rows (1 is the first), and what is allowed."""

    column: str
    problem: str
    allowed: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.rows[:ROWS_SHOWN]))
        more = len(self.rows) - ROWS_SHOWN
        where = f" in row {shown}" if self.rows else ""
        where += f" and {more} more" if more > 0 else ""
        return f"{self.column}: {self.problem}{where} (allowed: {self.allowed})"


@dataclass(frozen=True)
class Category:
    """A column whose values come from a list; their order gives the codes 0, 1, ..."""

    name: str
    values: tuple[str, ...] | tuple[int, ...]
    missing: bool = False
    outside = "unknown category"

    @property
    def allowed(self) -> str:
        return ", ".join(map(str, self.values))

    @property
    def is_text(self) -> bool:
        return isinstance(self.values[0], str)

    def holds(self, cells: "pd.Series[float]") -> Mask:
        return cells.isin(self.values).to_numpy()


@dataclass(frozen=True)
class Number:
    """A column of finite numbers from `low` to `high`, both included, in `unit`."""

    name: str
    unit: str
    low: float
    high: float
    missing: bool = False
    outside = "out of range"
    is_text = False

    @property
    def allowed(self) -> str:
        low = "at most" if self.low == -math.inf else f"{self.low:.12g} to"
        return f"{low} {self.high:.12g} {self.unit}"

    def holds(self, cells: "pd.Series[float]") -> Mask:
        numbers = cells.to_numpy(dtype=float)
        return np.isfinite(numbers) & (self.low <= numbers) & (numbers <= self.high)


Column = Category | Number


@dataclass(frozen=True)
class Feature:
    """What the model sees in one place: a column, or the sum of some, or a natural logarithm of it.

    Args:
        name: Also the name of its column in the encoded form.
        of: The columns that are added up; empty means the column of the same name.
        log: Whether the natural logarithm is taken.
    """

    name: str
    of: tuple[str, ...] = ()
    log: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        return self.of or (self.name,)


@dataclass(frozen=True)
class Table:
    """A labelled table of rows with two classes, and how its rows become features.

    Args:
        name: The registered model's and the experiment's name.
        path: The table that is used when no other is given, relative to the project's folder.
        identifier: The column that names a row; it alone decides the side a row is on.
        target: The column to predict.
        negative, positive: The target's two values.
        columns: What the model takes as raw rows.
        features: What the model computes with, in the order of the encoded form.
        held_out: The share of rows kept from training, 0 to 1.
        split_seed: Part of the hash that picks them. Changing it mixes rows that earlier models
            were trained on into the held-out side.
    """

    name: str
    path: str
    identifier: str
    target: str
    negative: str
    positive: str
    columns: tuple[Column, ...]
    features: tuple[Feature, ...]
    held_out: float = 0.30
    split_seed: int = 0

    @property
    def by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    @property
    def encoded(self) -> tuple[Column, ...]:
        """The columns of the encoded form, one per feature: codes, numbers, natural logarithms."""
        return tuple(map(self._encoded, self.features))

    def _encoded(self, feature: Feature) -> Column:
        sources = [self.by_name[name] for name in feature.sources]
        missing = any(source.missing for source in sources)
        if isinstance(sources[0], Category):
            return Category(feature.name, tuple(range(len(sources[0].values))), missing)
        numbers = [source for source in sources if isinstance(source, Number)]
        low, high, unit = sum(n.low for n in numbers), sum(n.high for n in numbers), numbers[0].unit
        if feature.log:
            low = math.log(low) if low > 0 else -math.inf
            high, unit = math.log(high), f"(natural logarithm of {unit})"
        return Number(feature.name, unit, low, high, missing)

    def read(self, path: str | Path) -> pd.DataFrame:
        """Read a CSV file of this table, checked and in the order of its identifiers.

        Returns:
            One row per line, with the identifier, the columns and the target; categories as they
            are declared, numbers as float64, missing cells as NaN.

        Raises:
            UserError: The file cannot be read, or rows break the table's rules: all faults at once.
        """
        rows = _typed(_read_csv(path), self.columns)
        faults = [*self._header_faults(rows), *self._label_faults(rows), *self.faults(rows, labelled=True)]
        if faults:
            report = "\n  ".join(map(str, faults))
            raise UserError(
                f"{path} does not fit the table (row 1 is the first below the header)\n  {report}",
                "correct the file, or say in understudy/table.py what is allowed",
            )
        order = [self.identifier, *self.by_name, self.target]
        return rows[order].sort_values(self.identifier, ignore_index=True)

    def faults(self, rows: pd.DataFrame, labelled: bool = False) -> list[Fault]:
        """Everything that is wrong with raw rows: the one check of training and of scoring."""
        known = (self.identifier, self.target) if labelled else ()
        faults = list(_faults(rows, self.columns, known))
        for feature in self.features:
            if feature.log and not {fault.column for fault in faults} & set(feature.sources):
                faults += self._logarithm_faults(feature, rows)
        return faults

    def encoded_faults(self, rows: pd.DataFrame) -> list[Fault]:
        """Everything that is wrong with rows of the encoded form."""
        return list(_faults(rows, self.encoded))

    def encode(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Turn checked raw rows, shape (n, columns), into the features, shape (n, features).

        Categories become the index of their value, missing cells NaN; nothing is fitted.
        """
        return np.column_stack([self._feature(feature, rows) for feature in self.features])

    def _feature(self, feature: Feature, rows: pd.DataFrame) -> NDArray[np.float64]:
        column = self.by_name[feature.sources[0]]
        if isinstance(column, Category):
            codes = pd.Index(column.values).get_indexer(pd.Index(rows[column.name])).astype(float)
            return np.where(codes < 0, np.nan, codes)
        total = sum(rows[name].to_numpy(dtype=float) for name in feature.sources)
        return np.asarray(np.log(total) if feature.log else total)

    def labels(self, rows: pd.DataFrame) -> NDArray[np.int_]:
        """1 where the target is positive, else 0; shape (n,)."""
        return (rows[self.target] == self.positive).to_numpy().astype(int)

    def split(self, rows: pd.DataFrame, folds: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Training and held-out rows; a row's side depends on its identifier alone.

        Raises:
            UserError: A class has no held-out row, or fewer training rows than `folds`.
        """
        held_out = np.array([self._draw(name) < self.held_out for name in rows[self.identifier]], dtype=bool)
        sides = rows[~held_out].reset_index(drop=True), rows[held_out].reset_index(drop=True)
        for label in (self.negative, self.positive):
            trained, kept = ((side[self.target] == label).sum() for side in sides)
            if trained < folds or kept < 1:
                raise UserError(
                    f"too few rows with {self.target} {label}: {trained} to train on, {kept} held out",
                    f"give a table with at least {folds} to train on and 1 held out for each class",
                )
        return sides

    def _draw(self, identifier: str) -> float:
        digest = hashlib.sha256(f"{self.split_seed}:{identifier}".encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64

    def digest(self, rows: pd.DataFrame) -> str:
        """32 hexadecimal digits of the SHA-256 of the rows' content, as `read` orders it."""
        content = rows.to_csv(index=False, lineterminator="\n").encode()
        return hashlib.sha256(content).hexdigest()[:32]

    def _header_faults(self, rows: pd.DataFrame) -> Iterator[Fault]:
        for name in (self.identifier, self.target):
            if name not in rows:
                yield Fault(name, "column is missing", "exactly one column of this name")

    def _label_faults(self, rows: pd.DataFrame) -> Iterator[Fault]:
        if self.identifier in rows and rows.columns.is_unique:
            names = rows[self.identifier]
            yield from _fault(self.identifier, "missing", "a value in every row", names.isna())
            yield from _fault(self.identifier, "repeated", "one row each", names.duplicated() & names.notna())
        if self.target in rows and rows.columns.is_unique:
            target = Category(self.target, (self.negative, self.positive))
            yield from _cell_faults(target, rows[self.target])
            if len(rows) and rows[self.target].nunique() == 1:
                yield Fault(self.target, "one class only", f"both {target.allowed}")

    def _logarithm_faults(self, feature: Feature, rows: pd.DataFrame) -> Iterator[Fault]:
        total = sum(rows[name].astype(float) for name in feature.sources)
        yield from _fault(" + ".join(feature.sources), "out of range", "above 0", total <= 0)


def _read_csv(path: str | Path) -> pd.DataFrame:
    try:
        # Without a header of its own, pandas leaves a repeated column name as it is.
        cells = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise UserError(f"there is no file {path}", "give the path of a CSV file with --data") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder", "give the path of a CSV file with --data") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty", "give a CSV file with a header and rows with --data") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a CSV file in UTF-8: {reason}", "correct the file") from None
    return cells[1:].set_axis(cells.iloc[0].tolist(), axis="columns").reset_index(drop=True)


def _typed(rows: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Numbers as numbers where the text is one; what is not stays text, for the check to find."""
    typed = rows.copy()
    for column in columns:
        if not column.is_text and list(rows.columns).count(column.name) == 1:
            numbers = pd.to_numeric(rows[column.name], errors="coerce")
            unread = numbers.isna() & rows[column.name].notna()
            typed[column.name] = rows[column.name].where(unread, numbers) if unread.any() else numbers.astype(float)
    return typed


def _faults(rows: pd.DataFrame, columns: Sequence[Column], known: Sequence[str] = ()) -> Iterator[Fault]:
    names = [column.name for column in columns]
    if not len(rows):
        yield Fault("the table", "no rows", "at least one")
    for name in dict.fromkeys(map(str, rows.columns[rows.columns.duplicated()])):
        yield Fault(name, "column is repeated", "exactly one column of this name")
    for extra in dict.fromkeys(map(str, rows.columns)):
        if extra not in names and extra not in known:
            yield Fault(extra, "column is not known", ", ".join(names))
    for column in columns:
        if column.name not in rows:
            yield Fault(column.name, "column is missing", column.allowed)
        elif isinstance(cells := rows[column.name], pd.Series):
            yield from _cell_faults(column, cells)


def _cell_faults(column: Column, cells: "pd.Series[float]") -> Iterator[Fault]:
    empty = cells.isna().to_numpy()
    wrong = ~empty & ~_is_kind(cells, column.is_text)
    if not column.missing:
        yield from _fault(column.name, "missing", column.allowed, empty)
    yield from _fault(column.name, "not text" if column.is_text else "not a number", column.allowed, wrong)
    outside = ~empty & ~wrong
    outside[outside] = ~column.holds(cells[outside])
    yield from _fault(column.name, column.outside, column.allowed, outside)


def _is_kind(cells: "pd.Series[float]", text: bool) -> Mask:
    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells):
        return np.full(len(cells), not text)
    if text:
        return np.array([isinstance(cell, str) for cell in cells], dtype=bool)
    return np.array([isinstance(cell, Real) and not isinstance(cell, bool | np.bool_) for cell in cells], dtype=bool)


def _fault(column: str, problem: str, allowed: str, mask: "Mask | pd.Series[bool]") -> Iterator[Fault]:
    rows = np.flatnonzero(np.asarray(mask))
    if len(rows):
        yield Fault(column, problem, allowed, tuple(int(row) + 1 for row in rows))
