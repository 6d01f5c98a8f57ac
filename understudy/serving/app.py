"""The live server's answers: one RSGI callable, which granian runs in every worker. docs/scoring.md is its contract.

granian speaks HTTP and bounds a request's head. What a body may cost is bounded here.
"""

import asyncio
import gc
import itertools
import json
import math
import os
import secrets
import signal
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from granian.rsgi import HTTPProtocol, ProtocolClosed, ProtocolError, Scope
from prometheus_client import CONTENT_TYPE_LATEST

from understudy.pages import bodies, openapi, site
from understudy.schema.logged import Cause, first_causes
from understudy.scoring.forms import RowsRefused
from understudy.scoring.scorer import DETAIL, Answered
from understudy.serving import metrics
from understudy.serving.following import Follower, ServedVersion, Settings
from understudy.serving.request import PATH, HTTPError, asked, check_head, check_host, check_size, request_id
from understudy.serving.row_log import RowLog

PAGES = (*site.PAGES, "/openapi.json", "/ping", "/health", "/version", "/schema", "/metrics")
BODIES = 64_000_000  # bytes of all long bodies that a worker reads and scores at once
SHORT = 20_000  # bytes up to which a body is answered at once; a longer one goes to a thread, and holds up no short one
SLOW = (b'"detail"', b"\\")  # what a short body that asks for reasons holds, which take long, or may be hidden behind
DETAILS = 1_000  # rows of a request for reasons
READ = 8.0  # seconds from a request's head to the end of its body
TICK = 0.25  # seconds between two looks at the deadlines
FLUSH = 1.0  # seconds between two times that counts are handed over
SWITCH = 0.001  # seconds that a long request in its thread keeps a short one waiting
GARBAGE = 100_000  # new objects until cycles are looked for
GONE = (ProtocolClosed, ProtocolError)  # what granian raises once a client has hung up, soon or late
JSON = "application/json"

Headers = list[tuple[str, str]]


class Answer(NamedTuple):
    """A status, headers and a body, as `response_bytes` takes them."""

    status: int
    headers: Headers
    content: bytes


@dataclass(slots=True, eq=False)
class Reading:
    """A request whose body is being read: by which task, until when, and how many bytes of it count as buffered."""

    task: Any
    deadline: float
    size: int = 0
    is_whole: bool = False


