"""What is wrong with the registered versions of a model or cut off, and the repair of what needs no judgement."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mlflow import MlflowClient, MlflowException
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.utils import mlflow_tags

from understudy.errors import UserError, visible
from understudy.registry import history, records, registered, stages
from understudy.registry.records import Record, SavedRecord, Verdict
from understudy.registry.stages import STAGES
from understudy.tracking import connection, family_runs, naming, runs
from understudy.verification import manifest

Versions = Mapping[str, ModelVersion]  # by number


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what to do about it."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{visible(self.what)}\n  fix: {visible(self.fix)}"


def findings(client: MlflowClient, name: str, needs_approval: bool = False) -> list[Finding]:
    """Everything that is wrong with a model's versions. Raises `UserError` if there is no such registered model.

    Where a second person has to approve what goes to Production, what was put there by hand is not to be adopted.
    """
    model = registered.registered_model(client, name)
    versions = {str(version.version): version for version in registered.versions(client, name)}
    aliases = stages.aliases_of(client, model)
    wrong = [*_misspelt(model, aliases), *staged_otherwise(name, aliases, versions)]
    try:
        decisions = records.find(client, name)
    except UserError as error:  # their experiment is deleted
        wrong.append(Finding(error.problem, error.fix))
    else:
        wrong += _unrecorded(name, aliases, versions, decisions, needs_approval)
        wrong += _broken_records(name, versions, decisions)
    for version in versions.values():
        wrong += _half_made(client, version)
    wrong += _orphans(client, name, versions)
    faults = [manifest.fault(client, version) for version in versions.values()]
    return [*wrong, *(Finding(fault.problem, fault.fix) for fault in faults if fault)]


def repair(client: MlflowClient, name: str) -> list[str]:
    """Close the records of killed processes and make the stages follow the aliases; returns what was done.

    What was done is recorded. A record that is gone for good gets one in its place that says so.
    """
    done = recover(client, name) + stages.settle(client, name)
    for number in _gaps(records.find(client, name)):
        reason = f"the record at place {number} is gone for good"
        _record_repair(client, name, Record(records.REPAIR, reason=reason, number=number))
        done.append(f"recorded that {reason}")
    if done:
        _record_repair(client, name, Record(records.REPAIR, reason="; ".join(done)))
    return done


def recover(client: MlflowClient, name: str) -> list[str]:
    """Close the records that killed processes left open, by what the aliases say; returns what was done, for people."""
    done = []
    for record in [record for record in records.find(client, name, "attributes.status = 'RUNNING'") if record.is_left]:
        ended = record if record.outcome else _ended(client, name, record.run_id)
        if ended and ended.outcome:
            records.close(client, name, ended, ended.outcome)
            done.append(f"closed a record: {records.sentence(ended)}")
            if ended.outcome == records.COMPLETED and not ended.is_earlier and ended.action != records.REQUEST:
                done += stages.settle(client, name, {record.version, record.before})
    return done


def _ended(client: MlflowClient, name: str, run_id: str) -> SavedRecord | None:
    """A cut-off record with how it ended and its place; None if another process has closed it by now."""
    aliases = stages.aliases(client, name)
    # Read after the aliases: whoever has moved one on since has closed this record before.
    decisions = records.find(client, name)
    [record] = [record for record in decisions if record.run_id == run_id]
    if not record.is_left or record.outcome:
        return None
    later = [each for each in decisions if each.opened > record.opened and each.stage == record.stage]
    followers = [each for each in later if each.stage and each.before == record.version]
    if history.is_undecided(record):
        outcome, record = records.ABANDONED, replace(record, why="cut off before the gate had decided")
    elif record.is_earlier:
        outcome = records.ABANDONED
    elif record.why and not record.forced:
        outcome = records.REFUSED
    elif record.action == records.ARCHIVE:
        outcome = records.ABANDONED if record.version in aliases.values() else records.COMPLETED
    else:
        is_moved = record.number or (record.stage and (followers or record.version == aliases.get(record.stage)))
        outcome = records.COMPLETED if is_moved else records.ABANDONED
    if record.number is None:
        number = _number_between(decisions, followers)
        record = replace(record, number=number, time=_time_after(decisions, record))
    return replace(record, outcome=outcome)


def _number_between(decisions: Sequence[SavedRecord], followers: Sequence[SavedRecord]) -> float | None:
    """The place of a cut-off move: before the first that has followed it, or else behind all others."""
    follower = next((record for record in followers if record.outcome == records.COMPLETED), None)
    if follower is None:
        return records.behind(decisions)
    if follower.number is None:
        return None
    numbers = [record.number or 0 for record in decisions]
    return (follower.number + max(number for number in numbers if number < follower.number)) / 2


def _time_after(decisions: Sequence[SavedRecord], record: SavedRecord) -> int:
    """When a cut-off move counts from: as it was opened, but after all that had been opened before it."""
    completed = [each for each in decisions if each.outcome == records.COMPLETED and each.opened <= record.opened]
    return max([record.opened, *((each.time or 0) + 1 for each in completed)])


def _record_repair(client: MlflowClient, name: str, record: Record) -> None:
    records.close(client, name, records.start(client, name, record, Verdict()), records.COMPLETED)


def _misspelt(model: RegisteredModel, aliases: Mapping[str, str]) -> Iterator[Finding]:
    others = {alias: str(number) for alias, number in model.aliases.items() if alias not in STAGES}
    for alias, stage in STAGES.items():
        if alias in aliases and alias not in model.aliases:
            spelt = " or ".join(other for other, number in others.items() if number == aliases[alias])
            what = f"{stage}: the alias of version {aliases[alias]} is spelt {spelt}, and not {alias}"
            yield Finding(what, repair_command(model.name))
            continue
        for other, number in others.items():
            if runs.folded(other) == alias:
                command = _promote(model.name, f"{alias} --version {number}")
                fix = f"take the alias {other} away in MLflow's UI; {command}"
                yield Finding(f"{stage}: the alias {other} names version {number}, and only {alias} counts", fix)


def staged_otherwise(name: str, aliases: Mapping[str, str], versions: Versions) -> Iterator[Finding]:
    """Where the stages of a model's versions are not what its aliases say."""
    if "staging" in aliases and aliases["staging"] == aliases.get("production"):
        yield Finding(f"version {aliases['staging']} is in Staging and in Production", repair_command(name))
    for alias, stage in STAGES.items() if stages.KEEP_STAGES else ():
        staged = [number for number, version in versions.items() if version.current_stage == stage]
        named = aliases.get(alias)
        if staged != ([named] if named else []):
            shown = f"version {', '.join(staged)}" if staged else "no version"
            fix = _adopt(name, "N")
            if named:
                fix = f"{repair_command(name)} follows the alias; {fix} takes what the stage says"
            yield Finding(f"{stage}: the alias names {registered.called(named)}, the stage shows {shown}", fix)


