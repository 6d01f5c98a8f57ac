"""What is wrong with the registered versions of a model, and the repair of what needs no judgement."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow import MlflowClient, MlflowException
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.utils import mlflow_tags

from understudy.errors import UserError, visible
from understudy.registry import records, registered, stages
from understudy.registry.records import Record, Verdict
from understudy.registry.stages import STAGES
from understudy.tracking import connection, family_runs, runs
from understudy.verification import manifest

MEND = "python promote.py check --repair"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what to do about it."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{visible(self.what)}\n  fix: {visible(self.fix)}"


def findings(client: MlflowClient, name: str) -> list[Finding]:
    """Everything that is wrong with a model's versions. Raises `UserError` if there is no such registered model."""
    model, versions = registered.registered_model(client, name), registered.versions(client, name)
    there = stages.aliases_of(client, model)
    wrong = [*_misspelt(model, there), *_stages(there, versions)]
    try:
        found = records.find(client, name)
    except UserError as error:  # their experiment is deleted
        wrong.append(Finding(error.problem, error.fix))
    else:
        wrong += [*_unrecorded(there, versions, found), *_unfinished(found), *_gone(name, versions, found)]
    for version in versions:
        wrong += _half_made(client, version)
    return wrong + list(_orphans(client, name, versions)) + list(_damaged(client, versions))


def repair(client: MlflowClient, name: str) -> list[str]:
    """Close the records of killed processes and make the stages follow the aliases; returns what was done.

    Recorded, if it is anything. So are records that are gone for good, each by one in its place that says so.
    """
    done = records.recover(client, name) + stages.settle(client, name)
    for number in _gaps(records.find(client, name)):
        said = f"the record at place {number} is gone for good"
        record = records.start(client, name, Record(records.REPAIR, "", number=number, reason=said), Verdict())
        records.close(client, name, record, records.COMPLETED)
        done.append(f"recorded that {said}")
    if done:
        record = records.start(client, name, Record(records.REPAIR, "", reason="; ".join(done)), Verdict())
        records.close(client, name, record, records.COMPLETED)
    return done


def _misspelt(model: RegisteredModel, there: dict[str, str]) -> Iterator[Finding]:
    for alias, stage in STAGES.items():
        others = {other: str(version) for other, version in model.aliases.items() if other not in STAGES}
        if alias in there and alias not in model.aliases:
            spelt = " or ".join(other for other, version in others.items() if version == there[alias])
            yield Finding(f"{stage}: the alias of version {there[alias]} is spelt {spelt}, and not {alias}", MEND)
            continue
        for other, version in others.items():
            if runs.folded(other) == alias:
                fix = f"take the alias {other} away in MLflow's UI; python promote.py {alias} --version {version}"
                yield Finding(f"{stage}: the alias {other} names version {version}, and only {alias} counts", fix)


def _stages(there: dict[str, str], versions: list[ModelVersion]) -> Iterator[Finding]:
    if "staging" in there and there["staging"] == there.get("production"):
        yield Finding(f"version {there['staging']} is in Staging and in Production", MEND)
    for alias, stage in STAGES.items() if stages.KEEP_STAGES else ():
        staged = [str(version.version) for version in versions if version.current_stage == stage]
        named = there.get(alias)
        if staged != ([named] if named else []):
            shown = f"version {', '.join(staged)}" if staged else "no version"
            what = f"{stage}: the alias names {f'version {named}' if named else 'none'}, the stage shows {shown}"
            by_hand = 'python promote.py adopt --version N --reason "..."'
            yield Finding(what, f"{MEND} follows the alias; {by_hand} takes what the stage says" if named else by_hand)


