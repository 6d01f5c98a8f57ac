"""Reads the cells of a file by what is in it: CSV, Parquet or a workbook; and says of anything else what it is.

Cells are not checked. The rows of CSV and of a workbook carry the number of their line as index.
"""

import gzip
import io
import re
import shlex
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from understudy.errors import UserError

WANTED = (
    "name a CSV or Parquet file, its URL, or a database as in mysql://host/database#table or sqlite:///file.db#table"
)
AGAIN = "make or fetch the file again"
LINE = "line"  # the index's name
GZIP, PARQUET, ZIP = b"\x1f\x8b", b"PAR1", b"PK\x03\x04"
MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
TO_CSV = "import pandas, sys; pandas.read_json(sys.stdin.buffer, dtype=False{}).to_csv(sys.stdout, index=False)"
# How a file of another kind begins, what it is, and the command that makes its standard input one that is read.
OTHERS = (
    (rb"SQLite format 3\0", "a SQLite database", None),
    (rb"\xd0\xcf\x11\xe0", "an old Excel workbook", None),
    (rb"BZh", "packed by bzip2", "bzip2 -dc"),
    (rb"\xfd7zXZ", "packed by xz", "xz -dc"),
    (rb"\x28\xb5\x2f\xfd", "packed by zstd", "zstd -dc"),
    (rb"\s*\[", "JSON", f'python -c "{TO_CSV.format("")}"'),
    (rb"\s*\{", "JSON", f'python -c "{TO_CSV.format(", lines=True")}"'),
    (rb"\s*<", "HTML or XML", None),
    (rb"[^\0]\0", "UTF-16 without a byte-order mark", "iconv -f utf-16le -t utf-8"),
    (rb"\0", "UTF-16 without a byte-order mark", "iconv -f utf-16be -t utf-8"),
)
SEPARATORS = (b",", b";", b"\t")
DECIMAL = r"[-+]?\d*,\d+"


def cells_of(content: bytes, place: str) -> pd.DataFrame:
    """The cells of a file that is not empty: text from CSV, else whatever is stored.

    Args:
        content: Of the file.
        place: Its address as people may see it.

    Raises:
        UserError: It is broken, or of another kind.
    """
    try:
        # The content tells what it is: a URL need not end like a file, and a server may have unpacked it.
        content = gzip.decompress(content) if content.startswith(GZIP) else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{place} is broken gzip: {line(error)}", AGAIN) from None
    is_parquet, is_zip = content.startswith(PARQUET), content.startswith(ZIP)
    if not is_parquet and not is_zip:
        return _csv(_utf_8(content, place), place)
    try:
        return _parquet(content) if is_parquet else _workbook(content, place)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:  # pyarrow's errors are among these
        raise UserError(f"{place} is broken {'Parquet' if is_parquet else 'zip'}: {line(error)}", AGAIN) from None


def line(error: object) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())


def command(filtered: str, place: str) -> str:
    """A command to paste that sends a file through another one."""
    name = place if "://" not in place else Path(place.partition("?")[0]).name
    source, target = shlex.quote(name), shlex.quote(f"{Path(name).name.split('.')[0] or 'table'}.new.csv")
    return f"gzip -dc {source} | {filtered} > {target}" if name.endswith(".gz") else f"{filtered} < {source} > {target}"


def _parquet(content: bytes) -> pd.DataFrame:
    rows = pd.read_parquet(io.BytesIO(content))
    return rows.reset_index(drop=rows.index.name is None)  # pandas may have written a column as its index


def _workbook(content: bytes, place: str) -> pd.DataFrame:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if "xl/workbook.xml" not in archive.namelist():
            raise UserError(f"{place} is a zip archive", f"python -m zipfile -e {shlex.quote(place)} .")
    try:
        with pd.ExcelFile(io.BytesIO(content)) as book:
            if len(book.sheet_names) > 1:
                print(f"{place}: the first of {len(book.sheet_names)} sheets is read")
            cells = pd.read_excel(book, header=None, dtype=object, keep_default_na=False, na_values=[""])
    except ImportError:
        raise UserError(
            f"{place} is an Excel workbook, and openpyxl is not installed", "pip install openpyxl"
        ) from None
    return _below_header(cells.set_axis(cells.index + 1))


def check_kind(content: bytes, place: str) -> None:
    """Refuse what begins as a file of another kind than CSV does. Raises `UserError`."""
    for beginning, kind, filter_ in OTHERS:
        if re.match(beginning, content):
            raise UserError(f"{place} is {kind}", command(filter_, place) if filter_ else WANTED)


def _utf_8(content: bytes, place: str) -> bytes:
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            content = content.decode(encoding).encode()
    check_kind(content, place)
    try:
        content.decode()
    except UnicodeDecodeError as error:
        problem = f"{place} is not in UTF-8 from byte {error.start + 1} on, and perhaps in Windows-1252"
        raise UserError(problem, command("iconv -f windows-1252 -t utf-8", place)) from None
    return content


def _csv(content: bytes, place: str) -> pd.DataFrame:
    if not content.strip():
        raise UserError(f"{place} is empty", WANTED)
    start = re.match(rb"(?:[^\S\n]*\n)*", content).end()  # type: ignore[union-attr]
    above, content = content.count(b"\n", 0, start), content[start:]
    delimiter = separator(content, place, above + 1)
    try:
        # Without a header of its own, pandas leaves a repeated column name as it is.
        cells = pd.read_csv(
            io.BytesIO(content),
            sep=delimiter,
            header=None,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            skip_blank_lines=False,
        )
    except pd.errors.ParserError as error:
        problem = f"{place} is not a CSV file: {line(error)}"
        raise UserError(problem, 'put a cell with a separator in it in quotes, as in "a, b"') from None
    if delimiter != "," and cells.apply(lambda column: column.str.fullmatch(DECIMAL).any()).any():
        to_points = command(f"sed 'y/,{delimiter}/.,/'", place)
        raise UserError(f"{place} has commas in numbers, and {delimiter!r} between cells", to_points)
    lines = np.arange(len(cells)) + above + 1
    if content.count(b"\n") > len(cells):  # some are in cells
        inside = cells.apply(lambda column: column.str.count("\n")).sum(axis=1)
        lines = lines + inside.cumsum().shift(fill_value=0).astype(int)
    return _below_header(cells.set_axis(lines))


def separator(content: bytes, place: str, number: int) -> str:
    """What is between the cells of the header, with which the content begins, and which is line `number` of the file.

    Raises:
        UserError: The line below has more cells.
    """
    stream = io.BytesIO(content)
    header, below = (re.sub(rb'"[^"]*"', b"", stream.readline()) for _ in range(2))
    chosen = max(SEPARATORS, key=header.count)
    cells = header.count(chosen) or -1
    more = max(below.count(other) for other in SEPARATORS if other == chosen or cells < 0)
    if b'"' not in below and more > max(cells, 0):
        problem = (
            f"line {number + 1} of {place} has more cells than line {number}, as it would below a title or a comment"
        )
        raise UserError(problem, f"correct it, or {command(f'sed 1,{number}d', place)}")
    return chosen.decode()


def _below_header(cells: pd.DataFrame) -> pd.DataFrame:
    """The rows below the first one, which names the columns; those without content are left out."""
    only_first = cells.iloc[:, 0].where(cells.iloc[:, 1:].isna().all(axis="columns"), "content").fillna("")
    has_content = only_first.astype(str).str.strip() != ""
    header, rows = cells[has_content].iloc[0], cells[has_content][1:]
    return rows.set_axis(header.tolist(), axis="columns").rename_axis(index=LINE)
