"""Registered versions: the only module that touches them.

The alias is the one truth about what is in Staging and in Production; MLflow's stages, which people and old clients
read, are made to follow it.
"""

import json
import warnings

from mlflow import MlflowClient, MlflowException
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.utils import mlflow_tags

from understudy import report, tracking
from understudy.errors import UserError
from understudy.models import FLOOR
from understudy.schema import Table

STAGES = {"staging": "Staging", "production": "Production"}
ARCHIVED = "Archived"
HISTORY = "understudy.production.history"
HISTORY_KEPT = 100


def best_family(runs: list[Run]) -> Run:
    """The run with the highest mean cross-validation score; of equal ones, the lowest log loss. Never the floor."""
    candidates = [run for run in runs if tracking.family_name(run) != FLOOR]
    return max(candidates, key=lambda run: (run.data.metrics["Mean CV score"], -_log_loss(run)))


def _log_loss(run: Run) -> float:
    """What cross-validation says of the probabilities that the model gives: calibrated where that is better."""
    return min(run.data.metrics[name] for name in ("cv/log loss", "cv/log loss calibrated"))


def register(client: MlflowClient, run: Run, table: Table, name: str) -> tuple[ModelVersion, bool]:
    """The version of a family run's model, and whether it was made now; a run never registers twice."""
    for version in versions(client, name):
        if version.run_id == run.info.run_id:
            return version, False
    try:
        client.create_registered_model(name, description=f"Predicts `{table.target.name}`, one row at a time.")
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(INVALID_PARAMETER_VALUE):
            raise UserError(f"{name!r} cannot name a registered model", "choose another --name") from None
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    made = client.create_model_version(
        name,
        source=tracking.model_uri(run),
        model_id=tracking.model_id(run),
        run_id=run.info.run_id,
        description=report.version_card(table, name, tracking.family_name(run), run.data.params, run.data.metrics),
        tags={tag: run.data.tags[tag] for tag in (tracking.FAMILY_NAME, tracking.DATA_DIGEST)},
    )
    # What MLflow's own register_model leaves on the logged model, whose page says "not registered" without it.
    link = json.dumps([{"name": name, "version": made.version}])
    client.set_logged_model_tags(tracking.model_id(run), {mlflow_tags.MLFLOW_MODEL_VERSIONS: link})
    return made, True


def versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of a registered model, the oldest first; none if there is no such model."""
    found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    return sorted(found, key=lambda version: int(version.version))


def registered_model(client: MlflowClient, name: str) -> RegisteredModel:
    """The registered model of that name.

    Raises:
        UserError: There is none.
    """
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        raise UserError(f"there is no registered model {name}", "python register.py") from None


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Alias to version number. Raises `UserError` if there is no such registered model."""
    # The SQL store hands out the numbers as integers, a server as text.
    return {alias: str(version) for alias, version in registered_model(client, name).aliases.items()}


def in_stage(client: MlflowClient, name: str, stage: str) -> str:
    """The number of the version that the alias of `stage` ("staging" or "production") names.

    Raises:
        UserError: No version is there.
    """
    version = aliases(client, name).get(stage)
    if version is None:
        raise UserError(f"no version of {name} is in {STAGES[stage]}", f"python promote.py {stage}")
    return version


def choose(client: MlflowClient, name: str, stage: str, wanted: str) -> str:
    """The version to promote: the wanted one, else the newest for Staging, else the one in Staging.

    Raises:
        UserError: There is no such version, or it is in Production and should go to Staging.
    """
    there = aliases(client, name)
    known = [str(version.version) for version in versions(client, name)]
    if not known:
        raise UserError(f"{name} has no versions", "python register.py")
    if not wanted and stage == "production":
        return in_stage(client, name, "staging")
    version = wanted or known[-1]
    if version not in known:
        raise UserError(f"{name} has no version {version}", f"choose from {', '.join(known)} with --version")
    if stage == "staging" and version == there.get("production"):
        raise UserError(f"version {version} of {name} is in Production", "python register.py, or another --version")
    return version


def promote(client: MlflowClient, name: str, stage: str, version: str) -> str | None:
    """Put a version into a stage; returns the version it replaced, if any, which is archived now."""
    there = aliases(client, name)
    replaced = there.get(stage)
    if replaced == version:
        replaced = None
    elif stage == "production" and replaced:
        client.set_registered_model_tag(name, HISTORY, " ".join([*history(client, name), replaced][-HISTORY_KEPT:]))
    client.set_registered_model_alias(name, stage, version)
    if stage == "production" and there.get("staging") == version:
        client.delete_registered_model_alias(name, "staging")
    settle(client, name)
    return replaced


def rollback(client: MlflowClient, name: str) -> tuple[str, str]:
    """Bring back the version that the one in Production replaced; returns it and the one that went.

    Raises:
        UserError: Nothing was replaced, or what was is gone.
    """
    current = in_stage(client, name, "production")
    *earlier, previous = history(client, name) or [""]
    if not previous:
        raise UserError(f"version {current} of {name} replaced none", "python promote.py production --version N")
    choose(client, name, "production", previous)
    client.set_registered_model_tag(name, HISTORY, " ".join(earlier))
    client.set_registered_model_alias(name, "production", previous)
    settle(client, name)
    return previous, current


def history(client: MlflowClient, name: str) -> list[str]:
    """The versions that were replaced in Production, the latest last."""
    return str(registered_model(client, name).tags.get(HISTORY, "")).split()


def settle(client: MlflowClient, name: str) -> None:
    """Make the stages follow the aliases: whatever is staged without its alias is archived."""
    wanted = {version: STAGES[alias] for alias, version in aliases(client, name).items() if alias in STAGES}
    for version in versions(client, name):
        staged = version.current_stage in STAGES.values()
        stage = wanted.get(str(version.version), ARCHIVED if staged else version.current_stage)
        if stage != version.current_stage:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # stages are deprecated, and used
                client.transition_model_version_stage(name, version.version, stage)
