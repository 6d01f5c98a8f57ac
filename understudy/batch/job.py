"""Scores the rows of files: reads them in batches, checks them, asks the model, and writes what it answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from understudy.batch.arrow_form import ArrowForm
from understudy.batch.inputs import Batch, InputFile
from understudy.batch.outputs import Output
from understudy.errors import UserError
from understudy.schema.faults import Fault
from understudy.scoring.scorer import Scorer

FILE, ROW = "file", "row"  # the columns that name a row without an identifier
SCORES = {
    "label": pa.string(),
    "probability": pa.float64(),
    "version": pa.string(),
    "scored_at": pa.timestamp("ms", "UTC"),
}


@dataclass(frozen=True)
class Plan:
    """What is done with the columns of some files.

    Args:
        files: To be scored.
        taken: The columns that the model takes.
        copied: The columns that the output has too: the identifier, if all files have it, and those that are kept.
        numbered: The columns of the output that name a row without an identifier.
        ignored: The columns that nobody asked for.
    """

    files: Sequence[InputFile]
    taken: Sequence[str]
    copied: Sequence[str]
    numbered: Sequence[str]
    ignored: Sequence[str]

    @property
    def schema(self) -> pa.Schema:
        """Of the output."""
        numbered = {FILE: pa.string(), ROW: pa.int64()}
        fields = [(name, numbered[name]) for name in self.numbered]
        return pa.schema([*fields, *((name, self.files[0].types[name]) for name in self.copied), *SCORES.items()])


def plan(files: Sequence[InputFile], scorer: Scorer, keep: Sequence[str]) -> Plan:
    """What is done with the columns of files, of which the beginning has been looked at.

    Raises:
        UserError: A file lacks a column.
    """
    names, table = list(dict.fromkeys(name for file in files for name in file.types)), scorer.table
    taken = [*scorer.form(names).columns]
    for file in files:
        if lacking := [name for name in (*taken, *keep) if name not in file.types]:
            needed = ", ".join((*taken, *keep))
            raise UserError(f"{file.place} has no column {', '.join(lacking)}", f"give it all of {needed}")
    identifier = (table.identifier,) if isinstance(table.identifier, str) else table.identifier or ()
    has_identifier = bool(identifier) and all({*identifier} <= file.types.keys() for file in files)
    copied = [*dict.fromkeys((*(identifier if has_identifier else ()), *keep))]
    numbered = [] if has_identifier else [FILE, ROW][len(files) == 1 :]
    ignored = [name for name in names if name not in (*taken, *copied) and not table.ignores(name)]
    return Plan(files, taken, copied, numbered, ignored)


def score(scorer: Scorer, version: str, planned: Plan, output: Output, when: datetime, is_strict: bool) -> None:
    """Write the scores of all rows that are allowed, and what is wrong with the others.

    Args:
        scorer: Of the version.
        version: Its number.
        planned: For these files.
        output: Takes both; it is not completed here.
        when: The time that is written beside each score.
        is_strict: Whether one row that is not allowed refuses all.

    Raises:
        UserError: It does, or a file is broken.
    """
    form = ArrowForm(scorer.table, scorer.form(planned.taken))
    for batch in _batches(planned):
        features, is_allowed, faults = form.features(batch.rows)
        faults = [*_ragged(batch), *(replace(f, rows=tuple(batch.numbers[[*f.rows]].tolist())) for f in faults)]
        if faults and is_strict:
            raise UserError(
                f"{batch.file} has rows that are not allowed, the first of them: {'; '.join(map(str, faults))}",
                "correct them, or score the others: leave out --strict",
            )
        for fault in faults:
            output.reject(batch.file, fault)
        output.rejected_rows += batch.rows.num_rows - len(features) + len(batch.ragged)
        if not len(features):
            continue
        probabilities = scorer.predictor.probabilities(features)
        answers = {
            FILE: pa.repeat(batch.file, len(features)),
            ROW: pa.array(batch.numbers[is_allowed]),
            "label": pa.array(scorer.labels(probabilities.tolist())),
            "probability": pa.array(probabilities),
            "version": pa.repeat(version, len(features)),
            "scored_at": pa.repeat(pa.scalar(when, SCORES["scored_at"]), len(features)),
        }
        allowed = pa.array(is_allowed)
        copied = {name: pc.filter(batch.rows.column(name), allowed) for name in planned.copied}
        names = planned.schema.names
        output.write(pa.table({name: copied[name] if name in copied else answers[name] for name in names}))


def _batches(planned: Plan) -> Iterator[Batch]:
    for file in planned.files:
        yield from file.batches([*dict.fromkeys((*planned.taken, *planned.copied))])


def _ragged(batch: Batch) -> list[Fault]:
    """What is wrong with rows that have more or fewer cells than the header."""
    return (
        [Fault("the row", "wrong number of values", "as many as the header has", batch.ragged)] if batch.ragged else []
    )
