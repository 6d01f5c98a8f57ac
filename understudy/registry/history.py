"""What the records say: which versions were in Production, when, and what people are told of it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils import mlflow_tags

from understudy.errors import RED, UserError, painted, visible
from understudy.figures import cards
from understudy.registry import registered
from understudy.registry.records import ADOPT, ARCHIVE, COMPLETED, LATEST, ROLLBACK, SUPERSEDED, SavedRecord, about
from understudy.tracking import family_runs, provenance, runs

RUN_TAGS = {
    "family": family_runs.FAMILY_NAME,
    "data": provenance.DATA_PATH,
    "data digest": provenance.DATA_DIGEST,
    "commit": mlflow_tags.MLFLOW_GIT_COMMIT,
    "uncommitted changes": "git.dirty",
    "uncommitted files": provenance.CHANGES,
    "lock digest": "lock.digest",
    "packages": "packages",
    "seed": "seed",
    "model digest": family_runs.MODEL_DIGEST,
}


def completed(records: Iterable[SavedRecord]) -> list[SavedRecord]:
    """The records of what was done with versions of this registered model, in their order."""
    return [record for record in records if record.outcome == COMPLETED and not record.is_earlier]


def production_moves(records: Iterable[SavedRecord]) -> list[SavedRecord]:
    """The records that moved Production's alias, in their order."""
    return [record for record in completed(records) if record.stage == "production"]


def moved(records: Iterable[SavedRecord]) -> set[str | None]:
    """The versions that records put into a stage, and those that they took out of it."""
    return {number for record in records for number in (record.version, record.before)}


def aliases(records: Iterable[SavedRecord]) -> dict[str, str]:
    """Alias to version, as the records say it."""
    named: dict[str, str] = {}
    for record in completed(records):
        if record.stage and record.version:
            named[record.stage] = record.version
        elif record.action == ARCHIVE and named.get("staging") == record.version:
            del named["staging"]
        if "staging" in named and named["staging"] == named.get("production"):
            del named["staging"]
    return named


def explains(records: Sequence[SavedRecord], version: str | None) -> bool:
    """Whether records say why Production's alias names a version: by the last move, or by a move that is under way.

    A move under way may still turn out to be replaced at once. Nobody could later tell its version from one that a
    person put there by hand, so whoever sees the version there writes down which of the two it is.
    """
    moves = [record for record in records if record.stage == "production" and not record.is_earlier]
    under_way = {record.version for record in moves if record.outcome is None and not is_undecided(record)}
    return version == aliases(records).get("production") or version in under_way


def is_undecided(record: SavedRecord) -> bool:
    """Whether the gate has opened a record that says what it looks at, and has not written down what it found."""
    return record.rows is not None and not record.figures and record.why is None


def champions(records: Sequence[SavedRecord]) -> list[str]:
    """The versions that a rollback goes back through; the last one is in Production.

    A promotion adds its version, and a rollback takes off the versions that came after its own. A version that a person
    put into Production by hand is added when a record names it as the version before.
    """
    path: list[str] = []
    unnumbered = [record for record in records if record.outcome == SUPERSEDED and record.number is None]
    replaced_at_once = {record.version for record in unnumbered if record.stage == "production"}
    for record in production_moves(records):
        if record.by_hand or (record.number is None and record.before not in replaced_at_once):
            path = after_hand_move(path, record.before)
        if record.action == ROLLBACK and record.version not in path:
            path = path[:-1]
        if record.action in (ROLLBACK, ADOPT):
            path = after_hand_move(path, record.version)
        if record.version and path[-1:] != [record.version]:
            path.append(record.version)
    return path


def after_better(records: Sequence[SavedRecord]) -> Sequence[SavedRecord]:
    """The records from the last one on that put a version into Production by `better`, or by force; else all.

    Whoever forces a version has accepted what it loses, unless it was taken back.
    """
    moves = [record for record in production_moves(records) if record.action not in (ROLLBACK, ADOPT)]
    path, latest = champions(records), {record.version: record for record in moves}
    kept = [record for record in moves if record.version in path and record is latest[record.version]]
    starts = [record for record in kept if record.forced or record.rule == "better"]
    return records[records.index(starts[-1]) :] if starts else records


def champions_since_better(records: Sequence[SavedRecord]) -> list[str]:
    """The versions of `champions` from the one on that `after_better` begins with."""
    path, start = champions(records), after_better(records)[:1]
    if not start or start[0] is records[0] or start[0].version not in path:
        return path
    return path[path.index(str(start[0].version)) :]


