"""Reads the cells of a table from the address in `--data`, and shows that address without its credentials.

A file, CSV or Parquet, plain or gzip, has a path, a URL or an address in an object store: `loans.csv`,
`https://host/loans.parquet`, `s3://bucket/loans.csv.gz`. A table or a query of a database has the address that
SQLAlchemy gives it: `mysql://host/database#table`, `sqlite:///file.db#select ...`. Nothing here knows what a row is.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import fsspec
import numpy as np
import pandas as pd
import requests
import sqlalchemy
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, NoSuchTableError, OperationalError, SQLAlchemyError

from understudy.errors import UserError
from understudy.reading.file_formats import WANTED, cells_of, line

USER, PASSWORD = "UNDERSTUDY_DATA_USER", "UNDERSTUDY_DATA_PASSWORD"
TIMEOUT = 30
USERINFO = re.compile(r"(?<=://)[^/?#]*@")
# In URLs that were signed, and for drivers that take a password behind the question mark.
SECRET = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token|sig|cred|key|odbc)[^=&#]*=)[^&#]*", re.IGNORECASE)
# An @ elsewhere, or a # that early, may belong to a password that nobody escaped: a part of it would be shown.
WELL_FORMED = re.compile(
    r"[a-z][\w+.-]*://(/[^#]*|([^/?#@]*@)?([^][/?#@:]*|\[[^]/?#@]*\])(:\d+)?/[^#@]*)(#.*)?", re.IGNORECASE | re.DOTALL
)
BEFORE_QUERY = r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*"  # white space and comments
IN_STORES = "correct the address, and give credentials as the store's own programs take them"


def read(address: str) -> pd.DataFrame:
    """The cells of a table, not yet checked: text from a CSV file, from elsewhere whatever is stored there.

    Empty text counts as missing everywhere, since a CSV file cannot tell it from a missing cell.

    Raises:
        UserError: There is nothing at this address, or nothing that can be read.
    """
    rows = _from_database(address) if is_database(address) else _from_file(address)
    return _named(rows.replace("", np.nan), shown(address))


def shown(address: str) -> str:
    """The address as it may be written anywhere: without user, password and signature.

    Raises:
        UserError: Its password cannot be told from the rest.
    """
    if "://" not in address:
        return address
    if not WELL_FORMED.fullmatch(address):
        fix = f"write @ as %40, / as %2F and # as %23, and better give the password as {PASSWORD}"
        raise UserError("the address of the table is malformed", fix)
    return SECRET.sub(r"\1***", USERINFO.sub("", address, count=1))


def name(address: str) -> str:
    """What people call the rows: the file without its endings, the table, or for a query the database."""
    place, _, selection = shown(address).partition("#") if "://" in address else (address, "", "")
    if is_database(address) and not is_query(selection):
        return selection
    path = unquote(urlsplit(place).path) if "://" in place else place
    return re.sub(r"(\.(csv|parquet|db|gz))+$", "", Path(path).name)


def is_database(address: str) -> bool:
    """Whether it is neither a path nor the URL of a file or of an object in a store."""
    scheme, separator, _ = address.partition("://")
    return bool(separator) and scheme.lower() not in fsspec.available_protocols()


def _named(rows: pd.DataFrame, place: str) -> pd.DataFrame:
    """The rows under names without white space around them, and without the empty columns that have no name."""
    names = ["" if pd.isna(name) else str(name).strip() for name in rows.columns]
    unnamed = [number for number, name in enumerate(names) if not name]
    for number in unnamed:
        if any(str(cell).strip() for cell in rows.iloc[:, number].dropna()):
            raise UserError(f"{place}: column {number + 1} has no name", "name it, or leave it out")
    if unnamed:
        print(f"{place}: {len(unnamed)} columns without a name and without content are left out")
    return rows.set_axis(names, axis="columns").iloc[:, [number for number, name in enumerate(names) if name]]


def _from_file(address: str) -> pd.DataFrame:
    content = _content(address)
    if not content:
        raise UserError(f"{shown(address)} is empty", WANTED)
    return cells_of(content, shown(address))


def _content(address: str) -> bytes:
    scheme = address.partition("://")[0].lower() if "://" in address else None
    if scheme in ("http", "https"):
        return _fetched(address)
    with explained(address):
        if scheme in (None, "file"):
            return Path(url2pathname(urlsplit(address).path) if scheme else address).read_bytes()
        with fsspec.open(address) as file:
            return bytes(file.read())


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Say in two lines what goes wrong inside, when a file or an object in a store is read.

    Raises:
        UserError: Something goes wrong there.
    """
    place, fix = shown(address), IN_STORES if "://" in address else WANTED
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no file {place}", WANTED) from None
    except IsADirectoryError:
        raise UserError(f"{place} is a folder", WANTED) from None
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or error.name
        raise UserError(f"{place} needs a package that is not installed", f"pip install {package}") from None
    except Exception as error:  # each store has errors of its own, and they may have the whole address in them
        reason = line(error) if place == address else type(error).__name__
        raise UserError(f"{place} cannot be read: {reason}", fix) from None


