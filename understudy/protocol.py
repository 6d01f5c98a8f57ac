"""What uvicorn's HTTP protocol leaves open: slow and huge requests, too many connections, and an end that drains.

It also answers short requests at once: uvicorn would make a task, events and a dozen calls of each.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from understudy.refusal import error
from understudy.server import SHORT, App

READ = 8.0  # seconds from a request's first byte to its last
HEAD = 65_536  # bytes of a request's line and headers
CONNECTIONS = 512  # of one worker
SLOW = (b'"detail"', b"\\")  # what a short body that asks for reasons holds, which take long, or may be hidden behind
LAST = 0.5  # seconds that an idle connection may still ask in, when the server ends


class Protocol(HttpToolsProtocol):
    """One connection."""

    app: App
    _timer: asyncio.TimerHandle | None = None
    _reading = False  # a request's first byte has come, its last has not
    _in_head = False
    _head = 0
    _short: list[bytes] | None = None  # the body's parts
    is_draining = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a first request."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self._refuse(503, "too many connections")
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._unwait()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; what is not whole by then has to be so in time."""
        super().data_received(data)
        if not self._reading:
            self._unwait()
            return
        if self._in_head:
            self._head += len(data)
            if self._head > HEAD:
                self._refuse(431, f"a request's line and headers may have {HEAD} bytes")
        if self._timer is None:
            self._wait()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._unwait()
        self._reading = self._in_head = True
        self._head = 0

    def on_headers_complete(self) -> None:
        """Its headers are whole."""
        self._in_head = False
        if self._is_short():
            self._short = []
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        if self._short is None:
            super().on_body(body)
        else:
            self._short.append(body)

    def on_message_complete(self) -> None:
        """It is whole."""
        self._reading = False
        if self._short is None:
            super().on_message_complete()
        else:
            content, self._short = b"".join(self._short), None
            if any(mark in content for mark in SLOW):
                super().on_headers_complete()
                super().on_body(content)
                super().on_message_complete()
            else:
                self._answer(content)

    def shutdown(self) -> None:
        """Answer what is on its way, and nothing after it."""
        self.is_draining = True
        if self._is_answering():
            super().shutdown()
        elif not self._reading:
            self.loop.call_later(LAST, self._end)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(400, "the request is not HTTP")

    def _is_short(self) -> bool:
        """Whether a request can be answered as soon as it is whole, without holding up others."""
        if self.url != b"/invocations" or self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return False
        is_free = self.cycle is None or self.cycle.response_complete
        lengths = [value for name, value in self.headers if name == b"content-length"]
        is_plain = not self.expect_100_continue and self.parser.get_http_version() == "1.1"
        return is_free and is_plain and len(lengths) == 1 and int(lengths[0]) <= SHORT and not self.flow.write_paused

    def _answer(self, content: bytes) -> None:
        status, said, headers = self.app.short(self.headers, content)
        lines = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        is_last = self.is_draining or not self.parser.should_keep_alive()
        lines += (b"connection: close\r\n" if is_last else b"", b"content-length: %d\r\n\r\n" % len(said), said)
        self.transport.write(b"".join(lines))
        if is_last:
            self.transport.close()
        self.on_response_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        # After an upgrade that was asked for and not given, the parser reads no further request; and whether a body
        # follows that was announced and refused, nobody knows.
        if self.is_draining or self.expect_100_continue or self.parser.should_upgrade():
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        pass

    def _end(self) -> None:
        if not self._reading and not self._is_answering():
            self.transport.close()

    def _wait(self) -> None:
        self._timer = self.loop.call_later(READ, self._late)

    def _unwait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_answering(self) -> bool:
        """Whether a request that is whole waits for its answer; the next one behind it has to wait too."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def _late(self) -> None:
        is_refused = not self._in_head and self._short is None and self.cycle and self.cycle.response_complete
        if self._is_answering():
            self._wait()
        elif self._reading and not is_refused:
            self._refuse(408, f"a request has to be whole within {READ:.0f} seconds")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answer without the app, and close."""
        if self.transport.is_closing():
            return
        if not self._is_answering():
            self.app.count(status)
            body = json.dumps(error(status, message)).encode()
            retry = b"retry-after: 1\r\n" if status == 503 else b""
            head = b"content-type: application/json\r\n%sconnection: close\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head % (retry, len(body)) + body)
        self.transport.close()