class App:
    """What one worker answers, for as long as its parent lives."""

    def __init__(self, settings: Settings, parent: int) -> None:
        self._parent = parent
        self._name, self._stage = settings.name, settings.stage
        metrics.STARTED.set(settings.started)  # the same of all workers, also of one that is started anew
        self._tally = metrics.RequestTally()
        self._log = RowLog(settings) if settings.log or settings.shadow else None
        self._mark, self._requests = secrets.token_hex(8), itertools.count(1)
        self._files = site.read()
        self._thread = ThreadPoolExecutor(1)
        self._readings: set[Reading] = set()
        self._buffered = 0
        self._follower = Follower(settings)
        self._follower.start()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called by granian before the first request."""
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
        sys.setswitchinterval(SWITCH)
        gc.freeze()  # rows are not part of cycles, and to look for some in 10,000 takes part of an answer's time
        gc.set_threshold(GARBAGE)
        self._tasks = [loop.create_task(self._sweep()), loop.create_task(self._flush())]

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called by granian after the last answer."""
        self._tally.flush()
        if self._log:
            self._log.close()

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Answer a request."""
        reading = Reading(asyncio.current_task(), time.monotonic() + READ)
        self._readings.add(reading)
        try:
            answer = await self._answer(scope, protocol, reading) if scope.path == PATH else self._page(scope)
            if answer.status == 200 or reading.is_whole:
                protocol.response_bytes(*answer)
                return
            answer.headers.append(("connection", "close"))
            protocol.response_bytes(*answer)
            async for _ in protocol:  # to close at once would let the system throw the refusal away
                pass
        except (asyncio.CancelledError, *GONE):
            pass  # the rest of a refused body comes too slowly, or the client has gone
        finally:
            self._readings.discard(reading)
            self._buffered -= reading.size

    async def _answer(self, scope: Scope, protocol: HTTPProtocol, reading: Reading) -> Answer:
        loaded, rows, started = None, 0, time.perf_counter()
        request = request_id(scope) or f"{self._mark}-{next(self._requests)}"
        try:
            content_type = check_head(scope)
            body = await self._body(scope, protocol, reading)
            started = time.perf_counter()
            loaded = self._loaded()  # once, so that no answer mixes versions
            if len(body) > SHORT or any(mark in body for mark in SLOW):
                run = asyncio.get_running_loop().run_in_executor
                content, scored = await run(self._thread, score, loaded, body, content_type, request)
            else:
                content, scored = score(loaded, body, content_type, request)
            rows = len(scored.predictions)
            if self._log:
                self._log.put(loaded, request, scored)
            answer = Answer(200, headers(loaded), content)
        except GONE:
            raise
        except Exception as error:
            answer = refusal(error, loaded)
            if loaded and isinstance(error, RowsRefused):
                self._refused(loaded, request, error, body, content_type)
        answer.headers.append(("x-request-id", request))
        version = loaded.key.number if loaded else ""
        self._tally.count(answer.status, time.perf_counter() - started, rows, version)
        return answer

    def _refused(self, loaded: ServedVersion, request: str, refused: RowsRefused, body: bytes, kind: str) -> None:
        """Count refused rows, and log why they were."""
        causes = [Cause.of(fault, loaded.scorer.table) for fault in refused.faults]
        for column, problem, rows in causes:
            metrics.REJECTED.labels(column, problem, loaded.key.number).inc(max(1, len(rows)))
        if self._log:
            self._log.refuse(loaded, request, first_causes(causes), body, kind)

    async def _body(self, scope: Scope, protocol: HTTPProtocol, reading: Reading) -> bytes:
        """All of a request's body.

        Raises:
            HTTPError: It is too long, or not whole in time.
        """
        length = scope.headers.get("content-length")
        try:
            if length is not None and int(length) <= SHORT:
                body = await protocol()  # a third of what it costs to read it in parts
            else:
                parts = []
                async for part in protocol:
                    parts.append(part)
                    self._buffer(len(part), reading)
                body = b"".join(parts)
                if length is not None and len(body) < int(length):
                    raise ProtocolClosed
        except asyncio.CancelledError:
            raise HTTPError(408, f"a body has to be whole within {READ:.0f} seconds") from None
        reading.is_whole, reading.deadline = True, math.inf
        return body

    def _buffer(self, size: int, reading: Reading) -> None:
        reading.size += size
        self._buffered += size
        check_size(reading.size)
        if self._buffered > BODIES:
            raise HTTPError(503, "too much to read at once", retry_after="1")

    async def _sweep(self) -> None:
        """Cut off what is read too slowly: one look at all deadlines costs less than a timer for each request."""
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            for reading in [reading for reading in self._readings if reading.deadline < now]:
                reading.task.cancel()

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH)
            self._tally.flush()
            if os.getppid() != self._parent:  # which was killed, perhaps before this worker had started
                os.kill(os.getpid(), signal.SIGTERM)

    def _loaded(self) -> ServedVersion:
        """The version that answers. Raises `HTTPError` if there is none yet."""
        if self._follower.loaded is None:
            none = f"{self._name} has no version in {self._stage} that could be served yet"
            raise HTTPError(503, none, retry_after="5")
        return self._follower.loaded

    def _page(self, scope: Scope) -> Answer:
        loaded = self._follower.loaded
        try:
            check_host(scope)
            file = self._files.get(scope.path)
            if not file and scope.path not in PAGES:
                raise HTTPError(404, f"there are {', '.join([PATH, *PAGES])}")
            if scope.method not in ("GET", "HEAD"):
                raise HTTPError(405, f"{scope.path} takes GET and HEAD", allow="GET, HEAD")
            if file:
                return Answer(200, [*headers(loaded, file.content_type), *site.HEADERS], file.content)
            content_type, content = self._content(scope.path)
            return Answer(200, headers(loaded, content_type), content)
        except Exception as error:
            return refusal(error, loaded)

    def _content(self, path: str) -> tuple[str, bytes]:
        """A page's Content-Type and body. Raises `HTTPError` if there is no version yet that it could tell of."""
        if path == "/metrics":
            self._tally.flush()
            return CONTENT_TYPE_LATEST, metrics.page()
        if path == "/schema":
            return "application/schema+json", json.dumps(bodies.schema(self._loaded().scorer)).encode()
        content: dict[str, Any]
        if path == "/ping":
            content = {"status": "alive"}
        elif path == "/version":
            loaded = self._loaded()
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(loaded.since))
            content = {"name": self._name, "stage": self._stage, "version": loaded.key.number}
            content |= {"manifest": loaded.key.digest, "since": since}
        elif path == "/openapi.json":
            loaded = self._loaded()
            content = openapi.document(loaded.scorer, loaded.key.number, self._name, self._stage)
        else:
            number = self._follower.loaded and self._follower.loaded.key.number
            content = {"status": "serving", "version": number} if number else {"status": "waiting"}
        return JSON, json.dumps(content).encode()


def score(loaded: ServedVersion, body: bytes, content_type: str, request: str) -> tuple[bytes, Answered]:
    """The answer to a body of a request with this id, and what it was made from.

    Raises:
        HTTPError: It does not hold rows.
        RowsRefused: The table does not allow the rows.
    """
    rows, output, ids = asked(body, content_type, loaded.scorer)
    # Columns may be of unequal length.
    count = max(map(len, rows.values()), default=0) if isinstance(rows, dict) else len(rows)
    if output == DETAIL and count > DETAILS:
        raise HTTPError(400, f"{DETAIL} is for at most {DETAILS} rows of a request")
    scored = loaded.scorer.answer(rows, output, loaded.key.number, request, ids)
    for name, unlisted in loaded.scorer.unlisted(scored.form, scored.columns).items():
        metrics.UNLISTED.labels(name).inc(unlisted)
    return msgspec.json.encode({"predictions": scored.predictions}), scored


def headers(loaded: ServedVersion | None, content_type: str = JSON) -> Headers:
    """The headers of an answer that a version gives, if there is one."""
    version = [("x-model-version", loaded.key.number)] if loaded else []
    return [("content-type", content_type), *version]


def refusal(error: Exception, loaded: ServedVersion | None) -> Answer:
    """The answer that says what is wrong with a request, or that the server has made a mistake."""
    if isinstance(error, RowsRefused):
        return Answer(400, headers(loaded), json.dumps(error.body()).encode())
    if not isinstance(error, HTTPError):
        traceback.print_exception(error)
        error = HTTPError(500, "the server has made a mistake")
    return Answer(error.status, [*headers(loaded), *error.headers], json.dumps(error.body()).encode())
