"""Registered models and their versions."""

import json

from mlflow import MlflowClient, MlflowException
from mlflow.entities import LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.protos.databricks_pb2 import (
    PERMISSION_DENIED,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.utils import mlflow_tags

from understudy.errors import UserError
from understudy.schema.declaration import Table
from understudy.tracking import connection, family_runs, provenance, retrying, runs

RECORD = "understudy.record"  # the run of the last decision about a version
LONGEST = 200  # letters of a name; with what the project adds, MySQL's columns take 256


def best_family(candidates: list[Run]) -> Run:
    """The run with the highest mean cross-validation score; of equal ones, the lowest log loss. Never the floor."""
    from understudy.families import FLOOR  # loads scikit-learn, which following an alias need not wait for

    searched = [run for run in candidates if family_runs.family_name(run) != FLOOR]
    return max(searched, key=lambda run: (runs.metric(run, "Mean CV score"), -_log_loss(run)))


def _log_loss(run: Run) -> float:
    """What cross-validation says of the probabilities that the model gives: calibrated where that is better."""
    return min(runs.metric(run, name) for name in ("cv/log loss", "cv/log loss calibrated"))


def register(client: MlflowClient, run: Run, table: Table, name: str) -> tuple[ModelVersion, bool]:
    """The version of a family run's model, and whether it was made now; a run never registers twice.

    Raises:
        UserError: The model's files are gone or were never all there, or not what training writes, or no registered
            model can have that name.
    """
    from understudy.figures import cards  # load scikit-learn
    from understudy.verification import admission

    for version in versions(client, name):
        if version.run_id == run.info.run_id:
            _link(client, family_runs.model_id(run), version)
            return version, False
    if client.get_logged_model(family_runs.model_id(run)).status != LoggedModelStatus.READY:
        problem = f"the upload of the model of run {run.info.run_id} was cut off"
        raise UserError(problem, "train again: python train.py")
    admitted = admission.admit(client, run, family_runs.model_uri(run), f"the model of run {run.info.run_id}")
    create(client, table, name)
    made = client.create_model_version(
        name,
        source=family_runs.model_uri(run),
        model_id=family_runs.model_id(run),
        run_id=run.info.run_id,
        description=cards.version_card(table, name, family_runs.family_name(run), run.data.params, run.data.metrics),
        tags={name: runs.tag(run, name) for name in (family_runs.FAMILY_NAME, provenance.DATA_DIGEST)} | admitted,
        await_creation_for=0,  # it is there when the call returns; MLflow would say that it waits
    )
    _link(client, family_runs.model_id(run), made)
    return made, True


def create(client: MlflowClient, table: Table, name: str) -> None:
    """Make a registered model for the table's versions, unless there is one of that name.

    Raises:
        UserError: No registered model can have that name.
    """
    check_name(name)
    try:
        client.create_registered_model(name, description=f"Predicts `{table.target.name}`, one row at a time.")
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(PERMISSION_DENIED):
            client.get_registered_model(name)  # who may not make one may have one
        elif error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        registered_model(client, name)  # which may be spelt in another way


def _link(client: MlflowClient, model_id: str, version: ModelVersion) -> None:
    """What MLflow's own register_model leaves on the logged model, whose page says "not registered" without it."""
    known = family_runs.linked_versions(client.get_logged_model(model_id))
    link = {"name": version.name, "version": int(version.version)}  # as a server writes it; its client says text
    if link not in known:
        client.set_logged_model_tags(model_id, {mlflow_tags.MLFLOW_MODEL_VERSIONS: json.dumps([*known, link])})


def get_version(client: MlflowClient, name: str, number: str, option: str = "--version") -> ModelVersion:
    """A registered version by its number, which a person gave with that option.

    Raises:
        UserError: There is none.
    """
    known = {str(version.version): version for version in versions(client, name)}
    if not known:
        raise UserError(f"{name} has no versions", "python register.py")
    if number not in known:
        raise UserError(f"{name} has no version {number}", f"choose from {', '.join(known)} with {option}")
    return known[number]


def versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of a registered model, the oldest first; none if there is no such model.

    Raises:
        UserError: It cannot be a name.
    """
    check_name(name)
    found = connection.pages(client.search_model_versions, f"name = '{name}'")
    return sorted(found, key=lambda version: int(version.version))


def check_name(name: str) -> None:
    """Refuse what cannot name a registered model, before anything is asked or written.

    Raises:
        UserError: It cannot: MLflow takes it for a path, a database has no room for it, or MLflow has no way to ask
            for it, as for a name with a quotation mark.
    """
    is_path = name == "." or name.startswith("..")
    if is_path or not name.strip() or set(name) & set("/:'") or len(name) > LONGEST:
        raise UserError(f"{name!r} cannot name a registered model", "choose another --name")


def registered_model(client: MlflowClient, name: str) -> RegisteredModel:
    """The registered model of that name.

    Raises:
        UserError: There is none, or it is spelt in another way: MySQL compares names without case and accents.
    """
    check_name(name)
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        raise UserError(f"there is no registered model {name}", "python register.py") from None
    if model.name != name:
        raise UserError(f"there is no registered model {name!r}, but {model.name!r}", f"--name {model.name}")
    return model


def called(version: str | None) -> str:
    """A version's number for people; "none" for none."""
    return f"version {version}" if version else "none"


def tag(client: MlflowClient, name: str, version: str, run_id: str) -> None:
    """Let a version name the run of the last decision about it."""
    retrying.insist(client.set_model_version_tag, name, version, RECORD, run_id)
