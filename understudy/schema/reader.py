"""Reads the cells of a table from the address in `--data`, and shows that address without its credentials.

A file, CSV or Parquet, plain or gzip, has a path, a URL or an address in an object store: `loans.csv`,
`https://host/loans.parquet`, `s3://bucket/loans.csv.gz`. A table or a query of a database has the address that
SQLAlchemy gives it: `mysql://host/database#table`, `sqlite:///file.db#select ...`. Nothing here knows what a row is.
"""

import gzip
import io
import os
import re
import zlib
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import fsspec
import numpy as np
import pandas as pd
import requests
import sqlalchemy
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from understudy.errors import UserError

USER, PASSWORD = "UNDERSTUDY_DATA_USER", "UNDERSTUDY_DATA_PASSWORD"
TIMEOUT = 30
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
USERINFO = re.compile(r"(?<=://)[^/?#]*@")
# In URLs that were signed, and for drivers that take a password behind the question mark.
SECRET = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token|sig|cred|key|odbc)[^=&#]*=)[^&#]*", re.IGNORECASE)
# An @ elsewhere, or a # that early, may belong to a password that nobody escaped: a part of it would be shown.
WELL_FORMED = re.compile(
    r"[a-z][\w+.-]*://(/[^#]*|([^/?#@]*@)?([^][/?#@:]*|\[[^]/?#@]*\])(:\d+)?/[^#@]*)(#.*)?", re.IGNORECASE | re.DOTALL
)
WANTED = "give --data a CSV or Parquet file, its URL, or a database as in mysql://host/database#table"
IN_STORES = "correct --data, and give credentials as the store's own programs take them"


def read(address: str) -> pd.DataFrame:
    """The cells of a table, not yet checked: text from a CSV file, from elsewhere whatever is stored there.

    Empty text counts as missing everywhere, since a CSV file cannot tell it from a missing cell.

    Raises:
        UserError: There is nothing at this address, or nothing that can be read.
    """
    rows = _from_database(address) if is_database(address) else _from_file(address)
    return rows.replace("", np.nan)


def shown(address: str) -> str:
    """The address as it may be written anywhere: without user, password and signature.

    Raises:
        UserError: Its password cannot be told from the rest.
    """
    if "://" not in address:
        return address
    if not WELL_FORMED.fullmatch(address):
        fix = f"write @ as %40, / as %2F and # as %23, and better give the password as {PASSWORD}"
        raise UserError("the address of --data is malformed", fix)
    return SECRET.sub(r"\1***", USERINFO.sub("", address, count=1))


def name(address: str) -> str:
    """What people call the rows: the file without its endings, the table, or for a query the database."""
    place, _, selection = shown(address).partition("#")
    if is_database(address) and not _is_query(selection):
        return selection
    path = unquote(urlsplit(place).path) if "://" in place else place
    return re.sub(r"(\.(csv|parquet|db|gz))+$", "", Path(path).name)


def is_database(address: str) -> bool:
    """Whether it is neither a path nor the URL of a file or of an object in a store."""
    scheme, separator, _ = address.partition("://")
    return bool(separator) and scheme.lower() not in fsspec.available_protocols()


def _from_file(address: str) -> pd.DataFrame:
    place = shown(address)
    content = _content(address)
    if not content:
        raise UserError(f"{place} is empty", WANTED)
    try:
        # The content tells what it is: a URL need not end like a file, and a server may have unpacked it.
        content = gzip.decompress(content) if content.startswith(GZIP) else content
        return _parquet(content) if content.startswith(PARQUET) else _csv(content)
    except pd.errors.EmptyDataError:
        raise UserError(f"{place} is empty", WANTED) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{place} is broken gzip: {_line(error)}", "make or fetch the file again") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{place} is not a CSV file in UTF-8: {_line(error)}", "correct the file") from None
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are among these
        raise UserError(f"{place} is broken Parquet: {_line(error)}", "make or fetch the file again") from None


