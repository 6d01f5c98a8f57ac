"""The files that are to be scored, CSV or Parquet, which are read in batches of rows and never held whole."""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem
from numpy.typing import NDArray
from pyarrow import parquet

from understudy.batch import csv_rows
from understudy.errors import UserError
from understudy.reading import file_formats, reader
from understudy.reading.file_formats import AGAIN, GZIP, MARKS, PARQUET, ZIP
from understudy.schema.columns import repeated

FILES = "name a CSV or Parquet file, a folder of them, or a pattern in quotes, as in 'new/*.csv'"
ROWS = 100_000  # of a batch of Parquet
HEAD = 65_536  # bytes in which the header has to end
UNIT = 64_000_000  # bytes from which on rows are enough for a unit, about 1,000,000 rows


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

    Args:
        system: That has the file, a disk or an object store.
        path: Of the file there.
        place: What people call it.
        above: Rows that are numbered before its first one.

    Raises:
        UserError: It is empty, of another kind, or has two columns of one name.
    """

    def __init__(self, system: AbstractFileSystem, path: str, place: str, above: int = 0) -> None:
        self._system, self._path, self.place, self._above = system, path, place, above
        self._state = self._current_state()
        with self.open() as file:
            head = file.read(HEAD)
        self._is_gzip = head.startswith(GZIP)
        if self._is_gzip:
            try:
                with self.open() as file, gzip.open(file) as unpacked:
                    head = unpacked.read(HEAD)
            except (OSError, EOFError, zlib.error) as error:
                raise UserError(f"{self.place} is broken gzip: {file_formats.line(error)}", AGAIN) from None
        self._is_parquet = head.startswith(PARQUET)
        if self._is_gzip and self._is_parquet:
            raise UserError(f"{place} is Parquet packed by gzip", f"gunzip {Path(path).name}; Parquet packs by itself")
        stored = self._columns_of_parquet() if self._is_parquet else self._columns_of_csv(head)
        names = [name.strip() for name, _ in stored]
        if twice := [name for name in repeated(names) if name]:
            raise UserError(f"{self.place} has two columns {twice[0]}", "leave one of them out, or rename it")
        self._stored = {name: column for name, (column, _) in zip(names, stored, strict=True)}
        self.types = {name: kind for name, (_, kind) in zip(names, stored, strict=True) if name}

    def is_there(self) -> bool:
        """Whether this process sees it, which may be another one than has looked at its beginning."""
        return bool(self._system.exists(self._path))

    def open(self) -> BinaryIO:
        """The file's bytes. Raises `UserError` if there are none."""
        with reader.explained(self.place):
            return cast(BinaryIO, self._system.open(self._path))

    def slices(self) -> list["Slice"]:
        """The whole file if it is CSV, else runs of its row groups, each of about as many bytes as a unit may have."""
        if not self._is_parquet:
            return [Slice(self, self._system.size(self._path))]
        slices, first, groups, size = [], self._above, list[int](), 0
        with parquet.ParquetFile(self._path, filesystem=self._system) as file:
            for number in range(file.metadata.num_row_groups):
                groups.append(number)
                size += file.metadata.row_group(number).total_byte_size
                if size >= UNIT or number + 1 == file.metadata.num_row_groups:
                    slices.append(Slice(self, size, first, tuple(groups)))
                    first += sum(file.metadata.row_group(group).num_rows for group in groups)
                    groups, size = [], 0
        return slices

    def batches(self, names: Sequence[str], above: int, groups: Sequence[int]) -> Iterator[Batch]:
        """Rows with these columns alone, in batches.

        Args:
            names: Of the columns.
            above: Rows that are numbered before the first one.
            groups: Row groups of Parquet; CSV is read whole.

        Raises:
            UserError: The file is broken from some row on, or has changed since its beginning was looked at.
        """
        number, stored = above, [self._stored[name] for name in names]
        try:
            for rows, ragged in self._rows(stored, groups):
                numbers = _numbers(number + 1, rows.num_rows, ragged)
                number = int(numbers[-1]) if len(numbers) else number
                # Arrow reads ahead, so some may be of the next batch; the last one has no rows, and gets all others.
                passed = [row for row in ragged if row < number or not rows.num_rows]
                ragged[:] = [row for row in ragged if row not in passed]
                named = pa.RecordBatch.from_arrays([rows.column(name) for name in stored], names=[*names])
                if rows.num_rows or passed:
                    yield Batch(self.place, named, numbers, tuple(passed))
        except csv_rows.UnclosedQuote:
            problem = f"{self.place} has a quotation mark that is not closed"
            raise UserError(problem, 'close it, as in "a, b"') from None
        except (pa.ArrowInvalid, OSError, EOFError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            # Arrow's own words may have cells in them.
            kind = "Parquet" if self._is_parquet else "CSV in UTF-8"
            raise UserError(f"{self.place} cannot be read as {kind} below row {number}", AGAIN) from None
        if self._current_state() != self._state:
            raise UserError(f"{self.place} has changed while it was read", "start again when nobody writes to it")

    def _current_state(self) -> str:
        """What changes when the file does, without its content."""
        with reader.explained(self.place):
            self._system.invalidate_cache()
            return str(self._system.ukey(self._path))

    def _columns_of_parquet(self) -> list[tuple[str, pa.DataType]]:
        try:
            schema = parquet.read_schema(self._path, filesystem=self._system)
        except pa.ArrowInvalid as error:
            raise UserError(f"{self.place} is broken Parquet: {file_formats.line(error)}", AGAIN) from None
        columns = [(str(column.name), column.type) for column in schema]
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

    def _rows(self, stored: list[str], groups: Sequence[int]) -> Iterator[tuple[pa.RecordBatch, list[int]]]:
        if not self._is_parquet:
            with self.open() as file, gzip.open(file) if self._is_gzip else nullcontext(file) as unpacked:
                yield from csv_rows.read(cast(BinaryIO, unpacked), stored, self._encoding, self._separator)
            return
        with parquet.ParquetFile(self._path, filesystem=self._system) as file:
            yield from ((rows, []) for rows in file.iter_batches(ROWS, row_groups=[*groups], columns=stored))


@dataclass(frozen=True)
class Slice:
    """A whole CSV file, or some row groups of a Parquet file.

    Args:
        file: That it is of.
        size: In bytes; of row groups before they are packed.
        above: Rows that are numbered before its first one.
        groups: The numbers of the row groups.
    """

    file: InputFile
    size: int
    above: int = 0
    groups: tuple[int, ...] = ()

    def batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """Its rows with these columns alone, in batches; see `InputFile`."""
        return self.file.batches(names, self.above, self.groups)


def find(address: str) -> list[InputFile]:
    """The files that an address names, a folder has in it, or a pattern fits, in the order of their names.

    The address is a path, or one in an object store.

    Raises:
        UserError: There are none, or one cannot be read.
    """
    if "://" not in address:
        disk = fsspec.filesystem("file")
        paths = [*map(str, _on_disk(Path(address)))]
        files = [(disk, str(Path(path).absolute()), path) for path in paths]
    else:
        with reader.explained(address):
            system, path = fsspec.url_to_fs(address)
            paths = system.ls(path, detail=False) if system.isdir(path) else system.glob(path)
            paths = [name for name in paths if system.isfile(name) and _is_data(name)]
        files = [(system, path, reader.shown(system.unstrip_protocol(path))) for path in paths]
    if not files:
        raise UserError(f"there is no file {reader.shown(address)}", FILES)
    return [InputFile(*file) for file in sorted(files, key=lambda file: file[1])]


def units(files: Sequence[InputFile]) -> list[list[Slice]]:
    """The files cut up and put together into units of work of about one size, in their order."""
    found = list[list[Slice]]()
    for piece in (piece for file in files for piece in file.slices()):
        if not found or sum(one.size for one in found[-1]) >= UNIT:
            found.append([])
        found[-1].append(piece)
    return found


def digest(files: Sequence[InputFile]) -> str:
    """The SHA-256 of a file's content; of several, that of the list of theirs."""
    digests = []
    for file in files:
        with file.open() as content:
            digests.append(hashlib.file_digest(content, "sha256").hexdigest())  # type: ignore[arg-type]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _on_disk(path: Path) -> list[Path]:
    if path.is_dir():
        return [child for child in path.iterdir() if child.is_file() and _is_data(child.name)]
    paths = [path] if path.is_file() else [*Path(path.anchor).glob(str(path.relative_to(path.anchor)))]
    return [path for path in paths if path.is_file()]


def _is_data(path: str) -> bool:
    """Whether Spark and others leave files that are data under such a name."""
    return Path(path).name[0] not in "._"


def _numbers(first: int, count: int, ragged: Sequence[int]) -> NDArray[np.int64]:
    """The numbers of so many rows from the first on, where the ragged ones are left out."""
    numbers = np.arange(first, first + count + len(ragged))
    return numbers[~np.isin(numbers, ragged)][:count]
