"""Experiments: the ones that training and decisions are in, made where they are new; and where their artifacts lie."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import sqlalchemy
from mlflow.entities import Experiment
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.utils import mlflow_tags

from understudy.errors import UserError
from understudy.tracking import connection, naming

if TYPE_CHECKING:
    from sqlalchemy.orm import InstrumentedAttribute

KIND = {"mlflow.experimentKind": "custom_model_development"}
VIEW = "understudy"  # the name of the view that MLflow keeps as a tag of the experiment, as its button "Share" does


@dataclass(frozen=True)
class About:
    """What MLflow's UI says of an experiment.

    Args:
        note: What its rows are.
        columns: Those that its view shows, in the spelling of MLflow's UI, and their widths in pixels. By itself the UI
            shows none that tell much.
    """

    note: str
    columns: Mapping[str, int]

    def tags(self, experiment_id: str) -> dict[str, str]:
        """The experiment's tags."""
        view = connection.link(f"experiments/{experiment_id}/runs", viewStateShareKey=VIEW)
        names = [*self.columns]
        state = {"selectedColumns": names, "columnOrder": names, "columnWidths": dict(self.columns)}
        return {
            **KIND,
            mlflow_tags.MLFLOW_RUN_NOTE: f"{self.note} [Show the columns that matter]({view})",
            f"mlflow.sharedViewState.{VIEW}": json.dumps(state),
        }


TRAINING = About(
    "Each row is a batch: open it for its report, and to compare its families.",
    {"tags.`best family`": 170, "metrics.`Mean CV score`": 160, "metrics.`Accuracy`": 160, "metrics.`AUC`": 160},
)
RECORDS = About(
    "Each row is a decision about a version: who asked for what, and what came of it.",
    {
        "tags.`promotion.outcome`": 150,
        "tags.`promotion.before`": 150,
        "tags.`promotion.who`": 130,
        "tags.`promotion.reason`": 300,
    },
)
SCORINGS = About(
    "Each row is a scoring: of what, with which version, for whom, and where it went.",
    {
        "metrics.`rows`": 80,
        "metrics.`rejected`": 100,
        "tags.`scoring.version`": 150,
        "tags.`scoring.input`": 200,
        "tags.`scoring.output`": 200,
    },
)
MONITORING = About(
    "A row for each version, whose charts show its windows, and one for each window.",
    {"metrics.`rows`": 80, "metrics.`refused`": 90, "metrics.`exit code`": 100, "tags.`monitoring.verdict`": 400},
)
NAME, ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
GIVEN = {name: os.environ.get(name) for name in (NAME, ID)}  # by a person; MLflow overwrites the id


def all_ids(client: mlflow.MlflowClient) -> list[str]:
    """The ids of all experiments that are not deleted."""
    return [experiment.experiment_id for experiment in connection.pages(client.search_experiments)]


def choose(client: mlflow.MlflowClient, given: str | None, default: str) -> None:
    """Make an experiment the active one, created and described if it is new.

    Inside `mlflow run` the project's run has chosen already, and MLflow refuses another choice.

    Args:
        client: Of the store that has the experiment.
        given: The name that a person gave; None for the experiment that MLflow's environment variables name.
        default: The name if those name none.

    Raises:
        UserError: No experiment can have that name, none has that id, or it is deleted.
    """
    if "MLFLOW_RUN_ID" in os.environ:
        chosen = client.get_experiment(client.get_run(os.environ["MLFLOW_RUN_ID"]).info.experiment_id)
    elif given is None and not GIVEN[NAME] and GIVEN[ID]:
        chosen = mlflow.set_experiment(experiment_id=_known(client, str(GIVEN[ID])))
    else:
        name = (GIVEN[NAME] or default) if given is None else given
        naming.check_experiment(name)
        make(client, name, TRAINING)
        chosen = mlflow.set_experiment(name)
    for tag, value in TRAINING.tags(chosen.experiment_id).items():
        if tag not in chosen.tags:
            client.set_experiment_tag(chosen.experiment_id, tag, value)


def _known(client: mlflow.MlflowClient, experiment_id: str) -> str:
    """The id of an experiment that can be written to."""
    if experiment_id not in all_ids(client):
        raise UserError(f"{ID} is {experiment_id}, which is no experiment of the store", f"correct it, or unset {ID}")
    return experiment_id


def make(client: mlflow.MlflowClient, name: str, about: About) -> Experiment:
    """The experiment of that name, made and described if there is none.

    Raises:
        UserError: It is deleted.
    """
    experiment = find(client, name)
    if experiment is None:
        # The embedded store would put the artifacts into whatever folder one happens to be in.
        is_ours = connection.is_embedded()
        location = naming.artifact_location(connection.PROJECT, name) if is_ours else None
        try:
            made = client.create_experiment(name, location, {**KIND, mlflow_tags.MLFLOW_RUN_NOTE: about.note})
            for tag, value in about.tags(made).items():
                client.set_experiment_tag(made, tag, value)
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


def relocate(client: mlflow.MlflowClient) -> list[str]:
    """Let the project's own store look for artifacts in the project's folder; returns what was done, for people.

    What lies only in the folder that the project was in before stays there. MLflow itself has no way to do it.
    """
    done = []
    engine = sqlalchemy.create_engine(connection.uri())
    with engine.begin() as database:
        for old in connection.moved_from(client):
            places = [(column, *place) for column in locations() for place in _places(database, column, old)]
            for column, location, here in places:
                if here:
                    values = {column: naming.escaped_path(here)}
                    database.execute(sqlalchemy.update(column.class_).where(column == location).values(values))
            left = sum(here is None for _, _, here in places)
            done.append(f"{len(places) - left} locations of artifacts are in {connection.PROJECT} and not in {old}")
            done += [f"{left} stay in {old}, since their files lie only there"] if left else []
    engine.dispose()
    return done


def locations() -> "list[InstrumentedAttribute[Any]]":
    """The columns of MLflow's tables that say where artifacts lie."""
    # The tables take half a second to load, and training on a server does without them.
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
    from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLoggedModel, SqlRun

    of_runs = [SqlExperiment.artifact_location, SqlRun.artifact_uri, SqlLoggedModel.artifact_location]
    return [*of_runs, SqlModelVersion.source, SqlModelVersion.storage_location]


def _places(
    database: sqlalchemy.Connection, column: "InstrumentedAttribute[Any]", old: Path
) -> Iterator[tuple[str, Path | None]]:
    """The locations in an old folder, and where they are in the project's; None if their files lie only in the old."""
    for location in database.scalars(sqlalchemy.select(column).where(column.is_not(None)).distinct()).all():
        path = naming.path_of(location)
        if path and path.is_relative_to(old / naming.ARTIFACTS):
            here = connection.PROJECT / path.relative_to(old)
            is_only_there = path.exists() and not here.exists() and column.class_.__tablename__ != "experiments"
            yield location, None if is_only_there else here
