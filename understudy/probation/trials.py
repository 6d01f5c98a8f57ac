"""Which version is on probation, by the records, and what people are told of it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient

from understudy.figures.cards import shown_time
from understudy.probation import counts
from understudy.registry import history, promotion, records, registered, stages
from understudy.registry.audit import Finding
from understudy.schema.limits import Probation
from understudy.tracking import naming

WATCHED = "understudy.probation"  # a version's tag: the run of the move since which it has been watched
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


def described(client: MlflowClient, name: str, probation: Probation, log: Path | None) -> tuple[str, Finding | None]:
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
        return trial.why, None
    minutes = (datetime.now(UTC) - trial.since) / timedelta(minutes=1)
    rows = None
    if log and log.is_dir():
        rows = int(counts.logged_requests(log, trial.version, trial.since).rows.sum())
    seen = "" if rows is None else f", {rows:,} of {probation.rows:,} rows"
    called = f"version {trial.version} of {name} is on probation since {shown_time(trial.since)}"
    line = f"{called}: {minutes:,.0f} of {probation.minutes:g} minutes{seen}"
    tags = registered.get_version(client, name, trial.version).tags
    nobody = "and nobody has watched it" if tags.get(WATCHED) != trial.move else "and nobody watches it any more"
    is_over = minutes > 2 * probation.minutes and (rows is None or rows >= probation.rows)
    fix = f"python monitor.py --probation{naming.option(name)}"
    return line, Finding(f"{called}, its time is over, {nobody}", fix) if is_over else None
