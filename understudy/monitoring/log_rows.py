"""Reads the row log of the live server file by file, and keeps of its rows what fits in memory."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset

from understudy import terminal
from understudy.errors import UserError
from understudy.registry.stages import STAGES
from understudy.schema import logged
from understudy.schema.declaration import Table

SAMPLE = 100_000  # rows that are compared at most; more would only show differences too small to matter
TIME = pa.timestamp("us", "UTC")
# What tells two versions' answers to a row.
PAIRED = [logged.TIME, "id", "version", "stage", "form", "label", "probability"]
PAIRED += ["shadow_version", "shadow_label", "shadow_probability"]


@dataclass(frozen=True)
class ShadowAnswers:
    """How a shadow has answered rows that the version has accepted.

    Args:
        version: The shadow's number.
        rows: That it was asked.
        refused: Rows among them that it refused.
        agreeing: Rows among them that it gave the same label.
        apart: Mean distance of the two probabilities, 0 to 1; NaN if it answered none.
    """

    version: str
    rows: int
    refused: int
    agreeing: int
    apart: float

    @property
    def agreement(self) -> float:
        """The share of the rows that both have answered with the same label; NaN if there are none."""
        answered = self.rows - self.refused
        return self.agreeing / answered if answered else math.nan


def read(folder: Path, names: Sequence[str], since: datetime | None) -> Iterator[pa.Table]:
    """The rows after a time, or all, with those columns of these names that their file has, in parts.

    Raises:
        UserError: There is no such folder, or a file in it is broken.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "name the one that ./serve.sh --live --log has")
    condition = None if since is None else pc.field(logged.TIME) > pa.scalar(since, TIME)
    first = "" if since is None else f"{logged.DAY}={since.astimezone(UTC):%Y-%m-%d}"
    for path in terminal.bar(sorted(folder.glob(f"{logged.DAY}=*/*.parquet")), unit=" files"):
        if path.parent.name < first or path.name[0] == ".":  # which is not written to its end
            continue
        try:
            file = dataset.dataset(path, format="parquet")
            present = [name for name in names if name in file.schema.names]
            for batch in file.to_batches(columns=present, filter=condition):
                yield pa.Table.from_batches([batch])
        except pa.ArrowInvalid:
            raise UserError(f"{path} is broken Parquet", "move it out of the log") from None


def cells_of(table: Table) -> dict[str, dict[str, str]]:
    """For rows of each form, "raw" and "encoded", the log's columns of their cells and the table's names for them."""
    forms = {"raw": table.columns, "encoded": table.encoded}
    return {form: {logged.name(form, of.name): of.name for of in columns} for form, columns in forms.items()}


def answers(folder: Path, since: datetime | None) -> Iterator[pa.Table]:
    """Time, version, id and probability of the rows that any version has accepted after a time, or of all."""
    for rows in read(folder, [logged.TIME, "version", "id", "probability", "fault"], since):
        yield rows.filter(pc.is_null(rows["fault"])).drop_columns("fault")


def pairs(folder: Path, numbers: tuple[str, str], cells: Sequence[str], since: datetime) -> Iterator[pd.DataFrame]:
    """The rows that one of two versions answered in Production after a time and the other as its shadow, in parts.

    Each part has the columns `PAIRED`, and those of the cells that its file has.
    """
    for part in read(folder, [*PAIRED, *cells], since):
        rows = part.to_pandas().reindex(columns=[*PAIRED, *(name for name in part.column_names if name in cells)])
        is_pair = rows["version"].isin(numbers) & rows["shadow_version"].isin(numbers)
        is_pair &= (rows["version"] != rows["shadow_version"]) & (rows["stage"] == STAGES["production"])
        yield rows[is_pair & rows["probability"].notna() & rows["shadow_probability"].notna() & rows["id"].notna()]


class Sample:
    """Rows of a stream, all or `SAMPLE` of them, each with the same chance and always the same ones."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._parts: list[pa.Table] = []
        self._draws = np.empty(0)

    def add(self, rows: pa.Table) -> None:
        """Take in the next rows, all with the same columns."""
        self._parts.append(rows)
        self._draws = np.append(self._draws, self._random.random(rows.num_rows))
        if len(self._draws) > 2 * SAMPLE:
            self._parts = [self.rows()]

    def rows(self) -> pa.Table:
        """The rows, in the stream's order."""
        kept = np.sort(np.argsort(self._draws)[:SAMPLE])
        self._draws = self._draws[kept]
        return pa.concat_tables(self._parts).take(kept)


class Shadows:
    """Counts how shadows have answered."""

    def __init__(self) -> None:
        self._counts: list[pd.DataFrame] = []

    def add(self, rows: pa.Table) -> None:
        """Count rows that the version has accepted."""
        asked = rows.filter(pc.is_valid(rows["shadow_version"]))
        counted = {
            "version": asked["shadow_version"],
            "refused": pc.is_valid(asked["shadow_fault"]),
            "agreeing": pc.fill_null(pc.equal(asked["label"], asked["shadow_label"]), False),
            "apart": pc.abs(pc.subtract(asked["probability"], asked["shadow_probability"])),
        }
        frame = pa.table(counted).to_pandas().assign(rows=1)
        self._counts.append(frame.groupby("version").sum())

    def answers(self) -> list[ShadowAnswers]:
        """How each shadow has answered."""
        counts = pd.concat(self._counts).groupby(level=0).sum() if self._counts else pd.DataFrame()
        counted = counts.to_dict("index").items()
        return [
            ShadowAnswers(
                version=str(number),
                rows=int(of["rows"]),
                refused=int(of["refused"]),
                agreeing=int(of["agreeing"]),
                apart=of["apart"] / (of["rows"] - of["refused"]) if of["rows"] > of["refused"] else math.nan,
            )
            for number, of in counted
        ]
