"""The verbs of `promote.py`: what moves versions, each leaving its record, and the order of its writes.

Every verb opens its record, moves the alias, makes the stages follow and closes the record. Cut off anywhere, it
leaves what the next promotion and `promote.py check --repair` bring right.
"""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from understudy.errors import Refused, UserError
from understudy.registry import records, registered, stages
from understudy.registry.records import Record, Verdict
from understudy.registry.stages import STAGES
from understudy.schema.columns import Category
from understudy.schema.declaration import Table
from understudy.verification import admission, digests, manifest

# What decides about a planned record, whose `before` is the version in its stage; what it looks at is its own matter.
Decide = Callable[[Record], Verdict]
TryOut = Callable[[MlflowClient, str, str], None]


def promote(client: MlflowClient, name: str, planned: Record, judge: Decide) -> Record:
    """Put a version into a stage; returns the record of that, or what was planned if the version is there already.

    Args:
        client: Of the store that holds the model.
        name: The registered model's.
        planned: What is asked, without `before`.
        judge: Asked unless the version is there already, and then nothing is recorded either.

    Raises:
        UserError: It was never in Staging, should go to Production, and is not forced to.
        Refused: By the verdict, or because somebody else moved the alias meanwhile.
    """
    records.recover(client, name)
    before = stages.aliases(client, name).get(planned.stage, "")
    if before == planned.version:
        stages.settle(client, name)
        return planned
    if planned.stage == "production" and not (planned.forced or was_staged(client, name, planned.version)):
        fix = f"python promote.py staging --version {planned.version}, or --force with a --reason"
        raise UserError(f"version {planned.version} of {name} was never in Staging", fix)
    planned = replace(planned, before=before)
    return _carry_out(client, name, planned, judge(planned))


def was_staged(client: MlflowClient, name: str, version: str) -> bool:
    """Whether a version is in Staging, or has been there or in Production."""
    if version in stages.aliases(client, name).values():
        return True
    moved = [record for record in records.completed(records.find(client, name)) if record.stage]
    return version in {one for record in moved for one in (record.version, record.before)}


def rollback(client: MlflowClient, name: str, to: str, reason: str, try_out: TryOut | None = None) -> tuple[str, str]:
    """Bring back the version that the one in Production replaced, or `to`; returns it and the one that went, if any.

    With nothing in Production it is the version that was there last. Versions that are deleted are passed over.
    Nothing is moved before it was tried out: by default, before its files were verified and have scored a row.

    Raises:
        UserError: Nothing was replaced, or what was is gone, cannot be scored or was never in Production.
        Refused: Somebody else moved the alias meanwhile.
    """
    records.recover(client, name)
    current = stages.aliases(client, name).get("production", "")
    found = records.find(client, name)
    known = {str(version.version) for version in registered.versions(client, name)}
    earlier = [one for one in records.by_hand(records.history(found), current) if one in known and one != current]
    if not earlier and not current:
        stages.in_stage(client, name, "production")  # says that nothing is there
    if not earlier and not to:
        raise UserError(f"version {current} of {name} replaced none", "python promote.py production --version N")
    version = to or earlier[-1]
    registered.get_version(client, name, version, "--to")
    _refuse_strangers(name, version, current, found)
    (try_out or score_a_row)(client, name, version)
    planned = Record(records.ROLLBACK, version, "production", current, reason)
    _carry_out(client, name, planned, Verdict())
    return version, current


def _refuse_strangers(name: str, version: str, current: str, found: list[Record]) -> None:
    moves = records.in_production(found)
    if version == current:
        raise UserError(f"version {version} of {name} is in Production already", "choose another with --to")
    if version not in {one for record in moves for one in (record.version, record.before)}:
        problem = f"version {version} of {name} was never in Production"
        raise UserError(problem, f"python promote.py production --version {version}")


def archive(client: MlflowClient, name: str, version: str, reason: str) -> None:
    """Take a version out of Staging and mark it as archived.

    Raises:
        UserError: It is in Production.
        Refused: Somebody else put it into a stage meanwhile.
    """
    records.recover(client, name)
    there = stages.aliases(client, name)
    registered.get_version(client, name, version)
    if version == there.get("production"):
        fix = 'python promote.py rollback --reason "...", or put another version there first'
        raise UserError(f"version {version} of {name} is in Production", fix)
    record = records.start(client, name, Record(records.ARCHIVE, version, reason=reason), Verdict())
    stages.remove(client, name, "staging", version)
    record = records.place(client, name, record)
    stages.settle(client, name, [version])
    alias = next((alias for alias, one in stages.aliases(client, name).items() if one == version), "")
    records.close(client, name, record, records.SUPERSEDED if alias else records.COMPLETED)
    if alias:
        raise Refused(f"somebody has put version {version} of {name} into {STAGES[alias]} meanwhile")


