"""Where scores go when all of them are there: a file, a folder of Parquet files, or a table of a database."""

import csv
import hashlib
import json
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy
from pyarrow import parquet
from sqlalchemy.dialects import mysql

from understudy.batch import parts
from understudy.batch.parts import COLUMNS, SCORES, PartsFolder
from understudy.errors import UserError
from understudy.reading import reader

KINDS = (".parquet", ".csv", "")  # the last one is a folder
REJECTED = "rejected"
WHOLE = "whole"  # the part in a database's list of them that says that all are there
AT_ONCE = 10_000  # rows that a database gets in one call
# The times to the millisecond, which MySQL else cuts to seconds.
TIME = sqlalchemy.DateTime().with_variant(mysql.DATETIME(fsp=3), "mysql", "mariadb")


class Output(ABC):
    """A place for scores.

    Args:
        place: What people call it.
        folder: Where its parts are before all are there.
        kind: Of the files with the parts.
        rejected: What people call the place of the rows that are rejected.
    """

    def __init__(self, place: str, folder: Path, kind: str, rejected: str) -> None:
        self.place, self.folder, self.kind, self.rejected = place, folder, kind, rejected

    @abstractmethod
    def check(self, held: PartsFolder) -> None:
        """Refuse a place that already has something else, before anything is read. Raises `UserError`."""

    @abstractmethod
    def check_columns(self, schema: pa.Schema, new: Mapping[str, Any] | None) -> None:
        """Refuse columns that cannot be written there, and a new scoring that is there already. Raises `UserError`."""

    @abstractmethod
    def publish(self, held: PartsFolder, schema: pa.Schema, asked: Mapping[str, Any]) -> None:
        """Put the scores of all parts there, and the rows that were rejected; doing it again changes nothing."""