def after_hand_move(path: list[str], version: str | None) -> list[str]:
    """The champions once a person has pointed the alias at a version: cut back to it, or with it added.

    Args:
        path: The champions until then.
        version: The version that the alias names now; None if it names none, which changes nothing.
    """
    if version in path:
        return path[: len(path) - path[::-1].index(version)]
    return [*path, version] if version else path


def lost(versions: Iterable[ModelVersion], records: Iterable[SavedRecord]) -> dict[str, str]:
    """The versions whose last record is gone, by number, and the run that it was in."""
    known = {record.run_id for record in records}
    latest = {str(version.version): version.tags.get(LATEST) for version in versions}
    return {number: run_id for number, run_id in latest.items() if run_id is not None and run_id not in known}


def champion_at(records: Iterable[SavedRecord], when: int) -> str | None:
    """The version that was in Production at a time in milliseconds since 1970; None if no record says so."""
    last, following = _moves_around(records, when)
    return last.version if last else following.before if following else None


def describe_at(records: Sequence[SavedRecord], when: int, current: Mapping[str, str]) -> str:
    """The same for people, with what is known of moves by hand until the next record, or until the aliases of now."""
    version, (last, following) = champion_at(records, when), _moves_around(records, when)
    seen, until = (following.before, "the next record") if following else (current.get("production"), "now")
    if last is None or seen == version or (following and not following.by_hand):
        return registered.called(version) if version else "nothing that is known of"
    return f"version {version}, or already {registered.called(seen)}, by hand at some time before {until}"


def _moves_around(records: Iterable[SavedRecord], when: int) -> tuple[SavedRecord | None, SavedRecord | None]:
    """The last move in Production until a time in milliseconds since 1970, and the first move after it.

    A move counts from its own time, or from the time of a later move if that is earlier: its clock was ahead then.
    """
    moves = production_moves(records)
    times = list(accumulate((move.time or 0 for move in reversed(moves)), min))[::-1]
    count = sum(time <= when for time in times)
    return (moves[count - 1] if count else None), (moves[count] if count < len(moves) else None)


def story(records: Sequence[SavedRecord]) -> list[str]:
    """Records as a log, a line for each in their order: when, which verb, about what, who, why, and what came of it."""
    cells = [_cells(record) for record in records]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for record, (*columns, ending) in zip(records, cells, strict=True):
        when, verb, *rest = (cell.ljust(width) for cell, width in zip(columns, widths, strict=False))
        is_done = record.outcome in (COMPLETED, None)
        lines.append("  ".join([when, verb if is_done else painted(verb, RED), *rest, ending]).rstrip())
    return lines


def _cells(record: SavedRecord) -> list[str]:
    what, *terms = about(record)
    verb = record.action if record.outcome == COMPLETED else f"{record.action} {record.outcome or 'open'}"
    notes = {"its run is deleted": record.is_deleted, "of an earlier registered model": record.is_earlier}
    known = [f'"{record.reason}"' if record.reason else "", ", ".join(terms), record.why or ""]
    ending = "; ".join(filter(None, [*known, *(note for note, applies in notes.items() if applies)]))
    return [*map(visible, [clock(record.time or record.opened), verb, what, str(record.who), ending])]


def lineage(client: MlflowClient, name: str, number: str) -> dict[str, str]:
    """Where a version comes from, by what people call each part; params and tags in the order of their names.

    Raises:
        UserError: There is no such version.
    """
    version = registered.get_version(client, name, number)
    known = {"made": clock(version.creation_timestamp), "source": str(version.source), "run": version.run_id or "none"}
    run = runs.run_or_none(client, version.run_id or "")
    if run is not None:
        known |= {label: run.data.tags[tag] for label, tag in RUN_TAGS.items() if tag in run.data.tags}
        headline = cards.headline(run.data.metrics)
        known["metrics"] = ", ".join(f"{key} {value}" for key, value in headline.items()) or "none"
        known["params"] = ", ".join(f"{key} {value}" for key, value in sorted(run.data.params.items())) or "none"
    return {label: visible(str(value)) for label, value in {**known, **dict(sorted(version.tags.items()))}.items()}


def clock(milliseconds: int) -> str:
    """Milliseconds since 1970 as a time in UTC, to the minute."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%MZ}"


def milliseconds(text: str) -> int:
    """A time such as 2026-11-01T12:00, local unless it says otherwise, in milliseconds since 1970.

    Raises:
        UserError: It is not written as a time.
    """
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        raise UserError(f"{text!r} is no time", "write it as in --at 2026-11-01T12:00") from None
