"""What a request asks for: the checks of its head; and its body as rows, from JSON in MLflow's forms, or from CSV.

Whatever is wrong is said without a word of what was sent.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple, NoReturn

import msgspec
from granian.rsgi import Scope

from understudy.schema.faults import Fault, repeated
from understudy.scoring.forms import RowsRefused
from understudy.scoring.scorer import Scorer

PATH = "/invocations"
BODY = 8_000_000  # bytes of a request's body
HOST = re.compile(r"(?:(?:[\w.~!$&'()*+,;=-]++|%[\da-fA-F]{2})+|\[[\da-fA-F:.]+\])(?::\d*)?")  # RFC 3986, 3.2.2
REQUEST_ID = re.compile(r"[!-~]{1,128}")
MARK = b"\xef\xbb\xbf"  # some programs begin UTF-8 with it
TYPES = "application/json or text/csv, in UTF-8"
CODES = {400: "INVALID_PARAMETER_VALUE", 404: "RESOURCE_DOES_NOT_EXIST", 500: "INTERNAL_ERROR"}  # MLflow's words
FORMS = "dataframe_split, dataframe_records, instances or inputs"


class HTTPError(Exception):
    """A request that is answered with a status of 400 or above and one sentence.

    Args:
        status: Of the answer.
        message: For people.
        headers: More of the answer's headers, with _ for -.
    """

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = [(name.replace("_", "-"), value) for name, value in headers.items()]

    def body(self) -> dict[str, str]:
        """The answer's body."""
        return {"error_code": CODES.get(self.status, HTTPStatus(self.status).name), "message": self.message}


def check_head(scope: Scope) -> str:
    """The Content-Type of a request for answers, empty for none.

    Raises:
        HTTPError: Something in the request's head says that there is no answer.
    """
    check_host(scope)
    named: Any = scope.headers  # its types lack get_all
    if scope.method != "POST":
        raise HTTPError(405, f"{PATH} takes POST", allow="POST")
    if "upgrade" in named:
        raise HTTPError(400, "there is HTTP/1.1 and no upgrade from it")
    if named.get("transfer-encoding", "chunked").lower() != "chunked" or len(named.get_all("transfer-encoding")) > 1:
        raise HTTPError(501, "the Transfer-Encoding is not known; allowed: chunked")
    if ", ".join(named.get_all("content-encoding")).lower() not in ("", "identity"):
        raise HTTPError(415, "a body may not be compressed", accept_encoding="identity")
    check_size(int(named.get("content-length", 0)))
    return ", ".join(named.get_all("content-type"))


def check_size(size: int) -> None:
    """Refuse a body of so many bytes if they are too many. Raises `HTTPError`."""
    if size > BODY:
        raise HTTPError(413, f"a body may have {BODY} bytes")


def check_host(scope: Scope) -> None:
    """Refuse a request that does not name one server, as HTTP/1.1 has to. Raises `HTTPError`."""
    named: Any = scope.headers
    hosts = named.get_all("host")
    if not (len(hosts) == 1 and is_host(hosts[0])) and (hosts or scope.http_version != "1"):
        raise HTTPError(400, "a request has one Host header, with the name or the address of the server")


@lru_cache(maxsize=64)  # a client sends the same each time
def is_host(host: str) -> bool:
    """Whether it is a host and perhaps a port."""
    return HOST.fullmatch(host) is not None


class Asked(NamedTuple):
    """What a body asks for: rows and an output as `Scorer.answer` takes them, and perhaps ids beside the rows."""

    rows: Any
    output: str = "label"
    ids: list[Any] | None = None


def request_id(scope: Scope) -> str | None:
    """The id that a client gives to its request; None if it gives none, or one that no log could keep."""
    given = scope.headers.get("x-request-id")
    return given if given and REQUEST_ID.fullmatch(given) else None


def asked(content: bytes, content_type: str, scorer: Scorer) -> Asked:
    """What a body asks for.

    Raises:
        HTTPError: It is no JSON or CSV of a known form.
        RowsRefused: A column is repeated, or rows have unequal lengths.
    """
    read = reader_of(content_type)
    content = content.removeprefix(MARK)
    if read is _csv:
        return Asked(scorer.from_text(_csv(_text(content))))
    asked: Asked = read(_json(content))
    return asked


@lru_cache(maxsize=64)
def reader_of(content_type: str) -> Callable[[Any], Any]:
    """What reads a body of this Content-Type; none stands for JSON.

    Raises:
        HTTPError: Nothing does.
    """
    kind, *pairs = (part.strip() for part in content_type.lower().split(";"))
    parameters = {key: value.strip('"') for key, _, value in (part.partition("=") for part in pairs if part)}
    readers = {"application/json": _read, "": _read, "text/csv": _csv}
    form = parameters.pop("format", None) if kind == "application/json" else None
    charset = parameters.pop("charset", "utf-8")
    formats = {None: readers.get(kind), "pandas-split": _split_1x, "pandas-records": _records_1x}
    read = formats.get(form)
    if read is None or parameters or charset not in ("utf-8", "utf8"):
        raise HTTPError(415, f"the Content-Type is not known; allowed: {TYPES}")
    return read


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keyed = dict(pairs)
    if len(keyed) != len(pairs):
        raise HTTPError(400, "a JSON object has a key twice")
    return keyed


