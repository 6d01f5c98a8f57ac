"""The served model: what is written to its folder, and what runs when it is asked for predictions.

One MLflow model folder with two flavors: sklearn, the fitted Pipeline in skops form, and python_function, the scorer
that answers as that Pipeline does. Its check of the rows takes the place of MLflow's: the signature has no inputs, so
that rows of every accepted form arrive here as they are.
"""

import json
import math
import os
import shutil
from importlib.metadata import packages_distributions, version
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
from understudy.schema.columns import Cells
from understudy.schema.faults import Fault, repeated
from understudy.schema.spelling import number
from understudy.scoring import pipelines, scorer, scorer_files
from understudy.scoring.forms import RowsRefused
from understudy.scoring.predictors import TREES
from understudy.scoring.scorer import LABEL, VERSION, Scorer

PACKAGE = Path(__file__).parents[1]
MODULES, ROOMS = ("__init__.py", "errors.py", "families.py"), ("schema", "scoring")  # what runs inside a served model
REQUIREMENTS = ("mlflow", "scikit-learn", "pandas", "numpy", "scipy", "skops")
SIGNATURE = ModelSignature(
    outputs=Schema([ColSpec(DataType.string)]),
    params=ParamSchema([ParamSpec("output", DataType.string, LABEL)]),
)


class MlflowRowsRefused(MlflowException):
    """A refusal as MLflow knows it; stock serve answers 400 with the faults and nothing of what was sent."""

    def __init__(self, refused: RowsRefused) -> None:
        super().__init__(str(refused), error_code=INVALID_PARAMETER_VALUE)
        self.body = refused.body()

    def serialize_as_json(self) -> str:
        """The answer's body. `message` is not used: stock serve has written the rows into it."""
        return json.dumps(self.body)


