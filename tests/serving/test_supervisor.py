"""What happens to the processes and the folder of a command when it ends or is ended."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import PROJECT, environment


def supervised(folder: Path, command: str) -> subprocess.Popen[bytes]:
    """A shell's command under supervision, which has made a file called ready in the folder."""
    folder.mkdir()
    arguments = [
        sys.executable,
        "-m",
        "understudy.serving.supervisor",
        str(folder),
        "sh",
        "-c",
        f"touch '{folder}/ready'; {command}",
    ]
    process = subprocess.Popen(arguments, cwd=PROJECT, env=environment(), start_new_session=True)
    while not (folder / "ready").exists():
        time.sleep(0.01)
    return process


def group(parent: int) -> int:
    """The process group of a process's only child."""
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,pgid="], capture_output=True, text=True, check=True).stdout
    [group_id] = [int(line.split()[1]) for line in listed.splitlines() if int(line.split()[0]) == parent]
    return group_id


def is_left(group: int) -> bool:
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    processes = [line.split() for line in listed.splitlines()]
    return any(int(pgid) == group and not state.startswith("Z") for pgid, state in processes)


def test_a_signal_to_the_supervisor_alone_ends_everything(tmp_path: Path) -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    started = {number: supervised(tmp_path / str(number), "sleep 100 & sleep 100") for number in numbers}
    groups = {number: group(process.pid) for number, process in started.items()}
    for number, process in started.items():
        assert is_left(groups[number])
        process.send_signal(number)
    for number, process in started.items():
        assert process.wait(timeout=30) == 128 + number
        assert not is_left(groups[number])
        assert not (tmp_path / str(number)).exists()


def test_the_commands_end_is_passed_on_and_leaves_no_process(tmp_path: Path) -> None:
    codes = {"exit 0": 0, "exit 7": 7, "kill -9 $$": 137}
    started = {end: supervised(tmp_path / end, f"sleep 100 & echo $$ > '{tmp_path}/of {end}'; {end}") for end in codes}
    for end, process in started.items():
        assert process.wait(timeout=30) == codes[end]
        assert not is_left(int((tmp_path / f"of {end}").read_text()))
        assert not (tmp_path / end).exists()


def test_what_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    process = supervised(tmp_path / "copy", f"trap '' TERM; touch {tmp_path}/copy/ready; while true; do sleep 1; done")
    command = group(process.pid)
    time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=30) == 143
    assert not is_left(command)


def test_a_signal_that_came_before_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    program = (
        "import os, signal, sys\n"
        "from understudy.serving import supervisor\n"
        "become = os.execv\n"
        "os.execv = lambda *args: (os.kill(os.getpid(), signal.SIGTERM), become(*args))\n"
        "supervisor.become(sys.argv[1], sys.argv[2:])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "copy"), "sleep", "100"]
    assert subprocess.run(command, cwd=PROJECT, env=environment(), timeout=30, check=False).returncode == 143
    assert not (tmp_path / "copy").exists()
