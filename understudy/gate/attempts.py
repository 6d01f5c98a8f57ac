"""How many challengers have been asked about: on rows like those that decide now, and since one was found better.

Each of them is a draw that may pass by luck, so the more there were, the more one has to show; see `checks.share`.
"""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import mlflow
import pandas as pd
from mlflow import MlflowClient

from understudy.registry import history
from understudy.registry.records import SavedRecord
from understudy.schema.spelling import folded
from understudy.tracking import provenance, runs

FILE = "rows.txt"  # of a record: what `marks` says of the rows that were looked at
ALIKE = 0.5  # the share of the rows that decide now from which on an earlier decision has seen them


@dataclass(frozen=True)
class Question:
    """Whether a version may take the place of another one, asked on some rows.

    Args:
        version: The number of the one that is asked about.
        against: That of the other.
        deciding: The identifiers of the rows that decide.
        beside: Those of the rows whose figures are shown beside, and decide nothing.
    """

    version: str
    against: str
    deciding: "pd.Series[str]"
    beside: "pd.Series[str]"

    @property
    def rows(self) -> str:
        """What a record knows the rows by: a digest of those that decide, behind a plus that of those beside."""
        digests = [hashlib.sha256(marks(part).encode()).hexdigest()[:16] for part in (self.deciding, self.beside)]
        return "+".join(digests if len(self.beside) else digests[:1])

    @property
    def marks(self) -> str:
        """The marks of all rows, which a record keeps."""
        return marks(pd.concat([self.deciding, self.beside]))


def marks(identifiers: "pd.Series[str]") -> str:
    """A line for each row, by which it is known again and which does not say its identifier."""
    lines = {hashlib.sha256(str(folded(name)).encode()).hexdigest()[:16] for name in identifiers}
    return "".join(f"{line}\n" for line in sorted(lines))


def on_such_rows(client: MlflowClient, known: Iterable[SavedRecord], question: Question) -> int:
    """The number of a question among those that have seen half and more of the rows that decide now; 1 is the first.

    Of the same two versions each question counts that has seen any of them: whoever asks again and again as rows come
    stops by luck else. To ask the same again is no other question. What cannot be read any more counts.

    Args:
        client: Of the store that holds the records.
        known: The other records, in their order, those that are still open too.
        question: Which version is compared with which, on which rows.
    """
    mine = {*marks(question.deciding).splitlines()}
    all_seen: dict[str, set[str] | None] = {question.rows: mine}
    asked = []
    for record in known:
        if record.rows and record.rows not in all_seen:
            all_seen[record.rows] = _read(client, record.run_id)
        seen = all_seen[record.rows] if record.rows else set()
        common = None if seen is None else frozenset(mine & seen)
        is_same = _asked(record)[:-1] == _asked(question)[:-1]
        if common is None or len(common) >= ALIKE * len(mine) or (is_same and common):
            asked.append((record.opened, (_asked(record), common)))
    return _number(asked, (_asked(question), frozenset(mine)))


def since_better(known: Sequence[SavedRecord], question: Question) -> int:
    """The number of a question among those that were asked by `not-worse` since a version passed by `better`."""
    since = [record for record in history.after_better(known) if record.rows and record.rule == "not-worse"]
    return _number([(record.opened, _asked(record)) for record in since], _asked(question))


def _asked(question: SavedRecord | Question) -> tuple[int | None, str | None, str | None, str]:
    """Which version was compared with which, by which rows: rows beside them make no other question.

    Versions of an earlier registered model of that name, which may have had the same numbers, are others.
    """
    model = question.model if isinstance(question, SavedRecord) and question.is_earlier else None
    return model, question.version, question.against, str(question.rows).partition("+")[0]


def _number(asked: Sequence[tuple[int, Hashable]], question: Hashable) -> int:
    """The place of a question among those that were asked, each with the time when its record was opened."""
    # Clocks differ, and who has asked first may end last: the later place counts.
    orders = asked, sorted(asked, key=lambda each: each[0])
    return 1 + max(list(dict.fromkeys([*(key for _, key in order), question])).index(question) for order in orders)


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
