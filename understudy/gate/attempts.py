"""How many challengers have been asked about: on rows like those that decide now, and since one was found better.

Each of them is a draw that may pass by luck, so the more there were, the more one has to show; see `checks.share`.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

import mlflow
import pandas as pd
from mlflow import MlflowClient

from understudy.registry import history
from understudy.registry.records import SavedRecord
from understudy.schema.spelling import folded
from understudy.tracking import provenance, runs

FILE = "rows.txt"  # of a record: what `marks` says of the rows that decided
ALIKE = 0.5  # the share of the rows that decide now from which on an earlier decision has seen them

Question = tuple[str | None, str | None, str | None]  # version, the one that it was compared with, digest of the rows


def marks(identifiers: pd.Series) -> str:
    """A line for each row, by which it is known again and which does not say its identifier."""
    lines = (hashlib.sha256(str(folded(name)).encode()).hexdigest()[:16] for name in identifiers)
    return "".join(f"{line}\n" for line in sorted(lines))


def digest(marked: str) -> str:
    """The digest of what `marks` says, by which a record knows the rows."""
    return hashlib.sha256(marked.encode()).hexdigest()[:16]


def on_such_rows(client: MlflowClient, known: Iterable[SavedRecord], question: Question, marked: str) -> int:
    """The number of a question among those that were asked on rows of which half and more decide now; 1 is the first.

    To ask the same again is no other question. What cannot be read any more counts.

    Args:
        client: Of the store that holds the records.
        known: The records, in their order.
        question: Which version is compared with which, on which rows.
        marked: What `marks` says of the rows that decide now.
    """
    mine, alike = {*marked.splitlines()}, {question[-1]: True}

    def have_seen(record: SavedRecord) -> bool:
        if record.rows not in alike:
            theirs = _read(client, record.run_id)
            alike[record.rows] = theirs is None or len(mine & theirs) >= ALIKE * len(mine)
        return alike[record.rows]

    return _number(known, question, have_seen)


def since_better(known: Sequence[SavedRecord], question: Question) -> int:
    """The number of a question among those that were asked by `not-worse` since a version passed by `better`."""
    return _number(history.after_better(known), question, lambda record: record.rule == "not-worse")


def _number(known: Iterable[SavedRecord], question: Question, counts: Callable[[SavedRecord], bool]) -> int:
    asked = [(record.version, record.against, record.rows) for record in known if record.rows and counts(record)]
    distinct = list(dict.fromkeys([*asked, question]))
    return 1 + distinct.index(question)


def _read(client: MlflowClient, run_id: str) -> set[str] | None:
    """The marks that a record keeps; None if they are gone."""
    run = runs.run_or_none(client, run_id)
    if run is None:
        return None
    provenance.check_location(str(run.info.artifact_uri), f"run {run_id}")
    try:
        return {*mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{FILE}").splitlines()}
    except (mlflow.MlflowException, OSError):
        return None
