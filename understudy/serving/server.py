"""The live server's answers: the version that is current, behind what HTTP asks.

docs/scoring.md is its contract, and `protocol.py` the way to it.
"""

import asyncio
import json
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from understudy.scoring.forms import RowsRefused
from understudy.scoring.scorer import DETAIL
from understudy.serving import body
from understudy.serving.counters import Counters
from understudy.serving.current import Current, Served
from understudy.serving.pages import Pages
from understudy.serving.refusal import BadRequest
from understudy.serving.rowlog import RowLog

PATH = b"/invocations"
BODY = 8_000_000  # bytes of a request's body
BODIES = 64_000_000  # bytes of all bodies that a worker reads and scores at once
IN_FLIGHT = 256  # long requests of a worker
SHORT = 20_000  # bytes up to which a body is answered at once; a longer one goes to a thread, and holds up no short one
SLOW = (b'"detail"', b"\\")  # what a short body that asks for reasons holds, which take long, or may be hidden behind
DETAILS = 1_000  # rows of a request for reasons
JSON = b"content-type: application/json\r\n"


@dataclass(slots=True)
class Request:
    """What is known so far of a request.

    Args:
        method: Empty until its head is whole.
        target: With a query, if it has one.
        headers: By their names in lower case.
        body: As far as it has come.
        size: Bytes of them that are counted as buffered.
        head: Bytes of its headers.
        frames: Bytes of all of it, but for those that came together with the end of the one before.
        is_long: Whether it counts as one of `IN_FLIGHT`.
    """

    method: bytes = b""
    target: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    size: int = 0
    head: int = 0
    frames: int = 0
    is_long: bool = False

    @property
    def path(self) -> bytes:
        """Its target without a query, and without the server's name, which may stand before it."""
        whole = self.target.partition(b"?")[0]
        return whole if whole.startswith(b"/") else b"/" + whole.partition(b"://")[2].partition(b"/")[2]


class Answer(NamedTuple):
    """A status, a body, and headers as they are sent."""

    status: int
    content: bytes
    headers: bytes = JSON


class Scored(NamedTuple):
    """An answer's body, and what it was made from."""

    content: bytes
    rows: Any
    output: str
    predictions: list[Any]


def refusal(refused: BadRequest, headers: bytes = b"") -> Answer:
    """The answer that says so."""
    return Answer(refused.status, json.dumps(refused.body()).encode(), JSON + headers + refused.headers)


