"""Scores the rows of files: reads them in batches, checks them, asks the model, and writes what it answers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial
from itertools import chain, count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import joblib
import pyarrow as pa
import pyarrow.compute as pc

from understudy.batch import parts
from understudy.batch.arrow_form import ArrowForm
from understudy.batch.inputs import Batch, InputFile, Slice
from understudy.batch.parts import BatchScores, PartsFolder
from understudy.errors import UserError
from understudy.schema.faults import Fault
from understudy.scoring import scorer
from understudy.scoring.scorer import Scorer
from understudy.verification import digests

if TYPE_CHECKING:
    from distributed import Client

FILE, ROW = "file", "row"  # the columns that name a row without an identifier
SCORES = {
    "label": pa.string(),
    "probability": pa.float64(),
    "version": pa.string(),
    "scored_at": pa.timestamp("ms", "UTC"),
}


@dataclass(frozen=True)
class Job:
    """What is done with the rows of some files.

    Args:
        version: Its number.
        when: The time that is written beside each score.
        is_strict: Whether one row that is not allowed refuses all.
        taken: The columns that the model takes.
        copied: The columns that the output has too: the identifier, if all files have it, and those that are kept.
        ignored: The columns that nobody asked for.
        schema: Of the output.
    """

    version: str
    when: datetime
    is_strict: bool
    taken: Sequence[str]
    copied: Sequence[str]
    ignored: Sequence[str]
    schema: pa.Schema


def plan(
    files: Sequence[InputFile], model: Scorer, keep: Sequence[str], version: str, when: datetime, is_strict: bool
) -> Job:
    """What is done with the rows of files, of which the beginning has been looked at.

    Raises:
        UserError: A file lacks a column.
    """
    names, table = list(dict.fromkeys(name for file in files for name in file.types)), model.table
    taken = [*model.form(names).columns]
    for file in files:
        if lacking := [name for name in (*taken, *keep) if name not in file.types]:
            needed = ", ".join((*taken, *keep))
            raise UserError(f"{file.place} has no column {', '.join(lacking)}", f"give it all of {needed}")
    identifier = (table.identifier,) if isinstance(table.identifier, str) else table.identifier or ()
    has_identifier = bool(identifier) and all({*identifier} <= file.types.keys() for file in files)
    copied = [*dict.fromkeys((*(identifier if has_identifier else ()), *keep))]
    ignored = [name for name in names if name not in (*taken, *copied) and not table.ignores(name)]
    numbered = [] if has_identifier else [(FILE, pa.string()), (ROW, pa.int64())][len({f.place for f in files}) == 1 :]
    kinds = [(name, _common([file.types[name] for file in files])) for name in copied]
    return Job(version, when, is_strict, taken, copied, ignored, pa.schema([*numbered, *kinds, *SCORES.items()]))


def score(
    job: Job, model: Scorer, unit: Sequence[Slice], number: int, held: PartsFolder, threads: int
) -> Iterator[int]:
    """Write the parts of a unit of work that are absent; yields after each batch how many rows have been added.

    Args:
        job: What is done with the rows.
        model: The version.
        unit: The rows.
        number: Of the unit.
        held: Takes the parts.
        threads: That check and score batches, while another one reads the next ones.

    Raises:
        UserError: A row is not allowed and the job is strict, or a file is broken.
    """
    first, passed = 0, 0
    while figures := held.figures(number, first):
        yield figures.rows
        if figures.is_last:
            return
        first, passed = first + 1, passed + figures.batches
    needed = [*dict.fromkeys((*job.taken, *job.copied))]
    batches = chain.from_iterable(piece.batches(needed) for piece in unit)
    form = ArrowForm(model.table, model.form(job.taken))
    results = _ahead(partial(_scored, job, model, form), islice(batches, passed, None), threads)
    result = next(results, None)
    for place in count(first):
        with held.writing(number, place, job.schema) as part:
            while result and part.figures.rows < parts.ROWS:
                part.add(result)
                yield len(result.scores) + result.rejected
                result = next(results, None)
            part.figures.is_last = result is None
        if result is None:
            return


def here(job: Job, model: Scorer, units: Sequence[Sequence[Slice]], held: PartsFolder) -> Iterator[int]:
    """Score units of work in this process, with a thread for each core; yields rows as `score` does.

    Args:
        job: What is done with the rows.
        model: The version.
        units: Of work.
        held: Takes the parts.

    Raises:
        UserError: See `score`.
    """
    for number, unit in enumerate(units):
        yield from score(job, model, unit, number, held, int(joblib.cpu_count()))


def on_cluster(
    client: "Client", job: Job, folder: Path, units: Sequence[Sequence[Slice]], held: PartsFolder
) -> Iterator[int]:
    """Score units of work on the workers of a cluster, each in one thread; yields the rows of each.

    The files of the version's folder travel with their digest, which workers compare before they load them. Workers
    read the input and write the parts themselves, so both have to be at the same place for all of them.

    Raises:
        UserError: See `score`; or a worker does not see the input or the folder of the parts.
    """
    from distributed import as_completed

    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    # What a task returns goes to each worker once, and is made again if its worker dies; what is scattered is lost.
    version = client.submit(_Version, digests.digest(folder), files)
    waiting = [
        client.submit(on_worker, job, version, unit, number, held.folder, held.kind, pure=False)
        for number, unit in enumerate(units)
    ]
    try:
        for future in as_completed(waiting, loop=client.loop):
            yield future.result()
    except UserError:
        held.end()  # which tasks that have not begun see
        for future in waiting:
            future.exception()
        raise


def on_worker(job: Job, version: "_Version", unit: Sequence[Slice], number: int, folder: Path, kind: str) -> int:
    """The rows of a unit of work, all of whose parts are complete; an earlier task may have completed some."""
    unseen = [piece.file.place for piece in unit if not piece.file.is_there()]
    if unseen or not PartsFolder.is_begun(folder):
        fix = "put input and output where all workers have them by the same paths"
        raise UserError(f"a worker of the cluster does not see {unseen[0] if unseen else folder}", fix)
    return sum(score(job, _loaded(version), unit, number, PartsFolder(folder, kind), threads=1))


@dataclass(frozen=True)
class _Version:
    """The files of a version by their paths, and the digest of their manifest, by which two of them are equal."""

    digest: str
    files: Mapping[str, bytes] = field(compare=False)


@lru_cache(maxsize=2)
def _loaded(version: _Version) -> Scorer:
    """What answers for a version whose files have travelled. Raises `UserError` if they are not what they were."""
    with TemporaryDirectory() as name:
        for path, content in version.files.items():
            target = Path(name, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if digests.digest(Path(name)) != version.digest:
            raise UserError("a worker got other files than those of the version", "start again")
        return scorer.load(Path(name))


def _scored(job: Job, model: Scorer, form: ArrowForm, batch: Batch) -> BatchScores:
    """What comes of a batch."""
    features, is_allowed, faults = form.features(batch.rows)
    faults = [*_ragged(batch), *(replace(f, rows=tuple(batch.numbers[[*f.rows]].tolist())) for f in faults)]
    if faults and job.is_strict:
        raise UserError(
            f"{batch.file} has rows that are not allowed, the first of them: {'; '.join(map(str, faults))}",
            "correct them, or score the others: leave out --strict",
        )
    probabilities = model.predictor.probabilities(features) if len(features) else features[:, 0]
    answers = {
        FILE: pa.repeat(batch.file, len(features)),
        ROW: pa.array(batch.numbers[is_allowed]),
        "label": pa.array(model.labels(probabilities.tolist()), pa.string()),
        "probability": pa.array(probabilities),
        "version": pa.repeat(job.version, len(features)),
        "scored_at": pa.repeat(pa.scalar(job.when, SCORES["scored_at"]), len(features)),
    }
    allowed = pa.array(is_allowed)
    copied = {name: pc.filter(batch.rows.column(name), allowed) for name in job.copied}
    scores = pa.table({name: copied[name] if name in copied else answers[name] for name in job.schema.names})
    return BatchScores(batch.file, scores, batch.rows.num_rows - len(features) + len(batch.ragged), faults)


def _ahead(work: Callable[[Batch], BatchScores], batches: Iterable[Batch], threads: int) -> Iterator[BatchScores]:
    """What comes of each batch, in their order, while threads are at work on those behind it."""
    waiting = deque[Future[BatchScores]]()
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)


def _common(kinds: Sequence[pa.DataType]) -> pa.DataType:
    """The type of a column that has these in several files: text, unless one of them can hold the others."""
    try:
        unified = pa.unify_schemas([pa.schema([("", kind)]) for kind in kinds], promote_options="permissive")
    except pa.ArrowTypeError:
        return pa.string()
    return pa.string() if unified.types[0] == pa.null() else unified.types[0]


def _ragged(batch: Batch) -> list[Fault]:
    """What is wrong with rows that have more or fewer cells than the header."""
    return (
        [Fault("the row", "wrong number of values", "as many as the header has", batch.ragged)] if batch.ragged else []
    )