def _unrecorded(
    name: str, aliases: Mapping[str, str], versions: Versions, decisions: Sequence[SavedRecord], needs_approval: bool
) -> Iterator[Finding]:
    recorded = history.aliases(decisions)
    for alias, stage in STAGES.items():
        named, expected = aliases.get(alias), recorded.get(alias)
        if named and named != expected:
            but = f", the records say version {expected}" if expected else ""
            undone = needs_approval and alias == "production"
            fix = _promote(name, 'rollback --reason "..."') if undone else _adopt(name, named)
            yield Finding(f"version {named} is in {stage} without a record{but}", fix)
        elif expected and not named and (expected in versions or alias == "production"):
            what = f"{stage}: the records say version {expected}, the alias names none"
            fix = " or ".join(_promote(name, f"{verb} --version {expected}") for verb in ("staging", "archive"))
            if alias == "production":
                is_left = versions.keys() & history.champions(decisions)
                verb = "rollback" if is_left else "production --version N --force"
                fix = _promote(name, f'{verb} --reason "..."')
            yield Finding(what if expected in versions else f"{what}, and the version is deleted", fix)
    moves = [record for record in history.completed(decisions) if record.action != records.REQUEST]
    known = {*history.moved(moves), *aliases.values()}
    for number, version in versions.items() if stages.KEEP_STAGES else ():
        if version.current_stage in STAGES.values() and number not in known:
            yield Finding(f"version {number} is in {version.current_stage} without a record", _adopt(name, number))


def repair_command(name: str) -> str:
    """The command that mends what needs no judgement."""
    return _promote(name, "check --repair")


def _adopt(name: str, number: str) -> str:
    return _promote(name, f'adopt --version {number} --reason "..."')


def _promote(name: str, verb: str) -> str:
    return f"python promote.py {verb}{naming.option(name)}"


def _broken_records(name: str, versions: Versions, decisions: Sequence[SavedRecord]) -> Iterator[Finding]:
    for record in decisions:
        if record.is_left:
            yield Finding(
                f"a record was cut off: {records.sentence(record)}, run {record.run_id}", repair_command(name)
            )
        if record.is_deleted:
            what = f"a record is deleted: {records.sentence(record)}"
            yield Finding(what, f"mlflow runs restore --run-id {record.run_id}")
    for number, run_id in history.lost(versions.values(), decisions).items():
        what = f"the last record of version {number}, run {run_id}, is not in {records.experiment(name)}"
        yield Finding(what, _adopt(name, number))
    for place in _gaps(decisions):
        fix = f"{repair_command(name)} records that; a backup may have it"
        yield Finding(f"the record at place {place} is gone for good", fix)


def _gaps(decisions: Sequence[SavedRecord]) -> list[int]:
    """The places that no record has, although later ones do."""
    taken = {record.number for record in decisions if record.number}
    return [place for place in range(1, math.floor(max(taken, default=0))) if place not in taken]


def _half_made(client: MlflowClient, version: ModelVersion) -> Iterator[Finding]:
    number, again = version.version, f"python register.py{naming.option(version.name)}"
    fix = f"delete version {number} in MLflow's UI, then {again}"
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


def _orphans(client: MlflowClient, name: str, versions: Versions) -> Iterator[Finding]:
    for model in family_runs.linked_models(client):
        for link in family_runs.linked_versions(model):
            if link["name"] == name and str(link["version"]) not in versions:
                what = f"model {model.model_id} says it is version {link['version']}, which is not there"
                yield Finding(what, f"python register.py --run {model.source_run_id}{naming.option(name)}")
