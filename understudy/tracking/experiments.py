"""Experiments: the ones that training and decisions are in, made and described where they are new."""

import os
from collections.abc import Mapping

import mlflow
from mlflow.entities import Experiment
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.utils import mlflow_tags

from understudy.errors import UserError
from understudy.tracking import connection

KIND = {"mlflow.experimentKind": "custom_model_development"}
EXPERIMENT_TAGS = {
    **KIND,
    mlflow_tags.MLFLOW_RUN_NOTE: "Each row is a batch: open it, tick its model families, and press Compare.",
}
RECORDS_TAGS = {
    **KIND,
    mlflow_tags.MLFLOW_RUN_NOTE: "Each row is a decision about a version: who asked for what, and what came of it.",
}


def all_ids(client: mlflow.MlflowClient) -> list[str]:
    """The ids of all experiments that are not deleted."""
    return [experiment.experiment_id for experiment in connection.pages(client.search_experiments)]


def choose(client: mlflow.MlflowClient, name: str) -> None:
    """Make `name` the active experiment, created and described if it is new.

    Inside `mlflow run` the project's run has chosen already, and MLflow refuses another choice.
    """
    if "MLFLOW_RUN_ID" in os.environ:
        chosen = client.get_experiment(client.get_run(os.environ["MLFLOW_RUN_ID"]).info.experiment_id)
    else:
        make(client, name, EXPERIMENT_TAGS)
        chosen = mlflow.set_experiment(name)
    for tag, value in EXPERIMENT_TAGS.items():
        if tag not in chosen.tags:
            client.set_experiment_tag(chosen.experiment_id, tag, value)


def make(client: mlflow.MlflowClient, name: str, tags: Mapping[str, str]) -> Experiment:
    """The experiment of that name, made with these tags if there is none.

    Raises:
        UserError: It is deleted.
    """
    experiment = find(client, name)
    if experiment is None:
        # The embedded store would put the artifacts into whatever folder one happens to be in.
        embedded = mlflow.get_tracking_uri() == connection.EMBEDDED
        try:
            client.create_experiment(name, str(connection.PROJECT / "mlruns" / name) if embedded else None, dict(tags))
        except mlflow.MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):  # another process was faster
                raise
        experiment = client.get_experiment_by_name(name)
    return experiment  # type: ignore[return-value]


def find(client: mlflow.MlflowClient, name: str) -> Experiment | None:
    """The experiment of that name; None if there is none.

    Raises:
        UserError: It is deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment and experiment.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise UserError(f"experiment {name} is deleted", restore)
    return experiment
