"""The rows that are compared: those of a window, from the row log or an address, and those of a version's training."""

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from numpy.typing import NDArray

from understudy.errors import UserError
from understudy.figures import cards
from understudy.figures.metrics import Floats, Labels, Scored
from understudy.monitoring import log_rows
from understudy.monitoring.log_rows import SAMPLE, Sample, ShadowAnswers, Shadows
from understudy.reading import reader, table_rows
from understudy.registry import registration
from understudy.schema import logged
from understudy.schema.columns import Cells, Identifier, listed
from understudy.schema.declaration import Table
from understudy.scoring import scorer
from understudy.scoring.forms import RowsRefused
from understudy.scoring.scorer import PROBABILITY, Scorer
from understudy.tracking import batch_rows
from understudy.verification import manifest

DURATION = re.compile(r"(\d+)([dhm])")
UNITS = {"d": "days", "h": "hours", "m": "minutes"}


@dataclass(frozen=True)
class Window:
    """The rows of a window.

    Args:
        since: The window begins after this time; None if it has all rows.
        until: The time of its newest row.
        accepted: How many rows were accepted.
        faults: How many were refused, by the first thing that is wrong with each.
        rows: The accepted rows by form, "raw" or "encoded", under the table's own names; of all forms `SAMPLE` at most.
        probabilities: Of these rows, shape (n,).
        shadows: How shadows have answered them.
        answers: Rows at an address as `log_rows.answers` gives those of the log; None for the log's.
    """

    since: datetime | None
    until: datetime
    accepted: int
    faults: Counter[str]
    rows: dict[str, pd.DataFrame]
    probabilities: Floats
    shadows: list[ShadowAnswers] = field(default_factory=list)
    answers: pa.Table | None = None

    @property
    def refused(self) -> int:
        """How many rows were refused."""
        return self.faults.total()


@dataclass(frozen=True)
class Reference:
    """A version, and the rows that later ones are compared with.

    Args:
        model: The version, loaded from verified files.
        rows: By form, "raw" and "encoded", under the table's own names.
        is_trained_on: Whether the rows are those that the version was trained on. Of versions that were trained by
            earlier releases only the identifiers of these are known, and the held-out rows stand for them.
        scored: The version on the held-out rows, m of them.
        labels: Of these rows, 0 or 1, shape (m,).
    """

    model: Scorer
    rows: dict[str, pd.DataFrame]
    is_trained_on: bool
    scored: Scored
    labels: Labels


def moment(text: str, now: datetime) -> datetime:
    """A time, in UTC unless it says otherwise, or how long it was ago, as in "7d", "12h" or "30m".

    Raises:
        UserError: It is neither.
    """
    try:
        if match := DURATION.fullmatch(text):
            return now - timedelta(**{UNITS[match[2]]: int(match[1])})
        given = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise UserError(f"{text!r} is no time", "write it as 2026-11-26, 2026-11-26T12:00, 7d, 12h or 30m") from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def from_log(folder: Path, number: str, table: Table, since: datetime | None) -> Window:
    """The rows that a version has answered or refused after a time, or all.

    Args:
        folder: Of the row log.
        number: The version's.
        table: That the version was trained on.
        since: The window begins after this time.

    Raises:
        UserError: There are none, all were refused, there is no such folder, or a file in it is broken.
    """
    cells = log_rows.cells_of(table)
    kept = ["form", "probability", *cells["raw"], *cells["encoded"]]
    asked = ["shadow_version", "shadow_label", "shadow_probability", "shadow_fault"]
    faults, sample, shadows, accepted, until = Counter[str](), Sample(), Shadows(), 0, None
    for part in log_rows.read(folder, [logged.TIME, "version", "label", "fault", *asked, *kept], since):
        rows = part.filter(pc.equal(part["version"], number))
        if rows.num_rows:
            newest = pc.max(rows[logged.TIME]).as_py()
            until = max(until or newest, newest)
            faults.update({of["values"]: of["counts"] for of in pc.value_counts(rows["fault"].drop_null()).to_pylist()})
            rows = rows.filter(pc.is_null(rows["fault"]))
            accepted += rows.num_rows
            shadows.add(rows)
            sample.add(rows.select(kept))
    _check(
        accepted,
        faults,
        f"{folder} has no rows of version {number}{f' after {cards.shown_time(since)}' if since else ''}",
    )
    compared = sample.rows()
    frames = {}
    for form, names in cells.items():
        rows = compared.filter(pc.equal(compared["form"], form)).select([*names]).rename_columns([*names.values()])
        if rows.num_rows:
            frames[form] = rows.to_pandas()
    probabilities = compared["probability"].to_numpy()
    assert until is not None  # noqa: S101 - there are rows
    return Window(since, until, accepted, faults, frames, probabilities, shadows.answers())


