"""The served model: what is written to its folder, and what runs when it is asked for predictions.

One MLflow model folder with two flavors: sklearn, the fitted Pipeline in skops form, and python_function, this module
around the same Pipeline. Its own check of the rows comes from the table that the Pipeline was fitted on, and takes
the place of MLflow's: the signature has no inputs, so that rows of every accepted form arrive here as they are.
"""

import ast
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from mlflow import pyfunc
from mlflow import sklearn as mlflow_sklearn
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from sklearn.pipeline import Pipeline
from skops import io as skops

from understudy import models
from understudy.columns import ROWS_SHOWN, Fault, fault
from understudy.errors import UserError
from understudy.metrics import Floats
from understudy.schema import Table

FORMAT = 1
PACKAGE = Path(__file__).parent
LABEL, PROBABILITY = "label", "probability"
REQUIREMENTS = ("mlflow", "scikit-learn", "pandas", "numpy", "scipy", "skops")
SIGNATURE = ModelSignature(
    outputs=Schema([ColSpec(DataType.string)]),
    params=ParamSchema([ParamSpec("output", DataType.string, LABEL)]),
)


class RowsRefused(MlflowException):
    """Rows that the table does not allow; stock serve answers 400 with `faults` and nothing of what was sent."""

    def __init__(self, faults: list[Fault]) -> None:
        summary = "; ".join(map(str, faults))
        super().__init__(f"rows refused (row 1 is the first): {summary}", error_code=INVALID_PARAMETER_VALUE)
        self.summary = str(self.message)
        self.faults = faults

    def serialize_as_json(self) -> str:
        """The answer's body. `message` is not used: stock serve has written the rows into it."""
        faults = [{**vars(fault), "rows": fault.rows[:ROWS_SHOWN]} for fault in self.faults]
        return json.dumps({"error_code": self.error_code, "message": self.summary, "faults": faults})


class Scorer:
    """A fitted Pipeline behind the check of its own table."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.table = table(pipeline)

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> list[Any]:
        """Score raw rows, rows of the encoded form, or unnamed rows of the encoded form.

        Args:
            rows: A DataFrame, a list of dicts or a dict of columns with the table's columns or the encoded ones;
                or lists or an array of numbers, shape (n, features).
            params: `output`: "label" (default) or "probability" of the positive label, 0 to 1.

        Raises:
            RowsRefused: Rows or params that are not allowed; names every fault.
        """
        output = (params or {}).get("output", LABEL)
        if output not in (LABEL, PROBABILITY):
            raise RowsRefused([Fault("params.output", "unknown value", f"{LABEL}, {PROBABILITY}")])
        features = self._features(*_frame(rows, [column.name for column in self.table.encoded]))
        if output == LABEL:
            labels: list[Any] = self.pipeline[1:].predict(features).tolist()
            return labels
        probabilities: list[Any] = positive(self.pipeline[1:], features, self.table).tolist()
        return probabilities

    def _features(self, rows: pd.DataFrame, is_encoded: bool) -> Floats:
        """Named forms are told apart by the columns that only one of them has; where none has, rows are raw."""
        raw = {column.name for column in self.table.columns}
        encoded = {column.name for column in self.table.encoded}
        given = set(rows.columns)
        is_encoded = is_encoded or len(given & (encoded - raw)) > len(given & (raw - encoded))
        faults = self.table.encoded_faults(rows) if is_encoded else self.table.faults(rows)
        if faults:
            raise RowsRefused(faults)
        if is_encoded:
            return rows[[column.name for column in self.table.encoded]].to_numpy(dtype=float)
        return self.table.encode(rows)


def table(pipeline: Pipeline) -> Table:
    """The table that a Pipeline was fitted on."""
    fitted: Table = pipeline["features"].func.__self__
    return fitted


def positive(pipeline: Pipeline, rows: Any, table: Table) -> Floats:
    """Probabilities of the table's positive label, shape (n,)."""
    column = list(pipeline.classes_).index(table.positive)
    probabilities: Floats = pipeline.predict_proba(rows)[:, column]
    return probabilities


