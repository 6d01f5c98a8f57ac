"""What was decided about versions, one run each, and what follows from it: the history of Production.

The runs of a model are in the experiment `<name> promotions`. One is opened before an alias is moved and closed
after it, so that one which a killed process left behind can be closed by what the alias says.
"""

import getpass
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils import mlflow_tags

from understudy import registry, tracking

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
    """

    allowed: bool = True
    why: str = ""
    table: str = ""
    rule: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)


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
        run_id: The run that holds it.
        opened: When it was opened, in milliseconds since 1970.
        is_left: Whether it is open although its process is gone.
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
    run_id: str = ""
    opened: int = 0
    is_left: bool = False


OF_THE_RUN = {"run_id", "opened", "is_left"}
TAGS = {one.name: f"promotion.{one.name}" for one in fields(Record) if one.name not in OF_THE_RUN}


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
    record = replace(planned, who=who(), rule=verdict.rule, why=verdict.why)
    said = {tag: str(value) for part, tag in TAGS.items() if (value := getattr(record, part))}
    people = {mlflow_tags.MLFLOW_USER: record.who, mlflow_tags.MLFLOW_RUN_NOTE: sentence(record)}
    shown = " ".join(filter(None, [record.action, record.version]))
    run = tracking.open_record(
        client, experiment(name), shown, {**said, **people}, verdict.metrics, verdict.files, verdict.figures
    )
    if record.version:
        registry.tag(client, name, record.version, run.info.run_id)
    return replace(record, run_id=run.info.run_id, opened=run.info.start_time)


def close(client: MlflowClient, record: Record, outcome: str, when: int = 0, why: str = "") -> None:
    """Say how a decision ended, and when it counts from."""
    ended = replace(record, outcome=outcome, time=when or now(), why=why or record.why)
    said = {TAGS[part]: str(getattr(ended, part)) for part in ("outcome", "time", "why") if getattr(ended, part)}
    said[mlflow_tags.MLFLOW_RUN_NOTE] = sentence(ended)
    tracking.close_record(client, record.run_id, said, STATUS[outcome])


def sentence(record: Record) -> str:
    """What was decided, for people."""
    what = f"{record.action}, version {record.version}" if record.version else record.action
    what += f" in place of version {record.before}" if record.before else ""
    what += ", forced" if record.forced else ""
    said = [f"{record.outcome or 'open'}: {what}", record.why, f"reason: {record.reason}" if record.reason else ""]
    return "; ".join(filter(None, said))


def find(client: MlflowClient, name: str) -> list[Record]:
    """All records of a registered model, in the order they count, those still open last."""
    found = [_read(run) for run in tracking.records(client, experiment(name))]
    return sorted(found, key=lambda record: (not record.time, record.time, record.opened))


def experiment(name: str) -> str:
    """The name of the experiment that keeps what was decided about a registered model."""
    return f"{name} promotions"


def _read(run: Run) -> Record:
    said: dict[str, Any] = {part: run.data.tags[tag] for part, tag in TAGS.items() if tag in run.data.tags}
    said |= {part: said[part] == "True" for part in ("forced", "breaking") if part in said}
    said["time"] = int(said.get("time", 0))
    said = {"action": "", "version": "", **said}
    return Record(**said, run_id=run.info.run_id, opened=run.info.start_time, is_left=tracking.is_left(run))


def in_production(records: Iterable[Record]) -> list[Record]:
    """Those that moved Production's alias, in their order."""
    return [record for record in records if record.outcome == COMPLETED and record.stage == "production"]


def history(records: Sequence[Record]) -> list[str]:
    """The versions that a rollback goes through, the one in Production last.

    A promotion pushes its version, a rollback takes off what came after its own. A version that came into Production
    without a record comes in when a record names it as the one before.
    """
    stack: list[str] = []
    replaced = [one for one in records if one.outcome == SUPERSEDED and one.stage == "production"]
    seen = {"", *(record.version for record in replaced)}
    for record in in_production(records):
        if record.before not in seen:
            stack.append(record.before)
        seen |= {record.before, record.version}
        if record.action == ROLLBACK and stack:
            where = len(stack) - stack[::-1].index(record.version) if record.version in stack else len(stack) - 1
            stack = stack[:where]
        if stack[-1:] != [record.version]:
            stack.append(record.version)
    return stack


def at(records: Iterable[Record], when: int) -> str:
    """The version that was in Production at a time in milliseconds since 1970; "" if no record says so."""
    moves = in_production(records)
    earlier = [record.version for record in moves if record.time <= when]
    return earlier[-1] if earlier else "".join(record.before for record in moves[:1])


def recover(client: MlflowClient, name: str) -> list[str]:
    """Close the records that killed processes left open, by what the aliases say; returns what was done, for people."""
    done = []
    for record in [record for record in find(client, name) if record.is_left]:
        outcome = record.outcome or _outcome(client, name, record)
        if outcome:
            close(client, record, outcome, record.time or _when(find(client, name), record))
            done.append(f"closed a record: {sentence(replace(record, outcome=outcome))}")
            if outcome == COMPLETED:
                done += registry.settle(client, name, {record.version, record.before} - {""})
    return done


def _outcome(client: MlflowClient, name: str, record: Record) -> str:
    """How a cut-off decision ended; "" if another process has said so by now."""
    there = registry.aliases(client, name)
    # Read after the alias: whoever moved it on has closed this record before.
    records = find(client, name)
    [again] = [one for one in records if one.run_id == record.run_id]
    if not again.is_left or again.outcome:
        return ""
    if record.why and not record.forced:
        return REFUSED
    if record.action == ARCHIVE:
        return ABANDONED if record.version in there.values() else COMPLETED
    later = [one.before for one in records if one.opened > record.opened and one.stage == record.stage]
    moved = record.stage and record.version in (there.get(record.stage), *later)
    return COMPLETED if moved else ABANDONED


def _when(records: list[Record], record: Record) -> int:
    """When a cut-off move counts from: as it was opened, but after all that had been opened before it."""
    earlier = [one.time for one in records if one.outcome == COMPLETED and one.opened <= record.opened]
    return max([record.opened, *(when + 1 for when in earlier)])
