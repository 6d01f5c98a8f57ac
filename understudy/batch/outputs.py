"""Where scores go: a Parquet file, a CSV file, or a folder of Parquet files; beside it the rows that were refused.

Everything is written into a folder of its own next to the output, and renamed when it is complete.
"""

import csv
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from understudy.errors import UserError
from understudy.schema.faults import Fault

PART = 1_000_000  # rows from which on a folder gets another file
REJECTED = (".rejected", ("file", "row", "column", "reason", "allowed"))
WRITERS = {".parquet": parquet.ParquetWriter, ".csv": arrow_csv.CSVWriter}


class Output:
    """What is being written; `open_output` makes one.

    Args:
        path: Of the output: a file by its ending, else a folder.
        folder: Where all is written before it is complete.
        schema: Of the scores.

    `rows` are written so far, `rejected_rows` were refused, and `faults` counts them by column and reason.
    """

    def __init__(self, path: Path, folder: Path, schema: pa.Schema) -> None:
        self.path, self.rejected = path, path.with_name(path.name + REJECTED[0])
        self.rows, self.rejected_rows, self.faults = 0, 0, Counter[tuple[str, str]]()
        self._folder, self._schema = folder, schema
        self._parts: list[Path] = []
        self._next_part()
        self._lines = (folder / REJECTED[0]).open("w", newline="")
        self._sheet = csv.writer(self._lines, lineterminator="\n")
        self._sheet.writerow(REJECTED[1])

    def write(self, scores: pa.Table) -> None:
        """Add scores in the order of the schema; their types are cast to it."""
        if not self.path.suffix and self.rows // PART > len(self._parts) - 1:
            self._writer.close()
            self._next_part()
        self._writer.write(scores.cast(self._schema))
        self.rows += len(scores)

    def reject(self, file: str, fault: Fault) -> None:
        """Add the rows of a fault; they are numbered as in their file."""
        reason = f"{fault.problem} ({fault.reason})" if fault.reason else fault.problem
        self._sheet.writerows((file, row, fault.column, reason, fault.allowed) for row in fault.rows)
        self.faults[fault.column, reason] += len(fault.rows)

    def complete(self) -> None:
        """Give everything its name; there is a file of refused rows only if there are any."""
        self.close()
        if self.faults:
            (self._folder / REJECTED[0]).rename(self.rejected)
        (self._parts[0] if self.path.suffix else self._parts[0].parent).rename(self.path)

    def close(self) -> None:
        """Close the files, which stay where they are; doing it again changes nothing."""
        self._writer.close()
        self._lines.close()

    def _next_part(self) -> None:
        kind = self.path.suffix or ".parquet"
        self._parts.append(self._folder / "parts" / f"part-{len(self._parts):05}{kind}")
        self._writer: Any = WRITERS[kind](self._parts[-1], self._schema)


def check(path: Path) -> None:
    """Refuse a place that scores cannot be written to, before anything is read. Raises `UserError`."""
    if path.suffix not in (*WRITERS, ""):
        raise UserError(f"nothing here writes {path.suffix} files", "name a .parquet or .csv file, or a folder")
    for taken in (path, path.with_name(path.name + REJECTED[0])):
        if taken.exists():
            raise UserError(f"{taken} is there already", "move it away, or name another output")
    if not path.absolute().parent.is_dir():
        raise UserError(f"there is no folder {path.parent}", f"mkdir -p {path.parent}")


@contextmanager
def open_output(path: Path, schema: pa.Schema) -> Iterator[Output]:
    """An output that is being written; what is not complete at the end is removed.

    Raises:
        UserError: Its columns would have one name.
    """
    if twice := [name for name in schema.names if schema.names.count(name) > 1]:
        raise UserError(
            f"two columns of the output would be called {twice[0]}", "rename it in the input, or leave --keep"
        )
    folder = path.with_name(f".{path.name}.{os.getpid()}")
    (folder / "parts").mkdir(parents=True)
    try:
        output = Output(path, folder, schema)
        try:
            yield output
        finally:
            output.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
