"""The live server's processes: the keeper, which follows the alias, and the workers, which answer.

python -m understudy.serving.live SETTINGS      under `supervise`, which `serve.sh --live` starts

This one stays small: it accepts connections and hands them out, and starts again whatever ends by itself.
"""

import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import FrameType
from typing import NoReturn, TypeAlias

from understudy import errors
from understudy.errors import UserError

DRAIN = 3  # seconds for the answers that are on their way; the supervisor kills after 5
PAUSE = 0.5  # seconds between two looks at whether a process has ended
BUSY = 0.001  # seconds until a connection is offered again that no worker takes
BACKLOG = 2048  # connections that wait to be accepted

Process: TypeAlias = "subprocess.Popen[bytes]"
Pipe: TypeAlias = tuple[socket.socket, socket.socket]  # our end, and the worker's


@dataclass(frozen=True)
class Settings:
    """What `serve.sh --live` was started with.

    Args:
        folder: The server's own, removed by the supervisor.
        name: The registered model's.
        stage: That is followed.
        host: To listen on.
        port: To listen on.
        workers: How many processes answer.
        poll: Seconds between two looks at the alias.
        cache: The folder in which the last verified version is kept.
        log: The folder for accepted rows; empty for none.
    """

    folder: str
    name: str
    stage: str
    host: str
    port: int
    workers: int
    poll: float
    cache: str
    log: str


def main() -> None:
    """Run the keeper and the workers until a signal comes."""
    settings = Settings(**json.loads(sys.argv[1]))
    signal.signal(signal.SIGTERM, _stop)
    with listen(settings.host, settings.port) as listening:
        where = f"http://{settings.host}:{settings.port}"
        print(f"{settings.name} in {settings.stage}, live on {where}, Ctrl-C stops it", flush=True)
        pipes = [socket.socketpair() for _ in range(settings.workers)]
        # The keeper takes the longest to start.
        running = {number: _start(number, settings, pipes) for number in range(-1, settings.workers)}
        try:
            _run(settings, listening, pipes, running)
        finally:
            listening.close()  # nobody else may connect while the workers finish
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UserError: The address is taken or is none.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror}", "choose another --port") from None


def _run(settings: Settings, listening: socket.socket, pipes: list[Pipe], running: dict[int, Process]) -> NoReturn:
    """Hand out connections in turn, and start again what ends by itself.

    The system would share them out by chance, eight of them six to two as often as not.
    """
    listening.settimeout(PAUSE)
    turn = itertools.cycle([ours for ours, _ in pipes])
    for ours, _ in pipes:
        ours.setblocking(False)
    looked, connection = time.monotonic(), None
    while True:
        with suppress(OSError):  # nobody has come, or has gone again
            connection = connection or listening.accept()[0]
        if connection and any(_takes(next(turn), connection) for _ in pipes):
            connection.close()
            connection = None
        elif connection:
            time.sleep(BUSY)
        if time.monotonic() - looked > PAUSE:
            looked = time.monotonic()
            for number in [number for number, process in running.items() if process.poll() is not None]:
                who = "the keeper" if number < 0 else f"worker {number + 1}"
                print(f"{who} has ended, and is started again", file=sys.stderr, flush=True)
                running[number] = _start(number, settings, pipes)


def _takes(pipe: socket.socket, connection: socket.socket) -> bool:
    """Hand a connection to a worker, unless too many wait for it already."""
    try:
        socket.send_fds(pipe, [b"."], [connection.fileno()])
    except OSError:
        return False
    return True


def _start(number: int, settings: Settings, pipes: list[Pipe]) -> Process:
    """The keeper, whose number is -1, or a worker."""
    given = json.dumps(asdict(settings))
    if number < 0:
        return subprocess.Popen([sys.executable, "-m", "understudy.serving.follow", given])
    theirs = pipes[number][1].fileno()
    command = [sys.executable, "-m", "understudy.serving.worker", given, str(number + 1), str(theirs)]
    return subprocess.Popen(command, pass_fds=[theirs])


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    errors.run(main)
