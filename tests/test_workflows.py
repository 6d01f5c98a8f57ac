"""GitHub and GitLab run the steps of .ci/run, the same in both, and nothing else."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import promote
from tests.conftest import PROJECT, Ended, environment

RUN = (PROJECT / ".ci" / "run").read_text()
STEPS = {*re.findall(r"^step_(\w+)\(\)", RUN, re.MULTILINE)}
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))
GITHUB: dict[str, Any] = {path.name: yaml.safe_load(path.read_text()) for path in WORKFLOWS}
JOBS = {name: job for workflow in GITHUB.values() for name, job in workflow["jobs"].items()}
GITLAB: dict[str, Any] = yaml.safe_load((PROJECT / ".gitlab-ci.yml").read_text())


def steps(command: str) -> list[str]:
    """Of a command as both files have it."""
    start = "bash .ci/run "
    assert command.startswith(start)
    named = command.removeprefix(start).split()
    assert {*named} <= STEPS
    return named


def github(job: dict[str, Any]) -> list[str]:
    [command] = [step["run"] for step in job["steps"] if "run" in step]
    return steps(command)


def test_both_run_the_same_steps_in_jobs_of_the_same_name() -> None:
    gitlab = {name: job["script"] for name, job in GITLAB.items() if "script" in job}
    assert {name: github(job) for name, job in JOBS.items()} == {name: steps(only) for name, [only] in gitlab.items()}


def test_what_one_machine_runs_is_run_by_the_jobs_together() -> None:
    [everything] = re.findall(r"^all=\((.*)\)$", RUN, re.MULTILINE)
    checked = {step for job in GITHUB["check.yml"]["jobs"].values() for step in github(job)}
    assert {*everything.split()} < checked
    assert {step for job in JOBS.values() for step in github(job)} == STEPS


def test_both_have_the_same_pythons_and_the_stacks_mysql() -> None:
    pythons = JOBS["test"]["strategy"]["matrix"]["python"]
    assert [{"PYTHON_VERSION": pythons}] == GITLAB["test"]["parallel"]["matrix"]
    assert f">={pythons[0]}" in (PROJECT / "pyproject.toml").read_text()
    image = JOBS["mysql"]["services"]["mysql"]["image"]
    assert [image] == GITLAB["mysql"]["services"]
    assert f":-{image}}}" in (PROJECT / "docker-compose.yml").read_text()


@pytest.mark.parametrize("name", GITHUB)
def test_a_workflow_may_only_read_and_takes_fixed_actions(name: str) -> None:
    workflow = GITHUB[name]
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        assert "permissions" not in job
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")  # what people type in reaches the shell as variables only
            assert re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", step.get("uses", "actions/none@v0.0.0"))


def test_passwords_come_from_environments_that_can_ask_for_a_reviewer() -> None:
    for name, job in JOBS.items():
        assert ("secrets." in str(job)) == bool(job.get("environment")), name
    assert JOBS["promote"]["environment"] == GITLAB["promote"]["environment"] == "production"
    assert "schedule" not in GITHUB["promote.yml"][True]  # YAML's name for `on`


def run(folder: Path, step: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(folder / ".ci" / "run"), step]
    return subprocess.run(command, env=environment(**settings), capture_output=True, text=True)


def test_a_step_that_is_none_is_said_with_those_that_are() -> None:
    ended = run(PROJECT, "lints")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0] == "error: there is no step lints"
    assert {*ended.stderr.splitlines()[1].split()} >= STEPS


@pytest.fixture(scope="module")
def installed(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose .venv has what make would install there."""
    folder = tmp_path_factory.mktemp("installed") / "project"
    shutil.copytree(clone, folder, ignore=shutil.ignore_patterns("mlruns"))
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / ".venv" / "requirements-server.lock").touch()
    return folder


def test_the_steps_on_a_server_do_what_they_are_told(
    installed: Path, in_production: str, call: Callable[..., Ended]
) -> None:
    settings = {"MLFLOW_TRACKING_URI": in_production}
    moved = run(installed, "promote", VERB="staging", VERSION="2", REASON='a "trial" $(exit 9)', **settings)
    assert moved.returncode == 0, moved.stderr
    assert "version 2 is in Staging" in moved.stdout
    assert 'a "trial" $(exit 9)' in call(promote).out
    watched = run(installed, "monitor", NEW_ROWS=str(installed / "data" / "loans.csv"), **settings)
    assert watched.returncode == 0, watched.stderr
    assert "verdict: " in watched.stdout
