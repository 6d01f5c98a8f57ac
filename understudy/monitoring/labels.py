"""What came true: labels that come later than the rows, joined with what a version answered, by the rows' ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from mlflow import MlflowClient

from understudy.errors import UserError
from understudy.figures.metrics import Floats, Labels
from understudy.gate.decision import Answers
from understudy.gate.live import LiveRows
from understudy.monitoring import log_rows, window
from understudy.reading import reader, table_rows
from understudy.registry import registered
from understudy.schema import logged
from understudy.schema.declaration import Table
from understudy.schema.faults import find_faults
from understudy.table import TABLE

ID, LABEL, KNOWN_AT = "id", "label", "known_at"  # columns that labels may have under these names


@dataclass(frozen=True)
class KnownLabels:
    """Labels, one for each id.

    Args:
        of: Whether the label is the positive one, by id, shape (n,).
        missing: Rows without a label, which is not known yet.
        repeated: Rows that say again what another one says of the same id.
        contradicting: Ids of which rows say different things; the one that was known last counts.
        undecided: Ids among them of which nothing says which was known last, so that none counts.
    """

    of: "pd.Series[bool]"
    missing: int
    repeated: int
    contradicting: int
    undecided: int


@dataclass(frozen=True)
class JoinedLabels:
    """Answers of a version whose true label is known, one for each id, and what was left out.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: That the version answered, shape (n,).
        late: How many of them were answered before the window.
        again: Ids that were answered more than once; the newest answer counts.
        elsewhere: Ids with a label that only other versions have answered.
        unknown: Ids with a label that are not among the answers.
        unlabelled: Answered rows of the version whose id has no label.
    """

    labels: Labels
    probabilities: Floats
    late: int
    again: int
    elsewhere: int
    unknown: int
    unlabelled: int


def read(address: str, table: Table) -> KnownLabels:
    """The labels at an address.

    The ids are in the column of the table's identifier or in `id`, the labels in that of its target or in `label`.
    Where `known_at` says when each was known, the last one counts of those that contradict each other.

    Args:
        address: Anything that `--data` takes; see `reader`.
        table: That says which labels there are.

    Raises:
        UserError: They cannot be read, lack a column, or have a cell that is not allowed.
    """
    given, place = reader.read(address), reader.shown(address)
    identifier, target = (_column(given, names, place) for names in ((table.row_id, ID), (table.target.name, LABEL)))
    ids, cells = window.typed_ids(given[identifier]), table_rows.typed(given[target], table.target, table.markers)
    if ids.isna().any():
        raise UserError(f"{place} has a row without {identifier}", "give each label the id of its row")
    may_miss = replace(table.target, name=target, missing=True)
    if len(cells) and (faults := [*find_faults(pd.DataFrame({target: cells}), [may_miss])]):
        raise UserError(f"{place} has what is no label: {'; '.join(map(str, faults))}", "correct it, or leave it out")
    rows = pd.DataFrame({ID: ids, LABEL: cells, KNOWN_AT: _times(given, place)}, index=given.index)
    is_known = rows[LABEL].notna()
    known = rows[is_known].assign(**{LABEL: rows[LABEL].map({value: str(value) for value in table.target.values})})
    return _one_each(known.assign(**{LABEL: known[LABEL] == table.positive}), int((~is_known).sum()))


def _column(given: pd.DataFrame, names: Sequence[str], place: str) -> str:
    present = [name for name in names if name in given]
    if not present:
        wanted = " or ".join(dict.fromkeys(names))
        raise UserError(f"{place} has no column {wanted}, but {', '.join(map(str, given))}", "rename one of them")
    return present[0]


def _times(given: pd.DataFrame, place: str) -> "pd.Series[Any]":
    """When each label was known, in UTC unless a cell says otherwise; NaT where nothing says it."""
    if KNOWN_AT not in given:
        return pd.Series(pd.NaT, index=given.index, dtype="datetime64[us, UTC]")
    times = pd.to_datetime(given[KNOWN_AT], utc=True, errors="coerce", format="ISO8601")
    if (times.isna() & given[KNOWN_AT].notna()).any():
        raise UserError(f"{place} has what is no time in {KNOWN_AT}", "write it as 2026-11-26 or 2026-11-26T12:00:00Z")
    return times


def _one_each(rows: pd.DataFrame, missing: int) -> KnownLabels:
    """One label for each id, of rows that all have one."""
    by_id = rows.groupby(ID)
    is_contradicted = by_id[LABEL].transform("nunique") > 1
    is_last = rows[KNOWN_AT].isna() | (rows[KNOWN_AT] == by_id[KNOWN_AT].transform("max"))
    last = rows[is_last].groupby(ID)[LABEL]
    is_decided = last.min() == last.max()
    return KnownLabels(
        of=last.first()[is_decided].astype(bool),
        missing=missing,
        repeated=int(rows.duplicated([ID, LABEL]).sum()),
        contradicting=int(rows.loc[is_contradicted, ID].nunique()),
        undecided=int((~is_decided).sum()),
    )


def join(known: KnownLabels, answers: Iterable[pa.Table], number: str, since: datetime | None) -> JoinedLabels:
    """Join labels with the answers of a version.

    Args:
        known: The labels.
        answers: Of all versions, in parts, as `log_rows.answers` gives them.
        number: The version's.
        since: When the window begins; None for its first row.
    """
    ids, parts, answered = pa.array(known.of.index, pa.string()), [], 0
    for part in answers:
        answered += int(pc.sum(pc.equal(part["version"], number)).as_py() or 0)
        parts.append(part.filter(pc.is_in(part["id"], ids)))
    rows = pa.concat_tables(parts).to_pandas()
    is_own = rows["version"] == number
    own = rows[is_own].sort_values(logged.TIME, kind="stable")
    newest = own.drop_duplicates("id", keep="last")
    seen = rows["id"].nunique()
    return JoinedLabels(
        labels=newest["id"].map(known.of).to_numpy().astype(int),
        probabilities=newest["probability"].to_numpy(),
        late=int((newest[logged.TIME] <= since).sum()) if since else 0,
        again=int(own.loc[own["id"].duplicated(), "id"].nunique()),
        elsewhere=seen - len(newest),
        unknown=len(ids) - seen,
        unlabelled=answered - len(own),
    )


def of_both(client: MlflowClient, name: str, folder: Path, address: str, champion: str, challenger: str) -> LiveRows:
    """The rows of the log that two versions have answered, one in Production and the other as its shadow.

    Another registered model of that name may have had versions of the same numbers, so only rows count that were
    answered since both versions were made.

    Args:
        client: Of the registry.
        name: The registered model's.
        folder: Of the row log.
        address: Of the labels; see `read`.
        champion: The number of one version.
        challenger: That of the other.

    Raises:
        UserError: The labels cannot be read, there is no such folder, or a file in it is broken.
    """
    known, numbers = read(address, TABLE), (champion, challenger)
    made = max(registered.get_version(client, name, number).creation_timestamp for number in numbers)
    cells = log_rows.cells_of(TABLE)["raw"]
    parts = [*log_rows.pairs(folder, numbers, [*cells], datetime.fromtimestamp(made / 1000, UTC))]
    rows = pd.concat(parts, keys=range(len(parts))) if parts else pd.DataFrame(columns=log_rows.PAIRED)
    rows = rows.sort_values(logged.TIME, kind="stable")
    newest, again = rows.drop_duplicates("id", keep="last"), rows.loc[rows["id"].duplicated(), "id"].nunique()
    # Files of versions with other tables lack columns, which is not the same as a missing cell.
    part_of, is_raw = newest.index.get_level_values(0), (newest["form"] == "raw").to_numpy()
    has = {name: is_raw & part_of.isin([n for n, part in enumerate(parts) if name in part]) for name in cells}
    newest = newest.reset_index(drop=True)
    is_live = newest["version"] == challenger
    return LiveRows(
        ids=newest["id"],
        labels=newest["id"].map(known.of).to_numpy().astype(float),
        answered=(newest["label"] == TABLE.positive).to_numpy().astype(int),
        challenger=_answers(newest, is_live),
        champion=_answers(newest, ~is_live),
        cells={column: newest.loc[has[name], name] for name, column in cells.items() if has[name].any()},
        counts={
            "labels are of rows that the two did not both answer": int((~known.of.index.isin(newest["id"])).sum()),
            "labels contradict each other, and are left out": known.undecided,
            "rows were answered more than once, and the newest answer counts": again,
        },
    )


def _answers(rows: pd.DataFrame, is_live: "pd.Series[bool]") -> Answers:
    """What a version answered that was in Production for some of the rows, and a shadow for the others."""
    probabilities = np.where(is_live, rows["probability"], rows["shadow_probability"]).astype(float)
    labels = np.where(is_live, rows["label"], rows["shadow_label"]) == TABLE.positive
    return Answers(probabilities, labels.astype(int))
