"""Rows that a version has answered, written by the live server's own writer."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from tests.conftest import SAMPLE
from understudy.monitoring import window
from understudy.monitoring.window import Reference
from understudy.reading import table_rows
from understudy.schema.columns import listed
from understudy.schema.logged import LoggedAnswer, LoggedVersion, Outcome
from understudy.scoring import forms
from understudy.scoring.scorer import PROBABILITY
from understudy.serving.row_log import Parts
from understudy.table import TABLE

NOW = datetime.now(UTC).replace(microsecond=0)
COLUMNS = [column.name for column in TABLE.columns]
ID, TARGET = TABLE.row_id, TABLE.target.name
Change = Callable[["pd.Series[Any]"], "pd.Series[Any]"]


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def drawn(count: int, seed: int = 0, **changed: Change) -> pd.DataFrame:
    """So many rows of the sample with ids of their own; each column that is named is changed by a function."""
    rows = table_rows.read(TABLE, SAMPLE).sample(count, replace=True, random_state=seed, ignore_index=True)
    rows[ID] = [f"{seed}-{number}" for number in range(count)]
    return rows.assign(**{name: change(rows[name]) for name, change in changed.items()})


class WrittenLog:
    """Writes into a log what the live server would write."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._parts = Parts(folder)

    def answer(
        self,
        rows: pd.DataFrame,
        probabilities: Sequence[float] | None = None,
        days: float = 1,
        version: str = "1",
        form: str = "raw",
        shadow: tuple[str, Sequence[float | None]] | None = None,
    ) -> None:
        """Rows that a version has answered, so many days ago.

        A shadow, by its number, has answered with these probabilities, and refused rows where there is none.
        """
        types = _types()
        cells = pd.DataFrame(TABLE.encode(rows), columns=[*types["encoded"]]) if form == "encoded" else rows
        given, ids = {name: listed(cells[name]) for name in types[form]}, rows[ID].tolist()
        scores = [0.7] * len(rows) if probabilities is None else [*probabilities]
        answer = LoggedAnswer(_version(version), ago(days).timestamp(), "request", form, given, ids, scores)
        if shadow:
            answer = answer._replace(shadow_version=shadow[0], outcomes=[*map(_outcome, shadow[1])])
        self._parts.add(answer)
        self._parts.write()

    def refuse(self, faults: Sequence[str], days: float = 1, version: str = "1") -> None:
        """Rows that a version has refused, so many days ago."""
        numbered = dict(enumerate(faults, 1))
        self._parts.add(LoggedAnswer(_version(version), ago(days).timestamp(), "refused", faults=numbered))
        self._parts.write()


def _types() -> dict[str, dict[str, bool]]:
    return {form.name: {name: of.is_text for name, of in form.columns.items()} for form in forms.forms(TABLE)}


def _outcome(probability: float | None) -> Outcome:
    if probability is None:
        return None, None, "Gender: missing"
    return TABLE.positive if probability >= 0.5 else TABLE.negative, probability, None


def _version(number: str) -> LoggedVersion:
    return LoggedVersion(number, "Production", 0.5, (TABLE.negative, TABLE.positive), _types())


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    return WrittenLog(tmp_path / "kept")


@pytest.fixture
def reference(in_production: str) -> Reference:
    """Version 1, and what its rows are compared with."""
    client = mlflow.MlflowClient(in_production)
    return window.reference(client, client.get_model_version(TABLE.name, "1"))


@pytest.fixture
def answer(reference: Reference, log: WrittenLog) -> Callable[..., pd.DataFrame]:
    """Writes rows into the log with what version 1 answers to them; returns the rows."""

    def answer(rows: pd.DataFrame, **options: Any) -> pd.DataFrame:
        columns = {name: listed(rows[name]) for name in COLUMNS}
        log.answer(rows, reference.model.predict(columns, PROBABILITY), **options)
        return rows

    return answer
