"""Which version is in Staging and in Production.

The alias is the one truth about that, since it names at most one version at every instant. MLflow's stages, which
people and old clients read, are made to follow it.
"""

import warnings
from collections.abc import Collection

from mlflow import MlflowClient, MlflowException
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from understudy.errors import Refused, UserError
from understudy.registry import registered
from understudy.tracking import connection, retrying

STAGES = {"staging": "Staging", "production": "Production"}
ARCHIVED = "Archived"
KEEP_STAGES = True  # False leaves MLflow's stages alone, for the day they are gone


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """The aliases of the stages that name a version, and its number.

    Raises:
        UserError: There is no such registered model.
    """
    return aliases_of(client, registered.registered_model(client, name))


def aliases_of(client: MlflowClient, model: RegisteredModel) -> dict[str, str]:
    """The aliases of the stages, as `aliases` has them, of a registered model that has been read."""
    named = {alias: str(model.aliases[alias]) for alias in STAGES if alias in model.aliases}
    if model.aliases.keys() - STAGES.keys():
        # MySQL compares aliases without case and accents, so one of the others may stand where ours would be.
        for alias in STAGES.keys() - named.keys():
            try:
                named[alias] = str(client.get_model_version_by_alias(model.name, alias).version)
            except MlflowException as error:
                if error.error_code not in connection.NOT_THERE:
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
    newest = [str(version.version) for version in registered.versions(client, name)][-1:]
    if not wanted and newest and stage == "production":
        return in_stage(client, name, "staging")
    version = str(registered.get_version(client, name, wanted or "".join(newest)).version)
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
        changed = f"it had {registered.called(before)}, it has {registered.called(there)} now"
        raise Refused(f"{STAGES[alias]} of {name} has changed meanwhile: {changed}")


def remove(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Let an alias name no version, if it still names this one."""
    _write(client, name, alias, "", version)


def _write(client: MlflowClient, name: str, alias: str, version: str, before: str) -> bool:
    """Point an alias at a version ("" for none) if it still names `before`; whether that was done.

    Never written twice without being read in between, so that a write that failed cannot undo somebody else's.
    """
    for number in range(retrying.TRIES):
        there = aliases(client, name).get(alias, "")
        if there != before:
            return number > 0 and there == version  # then the answer was lost, not the write
        try:
            with retrying.one_try():
                if version:
                    client.set_registered_model_alias(name, alias, version)
                else:
                    client.delete_registered_model_alias(name, alias)
            return True
        except MlflowException as error:
            if number == retrying.TRIES - 1 or not (retrying.is_undone(error) or retrying.is_unclear(error)):
                raise
        retrying.pause(number)
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
    model = registered.registered_model(client, name)
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
        for version in registered.versions(client, name)
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
        retrying.insist(client.transition_model_version_stage, name, version, stage)
    return f"version {version} is in the stage {stage}"
