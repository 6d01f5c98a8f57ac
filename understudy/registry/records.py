"""What was decided about versions, one run each, and what follows from it: the history of Production.

The runs of a model are in the experiment `<name> promotions`. One is opened before an alias is moved and closed
after it, so that one which a killed process left behind can be closed by what the alias says.
"""

import getpass
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate
from typing import Any

from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils import mlflow_tags

from understudy.registry import registered, stages
from understudy.tracking import decisions, runs

COMPLETED = "completed"
REFUSED = "refused"
SUPERSEDED = "superseded"  # somebody else moved the alias at once
ABANDONED = "abandoned"  # cut off before the alias was moved
STATUS = {COMPLETED: "FINISHED", REFUSED: "FINISHED", SUPERSEDED: "FINISHED", ABANDONED: "KILLED"}
ROLLBACK, ADOPT, ARCHIVE, REPAIR = "rollback", "adopt", "archive", "repair"


@dataclass(frozen=True)
class Verdict:
    """Whether a version may go where it is asked to go, and what shows it.

    Args:
        allowed: Whether.
        why: One sentence why not; "" if allowed.
        table: The checks, as lines for people.
        rule: The rule that was asked.
        metrics: The checks' figures, by names that MLflow takes.
        files: Texts to keep with the record, by file name.
        figures: Plots to keep with the record, by file name.
        against: The version that it was compared with; None for none.
    """

    allowed: bool = True
    why: str = ""
    table: str = ""
    rule: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    against: str | None = None


@dataclass(frozen=True)
class Record:
    """One decision about a version.

    Args:
        action: What was asked: a stage's name, or one of rollback, adopt, archive, repair.
        version: The version it is about.
        stage: The alias to be moved; "" for none.
        before: The version that the alias named; "" for none.
        reason: Why it was asked, in a person's words.
        forced: Whether a verdict against it did not count.
        breaking: Whether it may refuse rows that the version before accepts.
        rule: The rule that the verdict followed.
        why: Why it was refused.
        who: Who asked.
        outcome: One of the outcomes above; "" while it is open.
        time: When the alias had been moved, in milliseconds since 1970; 0 while it is open.
        number: Its place among the records; None while the alias has not been moved, and for records that were made
            before there were numbers.
        model: When the registered model was made, in milliseconds since 1970: another one of that name is another
            model. None for records that were made before this was recorded.
        against: The version that it was compared with; None for none.
        by_hand: Whether no record explains that the alias of Production named `before`.
        run_id: The run that holds it.
        opened: When it was opened, in milliseconds since 1970.
        is_left: Whether it is open although its process is gone.
        is_deleted: Whether its run is deleted.
        is_earlier: Whether it is about an earlier registered model of that name.
    """

    action: str
    version: str
    stage: str = ""
    before: str = ""
    reason: str = ""
    forced: bool = False
    breaking: bool = False
    rule: str = ""
    why: str = ""
    who: str = ""
    outcome: str = ""
    time: int = 0
    number: float | None = None
    model: int | None = None
    against: str | None = None
    by_hand: bool = False
    run_id: str = ""
    opened: int = 0
    is_left: bool = False
    is_deleted: bool = False
    is_earlier: bool = False


