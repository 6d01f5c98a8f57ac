"""Runs that kill -9 cut off are ended by the next start, and nobody else's are."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

import train
from tests.conftest import PROJECT, Ended, environment, started_training
from understudy.tracking import experiments, runs
from understudy.tracking.runs import HOST, PID, STARTED

Call = Callable[..., Ended]


@pytest.fixture
def living() -> Iterator[subprocess.Popen[bytes]]:
    """Another process of this host."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def running(store: str, **tags: str) -> str:
    return str(MlflowClient(store).create_run("0", tags=tags).info.run_id)


def status(store: str, run_id: str) -> str:
    return str(MlflowClient(store).get_run(run_id).info.status)


def tags(pid: int, **other: str) -> dict[str, str]:
    return {HOST: runs.host(), PID: str(pid), STARTED: runs.started(pid), **other}


def ended() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_killed_run_whose_tags_have_the_names_of_0_2_is_closed_too(store: str) -> None:
    process = {"process.host": runs.host(), "process.pid": str(ended()), "process.started": "1"}
    run_id = running(store, **process)
    assert len(runs.close_killed(MlflowClient(store))) == 1
    assert status(store, run_id) == "KILLED"


def test_a_killed_training_is_closed_by_the_next_one(store: str, tmp_path: Path, call: Call) -> None:
    client = MlflowClient(store)
    process = started_training(store, tmp_path)
    made = client.search_runs(experiments.all_ids(client))
    assert runs.close_killed(client) == []  # it lives
    os.killpg(process.pid, signal.SIGKILL)
    time.sleep(1)
    assert process.returncode is None  # nobody has collected it, as in a container without an init
    trained = call(train, "--models", "LogisticRegression")
    process.communicate()
    assert [status(store, run.info.run_id) for run in made] == ["KILLED", "KILLED"]
    assert trained.code == 0
    assert trained.out.splitlines()[:2] == [
        "RandomForestClassifier: was killed, and says so now",
        "loans book: was killed, and says so now",
    ]


def test_only_runs_of_processes_of_this_host_that_are_gone_are_closed(
    store: str, living: subprocess.Popen[bytes]
) -> None:
    gone = ended()
    closed = [
        running(store, **{**tags(living.pid), PID: str(gone)}),
        running(store, **{**tags(living.pid), STARTED: "1"}),  # its number is another one's by now
    ]
    left = [
        running(store, **tags(living.pid)),
        running(store, **tags(os.getpid())),
        running(store, **{**tags(living.pid), PID: str(gone), HOST: "a-colleagues 0"}),
        running(store),
    ]
    assert len(runs.close_killed(MlflowClient(store))) == 2
    assert [status(store, run) for run in closed] == ["KILLED"] * 2
    assert [status(store, run) for run in left] == ["RUNNING"] * 4


@pytest.mark.skipif(not shutil.which("unshare"), reason="there is no unshare here")
def test_process_ids_of_a_container_are_not_taken_for_those_of_its_host() -> None:
    program = [sys.executable, "-c", "from understudy.tracking import experiments, runs; print(runs.host())"]
    inside = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *program],
        cwd=PROJECT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in inside.stderr:
        pytest.skip("only root can make a space of process ids")
    assert inside.stdout.split()[0] == runs.host().split()[0]
    assert inside.stdout.strip() != runs.host()


def test_a_process_is_gone_when_its_number_is_another_ones_or_nobody_has_collected_it(
    living: subprocess.Popen[bytes],
) -> None:
    started = runs.started(living.pid)
    assert not runs.is_gone(living.pid, started)
    assert runs.is_gone(living.pid, "1.00")
    assert runs.is_gone(ended(), started)
    living.kill()
    time.sleep(0.5)
    assert runs.is_gone(living.pid, started)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says in one place when the machine started")
def test_setting_the_clock_ends_no_living_process(
    living: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = runs.started(living.pid)
    for name in ("stat", f"{living.pid}/stat", f"{living.pid}/status"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(Path("/proc", name).read_bytes())
    lines = (tmp_path / "stat").read_text().splitlines()
    later = [f"btime {int(line.split()[1]) + 3600}" if line.startswith("btime") else line for line in lines]
    (tmp_path / "stat").write_text("\n".join(later))  # as Linux shows it after the clock has been set by an hour
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert not runs.is_gone(living.pid, started)
