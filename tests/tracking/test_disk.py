"""A disk that is full or read-only ends a training in two lines, with its runs ended wherever that can be written."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT, Ended, environment, is_refusal


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The project on a small disk of its own, or where only root may have one, in a folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        for name in ["understudy", "data"]:
            shutil.copytree(PROJECT / name, folder / name)
        for name in ["train.py", "evaluate.py", "requirements.lock"]:
            shutil.copy(PROJECT / name, folder)
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)
        else:
            folder.chmod(0o755)


def fill(disk: Path, left: int) -> None:
    if not disk.is_mount():
        pytest.skip("only root can mount a small disk")
    free = os.statvfs(disk)
    (disk / "filling").write_bytes(bytes(free.f_bavail * free.f_frsize - left))


def lock(disk: Path) -> None:
    if disk.is_mount():
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        return
    for path in [*disk.iterdir(), disk]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.access(disk, os.W_OK):
        pytest.skip("whoever runs this may write to every folder, and mount none")


def train(disk: Path, **extra: str) -> Ended:
    command = [sys.executable, "train.py", "--models", "LogisticRegression"]
    ran = subprocess.run(command, cwd=disk, env=environment(**extra), capture_output=True, text=True, check=False)
    return Ended(ran.returncode, ran.stdout, ran.stderr)


def statuses(store: Path) -> list[str]:
    connection = sqlite3.connect(f"file:{store}?mode=ro&immutable=1", uri=True)
    statuses = [status for (status,) in connection.execute("select status from runs")]
    connection.close()
    return statuses


@pytest.fixture
def elsewhere(tmp_path: Path, migrated: Path) -> Path:
    """A store that is not on the small disk, while files and plots are."""
    return Path(shutil.copy(migrated, tmp_path / "elsewhere.db"))


def test_a_store_that_cannot_be_started_for_want_of_space_is_said(disk: Path, migrated: Path) -> None:
    shutil.copy(migrated, disk / "mlflow.db")
    fill(disk, 0)
    assert_says(train(disk), "the tracking store: database or disk is full", "free some space")
    assert statuses(disk / "mlflow.db") == []


def test_a_store_that_fills_the_disk_is_said_and_mended_by_the_next_start(disk: Path, migrated: Path) -> None:
    shutil.copy(migrated, disk / "mlflow.db")
    fill(disk, 64 * 1024)
    assert_says(train(disk), "the tracking store: database or disk is full", "free some space")
    assert "RUNNING" in statuses(disk / "mlflow.db")  # there is no space for another status
    (disk / "filling").unlink()
    assert train(disk).code == 0
    assert set(statuses(disk / "mlflow.db")) <= {"KILLED", "FAILED", "FINISHED"}


def test_files_on_a_full_disk_end_failed(disk: Path, elsewhere: Path) -> None:
    fill(disk, 40_000)
    assert_says(train(disk, MLFLOW_TRACKING_URI=f"sqlite:///{elsewhere}"), "No space left on device", "free some space")
    assert statuses(elsewhere) == ["FAILED", "FAILED"]


def test_files_in_a_read_only_folder_end_failed(disk: Path, elsewhere: Path) -> None:
    lock(disk)
    assert_says(train(disk, MLFLOW_TRACKING_URI=f"sqlite:///{elsewhere}"), "cannot ", "make it ")
    assert statuses(elsewhere) == ["FAILED"]


def test_a_store_in_a_read_only_folder_is_said(disk: Path, migrated: Path) -> None:
    shutil.copy(migrated, disk / "mlflow.db")
    lock(disk)
    assert_says(train(disk), "attempt to write a readonly database", "make it writable")
    assert statuses(disk / "mlflow.db") == []


def test_a_store_that_cannot_be_made_is_said_at_once(disk: Path) -> None:
    lock(disk)
    assert_says(train(disk), f"cannot make {disk}/mlflow.db: {disk} is read-only", "make it writable")


def assert_says(ended: Ended, problem: str, fix: str) -> None:
    assert is_refusal(ended), ended.err
    assert problem in ended.err.splitlines()[0]
    assert f"fix: {fix}" in ended.err
