"""The parts of a scoring, each complete or absent: one that was killed goes on with those that are absent.

They lie in a hidden folder beside the output until all are there. A part is complete when its figures are, which are
written last; every file is written under another name and then renamed.
"""

import csv
import fcntl
import json
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from understudy.errors import UserError
from understudy.schema.faults import Fault

ROWS = 1_000_000  # from which on a unit gets another part
JOB = "job.json"
SCORES, REJECTED, FIGURES = "scores", "rejected", "figures"  # folders of files, one for each part
COLUMNS = ("file", "row", "column", "reason", "allowed")  # of the rows that are rejected


@dataclass
class Figures:
    """What came of a part, or of all of them.

    Args:
        scored: Rows.
        rejected: Rows.
        faults: Rows by column and reason.
        batches: Of rows that were read for it.
        is_last: Whether the part is the last one of its unit.
    """

    scored: int = 0
    rejected: int = 0
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    batches: int = 0
    is_last: bool = False

    @property
    def rows(self) -> int:
        """All of them."""
        return self.scored + self.rejected


@dataclass(frozen=True)
class BatchScores:
    """What came of a batch of rows.

    Args:
        file: Where they are from.
        scores: Of those that the table allows, in the order of the output's schema.
        rejected: How many it does not allow.
        faults: What is wrong with them; their rows have the numbers that they have in the file.
    """

    file: str
    scores: pa.Table
    rejected: int
    faults: list[Fault]


class Part:
    """A part that is being written.

    Args:
        folder: A new one, for the files until they are complete.
        kind: Of the file of scores, ".parquet" or ".csv", which has no header.
        schema: Of the scores.
    """

    def __init__(self, folder: Path, kind: str, schema: pa.Schema) -> None:
        self.figures, self._schema = Figures(), schema
        self.scores, self.rejected = folder / f"scores{kind}", folder / "rejected.csv"
        plain = arrow_csv.WriteOptions(include_header=False)
        self._writer: Any = (
            parquet.ParquetWriter(self.scores, schema, use_dictionary=repeated(schema))
            if kind == ".parquet"
            else arrow_csv.CSVWriter(self.scores, schema, write_options=plain)
        )
        self._lines = self.rejected.open("w", newline="")
        self._sheet = csv.writer(self._lines, lineterminator="\n")

    def add(self, batch: BatchScores) -> None:
        """Add the rows of a batch."""
        self._writer.write(batch.scores.cast(self._schema))
        self.figures.batches += 1
        self.figures.scored += len(batch.scores)
        self.figures.rejected += batch.rejected
        for fault in batch.faults:
            reason = f"{fault.problem} ({fault.reason})" if fault.reason else fault.problem
            self._sheet.writerows((batch.file, row, fault.column, reason, fault.allowed) for row in fault.rows)
            self.figures.faults[fault.column, reason] += len(fault.rows)

    def close(self) -> None:
        """Close the files."""
        self._writer.close()
        self._lines.close()


class PartsFolder:
    """The parts of one scoring in their folder, which is made.

    Args:
        folder: That nobody else uses.
        kind: Of the files of scores, ".parquet" or ".csv".
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind, self._job = folder, kind, folder / JOB
        for name in (SCORES, REJECTED, FIGURES):
            (folder / name).mkdir(parents=True, exist_ok=True)

    @staticmethod
    def is_begun(folder: Path) -> bool:
        """Whether a scoring has begun in a folder, as this machine sees it."""
        return (folder / JOB).is_file()

    def begun(self) -> dict[str, Any] | None:
        """What is scored here, and the run that says so; None if no scoring has begun."""
        return dict(json.loads(self._job.read_text())) if self._job.is_file() else None

    def run_of(self, asked: Mapping[str, Any]) -> str | None:
        """The run of the process that began to score the same here and was killed; None if nothing has begun.

        Raises:
            UserError: Something else has begun.
        """
        begun = self.begun()
        if begun and begun["asked"] != asked:
            problem = f"{self.folder} has the parts of another scoring, which was not completed"
            raise UserError(problem, f"start that one again, or give it up: rm -r {shlex.quote(str(self.folder))}")
        return begun["run"] if begun else None

    def begin(self, asked: Mapping[str, Any], run: str) -> None:
        """Say what is scored here; from then on a process that is killed leaves the parts for the next one."""
        written = self._job.with_suffix(".new")
        written.write_text(json.dumps({"asked": asked, "run": run}))
        written.replace(self._job)

    def end(self) -> None:
        """Take back that something has begun, so that nobody goes on with it."""
        self._job.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all of them."""
        self.end()
        shutil.rmtree(self.folder)

    def figures(self, unit: int, number: int) -> Figures | None:
        """What came of a part of a unit of work; None if it is absent."""
        path = self.folder / FIGURES / f"{_name(unit, number)}.json"
        return _read(path) if path.is_file() else None

    def total(self) -> Figures:
        """What came of all parts that are complete."""
        total = Figures()
        for path in (self.folder / FIGURES).iterdir():
            figures = _read(path)
            total.scored += figures.scored
            total.rejected += figures.rejected
            total.faults += figures.faults
        return total

    def names(self) -> list[str]:
        """Those of the parts, in the order of their rows."""
        return sorted(path.stem for path in (self.folder / FIGURES).iterdir())

    def scores(self, name: str) -> Path:
        """The file with the scores of a part."""
        return self.folder / SCORES / f"{name}{self.kind}"

    def rejected(self, name: str) -> Path:
        """The CSV file, without a header, with the rows of a part that were rejected; it is absent if none were."""
        return self.folder / REJECTED / f"{name}.csv"

    @contextmanager
    def writing(self, unit: int, number: int, schema: pa.Schema) -> Iterator[Part]:
        """A part that is being written; it is complete when this ends, and absent after an exception."""
        name = _name(unit, number)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            part = Part(Path(folder), self.kind, schema)
            try:
                yield part
            finally:
                part.close()
            part.scores.replace(self.scores(name))
            if part.figures.faults:
                part.rejected.replace(self.rejected(name))
            faults = [[*key, rows] for key, rows in part.figures.faults.items()]
            written = Path(folder) / "figures.json"
            written.write_text(json.dumps({**vars(part.figures), "faults": faults}))
            written.replace(self.folder / FIGURES / f"{name}.json")


@contextmanager
def claimed(folder: Path, kind: str, called: str) -> Iterator[PartsFolder]:
    """PartsFolder for this process alone, in a folder that is removed at the end unless a scoring has begun there.

    Raises:
        UserError: Another process has the folder.
    """
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is writing {called}", "wait for its end, or name another output"
            ) from None
        parts = PartsFolder(folder, kind)
        try:
            yield parts
        finally:
            if folder.is_dir() and parts.begun() is None:
                shutil.rmtree(folder)


def repeated(schema: pa.Schema) -> list[str]:
    """The columns of scores that have few different cells; to look for more in all others takes Parquet longest."""
    return [name for name in ("file", "label", "version", "scored_at") if name in schema.names]


def _name(unit: int, number: int) -> str:
    return f"part-{unit:05}-{number:05}"


def _read(path: Path) -> Figures:
    written = json.loads(path.read_text())
    return Figures(**{**written, "faults": Counter({(column, reason): n for column, reason, n in written["faults"]})})
