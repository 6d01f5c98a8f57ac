"""The records of what was decided about versions: one MLflow run for each, written in steps and read back.

The runs of a registered model are in the experiment `<name> promotions`. A record is opened before an alias is moved
and closed after it, so that one which a killed process left open can be closed by what the aliases say.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils import mlflow_tags

from understudy.registry import registered
from understudy.tracking import provenance, runs, waiting

if TYPE_CHECKING:  # matplotlib takes half a second, and most who ask for records draw nothing
    from matplotlib.figure import Figure

COMPLETED = "completed"
REFUSED = "refused"
SUPERSEDED = "superseded"  # somebody else moved the alias at the same time
ABANDONED = "abandoned"  # cut off before the alias was moved
STATUS = {COMPLETED: "FINISHED", REFUSED: "FINISHED", SUPERSEDED: "FINISHED", ABANDONED: "KILLED"}
ROLLBACK, ADOPT, ARCHIVE, REPAIR = "rollback", "adopt", "archive", "repair"
REQUEST, PROBATION = "request", "probation"
RECENT = 20  # records that are asked for the greatest number
GATE = "gate.json"  # the file of a record that has what was measured
LATEST = "understudy.record"  # a version's tag: the run of the last record about it


@dataclass(frozen=True)
class Verdict:
    """Whether a version may go where it is asked to go, and what shows it.

    Args:
        why: Why it may not, in one sentence; None if it may.
        rule: The rule by which it was compared.
        against: The version that it was compared with; None for none.
        rows: The digest of the rows on which they were compared; None if they were not.
        decided_by: How many rows of which kind decided, for people, where there was a choice.
        metrics: The checks' figures, by names that MLflow takes.
        files: Texts to keep with the record, by file name.
        figures: Plots to keep with the record, by file name.
        record: The record, if the judge has opened it so that nobody sees a figure before it is on record.
    """

    why: str | None = None
    rule: str | None = None
    against: str | None = None
    rows: str | None = None
    decided_by: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    figures: "Mapping[str, Figure]" = field(default_factory=dict)
    record: "SavedRecord | None" = None


@dataclass(frozen=True)
class Record:
    """One decision, from the plan on; what is not known yet, or does not apply, is None.

    Args:
        action: What was asked: a stage ("staging", "production"), or one of rollback, adopt, archive, repair,
            request, probation.
        version: The version that it is about; None for a repair.
        stage: The stage whose alias is to be moved.
        before: The version that the alias named.
        reason: Why it was asked, in a person's words.
        forced: Whether a verdict against it did not count.
        breaking: Whether the version may refuse rows that the one before accepts.
        rule: The rule that the verdict followed.
        why: Why it was refused.
        who: Who asked.
        outcome: One of the outcomes above; None while the record is open.
        time: When the alias had been moved, in milliseconds since 1970.
        number: Its place among the records; None until the alias has been moved, and in records that were made before
            there were numbers.
        model: When the registered model was made, in milliseconds since 1970, since another one of that name is another
            model; None in records that were made before this was recorded.
        against: The version that it was compared with.
        by_hand: Whether no record explains that the alias of Production named `before`.
        rows: The digest of the rows on which the two were compared.
        by: What asked in a person's place, such as "probation"; None for a person.
        decided_by: How many rows of which kind decided, for people, such as "1,200 live rows"; None where there was no
            choice.
        request: The run of the request that is approved, or that a repair has closed.
        asker: Who made that request.
    """

    action: str
    version: str | None = None
    stage: str | None = None
    before: str | None = None
    reason: str | None = None
    forced: bool = False
    breaking: bool = False
    rule: str | None = None
    why: str | None = None
    who: str | None = None
    outcome: str | None = None
    time: int | None = None
    number: float | None = None
    model: int | None = None
    against: str | None = None
    by_hand: bool = False
    rows: str | None = None
    by: str | None = None
    request: str | None = None
    decided_by: str | None = None
    asker: str | None = None


@dataclass(frozen=True)
class Move(Record):
    """A record of a version that goes into a stage."""

    version: str
    stage: str


@dataclass(frozen=True, kw_only=True)
class SavedRecord(Record):
    """A record with the run that holds it.

    Args:
        run_id: The run's.
        opened: When it was opened, in milliseconds since 1970.
        is_left: Whether it is open although its process is gone.
        is_deleted: Whether its run is deleted.
        is_earlier: Whether it is about an earlier registered model of that name.
        figures: What the gate has measured, by the names of MLflow's metrics.
    """

    run_id: str
    opened: int
    is_left: bool = False
    is_deleted: bool = False
    is_earlier: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)


TAGS = {part.name: f"promotion.{part.name}" for part in fields(Record)}
WHEN = "promotion.at"  # the time as people read it
PARSE: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("forced", "breaking", "by_hand"), lambda text: text == "True"),
    **{"time": int, "model": int, "number": float},
}


def experiment(name: str) -> str:
    """The name of the experiment that keeps the records of a registered model."""
    return f"{name} promotions"


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def sentence(record: Record) -> str:
    """What was decided, for people."""
    what = ", ".join(filter(None, ["production" if record.action == REQUEST else record.action, *about(record)]))
    reason = f"reason: {record.reason}" if record.reason else None
    ended = "asked" if record.action == REQUEST and record.outcome == COMPLETED else record.outcome or "open"
    return "; ".join(filter(None, [f"{ended}: {what}", record.why, reason]))


def about(record: Record) -> tuple[str, ...]:
    """Which version a decision is about, "" for none, and the terms that it was made on, for people."""
    what = f"version {record.version}" if record.version else ""
    what += f" in place of version {record.before}" if record.before else ""
    what += " has stood it" if record.action == PROBATION else ""
    terms = {
        f"a person had put version {record.before} there by hand": record.before and record.by_hand,
        f"compared with version {record.against}": record.stage == "production"
        and record.against not in (None, record.before),
        f"by {record.decided_by}": record.decided_by,
        f"by the rule {record.rule}": record.action == REQUEST,
        "breaking": record.action == REQUEST and record.breaking,
        "forced": record.forced,
        f"asked for by {record.asker} and approved by {record.who}": record.asker,
        f"by {record.by}": record.by and record.by != record.action,
    }
    return what, *(term for term, applies in terms.items() if applies)


def start(client: MlflowClient, name: str, planned: Record, verdict: Verdict) -> SavedRecord:
    """Open the record of a decision, unless its judge has, with what it rests on, and let its version name it."""
    model = registered.registered_model(client, name).creation_timestamp
    judged = replace(planned, rule=verdict.rule, why=verdict.why, against=verdict.against, rows=verdict.rows)
    record = replace(judged, decided_by=verdict.decided_by, who=planned.who or provenance.who(), model=model)
    people = {mlflow_tags.MLFLOW_USER: str(record.who), mlflow_tags.MLFLOW_RUN_NOTE: sentence(record)}
    called = " ".join(filter(None, [record.action, record.version]))
    files = {**verdict.files, **_page(name, record, verdict)}
    opening = runs.Opening(called, _tags(record) | people, verdict.metrics, files, verdict.figures)
    opened = verdict.record.run_id if verdict.record else None
    run = runs.open_record(client, experiment(name), opening, opened)
    if record.version and not opened:
        waiting.insist(client.set_model_version_tag, name, record.version, LATEST, run.info.run_id)
    return SavedRecord(**asdict(record), run_id=run.info.run_id, opened=run.info.start_time)


def _page(name: str, record: Record, verdict: Verdict) -> dict[str, str]:
    """The page of a verdict by the name of its file; none where nothing was asked of the version."""
    if not (verdict.why or GATE in verdict.files):
        return {}
    from understudy.report import gate_page, page  # draws, which most who ask for records do not

    decided = json.loads(verdict.files.get(GATE, "{}"))
    return page.drawn(lambda: gate_page.html(name, asdict(record), decided))


def place(client: MlflowClient, name: str, record: SavedRecord) -> SavedRecord:
    """Give a record its place among the others, once its alias is written and before the alias is read back.

    Whoever reads the alias back after this, and still sees their own move, knows that every later move has a greater
    number.
    """
    placed = replace(record, time=now(), number=_next_number(client, name))
    runs.tag_record(client, placed.run_id, _tags(placed, "time", "number"))
    return placed


def close(client: MlflowClient, name: str, record: SavedRecord, outcome: str, why: str | None = None) -> SavedRecord:
    """Say how a decision ended, and give its record a place unless it has one."""
    number = record.number
    if number is None and record.time is None:
        number = _next_number(client, name)
    ended = replace(record, outcome=outcome, time=record.time or now(), number=number, why=why or record.why)
    tags = _tags(ended, "outcome", "time", "number", "why") | {mlflow_tags.MLFLOW_RUN_NOTE: sentence(ended)}
    runs.close_record(client, record.run_id, tags, STATUS[outcome])
    if ended.version and not ended.is_earlier:
        passed = f"; the gate let it pass by {ended.rule}" if ended.rule and not ended.why else ""
        said = f"{sentence(ended)}{passed if ended.action != REQUEST else ''}"
        registered.note(client, name, ended.version, f"{tags[WHEN]}, {ended.who}: {said}")
    return ended


def _tags(record: Record, *parts: str) -> dict[str, str]:
    """The tags for some parts of a record, or for all; there is none for what is None or False."""
    values = {tag: getattr(record, part) for part, tag in TAGS.items() if part in (parts or TAGS)}
    if record.time:
        values[WHEN] = f"{datetime.fromtimestamp(record.time // 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return {tag: str(value) for tag, value in values.items() if value}


def _next_number(client: MlflowClient, name: str) -> int:
    """The place behind all records.

    The latest ones say where to begin. Clocks differ, so those that follow on them are looked for.
    """
    records = find(client, name, latest=RECENT)
    if not any(record.number for record in records):
        records = find(client, name)
    number = behind(records)
    while following := find(client, name, f"tags.`{TAGS['number']}` LIKE '{number}%'"):
        number = behind(following)
    return number


def behind(records: Iterable[Record]) -> int:
    """The place behind these records."""
    return math.floor(max((record.number or 0 for record in records), default=0)) + 1


def find(client: MlflowClient, name: str, condition: str | None = None, latest: int | None = None) -> list[SavedRecord]:
    """The records of the registered models that have had a name, in the order they count, those still open last.

    All of them unless there is a condition or a number of `latest`, see `runs.records`.

    Raises:
        UserError: The experiment that keeps them is deleted.
    """
    model = registered.registered_model(client, name).creation_timestamp
    records = [_read(run, model) for run in runs.records(client, experiment(name), condition, latest)]
    # Records without a number are older than all that have one.
    return sorted(records, key=lambda each: (each.outcome is None, each.number or 0, each.time or 0, each.opened))


def _read(run: Run, model: int) -> SavedRecord:
    """The record in a run, for the registered model that was made at a time in milliseconds since 1970."""
    texts = {part: run.data.tags[tag] for part, tag in TAGS.items() if tag in run.data.tags}
    values: dict[str, Any] = {part: PARSE.get(part, str)(text) for part, text in texts.items()}
    opened = run.info.start_time
    return SavedRecord(
        **{"action": "unknown", **values},
        run_id=run.info.run_id,
        opened=opened,
        is_left=runs.is_left(run),
        is_deleted=run.info.lifecycle_stage == "deleted",
        is_earlier=values["model"] != model if "model" in values else opened < model,
        figures=run.data.metrics,
    )