OF_THE_RUN = {"run_id", "opened", "is_left", "is_deleted", "is_earlier"}
TAGS = {one.name: f"promotion.{one.name}" for one in fields(Record) if one.name not in OF_THE_RUN}
READ_AS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("forced", "breaking", "by_hand"), lambda text: text == "True"),
    **{"time": int, "model": int, "number": float},
}


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def who() -> str:
    """The user of the tracking server, or else the login name."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return str(os.getuid())


def start(client: MlflowClient, name: str, planned: Record, verdict: Verdict) -> Record:
    """Open the record of a decision, with what it rests on, and let its version name it."""
    record = replace(
        planned,
        who=who(),
        rule=verdict.rule,
        why=verdict.why,
        against=verdict.against,
        model=registered.registered_model(client, name).creation_timestamp,
        by_hand=planned.stage == "production" and not _explains(find(client, name), planned.before),
    )
    said = {tag: str(value) for part, tag in TAGS.items() if (value := getattr(record, part))}
    people = {mlflow_tags.MLFLOW_USER: record.who, mlflow_tags.MLFLOW_RUN_NOTE: sentence(record)}
    shown = " ".join(filter(None, [record.action, record.version]))
    opening = decisions.Opening(shown, {**said, **people}, verdict.metrics, verdict.files, verdict.figures)
    run = decisions.open_record(client, experiment(name), opening)
    if record.version:
        registered.tag(client, name, record.version, run.info.run_id)
    return replace(record, run_id=run.info.run_id, opened=run.info.start_time)


def _explains(records: list[Record], version: str) -> bool:
    """Whether records say why Production's alias names a version: the last move, or one that has not ended yet.

    A move that has not ended may still turn out to be replaced at once. Later nobody could tell such a version from one
    that a person put there by hand, so whoever sees it writes down which it is.
    """
    moves = [record for record in records if record.stage == "production" and not record.is_earlier]
    under_way = {record.version for record in moves if not record.outcome}
    return version == aliases(records).get("production", "") or version in under_way


def place(client: MlflowClient, name: str, record: Record) -> Record:
    """Give a record its place among the others, once its alias is written and before that is read back.

    Who reads the alias back after this and still sees one's own move knows that every later move has a greater number.
    """
    placed = replace(record, time=now(), number=_next(find(client, name)))
    decisions.tag_record(client, placed.run_id, _said(placed, "time", "number"))
    return placed


def _next(records: Iterable[Record]) -> int:
    return math.floor(max((record.number or 0 for record in records), default=0)) + 1


def _said(record: Record, *parts: str) -> dict[str, str]:
    return {TAGS[part]: str(getattr(record, part)) for part in parts if getattr(record, part)}


def close(client: MlflowClient, name: str, record: Record, outcome: str, why: str = "") -> Record:
    """Say how a decision ended, and give it its place unless it has one."""
    ended = replace(record, outcome=outcome, time=record.time or now(), why=why or record.why)
    if record.time == 0 and record.number is None:
        ended = replace(ended, number=_next(find(client, name)))
    said = _said(ended, "outcome", "time", "number", "why")
    decisions.close_record(
        client, record.run_id, said | {mlflow_tags.MLFLOW_RUN_NOTE: sentence(ended)}, STATUS[outcome]
    )
    return ended


def sentence(record: Record) -> str:
    """What was decided, for people."""
    what = f"{record.action}, version {record.version}" if record.version else record.action
    what += f" in place of version {record.before}" if record.before else ""
    what += ", which a person had put there by hand" if record.before and record.by_hand else ""
    if record.stage == "production" and record.against not in (None, record.before):
        what += f", compared with version {record.against}"
    what += ", forced" if record.forced else ""
    said = [f"{record.outcome or 'open'}: {what}", record.why, f"reason: {record.reason}" if record.reason else ""]
    return "; ".join(filter(None, said))


def find(client: MlflowClient, name: str) -> list[Record]:
    """All records of the registered models that have had a name, in the order they count, those still open last.

    Raises:
        UserError: The experiment that keeps them is deleted.
    """
    made = registered.registered_model(client, name).creation_timestamp
    found = [_read(run, made) for run in decisions.records(client, experiment(name))]
    # Records without a number are older than all that have one.
    return sorted(found, key=lambda record: (not record.outcome, record.number or 0, record.time, record.opened))


def experiment(name: str) -> str:
    """The name of the experiment that keeps what was decided about a registered model."""
    return f"{name} promotions"


def _read(run: Run, made: int) -> Record:
    said: dict[str, Any] = {part: run.data.tags[tag] for part, tag in TAGS.items() if tag in run.data.tags}
    said |= {part: read(said[part]) for part, read in READ_AS.items() if part in said}
    opened = run.info.start_time
    return Record(
        **{"action": "", "version": "", **said},
        run_id=run.info.run_id,
        opened=opened,
        is_left=runs.is_left(run),
        is_deleted=run.info.lifecycle_stage == "deleted",
        is_earlier=said["model"] != made if "model" in said else opened < made,
    )


def lost(versions: Iterable[ModelVersion], records: Iterable[Record]) -> dict[str, str]:
    """Versions whose last record is not there, by number, and the run that it was in."""
    there = {record.run_id for record in records}
    runs = {str(version.version): version.tags.get(registered.RECORD) for version in versions}
    return {version: run_id for version, run_id in runs.items() if run_id is not None and run_id not in there}


def completed(records: Iterable[Record]) -> list[Record]:
    """What has been done with versions of this registered model, in its order."""
    return [record for record in records if record.outcome == COMPLETED and not record.is_earlier]


def in_production(records: Iterable[Record]) -> list[Record]:
    """Those that moved Production's alias, in their order."""
    return [record for record in completed(records) if record.stage == "production"]


def aliases(records: Iterable[Record]) -> dict[str, str]:
    """Alias to version, as the records say it."""
    named: dict[str, str] = {}
    for record in completed(records):
        if record.stage:
            named[record.stage] = record.version
        elif record.action == ARCHIVE and named.get("staging") == record.version:
            del named["staging"]
        if "staging" in named and named["staging"] == named.get("production"):
            del named["staging"]
    return named


