"""One worker of the live server: our protocol around our app, on connections that it is handed.

python -m understudy.serving.worker SETTINGS NUMBER DESCRIPTOR
"""

import asyncio
import gc
import json
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop

from understudy.serving.counters import Counters
from understudy.serving.current import Current
from understudy.serving.live import DRAIN, Settings
from understudy.serving.pages import Pages
from understudy.serving.protocol import CONNECTIONS, LAST, Protocol, watch
from understudy.serving.rowlog import RowLog
from understudy.serving.server import App

SHORTLY = 0.01  # seconds
GARBAGE = 100_000  # new objects until cycles are looked for
SWITCH = 0.001  # seconds that a long request in its thread keeps a short one waiting
_taking: set[asyncio.Future[Any]] = set()  # the loop alone would not keep them


def main() -> None:
    """Answer until a signal comes, and then what is on its way."""
    settings, number = Settings(**json.loads(sys.argv[1])), sys.argv[2]
    pipe = socket.socket(fileno=int(sys.argv[3]))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 2 * CONNECTIONS), most))
    sys.setswitchinterval(SWITCH)
    folder = Path(settings.folder)
    counters = Counters(folder / f"worker-{number}.counters")
    log = RowLog(Path(settings.log), counters, folder / f"log-{number}.counters") if settings.log else None
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _stop)  # until the loop takes them
    current = Current(folder, counters, settings.name)
    current.look()  # a worker that takes another's place has a version before it takes a connection
    gc.freeze()  # rows are not part of cycles, and to look for some in 10,000 takes part of an answer's time
    gc.set_threshold(GARBAGE)
    app = App(Pages(settings.name, settings.stage, folder), counters, current, log)
    try:
        uvloop.run(_serve(app, current, pipe))
    finally:
        if log:
            log.close()


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


async def _serve(app: App, current: Current, pipe: socket.socket) -> None:
    loop, is_over = asyncio.get_running_loop(), asyncio.Event()
    connections: set[Protocol] = set()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, is_over.set)
    loop.add_reader(pipe, _take, pipe, partial(Protocol, app, connections), is_over)
    also = [asyncio.create_task(current.follow()), asyncio.create_task(watch(connections))]
    await is_over.wait()
    app.is_ending = True
    for connection in connections:
        connection.end()
    await _emptied(connections, DRAIN)
    for connection in [*connections]:
        connection.give_up()
    await _emptied(connections, LAST)
    for task in also:
        task.cancel()


async def _emptied(connections: set[Protocol], seconds: float) -> None:
    """Wait until there are no connections, but no longer."""
    deadline = time.monotonic() + seconds
    while connections and time.monotonic() < deadline:
        await asyncio.sleep(SHORTLY)


def _take(pipe: socket.socket, made: Callable[[], Protocol], is_over: asyncio.Event) -> None:
    """Take over a connection."""
    data, descriptors, _, _ = socket.recv_fds(pipe, 1, 1)
    loop = asyncio.get_running_loop()
    if not data:  # what hands them out is gone; a connection that finds no room is lost, and comes without a descriptor
        loop.remove_reader(pipe)
        is_over.set()
    for descriptor in descriptors:
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)
        task = asyncio.ensure_future(loop.connect_accepted_socket(made, connection))
        _taking.add(task)
        task.add_done_callback(_taking.discard)


if __name__ == "__main__":
    main()
