"""Which process a run belongs to, and whether it is still there: for runs that `kill -9` cut off."""

import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path


def host() -> str:
    """The host's name, and a mark of what else must be the same for a process id to mean the same process.

    Machines may have one name, as clones do; and a container may have its host's, with process ids of its own.
    """
    machine, processes = Path("/etc/machine-id"), Path("/proc/self/ns/pid")
    marks = [machine.read_text() if machine.exists() else "", str(processes.readlink()) if processes.exists() else ""]
    return f"{socket.gethostname()} {hashlib.sha256(' '.join(marks).encode()).hexdigest()[:8]}"


def is_gone(pid: int, since: str) -> bool:
    """Whether the process that started at `since` has ended, though its number may be another one's by now.

    Not if that cannot be seen.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's by now, or still
    return started(pid) not in ("", since)


def started(pid: int) -> str:
    """When a process started, in a form of the system's own; "ended" for one that only waits to be collected."""
    if sys.platform == "linux":
        try:
            state, *_, ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:20]
        except OSError:
            return ""
        return "ended" if state in "ZX" else ticks
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    shown = subprocess.run(command, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"}, capture_output=True, text=True)
    state, _, time = shown.stdout.strip().partition(" ")
    return "ended" if state.startswith("Z") else time.strip()