def _fetched(address: str) -> bytes:
    try:
        answer = requests.get(address, timeout=TIMEOUT)
        content = answer.content
    except (requests.RequestException, UnicodeError):  # their messages have the whole address in them
        raise UserError(f"nothing can be fetched from {shown(address)}", "correct the address, or try again") from None
    if answer.status_code != requests.codes.ok:
        raise UserError(f"{shown(address)} answers {answer.status_code} {answer.reason}", "correct the address")
    return content


def _from_database(address: str) -> pd.DataFrame:
    with selected(address) as result:
        return pd.DataFrame(list(map(tuple, result)), columns=list(result.keys()))


@contextmanager
def selected(address: str) -> Iterator[sqlalchemy.CursorResult[Any]]:
    """The rows of a table or a query of a database, which come as they are asked for; cells are the driver's.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    place, (where, _, selection) = shown(address), address.partition("#")
    if not selection:
        raise UserError(f"{place} names no table", "end it with #table, or with #select ... in quotes")
    with database(where, place, "read") as engine, engine.connect() as connection:
        query = selection if is_query(selection) else _table(connection, selection)
        if bracketed := re.match(rf"{BEFORE_QUERY}(\(.*\))[\s;]*$", query, re.DOTALL):
            query = f"select * from {bracketed[1]} as bracketed"  # noqa: S608
        # Or else drivers take a % in the query for a place to put a value. The cells are as the driver gives them:
        # SQLAlchemy and pandas would pass large whole numbers through float.
        options = {"no_parameters": True, "stream_results": True}
        yield connection.execution_options(**options).exec_driver_sql(query)


@contextmanager
def database(where: str, place: str, verb: str) -> Iterator[sqlalchemy.Engine]:
    """A database, and in two lines what goes wrong with it inside.

    Args:
        where: Its address, without a table.
        place: What people call it.
        verb: What is done with it, "read" or "written".

    Raises:
        UserError: There is none, or something goes wrong.
    """
    engine = _engine(where, place, verb)
    try:
        yield engine
    except NoSuchTableError:
        raise UserError(f"{place}: there is no such table", "end the address with the name of one") from None
    except SQLAlchemyError as error:
        reason = line(getattr(error, "orig", error)).replace(engine.url.password or "\0", "***")
        of_file, of_server = "or give the file itself", f"and give user and password as {USER} and {PASSWORD}"
        fix = f"correct the address, {of_file if engine.name == 'sqlite' else of_server}"
        raise UserError(f"{place} cannot be {verb}: {reason}", fix) from None
    finally:
        engine.dispose()


def _engine(where: str, place: str, verb: str) -> sqlalchemy.Engine:
    try:
        url = sqlalchemy.make_url(where)
        if url.drivername.startswith("sqlite"):
            if verb == "read" and not Path(url.database or "").is_file():  # SQLite would make it
                raise UserError(f"there is no file {url.database}", WANTED)
            return sqlalchemy.create_engine(url)
        user, password = url.username or os.environ.get(USER), url.password or os.environ.get(PASSWORD)
        return sqlalchemy.create_engine(url.set(username=user, password=password))
    except NoSuchModuleError:
        raise UserError(f"nothing here reads or writes {place}", WANTED) from None
    except (ArgumentError, ValueError):
        raise UserError(f"{place} is not the address of a database", WANTED) from None
    except ModuleNotFoundError as error:
        package = "mysqlclient" if error.name == "MySQLdb" else error.name
        raise UserError(f"{place} needs a driver that is not installed", f"pip install {package}") from None


def _table(connection: sqlalchemy.Connection, selection: str) -> str:
    """The query for a table, which may have dots in its name or stand behind its schema and a dot."""
    inspector = sqlalchemy.inspect(connection)
    names: list[tuple[str | None, str]] = [(None, selection)]
    names += [(selection[: dot.start()], selection[dot.end() :]) for dot in re.finditer(r"\.", selection)]
    for schema, table in names:
        with suppress(OperationalError) if schema else nullcontext():  # of SQLite, where there is no such schema
            if inspector.has_table(table, schema=schema):
                source = sqlalchemy.select(sqlalchemy.text("*")).select_from(sqlalchemy.table(table, schema=schema))
                return str(source.compile(dialect=connection.dialect))
    raise NoSuchTableError(selection)


def is_query(selection: str) -> bool:
    """Whether what stands behind the # of an address is a query, and no table's name."""
    return re.match(rf"{BEFORE_QUERY}[\s(]*(select|with)(?=[\s(*'\"`\[])\s*\S", selection, re.IGNORECASE) is not None
