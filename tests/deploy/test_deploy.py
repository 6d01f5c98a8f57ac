"""How `make mysql` and `make up` begin and end."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import LACKING, NO_DATABASE, PROJECT, Ended, environment, is_refusal


@pytest.mark.parametrize("goal", ["mysql", "secrets", "up"])
def test_a_python_that_is_too_old_is_said(goal: str) -> None:
    command = ["make", "--silent", goal, "PYTHON=false"]  # as an old one it fails the check
    ended = subprocess.run(command, cwd=PROJECT, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[:2] == [
        "error: false is older than Python 3.11",
        f"fix: name a newer one, as in: make {goal} PYTHON=python3.12",
    ]


@pytest.mark.skipif(bool(LACKING), reason=NO_DATABASE)
def test_make_mysql_runs_once_and_ends_with_its_terminal(tmp_path: Path) -> None:
    for name in ("deploy", "understudy"):
        shutil.copytree(PROJECT / name, tmp_path / name)

    command = [sys.executable, "-m", "deploy.mysql"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout
            assert first.stdout.readline().startswith("MySQL at ")
            ran = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
        finally:
            first.send_signal(signal.SIGHUP)
    assert is_refusal(Ended(ran.returncode, ran.stdout, ran.stderr)), ran.stderr
    assert f"already running, on {tmp_path / '.mysql'}" in ran.stderr
    assert first.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / ".mysql" / "pid").exists()  # the database server takes it away when it ends
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listed


def test_a_probation_that_ends_as_before_is_not_started_for_ever() -> None:
    composed = yaml.safe_load((PROJECT / "deploy" / "monitor.compose.yml").read_text())
    restart = composed["services"]["probation"]["restart"]
    assert restart.partition(":")[0] == "on-failure"
    assert int(restart.partition(":")[2]) <= 5  # exit 2 and 7 are failures to Docker, and would come again
