"""A version as the gate has it: verified, loaded, and asked anew."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.pyfunc import PyFuncModel
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from understudy.errors import UserError
from understudy.figures.metrics import Floats
from understudy.gate.decision import TOLERANCE, Answers
from understudy.schema.declaration import Table
from understudy.schema.faults import Fault
from understudy.scoring import pipelines, scorer
from understudy.verification import manifest

TIMES = 30  # that one row is scored, to tell how long the answer takes


@dataclass(frozen=True)
class LoadedVersion:
    """A verified version in the two forms that its folder holds, with the size of its files in millions of bytes."""

    number: str
    served: PyFuncModel
    pipeline: Pipeline
    megabytes: float

    @property
    def table(self) -> Table:
        """The table that the version was trained on."""
        return pipelines.table(self.pipeline)

    def columns_of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The columns that the version is asked with, as far as rows have them."""
        return rows[[column.name for column in self.table.columns if column.name in rows]]

    def answers(self, rows: pd.DataFrame) -> Answers:
        """What its scikit-learn form answers."""
        asked, table = self.columns_of(rows), self.table
        probabilities = pipelines.positive(self.pipeline, asked, table)
        return Answers(probabilities, (self.pipeline.predict(asked) == table.positive).astype(int))

    def served_answers(self, rows: pd.DataFrame) -> Answers:
        """What the form answers that is served."""
        asked = self.columns_of(rows)
        labels = (np.array(self.served.predict(asked)) == self.table.positive).astype(int)
        return Answers(self._probabilities(asked), labels)

    def refused(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows its table does not allow, shape (n,).

        Raises:
            UserError: Something is wrong with all of them, such as a column that is not there.
        """
        refused = np.zeros(len(rows), dtype=bool)
        for fault in self._faults(rows):
            if not fault.rows:
                raise UserError(f"version {self.number} cannot score the held-out rows: {fault}", "force it")
            refused[np.array(fault.rows) - 1] = True
        return refused

    def differs(self, rows: pd.DataFrame, probabilities: Floats) -> NDArray[np.bool_]:
        """Which rows it refuses or answers otherwise than with these probabilities, shape (n,)."""
        differs = np.zeros(len(rows), dtype=bool)
        for fault in self._faults(rows):
            differs[np.array(fault.rows) - 1 if fault.rows else slice(None)] = True
        if not differs.all():
            asked = self.columns_of(rows)[~differs]
            differs[~differs] = np.abs(self._probabilities(asked) - probabilities[~differs]) > TOLERANCE
        return differs

    def milliseconds(self, rows: pd.DataFrame) -> float:
        """How long MLflow's form takes to answer one row; the median, after one answer to warm up."""
        row, seconds = self.columns_of(rows)[:1], []
        for _ in range(TIMES + 1):
            started = time.perf_counter()
            self.served.predict(row)
            seconds.append(time.perf_counter() - started)
        return float(np.median(seconds[1:]) * 1000)

    def _faults(self, rows: pd.DataFrame) -> list[Fault]:
        return self.table.faults(self.columns_of(rows))

    def _probabilities(self, asked: pd.DataFrame) -> Floats:
        return np.array(self.served.predict(asked, params={"output": scorer.PROBABILITY}))


def load(client: MlflowClient, name: str, number: str) -> LoadedVersion:
    """A version of a registered model.

    Raises:
        UserError: Its files are not what was registered, or cannot be loaded.
    """
    with manifest.verified(client, client.get_model_version(name, number)) as folder:
        megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        with refusing(f"version {number} of {name} cannot be loaded"):
            return LoadedVersion(number, *manifest.load(folder), megabytes)


@contextmanager
def refusing(problem: str) -> Iterator[None]:
    """Turn whatever goes wrong with a model that was made with other packages or for another table into a refusal."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        fix = "choose another version, or install what it was trained with"
        raise UserError(f"{problem}: {type(error).__name__}: {error}", fix) from error
