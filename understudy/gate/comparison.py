"""Whom a challenger is compared with, and on which held-out rows."""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd
from mlflow import MlflowClient

from understudy.errors import UserError
from understudy.reading import table_rows
from understudy.registry import history, records, registered, registration, stages
from understudy.registry.records import Move, SavedRecord
from understudy.schema.spelling import folded
from understudy.table import TABLE
from understudy.tracking import batch_rows
from understudy.verification import manifest


def champion(client: MlflowClient, name: str, planned: Move) -> str | None:
    """The number of the champion of a planned move; None if there has never been one.

    The champion is the version in Production, or else the last that was there and whose files are still the registered
    ones.

    Raises:
        UserError: The move is to Production, and of all versions that were there nothing is left.
    """
    versions = {str(version.version): version for version in registered.versions(client, name)}
    to_production = planned.stage == "production"
    in_production = planned.before if to_production else stages.aliases(client, name).get("production")
    if in_production in versions:
        return in_production
    known = records.find(client, name)
    for number in reversed(history.champions(known)):
        if number == planned.version or (number in versions and manifest.fault(client, versions[number]) is None):
            return number
    # Staging needs no champion, and Production will ask again.
    why = _nothing_left(known, [*history.lost(versions.values(), known)]) if to_production else None
    if why is not None:
        raise UserError(f'{why}; --force --reason "..." goes ahead', "force it")
    return None


def earlier(client: MlflowClient, name: str, known: Sequence[SavedRecord], others: Collection[str]) -> list[str]:
    """The champions since a version was found better, without others: so far back small losses have to be counted.

    Versions that are gone are passed over.
    """
    numbers = {str(version.version) for version in registered.versions(client, name)}
    path = dict.fromkeys(history.champions_since_better(known))
    return [number for number in path if number in numbers and number not in others]


def held_out(client: MlflowClient, name: str, number: str, data: str | None) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows that decide on a challenger: those that training kept, or the held-out side of the table at an address.

    Where a table is named, counts say how the rows that training kept differ from it.

    Raises:
        UserError: The rows are gone or were changed, or the table cannot be read.
    """
    kept = registration.kept_rows(client, name, number, batch_rows.HELD_OUT)
    if data is None:
        return kept, {}
    _, named = TABLE.split(table_rows.read(TABLE, data))
    counts, columns = _differences(kept, named)
    differences = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    comparison = f"differ: {differences}" if differences else "are the same"
    comparison += f" ({', '.join(columns)})" if columns else ""
    print(f"{len(named)} held-out rows of the table decide; those that training kept {comparison}")
    return named, counts


def learned(client: MlflowClient, name: str, identifiers: Mapping[str, str]) -> pd.Series:
    """The identifiers of all rows that versions have learned from, `folded`; raises as `held_out` does.

    Args:
        client: Of the registry.
        name: The registered model's.
        identifiers: For each version's number the column that names its rows.
    """
    parts = [
        registration.kept_rows(client, name, number, batch_rows.TRAINED_ON, [column])[column]
        for number, column in identifiers.items()
    ]
    names: pd.Series = pd.concat(parts).map(folded)
    return names


def _nothing_left(known: Sequence[SavedRecord], lost: Sequence[str]) -> str | None:
    """What says that a version was in Production although none is left to compare with; None if nothing says so."""
    moves = [record for record in known if record.outcome == records.COMPLETED and record.stage == "production"]
    if moves:
        earlier = " of an earlier registered model of that name" if moves[-1].is_earlier else ""
        return f"version {moves[-1].version}{earlier} was in Production, and nothing is left to compare with"
    if lost:
        return f"the last record of version {', '.join(lost)} is gone, and nobody knows what was in Production"
    return None


def _differences(kept: pd.DataFrame, named: pd.DataFrame) -> tuple[dict[str, int], list[str]]:
    """How many of the rows that training kept differ from those of the table, and in which columns."""
    before, now = (part.set_index(TABLE.row_id) for part in (kept, named))
    common = before.index.intersection(now.index)
    before, now = (part.loc[common, now.columns.intersection(before.columns)] for part in (before, now))
    differs = (before != now) & ~(before.isna() & now.isna())
    counts = {
        "rows not in the table": len(kept) - len(common),
        "rows only in the table": len(named) - len(common),
        "rows that differ": int(differs.any(axis=1).sum()),
    }
    return counts, [f"{column} in {count}" for column, count in differs.sum().items() if count]