def adopt(client: MlflowClient, name: str, wanted: str, reason: str, judge: Decide, forced: bool) -> tuple[str, str]:
    """Give a version that was made by hand a manifest and a record; returns it and the stage it is in, "" for none.

    If it was put into a stage, the alias and the stage are brought together.

    Raises:
        UserError: There is no such version.
        Refused: By the verdict, or because somebody else moved the alias meanwhile.
    """
    records.recover(client, name)
    there = stages.aliases(client, name)
    version = wanted or _by_hand(client, name, there)
    made = registered.get_version(client, name, version)
    said = [alias for alias, stage in STAGES.items() if there.get(alias) == version or made.current_stage == stage]
    # What has a manifest is not to be trusted anew.
    noted = {} if digests.DIGEST in made.tags else _admitted(client, made)
    for tag, value in noted.items():
        client.set_model_version_tag(name, version, tag, value)
    try:
        if not said:
            record = records.start(client, name, Record(records.ADOPT, version, reason=reason), Verdict())
            records.close(client, name, record, records.COMPLETED)
            return version, ""
        stage = "production" if "production" in said else "staging"
        before, is_there = there.get(stage, ""), there.get(stage) == version
        if is_there:  # whose place it has taken by hand is what it is compared with
            earlier = [one for one in records.history(records.find(client, name)) if one != version]
            before = earlier[-1] if earlier and stage == "production" else ""
        planned = Record(records.ADOPT, version, stage, before, reason, forced)
        _carry_out(client, name, planned, judge(planned), is_there)
    except (Refused, UserError):
        for tag in noted:
            client.delete_model_version_tag(name, version, tag)
        raise
    return version, STAGES[stage]


def _admitted(client: MlflowClient, version: ModelVersion) -> dict[str, str]:
    """The tags that a version lacks which was not made by register.py."""
    if not version.run_id:
        fix = "register the model of a run: python register.py --run RUN_ID"
        raise UserError(f"{manifest.called(version)} has no run, where its manifest would be kept", fix)
    run = client.get_run(version.run_id)
    return admission.admit(client, run, manifest.uri(version), manifest.called(version))


def _by_hand(client: MlflowClient, name: str, there: dict[str, str]) -> str:
    """The version that was put into Production by hand: by the alias if no record says so, or else by the stage."""
    current = there.get("production", "")
    if current and records.aliases(records.find(client, name)).get("production") != current:
        return current
    staged = [
        str(one.version) for one in registered.versions(client, name) if one.current_stage == STAGES["production"]
    ]
    others = [version for version in staged if version != current]
    if len(others) > 1:
        raise UserError(f"versions {', '.join(others)} of {name} are in Production", "choose one with --version")
    if not others and not current:
        raise UserError(f"no version of {name} is in Production", "python promote.py production")
    return "".join(others) or current


def _carry_out(client: MlflowClient, name: str, planned: Record, verdict: Verdict, is_there: bool = False) -> Record:
    record = records.start(client, name, planned, verdict)
    if not (verdict.allowed or planned.forced):
        records.close(client, name, record, records.REFUSED)
        raise Refused(verdict.why, verdict.table)
    if not is_there:
        try:
            stages.move(client, name, planned.stage, planned.version, planned.before)
        except Refused as refused:
            records.close(client, name, record, records.REFUSED, refused.why)
            raise
    record = records.place(client, name, record)
    there = stages.aliases(client, name).get(planned.stage, "")
    stages.settle(client, name, {planned.version, planned.before})
    outcome = records.COMPLETED if there == planned.version else records.SUPERSEDED
    ended = records.close(client, name, record, outcome)
    if outcome == records.SUPERSEDED:
        raise Refused(f"version {there or 'none'} of {name} took the place of version {planned.version} at once")
    return ended


def score_a_row(client: MlflowClient, name: str, number: str) -> None:
    """Verify a version, load it as it is served and let it score one row that its own table allows.

    Raises:
        UserError: It is not what was registered, or cannot.
    """
    with manifest.verified(client, client.get_model_version(name, number)) as folder:
        try:
            model, _ = manifest.load(folder)
            table = getattr(model._model_impl, "table", None)
            if table is not None:  # a model of somebody else's making is loaded only
                model.predict(_a_row(table))
        except Exception as error:
            problem = f"version {number} of {name} cannot score a row: {error}"
            raise UserError(problem, "choose another version with --to") from error


def _a_row(table: Table) -> pd.DataFrame:
    return pd.DataFrame(
        {column.name: [column.values[0] if isinstance(column, Category) else column.high] for column in table.columns}
    )
