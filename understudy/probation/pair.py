"""A version on probation beside the one before it: what it refuses that the other takes, and how far they are apart."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from mlflow import MlflowClient

from understudy.errors import UserError
from understudy.figures.metrics import Floats
from understudy.monitoring import log_rows, window
from understudy.probation import counts
from understudy.probation.counts import OF_A_REQUEST
from understudy.registry import registration
from understudy.schema import compatibility, logged
from understudy.schema.columns import Cells, listed
from understudy.scoring import scorer
from understudy.scoring.scorer import PROBABILITY, Scorer
from understudy.tracking import batch_rows
from understudy.verification import manifest


class Pair:
    """A version and the one before it, asked about the same rows.

    Args:
        client: Of the store.
        name: The registered model's.
        version: The number of the version on probation.
        before: That of the version before.

    Raises:
        UserError: The files of either are not what was registered.
    """

    def __init__(self, client: MlflowClient, name: str, version: str, before: str) -> None:
        self.version, self.before = version, before
        own, self._other = (_loaded(client, name, number) for number in (version, before))
        self.breaking = compatibility.breaking_changes(self._other.table, own.table)
        self.held_out: Floats = np.empty(0)
        if self._other.table.target.values == own.table.target.values:
            with suppress(UserError):  # the rows are gone
                rows = registration.kept_rows(client, name, version, batch_rows.HELD_OUT)
                columns = {column.name: listed(rows[column.name]) for column in own.table.columns}
                apart = np.array(own.predict(columns, PROBABILITY)) - self._others(columns)
                self.held_out = apart[~np.isnan(apart)]

    @property
    def is_comparable(self) -> bool:
        """Whether the version before can score enough of the held-out rows to tell what is expected."""
        return len(self.held_out) > 1

    def _others(self, columns: dict[str, Cells]) -> Floats:
        """What the version before gives to rows, NaN to those that it refuses."""
        form = self._other.form(columns)
        needed = {name: cells for name, cells in columns.items() if name in form.columns}
        probabilities = np.full(len(next(iter(columns.values()))), np.nan)
        if needed.keys() == form.columns.keys():
            is_allowed, _ = window.allowed(self._other, needed)
            if is_allowed.any():
                accepted = {name: [cells[row] for row in np.flatnonzero(is_allowed)] for name, cells in needed.items()}
                probabilities[is_allowed] = self._other.predict(accepted, PROBABILITY)
        return probabilities

    def logged(self, folder: Path, since: datetime) -> pd.DataFrame:
        """Rows that the version has answered after a time and the one before can score, and how far they are apart.

        Columns: the request's time and id, and `difference`; in the order of the times.
        """
        cells = log_rows.cells_of(self._other.table)
        named = [*OF_A_REQUEST, "version", "stage", "form", "probability", *cells["raw"], *cells["encoded"]]
        parts = [pd.DataFrame({name: [] for name in (*OF_A_REQUEST, "difference")})]
        for part in log_rows.read(folder, named, since):
            is_own = counts.is_answer(part, self.version)
            for form, names in cells.items():
                rows = part.filter(pc.and_(is_own, pc.equal(part["form"], form)))
                if rows.num_rows and {*names} <= {*rows.column_names}:
                    others = self._others({names[name]: rows[name].to_pylist() for name in names})
                    difference = rows["probability"].to_numpy() - others
                    parts.append(rows.select(OF_A_REQUEST).to_pandas().assign(difference=difference))
        return (
            pd.concat([part for part in parts if len(part)] or parts).dropna().sort_values(logged.TIME, kind="stable")
        )


def _loaded(client: MlflowClient, name: str, number: str) -> Scorer:
    with manifest.verified(client, client.get_model_version(name, number)) as folder:
        return scorer.load(folder)
