"""Registered versions: the only module that touches them.

The alias is the one truth about what is in Staging and in Production, since it names at most one version at every
instant. MLflow's stages, which people and old clients read, are made to follow it.
"""

import json
import warnings
from collections.abc import Collection

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

from understudy import retry, tracking
from understudy.errors import Refused, UserError
from understudy.schema import Table

STAGES = {"staging": "Staging", "production": "Production"}
ARCHIVED = "Archived"
KEEP_STAGES = True  # False leaves MLflow's stages alone, for the day they are gone
RECORD = "understudy.record"  # the run of the last decision about a version
LONGEST = 200  # letters of a name; with what the project adds, MySQL's columns take 256


def best_family(runs: list[Run]) -> Run:
    """The run with the highest mean cross-validation score; of equal ones, the lowest log loss. Never the floor."""
    from understudy.models import FLOOR  # loads scikit-learn, which following an alias need not wait for

    candidates = [run for run in runs if tracking.family_name(run) != FLOOR]
    return max(candidates, key=lambda run: (tracking.metric(run, "Mean CV score"), -_log_loss(run)))


def _log_loss(run: Run) -> float:
    """What cross-validation says of the probabilities that the model gives: calibrated where that is better."""
    return min(tracking.metric(run, name) for name in ("cv/log loss", "cv/log loss calibrated"))


def register(client: MlflowClient, run: Run, table: Table, name: str) -> tuple[ModelVersion, bool]:
    """The version of a family run's model, and whether it was made now; a run never registers twice.

    Raises:
        UserError: The model's files are gone or were never all there, or not what training writes, or no registered
            model can have that name.
    """
    from understudy import admission, report  # load scikit-learn

    for version in versions(client, name):
        if version.run_id == run.info.run_id:
            _link(client, tracking.model_id(run), version)
            return version, False
    if client.get_logged_model(tracking.model_id(run)).status != LoggedModelStatus.READY:
        problem = f"the upload of the model of run {run.info.run_id} was cut off"
        raise UserError(problem, "train again: python train.py")
    admitted = admission.admit(client, run, tracking.model_uri(run), f"the model of run {run.info.run_id}")
    create(client, table, name)
    made = client.create_model_version(
        name,
        source=tracking.model_uri(run),
        model_id=tracking.model_id(run),
        run_id=run.info.run_id,
        description=report.version_card(table, name, tracking.family_name(run), run.data.params, run.data.metrics),
        tags={name: tracking.tag(run, name) for name in (tracking.FAMILY_NAME, tracking.DATA_DIGEST)} | admitted,
        await_creation_for=0,  # it is there when the call returns; MLflow would say that it waits
    )
    _link(client, tracking.model_id(run), made)
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
    known = tracking.linked_versions(client.get_logged_model(model_id))
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
    found = tracking.pages(client.search_model_versions, f"name = '{name}'")
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


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """The aliases of the stages that name a version, and its number.

    Raises:
        UserError: There is no such registered model.
    """
    return aliases_of(client, registered_model(client, name))


def aliases_of(client: MlflowClient, model: RegisteredModel) -> dict[str, str]:
    """The aliases of the stages, as `aliases` has them, of a registered model that has been read."""
    named = {alias: str(model.aliases[alias]) for alias in STAGES if alias in model.aliases}
    if model.aliases.keys() - STAGES.keys():
        # MySQL compares aliases without case and accents, so one of the others may stand where ours would be.
        for alias in STAGES.keys() - named.keys():
            try:
                named[alias] = str(client.get_model_version_by_alias(model.name, alias).version)
            except MlflowException as error:
                if error.error_code not in tracking.NOT_THERE:
                    raise
    return named


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
    newest = [str(version.version) for version in versions(client, name)][-1:]
    if not wanted and newest and stage == "production":
        return in_stage(client, name, "staging")
    version = str(get_version(client, name, wanted or "".join(newest)).version)
    if stage == "staging" and version == there.get("production"):
        raise UserError(f"version {version} of {name} is in Production", "python register.py, or another --version")
    return version