def _no_number(text: str) -> NoReturn:
    raise HTTPError(400, "NaN and Infinity are not JSON; null is a missing cell")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise HTTPError(400, "the body is not UTF-8") from None


def _json(content: bytes) -> Any:
    """JSON as Python has it.

    msgspec takes half the time, and does not see a key that comes again. So what it reads counts if it has as many keys
    as the text has colons; else, and where there is something to refuse, Python's own reader looks closely.
    """
    with suppress(Exception):  # Python's reader tells what is wrong
        value = msgspec.json.decode(content)
        if content.count(b":") == _keys(value):
            return value
    return _json_closely(_text(content))


def _keys(value: Any) -> int:
    """How many keys all objects have that a body of rows may hold."""
    if type(value) is dict:
        return len(value) + sum(_keys(inner) for inner in value.values())
    return sum(map(len, value)) if type(value) is list and value and type(value[0]) is dict else 0


def _json_closely(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise HTTPError(400, f"the body is not JSON from line {error.lineno}, column {error.colno} on") from None
    except RecursionError:
        raise HTTPError(400, "the body is nested too deeply") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise HTTPError(400, "a number in the body is too long") from None


def _read(value: Any) -> Asked:
    if type(value) is list:
        return _records_1x(value)
    if type(value) is not dict:
        raise HTTPError(400, f"the body has to be a JSON object with one of {FORMS}")
    if "columns" in value and "data" in value:
        return _split_1x(value)
    params, ids = value.pop("params", None), value.pop("ids", None)
    if len(value) != 1:
        raise HTTPError(400, f"the body has to have exactly one of {FORMS}, and ids, params or nothing beside it")
    [(form, rows)] = value.items()
    if form not in _FORMS:
        raise HTTPError(400, f"the body's key is not known; allowed: {FORMS}")
    if ids is not None and type(ids) is not list:
        raise HTTPError(400, "ids has to be a list with an id for each row")
    return Asked(_FORMS[form](rows), "label" if params is None else _output(params), ids)


def _output(params: Any) -> str:
    if type(params) is not dict or params.keys() - {"output"} or type(params.get("output", "")) is not str:
        raise HTTPError(400, 'params has to be an object with nothing but "output", a text')
    return str(params.get("output", "label"))


def _split_1x(value: Any) -> Asked:
    return Asked(_split(value))


def _records_1x(value: Any) -> Asked:
    if type(value) is not list or not value or type(value[0]) is not dict:
        raise HTTPError(400, f"a JSON list as the body has to hold records; else an object with one of {FORMS}")
    return Asked(_records(value))


def _split(value: Any) -> Any:
    if type(value) is not dict or "data" not in value or value.keys() - {"columns", "index", "data"}:
        raise HTTPError(400, "split rows are an object of columns and data")
    data = value["data"]
    if type(data) is not list or {*map(type, data)} - {list}:
        raise HTTPError(400, "data has to be a list of rows, each a list of cells")
    columns, index = value.get("columns"), value.get("index")
    if index is not None and (type(index) is not list or len(index) != len(data)):
        raise HTTPError(400, "index has to be a list of as many labels as there are rows")
    if columns is None:
        return data
    if type(columns) is not list or {*map(type, columns)} - {str}:
        raise HTTPError(400, "columns has to be a list of texts")
    return _named(columns, data)


def _records(value: Any) -> Any:
    if type(value) is not list or {*map(type, value)} - {dict}:
        raise HTTPError(400, "records have to be a list of objects")
    return value


def _instances(value: Any) -> Any:
    if type(value) is not list:
        raise HTTPError(400, "instances has to be a list of rows")
    return value


def _inputs(value: Any) -> Any:
    if type(value) is dict and all(type(cells) is list for cells in value.values()) and value:
        return value
    if type(value) is not list:
        raise HTTPError(400, "inputs has to be a list of rows, or an object of columns, each a list of cells")
    return value


_FORMS = {"dataframe_split": _split, "dataframe_records": _records, "instances": _instances, "inputs": _inputs}


def _named(columns: list[str], data: list[list[Any]]) -> dict[str, list[Any]]:
    """Rows under their columns' names, as columns."""
    if len({*columns}) != len(columns):
        raise RowsRefused(list(repeated(columns)))
    cells: Iterable[Any] = zip(*data, strict=True) if data else ((),) * len(columns)
    try:
        return dict(zip(columns, map(list, cells), strict=True))
    except ValueError:
        ragged = tuple(number for number, row in enumerate(data, 1) if len(row) != len(columns))
    raise RowsRefused([Fault("the row", "wrong number of values", f"{len(columns)}, as columns", ragged)])


def _csv(text: str) -> dict[str, list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [line for line in reader if len(line) > 1 or "".join(line).strip()]
    except csv.Error:
        raise HTTPError(400, f"the body is not CSV from line {reader.line_num} on") from None
    if not lines:
        raise HTTPError(400, "the CSV has no header")
    return _named([name.strip() for name in lines[0]], lines[1:])