class FileOutput(Output):
    """A Parquet or CSV file, or a folder of Parquet files.

    Args:
        path: Of the file or folder.

    Raises:
        UserError: It has another ending, or there is no folder for it.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in KINDS:
            raise UserError(f"nothing here writes {path.suffix} files", "name a .parquet or .csv file, or a folder")
        if not path.absolute().parent.is_dir():
            raise UserError(f"there is no folder {path.parent}", f"mkdir -p {path.parent}")
        self.path, self._rejected = path, path.with_name(f"{path.name}.{REJECTED}")
        folder = path.absolute().with_name(f".{path.name}.scoring")
        super().__init__(str(path), folder, path.suffix or ".parquet", str(self._rejected))

    def check(self, held: PartsFolder) -> None:
        """See `Output`."""
        allowed = {self._rejected} if held.begun() else {*()}
        if self._renaming(held).exists():
            allowed.add(self.path)
        for path in (self.path, self._rejected):
            if path.exists() and path not in allowed:
                raise UserError(f"{path} is there already", "move it away, or name another output")

    def check_columns(self, schema: pa.Schema, new: Mapping[str, Any] | None) -> None:
        """See `Output`."""
        _check_names(schema.names)

    def publish(self, held: PartsFolder, schema: pa.Schema, asked: Mapping[str, Any]) -> None:
        """See `Output`."""
        if self.path.exists():  # a process that was killed has done it
            return
        rejected = [held.rejected(name) for name in held.names() if held.rejected(name).exists()]
        if rejected:
            _join(rejected, COLUMNS, held.folder / REJECTED / "all").replace(self._rejected)
        whole = self._whole(held, schema)
        self._renaming(held).touch()
        whole.replace(self.path)

    def _renaming(self, held: PartsFolder) -> Path:
        """The file that is there from when on only the renaming is missing."""
        return held.folder / "renaming"

    def _whole(self, held: PartsFolder, schema: pa.Schema) -> Path:
        if not self.path.suffix:
            return held.folder / SCORES
        scores, whole = [held.scores(name) for name in held.names()], held.folder / f"whole{self.kind}"
        if self.kind == ".csv":
            return _join(scores, schema.names, whole)
        if len(scores) == 1:
            return scores[0]
        with parquet.ParquetWriter(whole, schema, use_dictionary=parts.repeated(schema)) as writer:
            for file in map(parquet.ParquetFile, scores):
                with file:
                    for number in range(file.num_row_groups):
                        writer.write_table(file.read_row_group(number))
        return whole


class TableOutput(Output):
    """A table of a database, made or appended to; two more beside it have its parts and the rows that are rejected.

    Each part is written in one transaction together with a row that says so.

    Args:
        address: Of the table, as in mysql://host/database#table.

    Raises:
        UserError: It names no table.
    """

    def __init__(self, address: str) -> None:
        self._where, _, name = address.partition("#")
        place = reader.shown(address)
        if not name or reader.is_query(name):
            raise UserError(f"{place} names no table", "end it with #table")
        folder = Path(f".{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.scoring").absolute()
        super().__init__(place, folder, ".parquet", f"{place}_{REJECTED}")
        self._name = name

    def check(self, held: PartsFolder) -> None:
        """See `Output`."""

    def check_columns(self, schema: pa.Schema, new: Mapping[str, Any] | None) -> None:
        """See `Output`."""
        _check_names([name.casefold() for name in schema.names])  # databases do not tell them apart by case
        scores, known, _ = self._tables(schema)
        with reader.database(self._where, self.place, "written") as engine:
            if engine.name == "sqlite" and not Path(engine.url.database or "").exists():
                return  # to look into it would make it
            inspector = sqlalchemy.inspect(engine)
            if inspector.has_table(scores.name):
                present = {column["name"] for column in inspector.get_columns(scores.name)}
                if lacking := [name for name in schema.names if name not in present]:
                    problem = f"{self.place} has no column {', '.join(lacking)}"
                    raise UserError(problem, "add it, or name another table, which is made")
            if new and inspector.has_table(known.name):
                with engine.connect() as connection:
                    if connection.execute(_chosen(known, _name(new), WHOLE)).first():
                        problem = f"{self.place} has the scores of this input by this version already"
                        raise UserError(problem, "name another table to have them twice")

    def publish(self, held: PartsFolder, schema: pa.Schema, asked: Mapping[str, Any]) -> None:
        """See `Output`."""
        scores, known, rejected = self._tables(schema)
        with reader.database(self._where, self.place, "written") as engine:
            scores.metadata.create_all(engine)
            for name in [*held.names(), WHOLE]:
                with engine.begin() as connection:
                    if connection.execute(_chosen(known, _name(asked), name)).first():
                        continue
                    connection.execute(sqlalchemy.insert(known), {"job": _name(asked), "part": name})
                    if name == WHOLE:
                        continue
                    with parquet.ParquetFile(held.scores(name)) as file:
                        for batch in file.iter_batches(AT_ONCE):
                            connection.execute(sqlalchemy.insert(scores), _rows(batch))
                    if held.rejected(name).exists():
                        with held.rejected(name).open(newline="") as lines:
                            values = [{"job": _name(asked), **row} for row in csv.DictReader(lines, COLUMNS)]
                        connection.execute(sqlalchemy.insert(rejected), values)

    def _tables(self, schema: pa.Schema) -> tuple[sqlalchemy.Table, sqlalchemy.Table, sqlalchemy.Table]:
        """For the scores, for the parts that are there, and for the rows that are rejected."""
        metadata, text = sqlalchemy.MetaData(), sqlalchemy.Text()
        scores = [sqlalchemy.Column(field.name, _type(field.type)) for field in schema]
        key = [sqlalchemy.Column(name, sqlalchemy.String(64), primary_key=True) for name in ("job", "part")]
        kinds = {"job": sqlalchemy.String(64)} | dict.fromkeys(COLUMNS, text) | {"row": sqlalchemy.BigInteger()}
        return (
            sqlalchemy.Table(self._name, metadata, *scores),
            sqlalchemy.Table(f"{self._name}_parts", metadata, *key),
            sqlalchemy.Table(
                f"{self._name}_{REJECTED}", metadata, *(sqlalchemy.Column(*pair) for pair in kinds.items())
            ),
        )


def named(address: str) -> Output:
    """The output that has an address: the path of a file or folder, or a table of a database.

    Raises:
        UserError: Scores cannot be written there.
    """
    if reader.is_database(address):
        return TableOutput(address)
    if "://" in address:
        place = reader.shown(address)
        raise UserError(f"nothing here writes to {place}", "name a file, a folder, or a database's table")
    return FileOutput(Path(address))


def _join(files: Sequence[Path], header: Sequence[str], target: Path) -> Path:
    """Put CSV files without a header one after another below one; returns the target."""
    with target.open("w", newline="") as first:
        csv.writer(first, lineterminator="\n").writerow(header)
    with target.open("ab") as joined:
        for path in files:
            with path.open("rb") as file:
                shutil.copyfileobj(file, joined)
    return target


def _check_names(names: Sequence[str]) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"two columns of the output would be called {twice[0]}", "rename it in the input, or leave --keep"
        )


def _name(asked: Mapping[str, Any]) -> str:
    """What a scoring is called in a database: the digest of all that it depends on."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _chosen(known: sqlalchemy.Table, job: str, name: str) -> sqlalchemy.Select[Any]:
    return sqlalchemy.select(known.c.part).where(known.c.job == job, known.c.part == name)


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows for a database, which gets times in UTC, without a zone, and as text what it has no type for."""
    table = pa.Table.from_batches([batch])
    for number, field in enumerate(batch.schema):
        kind = field.type
        if pa.types.is_timestamp(kind):
            table = table.set_column(number, field.name, table.column(number).cast(pa.timestamp(kind.unit)))
        elif isinstance(_type(kind), sqlalchemy.Text):
            table = table.set_column(number, field.name, table.column(number).cast(pa.string()))
    return list(table.to_pylist())


def _type(kind: pa.DataType) -> sqlalchemy.types.TypeEngine[Any]:
    """The type of a database for one of Arrow."""
    known: list[tuple[bool, sqlalchemy.types.TypeEngine[Any]]] = [
        (pa.types.is_boolean(kind), sqlalchemy.Boolean()),
        (pa.types.is_integer(kind), sqlalchemy.BigInteger()),
        (pa.types.is_floating(kind), sqlalchemy.Double()),
        (pa.types.is_date(kind), sqlalchemy.Date()),
        (pa.types.is_timestamp(kind), TIME),
    ]
    return next((of for fits, of in known if fits), sqlalchemy.Text())
