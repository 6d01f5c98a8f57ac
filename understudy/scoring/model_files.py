"""Writes the folder of a served model.

One MLflow model with two flavors: sklearn, the fitted Pipeline in skops form, and python_function, which `flavor.py`
loads. For that one `scorer.json` and, for trees, `trees.onnx` lie beside it, and the code that reads them.
"""

import json
import math
import shutil
from importlib.metadata import packages_distributions, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from mlflow import pyfunc
from mlflow import sklearn as mlflow_sklearn
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from sklearn.pipeline import Pipeline
from skops import io as skops

from understudy.errors import UserError
from understudy.schema.columns import Category, Cells, Floats, listed
from understudy.schema.declaration import Table
from understudy.scoring import conversion, flavor, pipelines, scorer
from understudy.scoring.boosters import NotConvertible
from understudy.scoring.predictors import SKLEARN, TREES
from understudy.scoring.scorer import LABEL

TRIED = 1_000  # rows that a converted model has to answer as scikit-learn does
STORED = 20  # of which these go with the model
MIDDLES = (10, 30, 50, 70, 90)  # percentiles: the middles of five equal shares
PACKAGE = Path(__file__).parents[1]
MODULES, ROOMS = ("__init__.py", "errors.py", "families.py"), ("schema", "scoring")  # what runs inside a served model
REQUIREMENTS = ("mlflow", "scikit-learn", "pandas", "numpy", "scipy", "skops")
SIGNATURE = ModelSignature(
    outputs=Schema([ColSpec(DataType.string)]),
    params=ParamSchema([ParamSpec("output", DataType.string, LABEL)]),
)


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
        _write_scorer(written, pipeline, pipelines.table(pipeline), rows)
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
        loader_module=flavor.__name__,
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


def _write_scorer(folder: Path, pipeline: Pipeline, table: Table, rows: pd.DataFrame) -> None:
    """Convert a Pipeline that was fitted on training rows, or write down that its scikit-learn form is to be used.

    The folder is made, for what is to lie beside that form.
    """
    folder.mkdir()
    features, tried = table.encode(rows), _mixed(table, rows)
    probabilities = pipelines.positive(pipeline[1:], table.encode(tried), table).tolist()
    document, trees = derived(pipeline, table, features)
    spread = {"spread": _spread(table, features)}
    try:
        _write(folder, {**document, **spread, "stored": {"rows": tried, "probabilities": probabilities}}, trees)
        if document["kind"] != SKLEARN:
            scorer.load(folder).smoke()
    except ValueError:
        document, trees = _unconverted(pipeline, table), None
        (folder / TREES).unlink(missing_ok=True)
    few = {name: cells[:STORED] for name, cells in tried.items()}
    _write(folder, {**document, **spread, "stored": {"rows": few, "probabilities": probabilities[:STORED]}}, trees)


def derived(pipeline: Pipeline, table: Table, features: Floats) -> tuple[dict[str, Any], bytes | None]:
    """What of `scorer.json` follows from a fitted Pipeline, and the content of `trees.onnx`; None if it has no trees.

    The features are those of training rows, shape (n, features), NaN where missing. Nothing depends on them but the
    `mean` of a linear model's columns.
    """
    document = _unconverted(pipeline, table)
    try:
        converted, trees = conversion.convert(pipeline[1:], table.positive, features)
    except NotConvertible:
        return document, None
    return document | converted, trees


def _unconverted(pipeline: Pipeline, table: Table) -> dict[str, Any]:
    threshold = float(pipeline[-1].threshold)
    return {"format": scorer.FORMAT, "table": table.as_dict(), "threshold": threshold, "kind": SKLEARN}


def _write(folder: Path, document: dict[str, Any], trees: bytes | None) -> None:
    (folder / scorer.FILE).write_text(json.dumps(document))
    if trees is not None:
        (folder / TREES).write_bytes(trees)


def _mixed(table: Table, rows: pd.DataFrame) -> dict[str, Cells]:
    """Rows that the table allows and nobody sent: each column of some training rows in an order of its own."""
    rng = np.random.default_rng(0)
    chosen = rows.iloc[rng.permutation(len(rows))[:TRIED]]
    mixed = {column.name: listed(chosen[column.name]) for column in table.columns}
    mixed = {name: [cells[place] for place in rng.permutation(len(cells))] for name, cells in mixed.items()}
    refused = {row - 1 for fault in table.faults(mixed) for row in fault.rows}
    return {name: [cell for row, cell in enumerate(cells) if row not in refused] for name, cells in mixed.items()}


def _spread(table: Table, features: Floats) -> list[tuple[list[float], list[float]]]:
    """For each feature some values of training, and their shares: all codes of a category, five values of a number."""
    spread = []
    for column, values in zip(table.encoded, features.T, strict=True):
        present = values[~np.isnan(values)]
        if isinstance(column, Category) and len(present):
            counts = np.bincount(present.astype(int), minlength=len(column.values))
            spread.append((list(map(float, column.values)), (counts / len(present)).tolist()))
        else:
            middles = np.percentile(present, MIDDLES).tolist() if len(present) else [math.nan] * len(MIDDLES)
            spread.append((middles, [1 / len(MIDDLES)] * len(MIDDLES)))
    return spread
