"""Which version a challenger is compared with."""

from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from understudy.errors import UserError
from understudy.registry import history, records, registered, stages
from understudy.registry.records import Move, SavedRecord
from understudy.verification import manifest


def choose(client: MlflowClient, name: str, planned: Move) -> str | None:
    """The number of the champion; None if there has never been one.

    The champion is the version in Production, or else the last that was there and whose files are still the registered
    ones.

    Args:
        client: Of the store that holds the model.
        name: The registered model's name.
        planned: The move that is to be decided.

    Raises:
        UserError: The move is to Production, and of all versions that were there nothing is left.
    """
    versions = {str(version.version): version for version in registered.versions(client, name)}
    to_production = planned.stage == "production"
    in_production = planned.before if to_production else stages.aliases(client, name).get("production")
    if in_production in versions:
        return in_production
    known = records.find(client, name)
    for number in reversed(history.champions(known)):
        if number == planned.version or (number in versions and _is_whole(client, versions[number])):
            return number
    # Staging needs no champion, and Production will ask again.
    why = _nothing_left(known, [*history.lost(versions.values(), known)]) if to_production else None
    if why is not None:
        raise UserError(f'{why}; --force --reason "..." goes ahead', "force it")
    return None


def _is_whole(client: MlflowClient, version: ModelVersion) -> bool:
    """Whether a version's files are those that were registered."""
    try:
        with manifest.verified(client, version):
            return True
    except UserError:
        return False


def _nothing_left(known: Sequence[SavedRecord], lost: Sequence[str]) -> str | None:
    """What says that a version was in Production although none is left to compare with; None if nothing says so."""
    moves = [record for record in known if record.outcome == records.COMPLETED and record.stage == "production"]
    if moves:
        earlier = " of an earlier registered model of that name" if moves[-1].is_earlier else ""
        return f"version {moves[-1].version}{earlier} was in Production, and nothing is left to compare with"
    if lost:
        return f"the last record of version {', '.join(lost)} is gone, and nobody knows what was in Production"
    return None