class PyfuncScorer:
    """A Scorer that takes rows as MLflow and Python bring them."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        columns = (*scorer.table.columns, *scorer.table.encoded)
        self._known = {column.name for column in columns}
        self._numbers = {column.name for column in columns if not column.is_text}

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> list[Any]:
        """Score raw rows, rows of the encoded form, or unnamed rows of the encoded form.

        Args:
            rows: As `Scorer.predict` takes them, or a DataFrame, or an array of shape (n, features). NaN is a
                missing cell here, since pandas knows no other.
            params: `output`, as of `Scorer.predict`.

        Raises:
            MlflowRowsRefused: Rows or params that are not allowed; names every fault.
        """
        try:
            output = (params or {}).get("output", LABEL)
            plain = self._of_frame(rows) if isinstance(rows, pd.DataFrame) else _plain(rows)
            return self.scorer.predict(plain, output, os.environ.get(VERSION, ""))
        except RowsRefused as refused:
            raise MlflowRowsRefused(refused) from None
        except RecursionError:
            nested = RowsRefused([Fault("the table", "nested too deeply", "rows of cells")])
            raise MlflowRowsRefused(nested) from None

    def _of_frame(self, rows: pd.DataFrame) -> Any:
        if isinstance(rows.columns, pd.RangeIndex):
            return _plain(rows.to_numpy().tolist())
        names = [str(name).strip() for name in rows]
        if twice := list(repeated(names)):
            raise RowsRefused(twice)
        given = names
        if len(names) > len(self._known):  # pandas takes seconds for the cells of columns that are refused anyway
            places = [place for place, name in enumerate(names) if name in self._known]
            given, rows = [names[place] for place in places], rows.iloc[:, places]
        # All columns at once: one by one, they take ten times as long for a row as the model does.
        cells = rows.to_numpy(dtype=object, na_value=None).T.tolist()  # type: ignore[arg-type]
        columns = dict(zip(given, cells, strict=True))
        if len(names) > len(given):
            columns = dict.fromkeys(names, [None] * len(rows)) | columns
        texts = {name: [cell or "" for cell in columns[name]] for name in self._numbers if _is_csv(columns.get(name))}
        return columns | self.scorer.from_text(texts) if texts else columns


def _is_csv(cells: Cells | None) -> bool:
    """Whether a column of numbers is text because pandas has read CSV and found a cell in it that it takes for none."""
    first = next((cell for cell in cells or () if cell is not None), None)
    if not isinstance(first, str) or {*map(type, cells or ())} - {str, type(None)}:
        return False
    return any(isinstance(number(cell), str) or cell != cell.strip() for cell in cells or () if cell is not None)


def _plain(rows: Any) -> Any:
    """Rows as JSON would bring them."""
    if isinstance(rows, np.ndarray):
        return _plain(rows.tolist())
    if isinstance(rows, dict):
        return {name: _plain(cells) for name, cells in rows.items()}
    if isinstance(rows, list):
        return [_plain(cell) for cell in rows]
    return None if isinstance(rows, float) and math.isnan(rows) else rows


def save_model(path: str, mlflow_model: Model, pipeline: Pipeline, rows: pd.DataFrame) -> None:
    """Write both flavors to a new folder; the interface that `mlflow.models.Model.log` calls.

    The rows are those that the Pipeline was fitted on. What MLflow knows of the model is completed, and written as
    `MLmodel`.

    Raises:
        UserError: The Pipeline holds something that only pickle could save.
    """
    kinds = types(pipeline)
    with TemporaryDirectory() as name:
        code, written = Path(name, PACKAGE.name), Path(name, "written")
        code.mkdir()
        for module in MODULES:
            shutil.copy(PACKAGE / module, code)
        for room in ROOMS:
            shutil.copytree(PACKAGE / room, code / room, ignore=shutil.ignore_patterns("__pycache__"))
        scorer_files.write(written, pipeline, pipelines.table(pipeline), rows)
        packages = [*REQUIREMENTS, *(["onnxruntime"] if (written / TREES).exists() else []), *_libraries(kinds)]
        mlflow_sklearn.save_model(
            pipeline,
            path,
            mlflow_model=mlflow_model,
            signature=SIGNATURE,
            code_paths=[str(code)],
            pip_requirements=[f"{name}=={version(name)}" for name in packages],
            serialization_format="skops",
            skops_trusted_types=kinds,
        )
        shutil.copytree(written, path, dirs_exist_ok=True)
    environment = mlflow_model.flavors[pyfunc.FLAVOR_NAME]["env"]
    pyfunc.add_to_model(
        mlflow_model,
        loader_module=__name__,
        code="code",
        conda_env=environment["conda"],
        python_env=environment["virtualenv"],
    )
    mlflow_model.save(str(Path(path) / "MLmodel"))


def types(pipeline: Pipeline) -> list[str]:
    """The types in a Pipeline that skops trusts only if they are named.

    Raises:
        UserError: The Pipeline holds something that only pickle could save.
    """
    try:
        data = skops.dumps(pipeline)
        # Naming the types stops no attacker, since the list lies beside the model; see docs/decisions/0003-skops.md.
        kinds: list[str] = skops.get_untrusted_types(data=data)
        skops.loads(data, trusted=kinds)
    except Exception as error:
        raise UserError(
            f"{type(pipelines.classifier(pipeline)).__name__} cannot be saved without pickle: {error}",
            "build the model from classes and functions that have a name in a module, no lambda",
        ) from None
    return kinds


def _libraries(kinds: list[str]) -> list[str]:
    """The packages, by the names that pip knows, of the types that come from other libraries."""
    modules = {kind.partition(".")[0] for kind in kinds} - {*REQUIREMENTS, "sklearn", PACKAGE.name}
    distributions = packages_distributions() if modules else {}
    return sorted({distributions[module][0] for module in modules & distributions.keys()})


def _load_pyfunc(path: str) -> PyfuncScorer:
    """Load the python_function flavor of the model folder at `path`; MLflow's interface."""
    if VERSION in os.environ:
        # MLflow's server writes what it was asked into a message that nobody sees, array by array: 30 s for 200,000.
        np.set_printoptions(override_repr=lambda array: f"array of shape {array.shape}")
    return PyfuncScorer(scorer.load(Path(path)))
