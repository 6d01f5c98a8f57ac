"""The files that are to be scored, CSV or Parquet, which are read in batches of rows and never held whole."""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from understudy.batch import csv_rows
from understudy.errors import UserError
from understudy.reading import file_formats
from understudy.reading.file_formats import AGAIN, GZIP, MARKS, PARQUET, ZIP
from understudy.schema.columns import repeated

FILES = "name a CSV or Parquet file, a folder of them, or a pattern in quotes, as in 'new/*.csv'"
ROWS = 100_000  # of a batch of Parquet
HEAD = 65_536  # bytes in which the header has to end


@dataclass(frozen=True)
class Batch:
    """Some rows of a file, in their order.

    Args:
        file: Where they are from, as people know it.
        rows: Their cells under names without white space around them: text from CSV, else what is stored.
        numbers: Of the rows, shape (n,); 1 is the first below the header, and lines without content do not count.
        ragged: The numbers of rows among them that have more or fewer cells than the header, and are left out.
    """

    file: str
    rows: pa.RecordBatch
    numbers: NDArray[np.int64]
    ragged: tuple[int, ...] = ()


class InputFile:
    """A file of rows, of which the beginning has been looked at; `types` are those of its columns, by name.

    Raises:
        UserError: It is empty, of another kind, or has two columns of one name.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, str(path)
        with path.open("rb") as file:
            head = file.read(HEAD)
        self._is_gzip = head.startswith(GZIP)
        if self._is_gzip:
            try:
                with gzip.open(path) as unpacked:
                    head = unpacked.read(HEAD)
            except (OSError, EOFError, zlib.error) as error:
                raise UserError(f"{self.place} is broken gzip: {file_formats.line(error)}", AGAIN) from None
        self._is_parquet = head.startswith(PARQUET)
        if self._is_gzip and self._is_parquet:
            raise UserError(f"{self.place} is Parquet packed by gzip", f"gunzip {path.name}; Parquet packs by itself")
        stored = self._columns_of_parquet() if self._is_parquet else self._columns_of_csv(head)
        names = [name.strip() for name, _ in stored]
        if twice := [name for name in repeated(names) if name]:
            raise UserError(f"{self.place} has two columns {twice[0]}", "leave one of them out, or rename it")
        self._stored = {name: column for name, (column, _) in zip(names, stored, strict=True)}
        self.types = {name: kind for name, (_, kind) in zip(names, stored, strict=True) if name}

    def batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """The rows with these columns alone, in batches.

        Raises:
            UserError: The file is broken from some row on.
        """
        number, stored = 0, [self._stored[name] for name in names]
        try:
            for rows, ragged in self._rows(stored):
                numbers = _numbers(number + 1, rows.num_rows, ragged)
                number = int(numbers[-1]) if len(numbers) else number
                # Arrow reads ahead, so some may be of the next batch; the last one has no rows, and gets all others.
                passed = [row for row in ragged if row < number or not rows.num_rows]
                ragged[:] = [row for row in ragged if row not in passed]
                named = pa.RecordBatch.from_arrays([rows.column(name) for name in stored], names=[*names])
                yield Batch(self.place, named, numbers, tuple(passed))
        except (pa.ArrowInvalid, OSError, EOFError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            # Arrow's own words may have cells in them.
            kind = "Parquet" if self._is_parquet else "CSV in UTF-8"
            raise UserError(f"{self.place} cannot be read as {kind} below row {number}", AGAIN) from None

    def _columns_of_parquet(self) -> list[tuple[str, pa.DataType]]:
        try:
            columns = [(str(column.name), column.type) for column in parquet.read_schema(self.path)]
        except pa.ArrowInvalid as error:
            raise UserError(f"{self.place} is broken Parquet: {file_formats.line(error)}", AGAIN) from None
        return [(name, kind.value_type if pa.types.is_dictionary(kind) else kind) for name, kind in columns]

    def _columns_of_csv(self, head: bytes) -> list[tuple[str, pa.DataType]]:
        if head.startswith(ZIP):
            raise UserError(f"{self.place} is a workbook or a zip archive", "save it as CSV")
        encoding = next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), "utf-8")
        text = head.decode(encoding, errors="ignore").lstrip("\r\n")
        self._encoding = encoding.removesuffix("-sig")  # Arrow passes over the mark by itself
        if not text.strip():
            raise UserError(f"{self.place} is empty", FILES)
        file_formats.check_kind(text.encode(), self.place)
        self._separator = file_formats.separator(text.encode(), self.place, 1)
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=self._separator))
        return [(name, pa.string()) for name in header]

    def _rows(self, stored: list[str]) -> Iterator[tuple[pa.RecordBatch, list[int]]]:
        if not self._is_parquet:
            yield from csv_rows.read(self.path, stored, self._is_gzip, self._encoding, self._separator)
            return
        with parquet.ParquetFile(self.path) as file:
            yield from ((rows, []) for rows in file.iter_batches(ROWS, columns=stored))


def find(address: str) -> list[InputFile]:
    """The files that a path names, a folder has in it, or a pattern fits, in the order of their names.

    Raises:
        UserError: There are none, or one cannot be read.
    """
    path = Path(address)
    if path.is_dir():  # where Spark and others leave files that are no data, their names begin so
        paths = [child for child in path.iterdir() if child.is_file() and child.name[0] not in "._"]
    else:
        paths = [path] if path.is_file() else [*Path(path.anchor).glob(str(path.relative_to(path.anchor)))]
        paths = [path for path in paths if path.is_file()]
    if not paths:
        raise UserError(f"there is no file {address}", FILES)
    return [InputFile(path) for path in sorted(paths)]


def digest(files: Sequence[InputFile]) -> str:
    """The SHA-256 of a file's content; of several, that of the list of theirs."""
    digests = []
    for file in files:
        with file.path.open("rb") as content:
            digests.append(hashlib.file_digest(content, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _numbers(first: int, count: int, ragged: Sequence[int]) -> NDArray[np.int64]:
    """The numbers of so many rows from the first on, where the ragged ones are left out."""
    numbers = np.arange(first, first + count + len(ragged))
    return numbers[~np.isin(numbers, ragged)][:count]
