"""What is wrong with the registered versions of a model, and the repair of what needs no judgement."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow import MlflowClient, MlflowException
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils import mlflow_tags

from understudy import manifest, records, registry, tracking
from understudy.errors import UserError
from understudy.records import Record, Verdict
from understudy.registry import STAGES

MEND = "python promote.py check --repair"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what to do about it."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}\n  fix: {self.fix}"


def findings(client: MlflowClient, name: str) -> list[Finding]:
    """Everything that is wrong with a model's versions. Raises `UserError` if there is no such registered model."""
    there, found = registry.aliases(client, name), records.find(client, name)
    versions = registry.versions(client, name)
    wrong = [*_stages(there, versions), *_unrecorded(there, versions, found), *_unfinished(found)]
    for version in versions:
        wrong += _half_made(client, version)
    return wrong + list(_orphans(client, name, versions)) + list(_damaged(client, versions))


def repair(client: MlflowClient, name: str) -> list[str]:
    """Close the records of killed processes and make the stages follow the aliases; returns what was done.

    Recorded, if it is anything.
    """
    done = records.recover(client, name) + registry.settle(client, name)
    if done:
        record = records.start(client, name, Record(records.REPAIR, "", reason="; ".join(done)), Verdict())
        records.close(client, record, records.COMPLETED)
    return done


def _stages(there: dict[str, str], versions: list[ModelVersion]) -> Iterator[Finding]:
    if "staging" in there and there["staging"] == there.get("production"):
        yield Finding(f"version {there['staging']} is in Staging and in Production", MEND)
    for alias, stage in STAGES.items() if registry.KEEP_STAGES else ():
        staged = [str(version.version) for version in versions if version.current_stage == stage]
        named = there.get(alias)
        if staged != ([named] if named else []):
            shown = f"version {', '.join(staged)}" if staged else "no version"
            what = f"{stage}: the alias names {f'version {named}' if named else 'none'}, the stage shows {shown}"
            by_hand = 'python promote.py adopt --version N --reason "..."'
            yield Finding(what, f"{MEND} follows the alias; {by_hand} takes what the stage says" if named else by_hand)


def _unrecorded(there: dict[str, str], versions: list[ModelVersion], found: list[Record]) -> Iterator[Finding]:
    done = [record for record in found if record.outcome == records.COMPLETED]
    for alias, version in there.items():
        moves = [record for record in done if record.stage == alias]
        if alias in STAGES and (not moves or moves[-1].version != version):
            fix = f'python promote.py adopt --version {version} --reason "..."'
            yield Finding(f"version {version} is in {STAGES[alias]} without a record", fix)
    recorded = {one for record in done for one in (record.version, record.before)}
    for one in versions if registry.KEEP_STAGES else ():
        number = str(one.version)
        if one.current_stage in STAGES.values() and number not in recorded and number not in there.values():
            fix = f'python promote.py adopt --version {number} --reason "..."'
            yield Finding(f"version {number} is in {one.current_stage} without a record", fix)


def _unfinished(found: list[Record]) -> Iterator[Finding]:
    for record in found:
        if record.is_left:
            yield Finding(f"a record was cut off: {records.sentence(record)}, run {record.run_id}", MEND)


def _half_made(client: MlflowClient, version: ModelVersion) -> Iterator[Finding]:
    number, fix = version.version, f"delete version {version.version} in MLflow's UI, then python register.py"
    if version.status != "READY":
        yield Finding(f"version {number} is {version.status} and not READY", fix)
    try:
        run = client.get_run(version.run_id or "")
        if run.info.lifecycle_stage != "active":
            yield Finding(f"the run of version {number} is deleted", f"mlflow runs restore --run-id {run.info.run_id}")
    except MlflowException as error:
        if error.error_code not in tracking.NOT_THERE:
            raise
        yield Finding(f"version {number} has no run behind it", fix)
    source = str(version.source)
    try:
        if source.startswith("models:/"):
            client.get_logged_model(source.removeprefix("models:/"))
    except MlflowException as error:
        if error.error_code not in tracking.NOT_THERE:
            raise
        yield Finding(f"version {number} has no model behind it", fix)


def _orphans(client: MlflowClient, name: str, versions: list[ModelVersion]) -> Iterator[Finding]:
    numbers = {str(version.version) for version in versions}
    for model in tracking.logged_models(client):
        said = json.loads(model.tags.get(mlflow_tags.MLFLOW_MODEL_VERSIONS, "[]"))
        for number in [str(one["version"]) for one in said if one["name"] == name]:
            if number not in numbers:
                fix = f"python register.py --run {model.source_run_id}"
                yield Finding(f"model {model.model_id} says it is version {number}, which is not there", fix)


def _damaged(client: MlflowClient, versions: list[ModelVersion]) -> Iterator[Finding]:
    for version in versions:
        try:
            with manifest.verified(client, version):
                pass
        except UserError as error:
            yield Finding(error.problem, error.fix)
