"""The rows of a CSV file, in batches, with those left out that have more or fewer cells than the header."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import csv

BLOCK = 4_000_000  # bytes that become a batch, about 60,000 rows; 8 MB take 200 MB more memory in all


class UnclosedQuote(Exception):  # noqa: N818
    """The rest of a file is in one cell."""


class Counted(io.RawIOBase):
    """A file, and how many quotation marks and line ends have been read from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.quotes, self.lines = file, 0, 0

    def readable(self) -> bool:
        """That it is, which Arrow asks."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most so many."""
        content = self._file.read(size)
        self.quotes += content.count(b'"')
        self.lines += content.count(b"\n")
        return content

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()


def read(
    opened: BinaryIO, names: Sequence[str], encoding: str, separator: str
) -> Iterator[tuple[pa.RecordBatch, list[int]]]:
    """The rows of a file, which is closed at the end, with these columns alone, as text; the last batch has no rows.

    With each comes a list of the numbers of rows that were left out, from which the caller takes them; rows of later
    batches may be among them. The first row below the header is 1.

    Raises:
        pa.ArrowInvalid: It is no CSV, or not in this encoding.
        UnclosedQuote: A quotation mark is not closed, so that the rest of the file is in one cell.
    """
    ragged: list[int] = []
    rows = 0

    def leave_out(row: Any) -> str:
        nonlocal rows
        rows += 1
        ragged.append(row.number - 1)
        return "skip"

    with Counted(opened) as file:
        batches = csv.open_csv(
            file,
            # With threads Arrow does not say which row has another length.
            csv.ReadOptions(use_threads=False, block_size=BLOCK, encoding=encoding),
            csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=leave_out),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                include_columns=names,
            ),
        )
        for batch in batches:
            rows += batch.num_rows
            yield batch, ragged
        if file.quotes % 2 and file.lines > rows + 1:
            raise UnclosedQuote
        yield pa.RecordBatch.from_pylist([], batches.schema), ragged