def _frame(rows: Any, names: list[str]) -> tuple[pd.DataFrame, bool]:
    """Rows of any accepted form as a frame, and whether they came unnamed: then they get the encoded form's names."""
    try:
        if isinstance(rows, pd.DataFrame) and isinstance(rows.columns, pd.RangeIndex):
            return _named(rows.to_numpy(), names), True
        if isinstance(rows, list | np.ndarray) and len(rows) and not isinstance(rows[0], dict):
            return _named(rows, names), True
        return pd.DataFrame(rows), False
    except (ValueError, TypeError, AttributeError):
        raise RowsRefused([Fault("the table", "not rows of equal length", "rows of one form")]) from None


def _named(rows: list[Any] | np.ndarray, names: list[str]) -> pd.DataFrame:
    # pandas would pad short rows, and so take a value that was left out for a missing one.
    short = np.array([not isinstance(row, list | np.ndarray) or len(row) != len(names) for row in rows], dtype=bool)
    if faults := list(fault("the row", "wrong number of values", f"{len(names)}: {', '.join(names)}", short)):
        raise RowsRefused(faults)
    return pd.DataFrame(list(rows), columns=names)


def save_model(path: str, mlflow_model: Model, pipeline: Pipeline) -> None:
    """Write both flavors to a new folder; the interface that `mlflow.models.Model.log` calls.

    Args:
        path: The folder.
        mlflow_model: What is known of the model; completed and written as `MLmodel`.
        pipeline: The fitted Pipeline, whose first step holds its table.

    Raises:
        UserError: The Pipeline holds something that only pickle could save.
    """
    try:
        data = skops.dumps(pipeline)
        # Naming the types stops no attacker, since the list lies beside the model; see docs/decisions.
        types = skops.get_untrusted_types(data=data)
        skops.loads(data, trusted=types)
    except Exception as error:
        raise UserError(
            f"{type(models.classifier(pipeline)).__name__} cannot be saved without pickle: {error}",
            "build the model from classes and functions that have a name in a module, no lambda",
        ) from None
    with TemporaryDirectory() as folder:
        code = Path(folder, PACKAGE.name)
        code.mkdir()
        for module in {"__init__", *_needed("scoring")}:
            shutil.copy(PACKAGE / f"{module}.py", code)
        mlflow_sklearn.save_model(
            pipeline,
            path,
            mlflow_model=mlflow_model,
            signature=SIGNATURE,
            code_paths=[str(code)],
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            serialization_format="skops",
            skops_trusted_types=types,
        )
    environment = mlflow_model.flavors[pyfunc.FLAVOR_NAME]["env"]
    pyfunc.add_to_model(
        mlflow_model,
        loader_module=__name__,
        code="code",
        conda_env=environment["conda"],
        python_env=environment["virtualenv"],
        format=FORMAT,
    )
    mlflow_model.save(str(Path(path) / "MLmodel"))


def _needed(module: str) -> set[str]:
    """The modules of this package that one imports, directly or not, and itself."""
    needed: set[str] = set()
    waiting = [module]
    while waiting:
        needed.add(waiting[-1])
        imports = [
            name
            for node in ast.walk(ast.parse((PACKAGE / f"{waiting.pop()}.py").read_text()))
            for name in _imported(node)
        ]
        parts = (name.split(".") for name in imports)
        waiting += {part[1] for part in parts if part[0] == PACKAGE.name and len(part) > 1} - needed
    return needed


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [str(node.module)] if isinstance(node, ast.ImportFrom) else []


def _load_pyfunc(path: str) -> Scorer:
    """Load the python_function flavor of the model folder at `path`; MLflow's interface."""
    written = Model.load(path).flavors[pyfunc.FLAVOR_NAME]["format"]
    if written > FORMAT:
        raise MlflowException(f"the model has format {written}, this code reads up to {FORMAT}: update understudy")
    return Scorer(mlflow_sklearn.load_model(path))
