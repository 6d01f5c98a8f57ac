"""The verbs of `promote.py`: what moves versions, each leaving its record, and the order of its writes.

Every verb opens its record, moves the alias, makes the stages follow and closes the record. A judge that shows
figures opens it before. Wherever a verb is cut off, the next promotion and `promote.py check --repair` put right what
it leaves.
"""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from understudy.errors import Refused, UserError
from understudy.registry import audit, history, records, registered, registration, stages
from understudy.registry.records import Move, Record, SavedRecord, Verdict
from understudy.registry.stages import STAGES
from understudy.schema.declaration import Table
from understudy.scoring import pipelines
from understudy.tracking import naming
from understudy.verification import digests, manifest

# Decides about a planned move, whose `before` is the version that is in the stage now.
Judge = Callable[[Move], Verdict]


def promote(client: MlflowClient, name: str, planned: Move, judge: Judge) -> SavedRecord | None:
    """Put a version into a stage; returns the record of that, or None if the version is there already.

    What is planned comes without `before`. The judge is not asked if the version is there already.

    Raises:
        UserError: It was never in Staging, should go to Production, and is not forced to.
        Refused: By the verdict, or because somebody else moved the alias meanwhile.
    """
    audit.recover(client, name)
    before = stages.aliases(client, name).get(planned.stage)
    if before == planned.version:
        stages.settle(client, name)
        return None
    check_was_staged(client, name, planned)
    return _carry_out(client, name, replace(planned, before=before), judge)


def check_was_staged(client: MlflowClient, name: str, planned: Move) -> None:
    """Refuse a move to Production of a version that was never in Staging, unless it is forced.

    Raises:
        UserError: It is not.
    """
    if planned.stage == "production" and not (planned.forced or _was_staged(client, name, planned.version)):
        fix = f"python promote.py staging --version {planned.version}{naming.option(name)}, or --force with a --reason"
        raise UserError(f"version {planned.version} of {name} was never in Staging", fix)


def _was_staged(client: MlflowClient, name: str, version: str) -> bool:
    """Whether a version is in Staging, or has been there or in Production."""
    if version in stages.aliases(client, name).values():
        return True
    return version in history.moved(each for each in history.completed(records.find(client, name)) if each.stage)


def rollback(
    client: MlflowClient, name: str, to: str | None, reason: str, judge: Judge, by: str | None = None
) -> SavedRecord:
    """Bring back the version that the one in Production replaced, or `to`; returns the record of that.

    With nothing in Production it is the version that was there last. Versions that are deleted are passed over. The
    judge, see `scores_a_row`, is asked before anything is written. `by` is what asks in a person's place.

    Raises:
        UserError: Nothing was replaced, or what was is gone or was never in Production.
        Refused: By the verdict, or because somebody else moved the alias meanwhile.
    """
    audit.recover(client, name)
    current = stages.aliases(client, name).get("production")
    decisions = records.find(client, name)
    version = to or replaced(client, name, current, decisions)
    if version is None:
        raise UserError(
            f"version {current} of {name} replaced none",
            f"python promote.py production --version N{naming.option(name)}",
        )
    registered.get_version(client, name, version, "--to")
    if version == current:
        raise UserError(f"version {version} of {name} is in Production already", "choose another with --to")
    if version not in history.moved(history.production_moves(decisions)):
        problem = f"version {version} of {name} was never in Production"
        raise UserError(problem, f"python promote.py production --version {version}{naming.option(name)}")
    planned = Move(records.ROLLBACK, version, "production", current, reason, by=by)
    return _carry_out(client, name, planned, judge)


def replaced(client: MlflowClient, name: str, current: str | None, decisions: list[SavedRecord]) -> str | None:
    """The last champion before the version in Production that is still there; None if there is none.

    Raises:
        UserError: Nothing is in Production, and no champion is left.
    """
    numbers = {str(version.version) for version in registered.versions(client, name)} - {current}
    earlier = [number for number in history.after_hand_move(history.champions(decisions), current) if number in numbers]
    if earlier:
        return earlier[-1]
    if current is None:
        raise stages.empty(name, "production")
    return None


def scores_a_row(client: MlflowClient, name: str) -> Judge:
    """The verdict on a rollback: the version's files are verified, and it scores a row that its own table allows.

    Raises:
        UserError: By what is returned: the version is not what was registered, or cannot score the row.
    """

    def judge(planned: Move) -> Verdict:
        with manifest.verified(client, client.get_model_version(name, planned.version)) as folder:
            try:
                served, pipeline = manifest.load(folder)
                served.predict(_a_row(pipelines.table(pipeline)))
            except Exception as error:
                problem = f"version {planned.version} of {name} cannot score a row: {error}"
                raise UserError(problem, "choose another version with --to") from error
        return Verdict()

    return judge


def _a_row(table: Table) -> pd.DataFrame:
    return pd.DataFrame({column.name: [column.example] for column in table.columns})


