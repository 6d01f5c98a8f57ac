"""The rows of a database's table or query, fetched into Parquet files before they are scored.

A query may give other rows, or the same in another order, when it is asked again; a scoring that goes on has to see
the rows that it began with.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
from pyarrow import parquet

from understudy.batch import inputs
from understudy.batch.inputs import InputFile
from understudy.reading import reader


def fetch(address: str, folder: Path) -> list[InputFile]:
    """The rows as files, which are left in the folder; those that an earlier process has fetched are not asked again.

    Args:
        address: Of the table or query.
        folder: Where the files are put.

    Raises:
        UserError: It cannot be read.
    """
    complete = folder / f"rows-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
    if not complete.is_dir():
        fetching = complete.with_suffix(".new")
        shutil.rmtree(fetching, ignore_errors=True)
        fetching.mkdir()
        _write(address, fetching)
        fetching.rename(complete)
    files, above = [], 0
    for path in sorted(complete.iterdir()):
        files.append(InputFile(fsspec.filesystem("file"), str(path), reader.shown(address), above))
        above += parquet.read_metadata(path).num_rows
    return files


def _write(address: str, folder: Path) -> None:
    """Write the rows into files, of which another one begins wherever the types of the cells change."""
    writer = None
    try:
        with reader.selected(address) as result:
            names = [*map(str, result.keys())]
            for number, rows in enumerate(result.partitions(inputs.ROWS)):
                batch = pa.RecordBatch.from_arrays([_array(cells) for cells in zip(*rows, strict=True)], names=names)
                if writer is None or batch.schema != writer.schema:
                    if writer:
                        writer.close()
                    writer = parquet.ParquetWriter(folder / f"{number:05}.parquet", batch.schema)
                writer.write_batch(batch)
            if writer is None:
                empty = pa.table({name: pa.nulls(0) for name in names})
                parquet.write_table(empty, folder / "none.parquet")
    finally:
        if writer:
            writer.close()


def _array(cells: Sequence[Any]) -> pa.Array:
    """The cells, of which empty text is missing; those of several kinds, as SQLite may have them, become text."""
    present = [None if cell == "" else cell for cell in cells]
    try:
        return pa.array(present)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if cell is None else str(cell) for cell in present], pa.string())
