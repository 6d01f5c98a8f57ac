"""Which version is on probation, by the records, and what people are told of it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient, MlflowException

from understudy.errors import UserError
from understudy.figures.cards import shown_time
from understudy.probation import counts
from understudy.registry import history, promotion, records, stages
from understudy.registry.audit import Finding
from understudy.schema.limits import Probation
from understudy.tracking import connection, naming, runs

WATCHED = "understudy.probation"  # a tag of the record of a move: when its version was last watched
UNWATCHED = timedelta(minutes=10)  # after which nobody seems to watch any more; who does says so every minute
STOOD, GONE_BACK, REPLACED = "stood", "gone back", "replaced"  # how a probation ends


@dataclass(frozen=True)
class Trial:
    """A version on probation.

    Args:
        version: Its number.
        before: The version that comes back if it misbehaves.
        since: When it went to Production.
        move: The run of the record that says so.
        is_again: Whether it, or another one of its number, has been there before.
    """

    version: str
    before: str
    since: datetime
    move: str
    is_again: bool


class NoTrial(NamedTuple):
    """Nothing is on probation.

    Args:
        why: In words, for people.
        outcome: How the last probation has ended; None where there was none, or nobody knows.
    """

    why: str
    outcome: str | None = None


def current(client: MlflowClient, name: str) -> Trial | NoTrial:
    """What is on probation now.

    Raises:
        UserError: Nothing is in Production.
    """
    version, decisions = stages.in_stage(client, name, "production"), records.find(client, name)
    called, moves = f"version {version} of {name}", history.production_moves(decisions)
    if not moves or moves[-1].version != version:
        fix = f"python promote.py check{naming.option(name)}"
        return NoTrial(f"{called} is in Production, and no record says why: {fix}")
    move = moves[-1]
    if move.action == records.ROLLBACK:
        return NoTrial(f"{called} came back to Production, and is not on probation", GONE_BACK)
    if any(record.action == records.PROBATION and record.version == version for record in history.completed(decisions)):
        return NoTrial(f"{called} has stood its probation", STOOD)
    before = promotion.replaced(client, name, version, decisions)
    if before is None:
        return NoTrial(f"{called} replaced none, so there is nothing to go back to")
    since = datetime.fromtimestamp((move.time or move.opened) / 1000, UTC)
    others = [record for record in decisions if record.stage == "production" and record.run_id != move.run_id]
    been = history.moved(record for record in others if record.outcome == records.COMPLETED)  # of earlier models too
    return Trial(version, before, since, move.run_id, version in been)


def mark(client: MlflowClient, trial: Trial) -> None:
    """Note that a version is watched now, where no webhook hears of it each time; not on a record that is deleted.

    Raises:
        MlflowException: The account may not promote, among others.
    """
    try:
        runs.tag_record(client, trial.move, {WATCHED: datetime.now(UTC).isoformat()})
    except MlflowException as error:
        if error.error_code not in connection.NOT_THERE:  # MLflow's for a deleted run too, which takes no tags
            raise


def described(client: MlflowClient, name: str, probation: Probation, log: Path | None) -> tuple[str, list[Finding]]:
    """What is on probation since when, for people, and what is wrong with that.

    Args:
        client: Of the store.
        name: The registered model's.
        probation: How long a version is watched.
        log: The folder of the row log, where the rows that were seen are counted if it is given and there.

    Raises:
        UserError: Nothing is in Production.
    """
    trial = current(client, name)
    if isinstance(trial, NoTrial):
        return trial.why, []
    now, findings, seen = datetime.now(UTC), [], ""
    if log and log.is_dir():
        try:
            rows = int(counts.logged_requests(log, trial.version, trial.since).rows.sum())
            seen = f", {rows:,} of {probation.rows:,} rows"
        except UserError as error:
            findings.append(Finding(error.problem, error.fix))
    called = f"version {trial.version} of {name} is on probation since {shown_time(trial.since)}"
    minutes = (now - trial.since) / timedelta(minutes=1)
    line = f"{called}: {minutes:,.0f} of {probation.minutes:g} minutes{seen}"
    last = client.get_run(trial.move).data.tags.get(WATCHED)
    watched = datetime.fromisoformat(last) if last else None
    if now - (watched or trial.since) > UNWATCHED:
        nobody = "and nobody has watched it" + (f" since {shown_time(watched)}" if watched else "")
        findings.append(Finding(f"{called}, {nobody}", f"python monitor.py --probation{naming.option(name)}"))
    return line, findings