def archive(client: MlflowClient, name: str, version: str, reason: str | None) -> None:
    """Take a version out of Staging and mark it as archived.

    Raises:
        UserError: It is in Production.
        Refused: Somebody else put it into a stage meanwhile.
    """
    audit.recover(client, name)
    registered.get_version(client, name, version)
    if version == stages.aliases(client, name).get("production"):
        fix = f'python promote.py rollback --reason "..."{naming.option(name)}, or put another version there first'
        raise UserError(f"version {version} of {name} is in Production", fix)
    record = records.start(client, name, Record(records.ARCHIVE, version, reason=reason), Verdict())
    stages.remove(client, name, "staging", version)
    record = records.place(client, name, record)
    stages.settle(client, name, [version])
    current = {number: STAGES[alias] for alias, number in stages.aliases(client, name).items()}
    records.close(client, name, record, records.SUPERSEDED if version in current else records.COMPLETED)
    if version in current:
        raise Refused(f"somebody has put version {version} of {name} into {current[version]} meanwhile")


def adopt(
    client: MlflowClient, name: str, wanted: str | None, reason: str, judge: Judge, forced: bool = False
) -> SavedRecord:
    """Give a version that was made or moved by hand a manifest and a record; returns the record.

    By default it is the one that was put into Production by hand. If it was put into a stage, the judge is asked, and
    the alias and the stage are brought together.

    Raises:
        UserError: There is no such version, or it is not what training writes.
        Refused: By the verdict, or because somebody else moved the alias meanwhile.
    """
    audit.recover(client, name)
    number = wanted or _put_there_by_hand(client, name)
    version = registered.get_version(client, name, number)
    # A version that has a manifest is not trusted anew.
    admitted = {} if digests.DIGEST in version.tags else _admitted(client, version)
    for tag, value in admitted.items():
        client.set_model_version_tag(name, number, tag, value)
    try:
        aliases = stages.aliases(client, name)
        for alias in ("production", "staging"):
            if aliases.get(alias) == number or version.current_stage == STAGES[alias]:
                planned = Move(records.ADOPT, number, alias, aliases.get(alias), reason, forced)
                return _adopt_in_stage(client, name, planned, judge)
        record = records.start(client, name, Record(records.ADOPT, number, reason=reason), Verdict())
        return records.close(client, name, record, records.COMPLETED)
    except (Refused, UserError):
        for tag in admitted:
            client.delete_model_version_tag(name, number, tag)
        raise


def _adopt_in_stage(client: MlflowClient, name: str, planned: Move, judge: Judge) -> SavedRecord:
    is_there = planned.before == planned.version
    if is_there:  # the version whose place it has taken by hand is the one that it is compared with
        path = history.champions(records.find(client, name)) if planned.stage == "production" else []
        earlier = [number for number in path if number != planned.version]
        planned = replace(planned, before=earlier[-1] if earlier else None)
    return _carry_out(client, name, planned, judge, is_there)


def _admitted(client: MlflowClient, version: ModelVersion) -> dict[str, str]:
    """The tags that a version lacks which was not made by register.py."""
    if not version.run_id:
        fix = f"register the model of a run: python register.py --run RUN_ID{naming.option(version.name)}"
        raise UserError(f"{manifest.called(version)} has no run, where its manifest would be kept", fix)
    run = client.get_run(version.run_id)
    return registration.admit(client, run, manifest.uri(version), manifest.called(version))


def _put_there_by_hand(client: MlflowClient, name: str) -> str:
    """The version that was put into Production by hand: by the alias if no record says so, or else by the stage."""
    current = stages.aliases(client, name).get("production")
    if current and current != history.aliases(records.find(client, name)).get("production"):
        return current
    versions = registered.versions(client, name)
    staged = [str(version.version) for version in versions if version.current_stage == STAGES["production"]]
    others = [number for number in staged if number != current]
    if len(others) > 1:
        raise UserError(f"versions {', '.join(others)} of {name} are in Production", "choose one with --version")
    if others:
        return others[0]
    if current is None:
        raise stages.empty(name, "production")
    return current


def _is_explained(client: MlflowClient, name: str, version: str | None) -> bool:
    """Whether records say why Production's alias names a version: mostly the latest do, and all take long to read."""
    if version and history.explains(records.find(client, name, latest=records.RECENT), version):
        return True
    return history.explains(records.find(client, name), version)


def _carry_out(client: MlflowClient, name: str, planned: Move, judge: Judge, is_there: bool = False) -> SavedRecord:
    """Judge, record and make a move, whose alias names the version already if `is_there`."""
    if planned.stage == "production":
        planned = replace(planned, by_hand=not _is_explained(client, name, planned.before))
    verdict = judge(planned)
    record = records.start(client, name, planned, verdict)
    if verdict.why and not planned.forced:
        records.close(client, name, record, records.REFUSED)
        raise Refused(verdict.why)
    if not is_there:
        try:
            stages.move(client, name, planned.stage, planned.version, planned.before)
        except Refused as refused:
            records.close(client, name, record, records.REFUSED, refused.why)
            raise
    record = records.place(client, name, record)
    current = stages.aliases(client, name).get(planned.stage)
    stages.settle(client, name, {planned.version, planned.before})
    if current == planned.version:
        return records.close(client, name, record, records.COMPLETED)
    records.close(client, name, record, records.SUPERSEDED)
    winner = f"version {current}" if current else "no version"
    raise Refused(f"{winner} of {name} took the place of version {planned.version} at once")
