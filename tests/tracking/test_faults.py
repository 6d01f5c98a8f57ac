"""What survives on MariaDB when the database or the server goes away or the disk is full, and in a backup."""

import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import backup, clients, faults, stack
from bench.faults import Left, Outcome
from bench.stack import Stack
from deploy import mysql, secrets
from tests.conftest import LACKING, NO_DATABASE, PROJECT

pytestmark = pytest.mark.skipif(bool(LACKING), reason=NO_DATABASE)
QUICK = ("--models", "LogisticRegression,DecisionTreeClassifier")
AWAY = 7


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            monkeypatch.delenv(name)
        with stack.running(tmp_path_factory.mktemp("faults")) as running:
            yield running


@pytest.fixture(scope="module")
def whole(one: Stack) -> Left:
    return faults.reference(one, *QUICK)


def disturbed(one: Stack, whole: Left, fault: str) -> Outcome:
    [(cause, mend, arguments)] = [how for name, how in faults.faults(one, AWAY).items() if name.startswith(fault)]
    return faults.disturb(one, whole, cause, mend, *QUICK, *arguments)


def test_a_training_waits_for_its_database_and_loses_nothing(one: Stack, whole: Left) -> None:
    found = disturbed(one, whole, "database stopped for")
    assert found.code == 0
    [(seconds, line)] = found.said
    assert 4.5 < seconds < AWAY + 5
    assert line == f"waiting for the tracking server at {one.uri}: its database is away"
    assert (found.lost, found.left_open, found.versions, found.torn) == ([], 0, 3, 0)


def test_fail_fast_gives_up_at_once_and_the_next_start_closes_its_runs(one: Stack, whole: Left) -> None:
    found = disturbed(one, whole, "database stopped, --fail-fast")
    assert found.code == 2
    assert found.said[-1][0] < 10
    assert [line.partition(":")[0] for _, line in found.said] == ["error", "fix"]
    assert f"the database of the tracking server at {one.uri} does not answer" in found.said[0][1]
    assert (found.left_open, found.versions) == (0, 0)


def test_a_model_whose_server_is_killed_during_its_upload_is_whole(one: Stack, whole: Left) -> None:
    found = disturbed(one, whole, "server killed, started again")
    assert found.code == 0
    assert (found.lost, found.left_open, found.versions, found.torn) == ([], 0, 3, 0)


def test_a_database_that_is_away_at_the_start_is_waited_for_and_said(
    one: Stack, whole: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.stop_server()
    with monkeypatch.context() as as_in_the_stack:
        as_in_the_stack.setenv("MLFLOW_ENABLE_WORKSPACES", "true")  # MLflow's /health asks the database then
        as_in_the_stack.setattr(one, "options", ("--workers", "1"))  # that has asked it before
        one.start_server()
    one.stop_database()
    refused = [one.script("register.py", "--fail-fast"), one.script("promote.py", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")]
    for process in refused:
        _, said = process.communicate()
        assert process.returncode == 2
        assert said.splitlines()[:-1] == [f"error: the database of the tracking server at {one.uri} does not answer"]
    with one.script("register.py") as waits:
        assert waits.stderr
        line = waits.stderr.readline()
        one.start_database()
        waits.communicate()
    one.stop_server()
    one.start_server()  # as the other tests expect it
    assert line == f"waiting for the tracking server at {one.uri}: its database is away\n"
    assert waits.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_of_the_artifacts_is_said_and_leaves_no_version(one: Stack, whole: Left) -> None:
    found = disturbed(one, whole, "disk of the artifacts full")
    assert found.code == 2
    assert [line.partition(":")[0] for _, line in found.said] == ["error", "fix"]
    assert "does not take or give" in found.said[0][1]
    assert "disk of its artifacts" in found.said[1][1]
    assert (found.left_open, found.versions) == (0, 0)


def test_a_hundred_clients_at_once_lose_nothing(one: Stack) -> None:
    found = clients.storm(one, 100, 1)
    assert (found.logged, found.lost) == (100, [])


def restored(one: Stack, folder: Path, archive: Path) -> tuple[list[str], list[str]]:
    """What differs, and what ended runs lack, in a new server that got an archive; a second restore is refused."""
    with mysql.database(folder, mysql.free_port()) as host:
        backup.restore(host, folder, archive)
        with pytest.raises(RuntimeError, match="the database auth is not empty"):
            backup.restore(host, folder, archive)
        return backup.differences(one, host, folder), backup.incomplete(one, host, folder)


def test_a_backup_brings_back_every_row_and_every_byte(one: Stack, whole: Left, tmp_path: Path) -> None:
    client = one.client
    client.set_registered_model_alias(client.search_registered_models()[0].name, "production", "1")
    backup.back_up(one, tmp_path / "archive.tar.gz")
    assert (tmp_path / "archive.tar.gz").stat().st_mode & 0o077 == 0
    assert restored(one, tmp_path / "other", tmp_path / "archive.tar.gz") == ([], [])


def test_a_backup_without_accounts_leaves_their_database_alone(one: Stack, whole: Left, tmp_path: Path) -> None:
    def run(name: str, host: str, folder: Path) -> str:
        section = (folder / "secrets" / secrets.MIGRATOR).read_text().partition("[auth]")[0]
        (tmp_path / "client.cnf").write_text(section.replace("[tracking]", "[client]"))
        command: list[str | Path] = [PROJECT / "deploy" / name, "archive.tar", host, "client.cnf", folder / "artifacts"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stderr

    other = tmp_path / "other"
    said = run("backup.sh", one.host, one.folder)
    assert said == f"without MLflow's accounts: {tmp_path / 'client.cnf'} has no section [auth]\n"
    with mysql.database(other, mysql.free_port()) as host:
        run("restore.sh", host, other)
        wrong = backup.differences(one, host, other)
    assert wrong
    assert all(name.startswith("auth.") for name in wrong)


def test_a_backup_during_a_training_has_the_files_of_all_that_had_ended(
    one: Stack, whole: Left, tmp_path: Path
) -> None:
    before = len(one.runs())
    with one.script("train.py", *QUICK) as training:
        while len(one.runs()) < before + 3:
            assert training.poll() is None
        backup.back_up(one, tmp_path / "archive.tar")
        assert training.poll() is None
        training.communicate()
    assert training.returncode == 0
    different, lacking = restored(one, tmp_path / "other", tmp_path / "archive.tar")
    assert "tracking.runs" in different
    assert lacking == []


def test_an_archive_that_was_changed_is_refused_and_nothing_is_restored(tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    (folder / "artifacts").mkdir(parents=True)
    (folder / "artifacts" / "model").write_text("as it was")
    digest = subprocess.run(["sha256sum", "./artifacts/model"], cwd=folder, capture_output=True, text=True, check=True)
    (tmp_path / "accounts").touch()
    for name, content in [("model", "changed"), ("another", "added")]:
        (folder / "artifacts" / "model").write_text("as it was")
        (folder / "MANIFEST").write_text(digest.stdout)
        (folder / "artifacts" / name).write_text(content)
        with tarfile.open(tmp_path / "archive.tar", "w") as archive:
            archive.add(folder, ".")
        command = [str(PROJECT / "deploy" / "restore.sh"), "archive.tar", "127.0.0.1:1", "accounts", "restored"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 2
        assert ended.stderr.splitlines()[-2:] == [
            f"error: {tmp_path / 'archive.tar'} is not what was backed up",
            "fix: use another backup",
        ]
    assert not (tmp_path / "restored").exists()
