"""HTTP/1.1 on one connection: requests are answered in their order, and everything has a limit.

The parser is httptools'. What a client can do wrong beyond what it refuses is met here: slow and huge requests, answers
that nobody reads, too many connections, requests behind each other, and an end in the middle of any of them.
"""

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus

import httptools

from understudy.serving.refusal import BadRequest
from understudy.serving.server import BODY, SHORT, Answer, App, Request, refusal

READ = 8.0  # seconds from a request's first byte to its last, and in which some of an answer has to be taken
IDLE = 75.0  # seconds between two requests: longer than common proxies keep a connection
LAST = 0.5  # seconds that an idle connection may still ask in, when the server ends
LINGER = 2.0  # seconds in which a client may read the last answer; to close at once would throw that away
TICK = 0.25  # seconds between two looks at the clock
HEAD = 65_536  # bytes of a request's line and headers
FRAMES = 1_000_000  # bytes of a request besides its body: its head, and what is around chunks and behind them
AT_ONCE = 16  # requests behind each other that are answered before others have their turn
BEHIND = 256  # requests that wait behind one
CONNECTIONS = 512  # of one worker
HOST = re.compile(rb"(?:(?:[\w.~!$&'()*+,;=-]++|%[\da-fA-F]{2})+|\[[\da-fA-F:.]+\])(?::\d*)?")  # RFC 3986, 3.2.2
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Protocol(asyncio.Protocol):
    """One connection.

    Args:
        app: What answers.
        connections: All there are; this one is in it for as long as it is open.
    """

    date = b""  # the header's line, for all connections

    def __init__(self, app: App, connections: "set[Protocol]") -> None:
        self._app, self._connections = app, connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._request: Request | None = None  # that is being read
        self._whole = 0  # requests that have come whole
        self._waiting: deque[Request | Answer] = deque()  # for its turn: what has come whole, or its refusal
        self._task: asyncio.Task[None] | None = None  # the answer that is being made
        self._is_last = False  # what comes now is not read
        self._is_full = False  # the client does not take its answers
        self._unsent = math.inf  # bytes, when that was looked at last
        self.deadline = self._loop.time() + READ

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first request."""
        self._transport = transport
        self._connections.add(self)
        if len(self._connections) > CONNECTIONS:
            self._refuse(503, "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all that has come."""
        self._connections.discard(self)
        self._is_last = True
        self._forget()
        if self._request:
            self._app.leave(self._request)
        self._request = None
        del self._parser  # which knows this connection, and may hold what it has not read to the end
        if self._task:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._is_last:
            return
        whole = self._whole
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a mistake of ours
        except httptools.HttpParserUpgrade:
            pass  # such a request is the last, and has come whole
        except httptools.HttpParserError:
            self._refuse(400, "the request is not HTTP")
        if self._request and self._whole == whole:  # else some of it is of the request before
            self._request.frames += len(data)
            if not self._request.method and self._request.frames > HEAD:
                self._refuse(431, f"a request's line and headers may have {HEAD} bytes")
            elif self._request.frames - self._request.size > FRAMES:
                self._refuse(413, f"a request may have {FRAMES} bytes around its body")

    def eof_received(self) -> bool:
        """The client sends no more; what has come is answered."""
        self._is_last = True
        return self._is_busy()

    def pause_writing(self) -> None:
        """The client takes answers more slowly than it asks."""
        self._is_full = True
        self._unsent, self.deadline = self._transport.get_write_buffer_size(), self._loop.time() + READ

    def resume_writing(self) -> None:
        """It has taken them."""
        self._is_full = False
        self._wait()
        self._next()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        if not self._is_last:
            self._request = Request()
            self.deadline = self._loop.time() + READ

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        if self._request:
            self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers, or of what may come behind chunks, which says nothing to us."""
        request = self._request
        if request and not request.method:
            request.head += len(name) + len(value)
            name = name.lower()
            # A header that comes again makes a list, which none that is looked at here may be.
            request.headers[name] = b", " + value if name in request.headers else value

    def on_headers_complete(self) -> None:
        """Its headers are whole."""
        request = self._request
        if not request or self._is_last:
            return
        request.method = self._parser.get_method()
        length = int(request.headers.get(b"content-length", -1))
        if request.head + len(request.target) > HEAD:
            self._refuse(431, f"a request's line and headers may have {HEAD} bytes")
        elif not _is_host(request.headers.get(b"host", b"")) and (b"host" in request.headers or not self._is_old()):
            self._refuse(400, "a request has one Host header, with the name or the address of the server")
        elif b"transfer-encoding" in request.headers and (doubt := self._doubt(request.headers[b"transfer-encoding"])):
            self._refuse(*doubt)
        elif length > BODY:
            self._refuse(413, f"a body may have {BODY} bytes")
        elif (length > SHORT or b"transfer-encoding" in request.headers) and not self._app.enter(request):
            self._refuse(503, "too many requests at once")
        elif request.headers.get(b"expect", b"").lower() == b"100-continue" and not self._is_busy():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        if not self._request or self._is_last:
            return
        if not self._app.buffer(self._request, body):
            self._refuse(503, "too much to read at once")
        elif self._request.size > BODY:
            self._refuse(413, f"a body may have {BODY} bytes")

    def on_message_complete(self) -> None:
        """It is whole."""
        request, self._request = self._request, None
        self._whole += 1
        if self._is_last or not request:
            return
        if len(self._waiting) == BEHIND:
            self._app.leave(request)
            self._refuse(503, "too many requests behind each other")
            return
        # After an upgrade that was asked for the parser reads no further request.
        self._is_last = not self._parser.should_keep_alive() or self._parser.should_upgrade()
        self._is_last |= self._parser.get_http_version() == "1.0"
        if self._waiting:
            self._waiting.append(request)
        elif self._is_busy() or self._whole % AT_ONCE == 0 or self._app.is_slow(request):
            self._waiting.append(request)
            self._loop.call_soon(self._next)
        else:
            self._write(self._app.answer(request), request)

    def end(self) -> None:
        """Answer what is on its way, and nothing after it."""
        if not self._is_busy() and not self._request:
            self.deadline = self._loop.time() + LAST

    def give_up(self) -> None:
        """Say of what is on its way still that it is too late."""
        self._forget()
        if self._task:
            self._is_last = True
            self._task.cancel()
        elif self._request:
            self._refuse(503, "the server ends")
        else:
            self._transport.close()

    def late(self, now: float) -> None:
        """The deadline has passed."""
        unsent = self._transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:
            self._unsent, self.deadline = unsent, now + READ
        elif unsent:
            self._transport.abort()
        elif self._is_busy():
            self.deadline = now + READ
        elif self._request and not self._is_last:
            self._refuse(408, f"a request has to be whole within {READ:.0f} seconds")
        else:
            self._transport.close()

    def _is_old(self) -> bool:
        """Whether the request is of HTTP/1.0 or before, which knew neither Host nor chunks."""
        return bool(self._parser.get_http_version() < "1.1")

    def _doubt(self, codings: bytes) -> tuple[int, str] | None:
        """The refusal of a Transfer-Encoding that the parser takes, but not everybody would, or that is not known.

        Source: RFC 9112, sections 6.1 and 6.3.
        """
        if self._is_old() or codings.lower().rpartition(b",")[2].strip(b" ") != b"chunked":
            return 400, "the end of the body cannot be told: a Transfer-Encoding ends with chunked, and is of HTTP/1.1"
        return None if codings.lower() == b"chunked" else (501, "the Transfer-Encoding is not known; allowed: chunked")

    def _is_busy(self) -> bool:
        return bool(self._task or self._waiting or self._is_full)

    def _forget(self) -> None:
        for left in self._waiting:
            if isinstance(left, Request):
                self._app.leave(left)
        self._waiting.clear()

    def _leave(self, request: Request, task: "asyncio.Task[None]") -> None:
        self._app.leave(request)

    def _next(self) -> None:
        """Answer what waits, as far as that is possible now."""
        for _ in range(AT_ONCE):
            if not self._waiting or self._task or self._is_full or self._transport.is_closing():
                break
            first = self._waiting.popleft()
            if isinstance(first, Answer):
                self._write(first, None)
            elif self._app.is_slow(first):
                self._task = self._loop.create_task(self._answer(first))
                # Also where it is cancelled before it has begun.
                self._task.add_done_callback(partial(self._leave, first))
            else:
                self._write(self._app.answer(first), first)
        else:
            self._loop.call_soon(self._next)
        if self._transport.is_closing():
            return
        if self._is_busy():
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    async def _answer(self, request: Request) -> None:
        """Answer what takes long."""
        answered: Request | None = request
        try:
            answer = await self._app.answer_later(request)
        except asyncio.CancelledError:
            answer, answered = refusal(BadRequest(503, "the server ends", retry_after="1")), None
        self._task = None
        self._write(answer, answered)
        self._next()

    def _write(self, answer: Answer, request: Request | None) -> None:
        """Send an answer, and say so if it is the last; without a request, a refusal of what is none."""
        if request:
            self._app.leave(request)
        if self._transport.is_closing():
            return
        if not request:
            self._app.count(answer.status)
        is_last = not self._waiting and (self._is_last or self._app.is_ending)
        closing = b"connection: close\r\n" if is_last else b""
        content = b"" if request and request.method == b"HEAD" else answer.content
        self._transport.write(
            b"%b%b%b%bcontent-length: %d\r\n\r\n%b"
            % (STATUS_LINES[answer.status], self.date, answer.headers, closing, len(answer.content), content)
        )
        self._is_last |= is_last
        if not self._is_full:
            self._wait()
        if is_last:
            self._transport.write_eof()

    def _wait(self) -> None:
        """Set the deadline for what the client does next."""
        now = self._loop.time()
        if self._is_last:
            self.deadline = max(now + LINGER, self.deadline if self._request else 0)
        else:
            self.deadline = now + (READ if self._request else IDLE)

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is no request that could be taken, in its turn, and read no more."""
        if not self._is_last:
            self._is_last = True
            if self._request:
                self._app.leave(self._request)
            headers = {"retry_after": "1"} if status == 503 else {}
            self._waiting.append(refusal(BadRequest(status, message, **headers)))
            self._next()


@lru_cache(maxsize=64)  # a client sends the same each time, and to match it again is seen in the time of an answer
def _is_host(value: bytes) -> bool:
    return HOST.fullmatch(value) is not None


async def watch(connections: Iterable[Protocol]) -> None:
    """Keep the date, and look all the while at what is late."""
    loop = asyncio.get_running_loop()
    while True:
        Protocol.date = f"date: {formatdate(time.time(), usegmt=True)}\r\n".encode()
        now = loop.time()
        for connection in [one for one in connections if one.deadline < now]:
            connection.late(now)
        await asyncio.sleep(TICK)
