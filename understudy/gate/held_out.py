"""The held-out rows that decide: those that training kept, or those of a table that the promoter names."""

from collections.abc import Sequence

import pandas as pd
from mlflow import MlflowClient

from understudy.errors import UserError
from understudy.table import TABLE
from understudy.tracking import batch_rows
from understudy.verification import admission


def rows(client: MlflowClient, name: str, number: str, data: str | None) -> tuple[pd.DataFrame, dict[str, int]]:
    """The held-out rows for a challenger; and, if a table is named, counts of how training's differ from its rows.

    Args:
        client: Of the store that holds the model.
        name: The registered model's name.
        number: The challenger's.
        data: The address of a table whose held-out side is to decide; None for the rows that training kept.

    Raises:
        UserError: The rows are gone or were changed, or the table cannot be read.
    """
    kept = _of_batch(client, name, number, batch_rows.HELD_OUT)
    if data is None:
        return kept, {}
    _, named = TABLE.split(TABLE.read(data))
    counts, columns = _differences(kept, named)
    differences = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    comparison = f"differ: {differences}" if differences else "are the same"
    comparison += f" ({', '.join(columns)})" if columns else ""
    print(f"{len(named)} held-out rows of the table decide; those that training kept {comparison}")
    return named, counts


def learned(client: MlflowClient, name: str, numbers: Sequence[str]) -> pd.Series:
    """The identifiers of all rows that versions have learned from; raises as `rows` does."""
    parts = [_of_batch(client, name, number, batch_rows.TRAINED_ON) for number in numbers]
    return pd.concat(parts).iloc[:, 0]


def _of_batch(client: MlflowClient, name: str, number: str, file: str) -> pd.DataFrame:
    """Rows of a version's batch, whose digest was noted when the version was registered."""
    version = client.get_model_version(name, number)
    digest = version.tags.get(admission.rows_tag(file))
    if not version.run_id or digest is None:
        raise UserError(f"version {number} of {name} has no rows on record", "python register.py")
    return batch_rows.rows(client, client.get_run(version.run_id), file, digest)


def _differences(kept: pd.DataFrame, named: pd.DataFrame) -> tuple[dict[str, int], list[str]]:
    """How many of the rows that training kept differ from those of the table, and in which columns."""
    before, now = (part.set_index(TABLE.identifier) for part in (kept, named))
    common = before.index.intersection(now.index)
    before, now = (part.loc[common, now.columns.intersection(before.columns)] for part in (before, now))
    differs = (before != now) & ~(before.isna() & now.isna())
    counts = {
        "rows not in the table": len(kept) - len(common),
        "rows only in the table": len(named) - len(common),
        "rows that differ": int(differs.any(axis=1).sum()),
    }
    return counts, [f"{column} in {count}" for column, count in differs.sum().items() if count]
