"""A terminal of some width, as a program sees it that is started in one."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping

from tests.conftest import PROJECT, environment

NONE: Mapping[str, str] = {}


def in_terminal(program: str, *arguments: str, columns: int = 80, settings: Mapping[str, str] = NONE) -> str:
    """What a Python program writes to a terminal so many columns wide, stderr too, with its control characters."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    ours = environment(**{"TERM": "xterm", **settings})
    left = {name: value for name, value in ours.items() if name not in {"COLUMNS", "NO_COLOR"} - settings.keys()}
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, cwd=PROJECT, env=left) as process:
        os.close(side)
        written = b""
        try:
            while part := os.read(main, 65_536):
                written += part
        except OSError:  # the program has ended
            pass
        finally:
            os.close(main)
    assert process.returncode in (0, 2, 3, 4)
    return written.decode().replace("\r\n", "\n")
