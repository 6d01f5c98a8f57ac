"""The served model: what is written to its folder, and what runs when it is asked for predictions.

One MLflow model folder with two flavors: sklearn, the fitted Pipeline in skops form, and python_function, the scorer
that answers as that Pipeline does. Its check of the rows takes the place of MLflow's: the signature has no inputs, so
that rows of every accepted form arrive here as they are.
"""

import json
import math
import os
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

from understudy.errors import UserError
from understudy.schema.columns import Fault, repeated
from understudy.scoring import forms, packing, pipelines
from understudy.scoring.compiled import TREES
from understudy.scoring.scorer import LABEL, VERSION, Scorer, load

PACKAGE = Path(__file__).parents[1]
BUNDLED = ("__init__.py", "errors.py", "families.py", "schema", "scoring")  # what runs inside a served model
REQUIREMENTS = ("mlflow", "scikit-learn", "pandas", "numpy", "scipy", "skops")
SIGNATURE = ModelSignature(
    outputs=Schema([ColSpec(DataType.string)]),
    params=ParamSchema([ParamSpec("output", DataType.string, LABEL)]),
)


class RowsRefused(MlflowException):
    """The scorer's refusal as MLflow knows it; stock serve answers 400 with `faults` and nothing of what was sent."""

    def __init__(self, refused: forms.RowsRefused) -> None:
        super().__init__(str(refused), error_code=INVALID_PARAMETER_VALUE)
        self.body = refused.body()

    def serialize_as_json(self) -> str:
        """The answer's body. `message` is not used: stock serve has written the rows into it."""
        return json.dumps(self.body)


class Served:
    """A Scorer behind the forms in which MLflow and Python bring rows."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.table = scorer, scorer.table

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> list[Any]:
        """Score raw rows, rows of the encoded form, or unnamed rows of the encoded form.

        Args:
            rows: As `Scorer.predict` takes them, or a DataFrame, or an array of shape (n, features). NaN is a
                missing cell here, since pandas knows no other.
            params: `output`, as of `Scorer.predict`.

        Raises:
            RowsRefused: Rows or params that are not allowed; names every fault.
        """
        try:
            output = (params or {}).get("output", LABEL)
            return self.scorer.predict(_plain(rows), output, os.environ.get(VERSION, ""))
        except forms.RowsRefused as refused:
            raise RowsRefused(refused) from None
        except RecursionError:
            nested = forms.RowsRefused([Fault("the table", "nested too deeply", "rows of cells")])
            raise RowsRefused(nested) from None


def _plain(rows: Any) -> Any:
    """Rows as JSON would say them."""
    if isinstance(rows, pd.DataFrame):
        return _of_frame(rows)
    if isinstance(rows, np.ndarray):
        return _plain(rows.tolist())
    if isinstance(rows, dict):
        return {name: _plain(cells) for name, cells in rows.items()}
    if isinstance(rows, list):
        return [_plain(cell) for cell in rows]
    return None if isinstance(rows, float) and math.isnan(rows) else rows


def _of_frame(rows: pd.DataFrame) -> Any:
    if isinstance(rows.columns, pd.RangeIndex):
        return _plain(rows.to_numpy().tolist())
    names = [str(name) for name in rows]
    if twice := list(repeated(names)):
        raise forms.RowsRefused(twice)
    # All columns at once: one by one, they take ten times as long for a row as the model does.
    cells = rows.to_numpy(dtype=object, na_value=None)  # type: ignore[arg-type]
    return dict(zip(names, cells.T.tolist(), strict=True))


def save_model(path: str, mlflow_model: Model, pipeline: Pipeline, rows: pd.DataFrame) -> None:
    """Write both flavors to a new folder; the interface that `mlflow.models.Model.log` calls.

    Args:
        path: The folder.
        mlflow_model: What is known of the model; completed and written as `MLmodel`.
        pipeline: The fitted Pipeline, whose first step holds its table.
        rows: What it was fitted on.

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
            f"{type(pipelines.classifier(pipeline)).__name__} cannot be saved without pickle: {error}",
            "build the model from classes and functions that have a name in a module, no lambda",
        ) from None
    with TemporaryDirectory() as folder:
        code = Path(folder, PACKAGE.name)
        for module in PACKAGE.rglob("*.py"):
            copy = code / module.relative_to(PACKAGE)
            if copy.relative_to(code).parts[0] in BUNDLED:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(module, copy)
        packed = Path(folder, "packed")
        packing.write(packed, pipeline, pipelines.table(pipeline), rows)
        packages = (*REQUIREMENTS, "onnxruntime") if (packed / TREES).exists() else REQUIREMENTS
        mlflow_sklearn.save_model(
            pipeline,
            path,
            mlflow_model=mlflow_model,
            signature=SIGNATURE,
            code_paths=[str(code)],
            pip_requirements=[f"{name}=={version(name)}" for name in packages],
            serialization_format="skops",
            skops_trusted_types=types,
        )
        shutil.copytree(packed, path, dirs_exist_ok=True)
    environment = mlflow_model.flavors[pyfunc.FLAVOR_NAME]["env"]
    pyfunc.add_to_model(
        mlflow_model,
        loader_module=__name__,
        code="code",
        conda_env=environment["conda"],
        python_env=environment["virtualenv"],
    )
    mlflow_model.save(str(Path(path) / "MLmodel"))


def _load_pyfunc(path: str) -> Served:
    """Load the python_function flavor of the model folder at `path`; MLflow's interface."""
    return Served(load(Path(path)))