def _unrecorded(there: dict[str, str], versions: list[ModelVersion], found: list[Record]) -> Iterator[Finding]:
    done, recorded = records.completed(found), records.aliases(found)
    numbers = {str(version.version) for version in versions}
    for alias, stage in STAGES.items():
        named, said = there.get(alias), recorded.get(alias)
        if named and named != said:
            fix = f'python promote.py adopt --version {named} --reason "..."'
            but = f", the records say version {said}" if said else ""
            yield Finding(f"version {named} is in {stage} without a record{but}", fix)
        elif said and not named and (said in numbers or alias == "production"):
            what = f"{stage}: the records say version {said}, the alias names none"
            what += "" if said in numbers else ", and the version is deleted"
            if alias == "staging":
                yield Finding(what, f"python promote.py staging --version {said}, or archive --version {said}")
            elif numbers.intersection(records.history(found)):
                yield Finding(what, 'python promote.py rollback --reason "..."')
            else:
                yield Finding(what, 'python promote.py production --version N --force --reason "..."')
    known = {one for record in done for one in (record.version, record.before)}
    for one in versions if stages.KEEP_STAGES else ():
        number = str(one.version)
        if one.current_stage in STAGES.values() and number not in known and number not in there.values():
            fix = f'python promote.py adopt --version {number} --reason "..."'
            yield Finding(f"version {number} is in {one.current_stage} without a record", fix)


def _gone(name: str, versions: list[ModelVersion], found: list[Record]) -> Iterator[Finding]:
    for record in found:
        if record.is_deleted:
            what = f"a record is deleted: {records.sentence(record)}"
            yield Finding(what, f"mlflow runs restore --run-id {record.run_id}")
    for version, run_id in records.lost(versions, found).items():
        what = f"the last record of version {version}, run {run_id}, is not in {records.experiment(name)}"
        yield Finding(what, f'python promote.py adopt --version {version} --reason "..."')
    for number in _gaps(found):
        yield Finding(f"the record at place {number} is gone for good", f"{MEND} records that; a backup may have it")


def _gaps(found: list[Record]) -> list[int]:
    """The places that no record has, although later ones do."""
    taken = {record.number for record in found if record.number}
    return [number for number in range(1, math.floor(max(taken, default=0))) if number not in taken]


def _unfinished(found: list[Record]) -> Iterator[Finding]:
    for record in found:
        if record.is_left:
            yield Finding(f"a record was cut off: {records.sentence(record)}, run {record.run_id}", MEND)


def _half_made(client: MlflowClient, version: ModelVersion) -> Iterator[Finding]:
    number, fix = version.version, f"delete version {version.version} in MLflow's UI, then python register.py"
    if version.status != "READY":
        yield Finding(f"version {number} is {version.status} and not READY", fix)
    run = runs.run_or_none(client, version.run_id or "")
    if run is None:
        yield Finding(f"version {number} has no run behind it", fix)
    else:
        yield from _deleted(client, f"the run of version {number}", run)
        batch_id = run.data.tags.get(mlflow_tags.MLFLOW_PARENT_RUN_ID)
        batch = runs.run_or_none(client, batch_id) if batch_id else run
        if batch is None:
            what = f"the batch of version {number}, run {batch_id}, is not there, nor are its held-out rows"
            yield Finding(what, "train again: python train.py")
        elif batch is not run:
            yield from _deleted(client, f"the batch of version {number}", batch)
    source = str(version.source)
    try:
        if source.startswith("models:/"):
            client.get_logged_model(source.removeprefix("models:/"))
    except MlflowException as error:
        if error.error_code not in connection.NOT_THERE:
            raise
        yield Finding(f"version {number} has no model behind it", fix)


def _deleted(client: MlflowClient, what: str, run: Run) -> Iterator[Finding]:
    if run.info.lifecycle_stage != "active":
        experiment = client.get_experiment(run.info.experiment_id)
        fix = f"mlflow runs restore --run-id {run.info.run_id}"
        if experiment.lifecycle_stage != "active":  # deleting it has deleted its runs
            fix = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        yield Finding(f"{what} is deleted", fix)


def _orphans(client: MlflowClient, name: str, versions: list[ModelVersion]) -> Iterator[Finding]:
    numbers = {str(version.version) for version in versions}
    for model in family_runs.logged_models(client):
        links = family_runs.linked_versions(model)
        for number in [str(link["version"]) for link in links if link["name"] == name]:
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
