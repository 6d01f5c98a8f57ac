"""A batch is a parent run with one nested run per model family: what is logged of them, and how they are found again.

They are found by tags, never by name, so that people may rename them and `mlflow run` may add its own.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.entities import DatasetInput, LoggedModel, Metric, Param, Run, RunTag
from mlflow.models import Model
from mlflow.utils import mlflow_tags

from understudy import errors
from understudy.errors import UserError
from understudy.schema.declaration import Table
from understudy.tracking import connection, experiments, provenance, runs

if TYPE_CHECKING:  # these take seconds to load, and most who look for a run need none of them
    from matplotlib.figure import Figure
    from sklearn.pipeline import Pipeline

    from understudy.figures.metrics import Interval

WITH = " with sensitive columns"
FAMILY_NAME = "understudy.family"
MODEL_DIGEST = "model.digest"
BEST = "best family"  # a batch's tag
THRESHOLDS, SLICES = "thresholds.csv", "slices"


@dataclass(frozen=True)
class TrainedFamily:
    """What training one family came to.

    Args:
        name: The family's, which its model goes by.
        pipeline: Fitted; takes raw rows.
        training: The rows that it learned from.
        params: The best grid values.
        metrics: Cross-validation's figures.
        thresholds: What each threshold costs on the folds.
        inputs: The two sides of the table, as `provenance.datasets` gives them.
    """

    name: str
    pipeline: "Pipeline"
    training: pd.DataFrame
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    thresholds: pd.DataFrame
    inputs: list[DatasetInput]


@dataclass(frozen=True)
class Report:
    """What is shown on a run that has ended.

    Args:
        figures: By the name of their file, without its ending.
        tables: By the name of their file, without its ending.
        description: On top of the run's page in MLflow's UI, as Markdown.
        pages: Their HTML, by the name of their file.
    """

    figures: "Mapping[str, Figure]"
    tables: Mapping[str, pd.DataFrame]
    description: str
    pages: Mapping[str, str] = field(default_factory=dict)


def log_batch(
    client: mlflow.MlflowClient, run_id: str, params: Mapping[str, object], inputs: list[DatasetInput]
) -> None:
    """Log a batch's options, unless `mlflow run` has done it with its own spelling, and which rows it takes."""
    logged = client.get_run(run_id).data.params
    runs.check_names("params", params, logged)
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items() if key not in logged])
    client.log_inputs(run_id, inputs)


def log_family(client: mlflow.MlflowClient, run_id: str, trained: TrainedFamily) -> bool:
    """Log the model in its two flavors, the best params, the figures of cross-validation, and the rows learned from.

    Returns whether the model is served in a form of the project's, and not by its own library.
    """
    from understudy.scoring import model_files, pipelines, predictors, scorer

    runs.check_names("params", trained.params)
    runs.check_names("metrics", trained.metrics)
    model = Model.log(
        None,
        flavor=model_files,
        flavor_name="sklearn",
        name=trained.name,
        run_id=run_id,
        params=dict(trained.params),
        pipeline=trained.pipeline,
        rows=trained.training,
    )
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=_metrics(trained.metrics, now, model.model_id, trained.inputs, "training"),
        params=[Param(key, str(value)) for key, value in trained.params.items()],
        tags=[RunTag(MODEL_DIGEST, pipelines.digest(trained.pipeline))],
    )
    client.log_text(run_id, trained.thresholds.to_csv(index=False), THRESHOLDS)
    client.log_inputs(run_id, trained.inputs)
    written = mlflow.artifacts.load_dict(f"{model.artifact_path}/{scorer.FILE}")
    return bool(written["kind"] != predictors.SKLEARN)


def log_evaluation(client: mlflow.MlflowClient, run: Run, metrics: "Mapping[str, Interval]", report: Report) -> None:
    """Add held-out metrics and a report to the finished run of a family; doing it again changes nothing.

    A metric's bounds are logged beside it, as `interval/<name> low` and `interval/<name> high`. The time is the run's
    own, so that a second evaluation writes the same rows.
    """
    values = {name: value for name, (value, _, _) in metrics.items()}
    for name, (_, low, high) in metrics.items():
        values |= {f"interval/{name} low": low, f"interval/{name} high": high}
    runs.check_names("metrics", values, run.data.metrics)
    inputs = run.inputs.dataset_inputs  # type: ignore[union-attr]
    points = _metrics(values, run.info.end_time, model_id(run), inputs, "held-out")
    client.log_batch(run.info.run_id, metrics=points)
    log_report(client, run, report, connection.PROJECT / "plots" / family_name(run))


def log_best(
    client: mlflow.MlflowClient, batch: Run, name: str, cv_score: float, metrics: "Mapping[str, Interval]"
) -> None:
    """Name a batch's best family on its run, with the headline metrics; doing it again changes nothing."""
    values = {"Mean CV score": cv_score, **{key: metrics[key][0] for key in ("Accuracy", "AUC")}}
    points = [Metric(key, value, batch.info.start_time, 0) for key, value in values.items()]
    client.log_batch(batch.info.run_id, metrics=points, tags=[RunTag(BEST, name)])