class App:
    """What one worker answers.

    Args:
        pages: What there is besides answers to rows.
        counters: The worker's own.
        current: What it answers with.
        log: Where accepted rows go.
    """

    def __init__(self, pages: Pages, counters: Counters, current: Current, log: RowLog | None) -> None:
        self._pages, self._counters, self._current, self._log = pages, counters, current, log
        self._rows = counters.slot("rows")
        self._statuses = {200: counters.slot("requests", "200")}
        self._in_flight = self._buffered = 0
        self._thread = ThreadPoolExecutor(1)
        self.is_ending = False

    def enter(self, request: Request) -> bool:
        """Count a request that may be long from its head on; False if there are too many."""
        if self._in_flight == IN_FLIGHT:
            return False
        self._in_flight += 1
        request.is_long = True
        return True

    def buffer(self, request: Request, part: bytes) -> bool:
        """Take a part of a body; False if there is too much of all bodies."""
        request.body += part
        request.size += len(part)
        self._buffered += len(part)
        return self._buffered <= BODIES

    def leave(self, request: Request) -> None:
        """Forget a request, which may have been forgotten before."""
        self._in_flight -= request.is_long
        self._buffered -= request.size
        request.is_long, request.size, request.body = False, 0, bytearray()

    def is_slow(self, request: Request) -> bool:
        """Whether an answer would hold up others."""
        if request.path != PATH or request.method != b"POST":
            return False
        return request.size > SHORT or any(mark in request.body for mark in SLOW)

    def answer(self, request: Request) -> Answer:
        """The answer to a request that is not slow."""
        if request.path != PATH:
            return self._page(request)
        started = time.perf_counter()
        served = self._current.served  # once, so that no answer mixes versions
        try:
            there = self._there(served)
            answer = self._accepted(there, _scored(there, request))
        except Exception as refused:
            answer = self._refused(refused, served)
        return self._counted(answer, started)

    async def answer_later(self, request: Request) -> Answer:
        """The answer to a slow one, from a thread."""
        started = time.perf_counter()
        served = self._current.served
        try:
            there = self._there(served)
            run = asyncio.get_running_loop().run_in_executor
            answer = self._accepted(there, await run(self._thread, _scored, there, request))
        except Exception as refused:
            answer = self._refused(refused, served)
        return self._counted(answer, started)

    def count(self, status: int) -> None:
        """Count an answer."""
        if status not in self._statuses:
            self._statuses[status] = self._counters.slot("requests", str(status))
        self._counters.values[self._statuses[status]] += 1

    def _there(self, served: Served | None) -> Served:
        if served is None:
            raise BadRequest(503, self._pages.none_yet, retry_after="5")
        return served

    def _accepted(self, served: Served, scored: Scored) -> Answer:
        self._counters.values[self._rows] += len(scored.predictions)
        if self._log is not None:
            self._log.put(served, scored.rows, scored.output, scored.predictions)
        return Answer(200, scored.content, JSON + served.header)

    def _refused(self, refused: Exception, served: Served | None) -> Answer:
        header = served.header if served else b""
        if isinstance(refused, BadRequest):
            return refusal(refused, header)
        if isinstance(refused, RowsRefused):
            self._reject(refused, served)
            return Answer(400, json.dumps(refused.body()).encode(), JSON + header)
        traceback.print_exception(refused)
        return refusal(BadRequest(500, "the server has made a mistake"), header)

    def _reject(self, refused: RowsRefused, served: Served | None) -> None:
        columns = (*served.scorer.table.columns, *served.scorer.table.encoded) if served else ()
        known = {column.name for column in columns}
        for fault in refused.faults:
            # A label that clients could choose would grow the metrics without bound.
            column = fault.column if fault.column in known or not fault.problem.startswith("column") else "other"
            problem = fault.problem.partition(", for ")[0]
            self._counters.add(max(1, len(fault.rows)), "rejected_rows", column, problem)

    def _counted(self, answer: Answer, started: float) -> Answer:
        self.count(answer.status)
        self._counters.observe(time.perf_counter() - started)
        return answer

    def _page(self, request: Request) -> Answer:
        called = request.path.decode("latin-1")
        if called not in self._pages.paths:
            return refusal(BadRequest(404, f"there are {', '.join([PATH.decode(), *self._pages.paths])}"))
        if request.method not in (b"GET", b"HEAD"):
            return refusal(BadRequest(405, f"{called} takes GET and HEAD", allow="GET, HEAD"))
        served = self._current.served
        status, content, kind = self._pages.page(called, served)
        return Answer(status, content, b"content-type: %b\r\n%b" % (kind, served.header if served else b""))


def _scored(served: Served, request: Request) -> Scored:
    rows, output = body.rows(bytes(request.body), _content_type(request), served.scorer)
    if output == DETAIL and _count(rows) > DETAILS:
        raise BadRequest(400, f"{DETAIL} is for at most {DETAILS} rows of a request")
    predictions = served.scorer.predict(rows, output, served.version.number)
    return Scored(json.dumps({"predictions": predictions}).encode(), rows, output, predictions)


def _content_type(request: Request) -> bytes:
    """A request's Content-Type, empty for none.

    Raises:
        BadRequest: It, or something else of the request's head, says that there is no answer.
    """
    if request.method != b"POST":
        raise BadRequest(405, f"{PATH.decode()} takes POST", allow="POST")
    if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise BadRequest(415, "a body may not be compressed", accept_encoding="identity")
    if b"upgrade" in request.headers:
        raise BadRequest(400, "there is HTTP/1.1 and no upgrade from it")
    return request.headers.get(b"content-type", b"")


def _count(rows: Any) -> int:
    """How many rows there are; of columns of unequal length, the most."""
    return max(map(len, rows.values()), default=0) if isinstance(rows, dict) else len(rows)
