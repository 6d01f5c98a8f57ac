"""Where a version comes from and what happened to it, from the tags and records that are there."""

from collections.abc import Iterator
from datetime import datetime

from mlflow import MlflowClient
from mlflow.utils import mlflow_tags

from understudy.errors import UserError, visible
from understudy.registry import records, registered
from understudy.registry.records import Record
from understudy.tracking import family_runs, provenance, runs

OF_THE_RUN = {
    "family": family_runs.FAMILY_NAME,
    "data": provenance.DATA_PATH,
    "data digest": provenance.DATA_DIGEST,
    "commit": mlflow_tags.MLFLOW_GIT_COMMIT,
    "uncommitted changes": "git.dirty",
    "lock digest": "lock.digest",
    "packages": "packages",
    "seed": "seed",
    "model digest": family_runs.MODEL_DIGEST,
}


def lineage(client: MlflowClient, name: str, number: str) -> dict[str, str]:
    """What is known of a version, by what it is called for people; params and tags in the order of their names.

    Raises:
        UserError: There is no such version.
    """
    version = registered.get_version(client, name, number)
    known = {"made": clock(version.creation_timestamp), "source": str(version.source), "run": version.run_id or "none"}
    run = runs.run_or_none(client, version.run_id or "")
    if run is not None:
        known |= {said: run.data.tags[tag] for said, tag in OF_THE_RUN.items() if tag in run.data.tags}
        known["params"] = ", ".join(f"{key} {value}" for key, value in sorted(run.data.params.items())) or "none"
    return {name: visible(str(value)) for name, value in {**known, **dict(sorted(version.tags.items()))}.items()}


def story(found: list[Record]) -> Iterator[str]:
    """Records as lines for people, the latest last."""
    for record in found:
        notes = {"its run is deleted": record.is_deleted, "of an earlier registered model": record.is_earlier}
        aside = "".join(f" ({note})" for note, is_so in notes.items() if is_so)
        yield f"{clock(record.time or record.opened)}  {visible(f'{record.who}: {records.sentence(record)}')}{aside}"


def clock(milliseconds: int) -> str:
    """Milliseconds since 1970 as local time."""
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().isoformat(" ", "seconds")


def milliseconds(text: str) -> int:
    """A time such as 2026-11-01T12:00, local unless it says otherwise, in milliseconds since 1970.

    Raises:
        UserError: It is none.
    """
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        raise UserError(f"{text!r} is no time", "write it as in --at 2026-11-01T12:00") from None
