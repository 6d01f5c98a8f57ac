"""The live server's answers: a bare ASGI app around the version that is current.

docs/scoring.md is its contract.
"""

import asyncio
import json
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from understudy import body
from understudy.counters import Counters
from understudy.current import Current, Served
from understudy.forms import RowsRefused
from understudy.pages import JSON, Pages
from understudy.refusal import BadRequest, error
from understudy.rowlog import RowLog
from understudy.scorer import DETAIL

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

BODY = 8_000_000  # bytes of a request
BODIES = 64_000_000  # bytes of all requests that a worker reads and scores at once
IN_FLIGHT = 256  # requests of a worker
SHORT = 20_000  # bytes up to which a body is answered at once; a longer one goes to a thread, and holds up no short one
DETAILS = 1_000  # rows of a request for reasons
TYPE = (b"content-type", JSON)


class Answer(NamedTuple):
    """A status, a body, and headers."""

    status: int
    content: bytes
    headers: Headers


class Scored(NamedTuple):
    """An answer's body, and what it was made from."""

    content: bytes
    rows: Any
    output: str
    predictions: list[Any]


class App:
    """The ASGI app of one worker.

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

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"] == "/invocations":
            answer = await self._invocation(scope, receive)
        else:
            answer = self._page(scope["path"], scope["method"])
        if answer is None:
            return
        headers = [*answer.headers, (b"content-length", b"%d" % len(answer.content))]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content})

    def count(self, status: int) -> None:
        """Count an answer."""
        if status not in self._statuses:
            self._statuses[status] = self._counters.slot("requests", str(status))
        self._counters.values[self._statuses[status]] += 1

    def short(self, headers: Headers, content: bytes) -> Answer:
        """The answer to a POST to /invocations that has come whole, and is short."""
        started = time.perf_counter()
        served = self._current.served  # once, so that no answer mixes versions
        try:
            content_type, _ = _asked("POST", headers)
            answer = self._accepted(self._there(served), _scored(self._there(served), content, content_type))
        except Exception as refusal:
            answer = self._refused(refusal, served)
        return self._counted(answer, started)

    async def _invocation(self, scope: Message, receive: Receive) -> Answer | None:
        """The same for any request to /invocations; None when nobody waits for it any more."""
        started = time.perf_counter()
        served = self._current.served
        self._in_flight += 1
        content = None
        try:
            content_type, length = _asked(scope["method"], scope["headers"])
            if self._in_flight > IN_FLIGHT:
                raise BadRequest(503, "too many requests at once", retry_after="1")
            content = await self._read(receive, length)
            if content is None:
                return None
            run = asyncio.get_running_loop().run_in_executor
            scored = await run(self._thread, _scored, self._there(served), content, content_type)
            answer = self._accepted(self._there(served), scored)
        except Exception as refusal:
            answer = self._refused(refusal, served)
        finally:
            self._in_flight -= 1
            self._buffered -= len(content or b"")
        return self._counted(answer, started)

    def _there(self, served: Served | None) -> Served:
        if served is None:
            raise BadRequest(503, self._pages.none_yet, retry_after="5")
        return served

    def _accepted(self, served: Served, scored: Scored) -> Answer:
        self._counters.values[self._rows] += len(scored.predictions)
        if self._log is not None:
            self._log.put(served, scored.rows, scored.output, scored.predictions)
        return Answer(200, scored.content, served.headers)

    def _refused(self, refusal: Exception, served: Served | None) -> Answer:
        headers = served.headers if served else (TYPE,)
        if isinstance(refusal, BadRequest):
            return Answer(refusal.status, json.dumps(refusal.body()).encode(), (*headers, *refusal.headers))
        if isinstance(refusal, RowsRefused):
            self._reject(refusal, served)
            return Answer(400, json.dumps(refusal.body()).encode(), headers)
        traceback.print_exception(refusal)
        return Answer(500, json.dumps(error(500, "the server has made a mistake")).encode(), headers)

    def _reject(self, refusal: RowsRefused, served: Served | None) -> None:
        columns = (*served.scorer.table.columns, *served.scorer.table.encoded) if served else ()
        known = {column.name for column in columns}
        for fault in refusal.faults:
            # A label that clients could choose would grow the metrics without bound.
            column = fault.column if fault.column in known or not fault.problem.startswith("column") else "other"
            problem = fault.problem.partition(", for ")[0]
            self._counters.add(max(1, len(fault.rows)), "rejected_rows", column, problem)

    def _counted(self, answer: Answer, started: float) -> Answer:
        self.count(answer.status)
        self._counters.observe(time.perf_counter() - started)
        return answer

    async def _read(self, receive: Receive, length: int) -> bytes | None:
        """A request's body, which stays counted as buffered; None when the client has gone."""
        if length > BODY:
            raise BadRequest(413, f"a body may have {BODY} bytes")
        parts, size, is_more = [], 0, True
        try:
            while is_more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message["body"])
                size += len(parts[-1])
                self._buffered += len(parts[-1])
                if size > BODY:
                    raise BadRequest(413, f"a body may have {BODY} bytes")
                if self._buffered > BODIES:
                    raise BadRequest(503, "too much to read at once", retry_after="1")
                is_more = message["more_body"]
        finally:
            if is_more:
                self._buffered -= size
        return b"".join(parts)

    def _page(self, path: str, method: str) -> Answer:
        if path not in self._pages.paths:
            there = ", ".join(["/invocations", *self._pages.paths])
            return Answer(404, json.dumps(error(404, f"there are {there}")).encode(), [TYPE])
        if method not in ("GET", "HEAD"):
            refusal = json.dumps(error(405, f"{path} takes GET and HEAD")).encode()
            return Answer(405, refusal, [TYPE, (b"allow", b"GET, HEAD")])
        served = self._current.served
        status, content, kind = self._pages.page(path, served)
        version = served.headers[1:] if served else ()
        return Answer(status, content, [(b"content-type", kind), *version])


def _scored(served: Served, content: bytes, content_type: bytes) -> Scored:
    rows, output = body.rows(content, content_type, served.scorer)
    if output == DETAIL and _count(rows) > DETAILS:
        raise BadRequest(400, f"{DETAIL} is for at most {DETAILS} rows of a request")
    predictions = served.scorer.predict(rows, output, served.version.number)
    return Scored(json.dumps({"predictions": predictions}).encode(), rows, output, predictions)


def _count(rows: Any) -> int:
    """How many rows there are; of columns of unequal length, the most."""
    return max(map(len, rows.values()), default=0) if isinstance(rows, dict) else len(rows)


def _asked(method: str, headers: Headers) -> tuple[bytes, int]:
    """A request's Content-Type, empty for none, and its Content-Length, -1 for none.

    Raises:
        BadRequest: They, or others, say that it cannot be answered.
    """
    if method != "POST":
        raise BadRequest(405, "/invocations takes POST", allow="POST")
    content_type, length = b"", -1
    for name, value in headers:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length":
            length = int(value)
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise BadRequest(415, "a body may not be compressed", accept_encoding="identity")
        elif name == b"upgrade":
            raise BadRequest(400, "there is HTTP/1.1 and no upgrade from it")
    body.media(content_type)
    return content_type, length