def log_report(client: mlflow.MlflowClient, run: Run, report: Report, folder: Path) -> None:
    """Put a report onto a run, and its figures and pages also into a folder of the project.

    On the run they have no folder: MLflow's compare page shows files of the top level side by side, and no others.
    """
    run_id = run.info.run_id
    if report.figures or report.pages:
        folder.mkdir(parents=True, exist_ok=True)
    for name, figure in report.figures.items():
        figure.savefig(folder / f"{name}.png")
    for name, html in report.pages.items():
        (folder / name).write_text(html, encoding="utf-8")
    for name in [*(f"{name}.png" for name in report.figures), *report.pages]:
        client.log_artifact(run_id, str(folder / name))
    for name, table in report.tables.items():
        client.log_text(run_id, table.to_csv(index=False), f"{name}.csv")
    client.set_tag(run_id, mlflow_tags.MLFLOW_RUN_NOTE, report.description)


def _metrics(
    values: Mapping[str, float], time: int, model_id: str, inputs: list[DatasetInput], context: str
) -> list[Metric]:
    """Metrics of a model on the rows of a context, at a time in milliseconds."""
    [rows] = [given.dataset for given in inputs if given.tags[0].value == context]
    shared = {"model_id": model_id, "dataset_name": rows.name, "dataset_digest": rows.digest}
    return [Metric(key, value, time, 0, **shared) for key, value in values.items()]


def thresholds(run: Run) -> pd.DataFrame:
    """What each threshold costs on the folds, as a family's run logged it.

    Raises:
        UserError: It is gone, or no such table.
    """
    try:
        return _table(run, THRESHOLDS)[["threshold", "cost"]].astype(float)
    except (OSError, LookupError, ValueError, mlflow.MlflowException) as error:
        if errors.is_known(error):
            raise
        raise UserError(f"run {run.info.run_id} has no {THRESHOLDS} of training's", runs.TRAIN_AGAIN) from None


def slices(run: Run) -> pd.DataFrame | None:
    """How well each group of held-out rows is answered, as `metrics.slices` gives it; None where it is not logged."""
    try:
        texts = {"column": str, "value": str}  # as they are written: "NA" and "00501" may be values
        slices = _table(run, f"{SLICES}.csv", dtype=texts, keep_default_na=False, na_values=[""])
        return slices.astype(dict.fromkeys(("rows", "accuracy", "positive rate"), float))
    except (OSError, LookupError, ValueError, mlflow.MlflowException) as error:
        if errors.is_known(error):
            raise
        return None


def _table(run: Run, file: str, **options: Any) -> pd.DataFrame:
    """A table that a run has logged, read with these options of pandas.

    Raises:
        UserError: The run's artifacts lie where nobody is to look for them.
    """
    provenance.check_location(str(run.info.artifact_uri), f"run {run.info.run_id}")
    table: pd.DataFrame = pd.read_csv(
        StringIO(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{file}")), **options
    )
    return table


def counts(run: Run) -> tuple[int | None, int | None]:
    """How many rows a family's run was trained on, and how many were held out; None where it does not say."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    profiles = {given.tags[0].value: json.loads(given.dataset.profile or "{}") for given in inputs if given.tags}
    return profiles.get("training", {}).get("num_rows"), profiles.get("held-out", {}).get("num_rows")


def get_batch(client: mlflow.MlflowClient, table: Table, run_id: str | None = None) -> Run:
    """The batch of that id, or else the one of this table that finished last, in any experiment.

    Raises:
        UserError: There is none.
    """
    if run_id:
        return runs.get_run(client, run_id, runs.BATCH)
    of_table = f"tags.`{provenance.TABLE_NAME}` = '{table.name}'"
    query = f"tags.`{runs.KIND}` = '{runs.BATCH}' and {of_table} and attributes.status = 'FINISHED'"
    order = ["attributes.end_time DESC"]
    newest = client.search_runs(experiments.all_ids(client), query, max_results=1, order_by=order)
    if not newest:
        raise UserError(f"no finished training of {table.name} in the tracking store", "python train.py")
    return newest[0]


def families(client: mlflow.MlflowClient, batch: Run, kind: str = runs.FAMILY) -> list[Run]:
    """The nested runs of a batch of a kind, in the order they were made.

    Raises:
        UserError: Those of its families are deleted.
    """
    query = f"tags.`{mlflow_tags.MLFLOW_PARENT_RUN_ID}` = '{batch.info.run_id}' and tags.`{runs.KIND}` = '{kind}'"
    order = ["attributes.start_time ASC"]
    nested = list(connection.pages(client.search_runs, [batch.info.experiment_id], query, order_by=order))
    if kind == runs.FAMILY and not nested:
        raise UserError(f"the runs of the families of batch {batch.info.run_id} are deleted", "python train.py")
    return nested


def family_name(run: Run) -> str:
    """The family that a run trained, however people have renamed the run."""
    return runs.tag(run, FAMILY_NAME)


def model_uri(run: Run) -> str:
    """Where a family run's model is, as `models:/<id>`."""
    return f"models:/{model_id(run)}"


def model_id(run: Run) -> str:
    """The id of the model that a family run logged.

    Raises:
        UserError: It has logged none.
    """
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


def linked_models(client: mlflow.MlflowClient) -> list[LoggedModel]:
    """The models, in any experiment, that say which versions they are."""
    query = f"tags.`{mlflow_tags.MLFLOW_MODEL_VERSIONS}` != ''"
    return list(connection.pages(client.search_logged_models, experiments.all_ids(client), query))
