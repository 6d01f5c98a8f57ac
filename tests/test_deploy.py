"""How `make mysql` and `make up` begin and end."""

import subprocess

import pytest

from tests.conftest import PROJECT, environment


@pytest.mark.parametrize("goal", ["mysql", "secrets", "up"])
def test_a_python_that_is_too_old_is_said(goal: str) -> None:
    command = ["make", "--silent", goal, "PYTHON=false"]  # as an old one it fails the check
    ended = subprocess.run(command, cwd=PROJECT, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[:2] == [
        "error: false is older than Python 3.11",
        f"fix: name a newer one, as in: make {goal} PYTHON=python3.12",
    ]