def _content(address: str) -> bytes:
    scheme, place = address.partition("://")[0].lower() if "://" in address else None, shown(address)
    if scheme in ("http", "https"):
        return _fetched(address)
    try:
        if scheme in (None, "file"):
            return Path(url2pathname(urlsplit(address).path) if scheme else address).read_bytes()
        with fsspec.open(address) as file:
            return bytes(file.read())
    except FileNotFoundError:
        raise UserError(f"there is no file {place}", WANTED) from None
    except IsADirectoryError:
        raise UserError(f"{place} is a folder", WANTED) from None
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or error.name
        raise UserError(f"{place} needs a package that is not installed", f"pip install {package}") from None
    except Exception as error:  # each store has errors of its own, and they may have the whole address in them
        reason = _line(error) if place == address else type(error).__name__
        fix = IN_STORES if scheme else WANTED
        raise UserError(f"{place} cannot be read: {reason}", fix) from None


def _fetched(address: str) -> bytes:
    try:
        answer = requests.get(address, timeout=TIMEOUT)
        content = answer.content
    except (requests.RequestException, UnicodeError):  # their messages have the whole address in them
        raise UserError(f"nothing can be fetched from {shown(address)}", "correct --data, or try again") from None
    if answer.status_code != requests.codes.ok:
        raise UserError(f"{shown(address)} answers {answer.status_code} {answer.reason}", "correct --data")
    return content


def _csv(content: bytes) -> pd.DataFrame:
    # Without a header of its own, pandas leaves a repeated column name as it is.
    cells = pd.read_csv(io.BytesIO(content), header=None, dtype=str, keep_default_na=False, na_values=[""])
    return cells[1:].set_axis(cells.iloc[0].tolist(), axis="columns").reset_index(drop=True)


def _parquet(content: bytes) -> pd.DataFrame:
    rows = pd.read_parquet(io.BytesIO(content))
    return rows.reset_index(drop=rows.index.name is None)  # pandas may have written a column as its index


def _from_database(address: str) -> pd.DataFrame:
    place, (where, _, selection) = shown(address), address.partition("#")
    if not selection:
        raise UserError(f"{place} names no table", "end it with #table, or with #select ... in quotes")
    engine = _engine(where, place)
    try:
        return _selected(engine, selection)
    except (SQLAlchemyError, pd.errors.DatabaseError) as error:
        cause = error.__cause__ if isinstance(error, pd.errors.DatabaseError) else error
        reason = _line(getattr(cause, "orig", cause)).replace(engine.url.password or "\0", "***")
        fix = f"correct --data, and give user and password as {USER} and {PASSWORD}"
        raise UserError(f"{place} cannot be read: {reason}", fix) from None
    except ValueError:
        raise UserError(f"{place}: there is no such table", "end the address with the name of one") from None
    finally:
        engine.dispose()


def _engine(where: str, place: str) -> sqlalchemy.Engine:
    try:
        url = sqlalchemy.make_url(where)
        if url.drivername.startswith("sqlite"):
            if not Path(url.database or "").is_file():  # SQLite would make it
                raise UserError(f"there is no file {url.database}", WANTED)
            return sqlalchemy.create_engine(url)
        user, password = url.username or os.environ.get(USER), url.password or os.environ.get(PASSWORD)
        return sqlalchemy.create_engine(url.set(username=user, password=password))
    except NoSuchModuleError:
        raise UserError(f"nothing here reads {place}", WANTED) from None
    except (ArgumentError, ValueError):
        raise UserError(f"{place} is not the address of a database", WANTED) from None
    except ModuleNotFoundError as error:
        package = "mysqlclient" if error.name == "MySQLdb" else error.name
        raise UserError(f"{place} needs a driver that is not installed", f"pip install {package}") from None


def _selected(engine: sqlalchemy.Engine, selection: str) -> pd.DataFrame:
    with engine.connect() as connection:
        if _is_query(selection):
            # Or else drivers take a % in the query for a place to put a value.
            return pd.read_sql_query(selection, connection.execution_options(no_parameters=True))
        schema, _, table = selection.rpartition(".")
        return pd.read_sql_table(table, connection, schema=schema or None)


def _is_query(selection: str) -> bool:
    return re.match(r"\s*(select|with)\s", selection, re.IGNORECASE) is not None


def _line(error: object) -> str:
    return " ".join(str(error).split())
