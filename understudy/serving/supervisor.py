"""A command in a process group of its own, until it ends or a signal comes; then its folder is removed.

python -m understudy.serving.supervisor FOLDER COMMAND...   exits as the command does, or with 128 and a signal's number

It loads nothing but the standard library, since it stays for as long as the command.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PATIENCE = 5  # seconds to end in


def become(folder: Path, command: list[str]) -> NoReturn:
    """Become the supervisor of a command, which removes the folder when the command ends; no signal is lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.execv(sys.executable, [sys.executable, "-m", "understudy.serving.supervisor", str(folder), *command])


def main() -> None:
    """Run the command that is given after the folder."""
    folder, *command = sys.argv[1:]
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:  # nohup ignores it
            signal.signal(number, _stop)
    try:
        sys.exit(run(command))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(command: list[str]) -> int:
    """The exit code of a command, of which no process is left."""
    process = subprocess.Popen(command, process_group=0, preexec_fn=_unblock)
    try:
        _unblock()
        code = process.wait()
        return code if code >= 0 else 128 - code
    finally:
        _end(process)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _end(process: subprocess.Popen[bytes]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    # The first process of a container gets the orphans, which stay in the group until somebody collects them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, number)
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                time.sleep(0.02)
                process.poll()
                os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):  # the second is what macOS says of a group that has ended
        pass


if __name__ == "__main__":
    main()