def history(records: Sequence[Record]) -> list[str]:
    """The versions that a rollback goes through, the one in Production last.

    A promotion pushes its version, a rollback takes off what came after its own. A version that came into Production
    by hand comes in when a record names it as the one before.
    """
    stack: list[str] = []
    of_old = [record for record in records if record.outcome == SUPERSEDED and record.number is None]
    at_once = {record.version for record in of_old if record.stage == "production"}
    for record in in_production(records):
        if record.by_hand or (record.number is None and record.before not in at_once):
            stack = by_hand(stack, record.before)
        if record.action == ROLLBACK and record.version not in stack:
            stack = stack[:-1]
        if record.action in (ROLLBACK, ADOPT):
            stack = by_hand(stack, record.version)
        if stack[-1:] != [record.version]:
            stack.append(record.version)
    return stack


def by_hand(stack: list[str], version: str) -> list[str]:
    """A history after somebody has pointed the alias at a version, "" for none: back to it, or on to it."""
    if version in stack:
        return stack[: len(stack) - stack[::-1].index(version)]
    return [*stack, version] if version else stack


def around(records: Iterable[Record], when: int) -> tuple[Record | None, Record | None]:
    """The last move in Production until a time in milliseconds since 1970, and the first one after it.

    A move counts from its time, or from an earlier one that a later move has: then its own clock was ahead.
    """
    moves = in_production(records)
    times = list(accumulate((move.time for move in reversed(moves)), min))[::-1]
    count = sum(time <= when for time in times)
    return (moves[count - 1] if count else None), (moves[count] if count < len(moves) else None)


def at(records: Iterable[Record], when: int) -> str:
    """The version that was in Production at a time in milliseconds since 1970; "" if no record says so."""
    last, following = around(records, when)
    return last.version if last else following.before if following else ""


def told(records: Iterable[Record], when: int, there: Mapping[str, str]) -> str:
    """The same for people, with what is known of moves by hand between that and the next record, or the aliases now."""
    records = list(records)
    version, (last, following) = at(records, when), around(records, when)
    seen, until = (following.before, "the next record") if following else (there.get("production", ""), "now")
    if last is None or seen == version or (following and not following.by_hand):
        return registered.called(version) if version else "nothing that is known of"
    return f"version {version}, or already {registered.called(seen)}, by hand at some time before {until}"


def recover(client: MlflowClient, name: str) -> list[str]:
    """Close the records that killed processes left open, by what the aliases say; returns what was done, for people."""
    done = []
    for record in [record for record in find(client, name) if record.is_left]:
        ended = record if record.outcome else _ended(client, name, record)
        if ended:
            close(client, name, ended, ended.outcome)
            done.append(f"closed a record: {sentence(ended)}")
            if ended.outcome == COMPLETED and not ended.is_earlier:
                done += stages.settle(client, name, {record.version, record.before} - {""})
    return done


def _ended(client: MlflowClient, name: str, record: Record) -> Record | None:
    """How a cut-off decision ended, and its place; None if another process has said so by now."""
    there = stages.aliases(client, name)
    # Read after the alias: whoever moved it on has closed this record before.
    records = find(client, name)
    [again] = [one for one in records if one.run_id == record.run_id]
    if not again.is_left or again.outcome:
        return None
    later = [one for one in records if one.opened > again.opened and one.stage == again.stage]
    followers = [one for one in later if one.stage and one.before == again.version]
    if again.is_earlier:
        outcome = ABANDONED
    elif again.why and not again.forced:
        outcome = REFUSED
    elif again.action == ARCHIVE:
        outcome = ABANDONED if again.version in there.values() else COMPLETED
    else:
        moved = again.number or (again.stage and (followers or again.version == there.get(again.stage)))
        outcome = COMPLETED if moved else ABANDONED
    if again.number is None:
        again = replace(again, number=_between(records, followers), time=_when(records, again))
    return replace(again, outcome=outcome)


def _between(records: list[Record], followers: list[Record]) -> float | None:
    """The place of a cut-off move: before the first that has followed it, or else behind all others."""
    follower = next((record for record in followers if record.outcome == COMPLETED), None)
    if follower is None:
        return _next(records)
    if follower.number is None:
        return None
    return (follower.number + max(one.number or 0 for one in records if (one.number or 0) < follower.number)) / 2


def _when(records: list[Record], record: Record) -> int:
    """When a cut-off move counts from: as it was opened, but after all that had been opened before it."""
    earlier = [one.time for one in records if one.outcome == COMPLETED and one.opened <= record.opened]
    return max([record.opened, *(when + 1 for when in earlier)])