def move(client: MlflowClient, name: str, alias: str, version: str, before: str) -> None:
    """Point an alias at a version, if it still names `before` ("" for none).

    Raises:
        Refused: It names another version by now, and is left as it is.
    """
    if not _write(client, name, alias, version, before):
        there = aliases(client, name).get(alias, "")
        changed = f"it had {called(before)}, it has {called(there)} now"
        raise Refused(f"{STAGES[alias]} of {name} has changed meanwhile: {changed}")


def remove(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Let an alias name no version, if it still names this one."""
    _write(client, name, alias, "", version)


def _write(client: MlflowClient, name: str, alias: str, version: str, before: str) -> bool:
    """Point an alias at a version ("" for none) if it still names `before`; whether that was done.

    Never written twice without being read in between, so that a write that failed cannot undo somebody else's.
    """
    for number in range(retry.TRIES):
        there = aliases(client, name).get(alias, "")
        if there != before:
            return number > 0 and there == version  # then the answer was lost, not the write
        try:
            with retry.one_try():
                if version:
                    client.set_registered_model_alias(name, alias, version)
                else:
                    client.delete_registered_model_alias(name, alias)
            return True
        except MlflowException as error:
            if number == retry.TRIES - 1 or not (retry.is_undone(error) or retry.is_unclear(error)):
                raise
        retry.pause(number)
    return False


def settle(client: MlflowClient, name: str, gone: Collection[str] = ()) -> list[str]:
    """Make the stages follow the aliases; returns what was done, for people.

    Everyone who moves an alias calls it afterwards. It ends when a pass has found nothing to write: that pass has read
    the alias after everything that this process wrote. So whoever writes last leaves the stages as the alias says.

    Args:
        client: Of the store that holds the model.
        name: The registered model's.
        gone: Versions that were in a stage by their alias, though MLflow may not show it yet: archived, unless they
            are there again.
    """
    done = _respell(client, name)
    while more := _pass(client, name, gone):
        done += more
    return done


def _respell(client: MlflowClient, name: str) -> list[str]:
    """Give the aliases that the store takes for ours our spelling: to set them again does so, in one write."""
    model = registered_model(client, name)
    return [
        f"the alias {alias}, which names version {version}, is spelt so again"
        for alias, version in aliases_of(client, model).items()
        if alias not in model.aliases and _write(client, name, alias, version, version)
    ]


def _pass(client: MlflowClient, name: str, gone: Collection[str]) -> list[str]:
    there = aliases(client, name)
    if "staging" in there and there["staging"] == there.get("production"):
        remove(client, name, "staging", there["staging"])
        return [f"version {there['staging']} is in Production, and no longer in Staging"]
    return [
        _transition(client, name, str(version.version), stage)
        for version in versions(client, name)
        if (stage := _wanted(version, there, gone)) != version.current_stage
    ]


def _wanted(version: ModelVersion, there: dict[str, str], gone: Collection[str]) -> str:
    """The stage that the aliases give a version; where a stage has no alias, people's own choice stays."""
    number, now = str(version.version), str(version.current_stage)
    if not KEEP_STAGES:
        return now
    by_alias = {there[alias]: stage for alias, stage in STAGES.items() if alias in there}
    if number in by_alias:
        return by_alias[number]
    return ARCHIVED if number in gone or now in by_alias.values() else now


def _transition(client: MlflowClient, name: str, version: str, stage: str) -> str:
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # stages are deprecated, and used
        retry.insist(client.transition_model_version_stage, name, version, stage)
    return f"version {version} is in the stage {stage}"


def tag(client: MlflowClient, name: str, version: str, run_id: str) -> None:
    """Let a version name the run of the last decision about it."""
    retry.insist(client.set_model_version_tag, name, version, RECORD, run_id)
