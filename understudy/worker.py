"""One worker of the live server: uvicorn with our protocol around our app, on connections that it is handed.

python -m understudy.worker SETTINGS NUMBER DESCRIPTOR
"""

import asyncio
import json
import resource
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
import uvloop

from understudy.counters import Counters
from understudy.current import Current
from understudy.live import DRAIN, Settings
from understudy.pages import Pages
from understudy.protocol import CONNECTIONS, Protocol
from understudy.rowlog import RowLog
from understudy.server import App

IDLE = 75  # seconds that a connection stays open without a request: longer than common proxies keep theirs
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
        signal.signal(signum, _stop)  # uvicorn takes them, and raises them again when it has ended
    current = Current(folder, counters, settings.name)
    current.look()  # a worker that takes another's place has a version before it takes a connection
    app = App(Pages(settings.name, settings.stage, folder), counters, current, log)
    try:
        uvloop.run(_serve(app, current, pipe))
    finally:
        if log:
            log.close()


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


async def _serve(app: App, current: Current, pipe: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=DRAIN,
    )
    server = uvicorn.Server(config)
    following = asyncio.create_task(current.follow())
    asyncio.get_running_loop().add_reader(pipe, _take, pipe, server)
    await server.serve([])
    following.cancel()


def _take(pipe: socket.socket, server: uvicorn.Server) -> None:
    """Take over a connection."""
    data, descriptors, _, _ = socket.recv_fds(pipe, 1, 1)
    loop = asyncio.get_running_loop()
    if not data:  # what hands them out is gone; a connection that finds no room is lost, and comes without a descriptor
        loop.remove_reader(pipe)
        server.should_exit = True
    for descriptor in descriptors:
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)
        task = asyncio.ensure_future(loop.connect_accepted_socket(partial(_protocol, server), connection))
        _taking.add(task)
        task.add_done_callback(_taking.discard)


def _protocol(server: uvicorn.Server) -> Protocol:
    protocol = Protocol(server.config, server.server_state, {})
    protocol.is_draining = server.should_exit
    return protocol


if __name__ == "__main__":
    main()