def from_address(address: str, number: str, model: Scorer, now: datetime) -> Window:
    """The rows at an address, raw or encoded, which the version scores now.

    Args:
        address: Anything that `--data` takes; see `reader`.
        number: The version's.
        model: The version.
        now: When they count as answered.

    Raises:
        UserError: They cannot be read or lack a column, there are none, or all are refused.
    """
    given, place = reader.read(address), reader.shown(address)
    form = model.form([*map(str, given)])
    if missing := [name for name in form.columns if name not in given]:
        raise UserError(f"{place} has no column {', '.join(missing)}", f"give it all of {', '.join(form.columns)}")
    typed = {name: table_rows.typed(given[name], column, model.table.markers) for name, column in form.columns.items()}
    is_allowed, faults = allowed(model, {name: listed(cells) for name, cells in typed.items()})
    count = int(is_allowed.sum())
    _check(count, faults, f"{place} has no rows")
    rows = pd.DataFrame(typed)[is_allowed].reset_index(drop=True)
    probabilities = np.array(model.predict({name: listed(rows[name]) for name in rows}, PROBABILITY))
    identifier = next((name for name in (model.table.row_id, "id") if name in given), None)
    ids = typed_ids(given[identifier])[is_allowed] if identifier else [None] * count
    answered = {
        logged.TIME: pa.repeat(pa.scalar(now, log_rows.TIME), count),
        "version": pa.repeat(number, count),
        "id": pa.array(ids, pa.string(), from_pandas=True),
        "probability": pa.array(probabilities),
    }
    kept = np.sort(np.random.default_rng(0).permutation(count)[:SAMPLE])
    frames = {form.name: rows.iloc[kept].reset_index(drop=True)}
    return Window(None, now, count, faults, frames, probabilities[kept], answers=pa.table(answered))


def reference(client: MlflowClient, version: ModelVersion) -> Reference:
    """What a version's rows are compared with.

    Raises:
        UserError: Its files are not what was registered, or the rows are gone or not those that training has kept.
    """
    with manifest.verified(client, version) as folder:
        model = scorer.load(folder)
    table, name, number = model.table, str(version.name), str(version.version)
    columns = [column.name for column in table.columns]
    held_out, trained_on = (
        registration.kept_rows(client, name, number, file) for file in (batch_rows.HELD_OUT, batch_rows.TRAINED_ON)
    )
    is_trained_on = {*columns} <= {*trained_on}
    raw = (trained_on if is_trained_on else held_out)[columns]
    encoded = pd.DataFrame(table.encode(raw), columns=[column.name for column in table.encoded])
    probabilities = model.predict({column: listed(held_out[column]) for column in columns}, PROBABILITY)
    scored = Scored(np.array(probabilities), model.threshold)
    return Reference(model, {"raw": raw, "encoded": encoded}, is_trained_on, scored, table.labels(held_out))


def typed_ids(cells: "pd.Series[Any]") -> "pd.Series[Any]":
    """Ids as the log has them: text, missing ones as NaN."""
    return table_rows.typed(cells, Identifier("id"))


def _check(accepted: int, faults: Counter[str], nothing: str) -> None:
    if not accepted and faults:
        fault, rows = faults.most_common(1)[0]
        raise UserError(f"all {faults.total()} rows were refused, {rows} for {fault}", "correct what sends them")
    if not accepted:
        raise UserError(nothing, "name an earlier --since, another --version, or where else the rows are")


def allowed(model: Scorer, columns: dict[str, Cells]) -> tuple[NDArray[np.bool_], Counter[str]]:
    """Which rows the model's table allows, shape (n,), and how many it does not, by the first thing that is wrong."""
    is_allowed, faults = np.ones(len(next(iter(columns.values()))), dtype=bool), Counter[str]()
    try:
        if len(is_allowed):
            model.form(columns).features(columns)
    except RowsRefused as refused:
        for fault in refused.faults:
            places = [row - 1 for row in fault.rows if is_allowed[row - 1]]
            faults[f"{fault.column}: {fault.problem}"] += len(places)
            is_allowed[places] = False
    return is_allowed, +faults
