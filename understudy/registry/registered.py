"""The registered models and versions that are there, found by what people call them."""

import shlex

from mlflow import MlflowClient, MlflowException
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from understudy.errors import UserError
from understudy.report import card
from understudy.tracking import connection, naming, waiting


def registered_model(client: MlflowClient, name: str) -> RegisteredModel:
    """The registered model of that name.

    Raises:
        UserError: There is none, or it is spelt in another way: MySQL compares names without case and accents.
    """
    naming.check_name(name)
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        raise UserError(f"there is no registered model {name}", f"python register.py{naming.option(name)}") from None
    if model.name != name:
        raise UserError(
            f"there is no registered model {name!r}, but {model.name!r}", f"--name {shlex.quote(model.name)}"
        )
    return model


def versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of a registered model, the oldest first; none if there is no such model.

    Raises:
        UserError: No registered model can have that name.
    """
    naming.check_name(name)
    pages = connection.pages(client.search_model_versions, f"name = '{name}'")
    return sorted(pages, key=lambda version: int(version.version))


def get_version(client: MlflowClient, name: str, number: str | None, option: str = "--version") -> ModelVersion:
    """A registered version by its number, which a person gave with that option; the newest one for None.

    Raises:
        UserError: There is no such version.
    """
    known = {str(version.version): version for version in versions(client, name)}
    if not known:
        raise UserError(f"{name} has no versions", f"python register.py{naming.option(name)}")
    if number is None:
        return [*known.values()][-1]
    if number not in known:
        raise UserError(f"{name} has no version {number}", f"choose from {', '.join(known)} with {option}")
    return known[number]


def with_card(client: MlflowClient, name: str, number: str | None) -> ModelVersion:
    """A version by its number, the newest one for None, whose description is its model card.

    Raises:
        UserError: There is no such version, or its description is gone.
    """
    version = get_version(client, name, number)
    if not version.description:
        problem = f"version {version.version} of {name} has no description, which is where its card is kept"
        raise UserError(problem, f"python promote.py show {version.version}{naming.option(name)}, for its lineage")
    return version


def note(client: MlflowClient, name: str, number: str, decision: str) -> None:
    """Let the card in a version's description say what was decided about it, unless the version is gone."""
    try:
        known = _description(client, name, number)
        # MLflow has no way to write only over what was read: what somebody else wrote over is written again.
        while (text := card.with_decision(known, decision)) != known:
            waiting.insist(client.update_model_version, name, number, text)
            known = _description(client, name, number)
    except MlflowException as error:
        if error.error_code not in connection.NOT_THERE:
            raise


def _description(client: MlflowClient, name: str, number: str) -> str:
    return client.get_model_version(name, number).description or ""


def called(number: str | None) -> str:
    """What people call a version, by its number; "none" for none."""
    return f"version {number}" if number else "none"
