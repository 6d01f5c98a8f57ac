"""Which version is in Staging and in Production.

The alias decides that, since it names at most one version at every instant. MLflow's stages, which people and old
clients read, are made to follow it.
"""

import warnings
from collections.abc import Collection

from mlflow import MlflowClient, MlflowException
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from understudy.errors import Refused, UserError
from understudy.registry import registered
from understudy.tracking import connection, naming, waiting

STAGES = {"staging": "Staging", "production": "Production"}  # alias to stage
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
        UserError: It names none.
    """
    version = aliases(client, name).get(stage)
    if version is None:
        raise empty(name, stage)
    return version


def empty(name: str, stage: str) -> UserError:
    """What people are told where a stage has to have a version and has none."""
    return UserError(f"no version of {name} is in {STAGES[stage]}", f"python promote.py {stage}{naming.option(name)}")


def choose(client: MlflowClient, name: str, stage: str, wanted: str | None) -> str:
    """The version to promote: the wanted one, else the newest for Staging, else the one in Staging.

    Raises:
        UserError: There is no such version, or it is in Production and should go to Staging.
    """
    if wanted is None and stage == "production":
        return in_stage(client, name, "staging")
    number = str(registered.get_version(client, name, wanted).version)
    if stage == "staging" and number == aliases(client, name).get("production"):
        raise UserError(
            f"version {number} of {name} is in Production",
            f"python register.py{naming.option(name)}, or another --version",
        )
    return number


def move(client: MlflowClient, name: str, alias: str, version: str, before: str | None) -> None:
    """Point an alias at a version, if it still names `before`.

    Raises:
        Refused: It names another version by now, and is left as it is.
    """
    if not _write(client, name, alias, version, before):
        now = aliases(client, name).get(alias)
        changed = f"it had {registered.called(before)}, it has {registered.called(now)} now"
        raise Refused(f"{STAGES[alias]} of {name} has changed meanwhile: {changed}")


def remove(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Let an alias name no version, if it still names this one."""
    _write(client, name, alias, None, version)


def _write(client: MlflowClient, name: str, alias: str, version: str | None, before: str | None) -> bool:
    """Point an alias at a version, or at none, if it still names `before`; whether that was done.

    Never written twice without being read in between, so that a write that failed cannot undo somebody else's.
    """
    for number in range(waiting.TRIES):
        now = aliases(client, name).get(alias)
        if now != before:
            return number > 0 and now == version  # then the answer was lost, not the write
        try:
            with waiting.one_try():
                if version:
                    client.set_registered_model_alias(name, alias, version)
                else:
                    client.delete_registered_model_alias(name, alias)
            return True
        except MlflowException as error:
            if number == waiting.TRIES - 1 or not (waiting.is_undone(error) or waiting.is_unclear(error)):
                raise
        waiting.pause(number)
    return False


def settle(client: MlflowClient, name: str, left: Collection[str | None] = ()) -> list[str]:
    """Make the stages follow the aliases; returns what was done, for people.

    Everyone who moves an alias calls it afterwards. It ends with a pass that has nothing to write: that pass has read
    the alias after everything that this process wrote. So whoever writes last leaves the stages as the alias says.
    The versions that have `left` a stage, though MLflow may not show yet that they were in it, are archived unless an
    alias names them again.
    """
    done = _respell(client, name)
    while more := _pass(client, name, left):
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


def _pass(client: MlflowClient, name: str, left: Collection[str | None]) -> list[str]:
    current = aliases(client, name)
    if "staging" in current and current["staging"] == current.get("production"):
        remove(client, name, "staging", current["staging"])
        return [f"version {current['staging']} is in Production, and no longer in Staging"]
    return [
        _transition(client, name, str(version.version), stage)
        for version in registered.versions(client, name)
        if KEEP_STAGES and (stage := _wanted(version, current, left)) != version.current_stage
    ]


def _wanted(version: ModelVersion, current: dict[str, str], left: Collection[str | None]) -> str:
    """The stage that the aliases give a version; where a stage has no alias, people's own choice stays."""
    number, stage = str(version.version), str(version.current_stage)
    by_alias = {current[alias]: STAGES[alias] for alias in current}
    if number in by_alias:
        return by_alias[number]
    return ARCHIVED if number in left or stage in by_alias.values() else stage


def _transition(client: MlflowClient, name: str, version: str, stage: str) -> str:
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # stages are deprecated, and used
        waiting.insist(client.transition_model_version_stage, name, version, stage)
    return f"version {version} is in the stage {stage}"
