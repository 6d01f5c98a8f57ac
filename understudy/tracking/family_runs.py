"""A batch is a parent run with one nested run per model family: what is logged of them, and how they are found again.

They are found by tags, never by name, so that people may rename them and `mlflow run` may add its own.
"""

import json
import time
from collections.abc import Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.entities import (
    DatasetInput,
    LoggedModel,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.models import Model
from mlflow.utils import mlflow_tags

from understudy import errors
from understudy.errors import UserError
from understudy.schema.declaration import Table
from understudy.tracking import connection, experiments, provenance, runs

if TYPE_CHECKING:  # the live server's keeper stays for as long as the server, and needs none of these
    from matplotlib.figure import Figure
    from sklearn.pipeline import Pipeline

    from understudy.figures.metrics import Interval

WITH = " with sensitive columns"
FAMILY_NAME = "understudy.family"
MODEL_DIGEST = "model.digest"
THRESHOLDS = "thresholds.csv"


def log_batch(
    client: mlflow.MlflowClient, run_id: str, params: Mapping[str, object], inputs: list[DatasetInput]
) -> None:
    """Log a batch's options, unless `mlflow run` has done it with its own spelling, and which rows it takes."""
    there = client.get_run(run_id).data.params
    runs.check_names("params", params, there)
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items() if key not in there])
    client.log_inputs(run_id, inputs)


def log_family(
    client: mlflow.MlflowClient,
    run_id: str,
    name: str,
    pipeline: "Pipeline",
    training: pd.DataFrame,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    thresholds: pd.DataFrame,
    inputs: list[DatasetInput],
) -> None:
    """Log what training found: the model in its two flavors, the best params, cross-validation's figures, the rows."""
    from understudy.scoring import flavor, pipelines

    runs.check_names("params", params)
    runs.check_names("metrics", metrics)
    info = Model.log(
        None,
        flavor=flavor,
        flavor_name="sklearn",
        name=name,
        run_id=run_id,
        params=dict(params),
        pipeline=pipeline,
        rows=training,
    )
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=_metrics(metrics, now, info.model_id, inputs, "training"),
        params=[Param(key, str(value)) for key, value in params.items()],
        tags=[RunTag(MODEL_DIGEST, pipelines.digest(pipeline))],
    )
    client.log_text(run_id, thresholds.to_csv(index=False), THRESHOLDS)
    client.log_inputs(run_id, inputs)


def thresholds(run: Run) -> pd.DataFrame:
    """What each threshold costs on the folds, as a family's run logged it.

    Raises:
        UserError: It is gone, or no such table.
    """
    provenance.check_location(str(run.info.artifact_uri), f"run {run.info.run_id}")
    try:
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{THRESHOLDS}")
        return pd.read_csv(StringIO(text))[["threshold", "cost"]].astype(float)
    except (OSError, LookupError, ValueError, mlflow.MlflowException) as error:
        if errors.is_known(error):
            raise
        raise UserError(f"run {run.info.run_id} has no {THRESHOLDS} of training's", runs.TRAIN_AGAIN) from None


def _metrics(
    values: Mapping[str, float], time: int, model_id: str, inputs: list[DatasetInput], context: str
) -> list[Metric]:
    """Metrics of a model on the rows of a context, at a time in milliseconds."""
    [rows] = [found.dataset for found in inputs if found.tags[0].value == context]
    known = {"model_id": model_id, "dataset_name": rows.name, "dataset_digest": rows.digest}
    return [Metric(key, value, time, 0, **known) for key, value in values.items()]


def get_batch(client: mlflow.MlflowClient, table: Table, run_id: str = "") -> Run:
    """The batch of that id, or else the one of this table that finished last, in any experiment.

    Raises:
        UserError: There is none.
    """
    if run_id:
        return runs.get_run(client, run_id, runs.BATCH)
    named = f"tags.`{provenance.TABLE_NAME}` = '{table.name}'"
    query = f"tags.`{runs.KIND}` = '{runs.BATCH}' and {named} and attributes.status = 'FINISHED'"
    found = client.search_runs(experiments.all_ids(client), query, max_results=1, order_by=["attributes.end_time DESC"])
    if not found:
        raise UserError(f"no finished training of {table.name} in the tracking store", "python train.py")
    return found[0]


def families(client: mlflow.MlflowClient, batch: Run, kind: str = runs.FAMILY) -> list[Run]:
    """The nested runs of a batch of a kind, in the order they were made."""
    query = f"tags.`{mlflow_tags.MLFLOW_PARENT_RUN_ID}` = '{batch.info.run_id}' and tags.`{runs.KIND}` = '{kind}'"
    order = ["attributes.start_time ASC"]
    return list(connection.pages(client.search_runs, [batch.info.experiment_id], query, order_by=order))


def family_name(run: Run) -> str:
    """The family that a run trained, however people have renamed the run."""
    return runs.tag(run, FAMILY_NAME)


def model_uri(run: Run) -> str:
    """Where a family run's model is, as `models:/<id>`."""
    return f"models:/{model_id(run)}"


def model_id(run: Run) -> str:
    """The id of the model that a family run logged."""
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise UserError(f"run {run.info.run_id} has logged no model", runs.TRAIN_AGAIN)
    return str(outputs[0].model_id)


def linked_versions(model: LoggedModel) -> list[dict[str, Any]]:
    """The versions, by `name` and `version`, that a logged model says it is; none if that is no such list."""
    try:
        links = json.loads(model.tags.get(mlflow_tags.MLFLOW_MODEL_VERSIONS, "[]"))
        return [{"name": link["name"], "version": link["version"]} for link in links]
    except (LookupError, TypeError, ValueError):  # somebody has changed the tag
        return []


def logged_models(client: mlflow.MlflowClient) -> list[LoggedModel]:
    """All models that runs have logged, in any experiment."""
    return list(connection.pages(client.search_logged_models, experiments.all_ids(client)))


def log_evaluation(
    client: mlflow.MlflowClient,
    run: Run,
    metrics: "Mapping[str, Interval]",
    figures: "Mapping[str, Figure]",
    tables: Mapping[str, pd.DataFrame],
    description: str,
) -> None:
    """Add held-out metrics, figures, tables and a description to a finished run; doing it again changes nothing.

    A metric's bounds are logged beside it, as `interval/<name> low` and `interval/<name> high`. The time is the run's
    own, so that a second evaluation writes the same rows.
    """
    values = {name: value for name, (value, _, _) in metrics.items()}
    for name, (_, low, high) in metrics.items():
        values |= {f"interval/{name} low": low, f"interval/{name} high": high}
    runs.check_names("metrics", values, run.data.metrics)
    inputs = run.inputs.dataset_inputs  # type: ignore[union-attr]
    client.log_batch(
        run.info.run_id,
        metrics=_metrics(values, run.info.end_time, model_id(run), inputs, "held-out"),
        tags=[RunTag(mlflow_tags.MLFLOW_RUN_NOTE, description)],
    )
    runs.log_figures(client, run, figures, connection.PROJECT / "plots" / family_name(run))
    runs.log_tables(client, run, tables)
