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
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            monkeypatch.delenv(name)
        with stack.running(tmp_path_factory.mktemp("faults")) as running:
            yield running


@pytest.fixture(scope="module")
def whole(team: Stack) -> Left:
    return faults.reference(team, *QUICK)


def disturbed(team: Stack, whole: Left, fault: str) -> Outcome:
    [(cause, mend, arguments)] = [how for name, how in faults.faults(team, AWAY).items() if name.startswith(fault)]
    return faults.disturb(team, whole, cause, mend, *QUICK, *arguments)


def test_a_training_waits_for_its_database_and_loses_nothing(team: Stack, whole: Left) -> None:
    outcome = disturbed(team, whole, "database stopped for")
    assert outcome.code == 0
    [(seconds, line)] = outcome.lines
    assert 4.5 < seconds < AWAY + 5
    assert line == f"waiting for the tracking server at {team.uri}: its database is away"
    assert (outcome.lost, outcome.left_open, outcome.versions, outcome.torn) == ([], 0, 3, 0)


def test_fail_fast_gives_up_at_once_and_the_next_start_closes_its_runs(team: Stack, whole: Left) -> None:
    outcome = disturbed(team, whole, "database stopped, --fail-fast")
    assert outcome.code == 2
    assert outcome.lines[-1][0] < 10
    assert [line.partition(":")[0] for _, line in outcome.lines] == ["error", "fix"]
    assert f"the database of the tracking server at {team.uri} does not answer" in outcome.lines[0][1]
    assert (outcome.left_open, outcome.versions) == (0, 0)


def test_a_model_whose_server_is_killed_during_its_upload_is_whole(team: Stack, whole: Left) -> None:
    outcome = disturbed(team, whole, "server killed, started again")
    assert outcome.code == 0
    assert (outcome.lost, outcome.left_open, outcome.versions, outcome.torn) == ([], 0, 3, 0)


def test_a_database_that_is_away_at_the_start_is_waited_for_and_said(
    team: Stack, whole: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.stop_server()
    with monkeypatch.context() as as_in_the_stack:
        as_in_the_stack.setenv("MLFLOW_ENABLE_WORKSPACES", "true")  # MLflow's /health asks the database then
        as_in_the_stack.setattr(team, "options", ("--workers", "1"))  # that has asked it before
        team.start_server()
    team.stop_database()
    refused = [
        team.script("register.py", "--fail-fast"),
        team.script("promote.py", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"),
    ]
    for process in refused:
        _, stderr = process.communicate()
        assert process.returncode == 2
        assert stderr.splitlines()[:-1] == [f"error: the database of the tracking server at {team.uri} does not answer"]
    with team.script("register.py") as waits:
        assert waits.stderr
        line = waits.stderr.readline()
        team.start_database()
        waits.communicate()
    team.stop_server()
    team.start_server()  # as the other tests expect it
    assert line == f"waiting for the tracking server at {team.uri}: its database is away\n"
    assert waits.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_of_the_artifacts_is_said_and_leaves_no_version(team: Stack, whole: Left) -> None:
    outcome = disturbed(team, whole, "disk of the artifacts full")
    assert outcome.code == 2
    assert [line.partition(":")[0] for _, line in outcome.lines] == ["error", "fix"]
    assert "does not take or give" in outcome.lines[0][1]
    assert "disk of its artifacts" in outcome.lines[1][1]
    assert (outcome.left_open, outcome.versions) == (0, 0)


def test_a_hundred_clients_at_once_lose_nothing(team: Stack) -> None:
    outcome = clients.storm(team, 100, 1)
    assert (outcome.logged, outcome.lost) == (100, [])


def restored(team: Stack, folder: Path, archive: Path) -> tuple[list[str], list[str]]:
    """What differs, and what ended runs lack, in a new server that got an archive; a second restore is refused."""
    with mysql.database(folder, mysql.free_port()) as host:
        backup.restore(host, folder, archive)
        with pytest.raises(RuntimeError, match="the database auth is not empty"):
            backup.restore(host, folder, archive)
        return backup.differences(team, host, folder), backup.incomplete(team, host, folder)


def test_a_backup_brings_back_every_row_and_every_byte(team: Stack, whole: Left, tmp_path: Path) -> None:
    client, run = team.client, team.runs()[0].info
    client.create_registered_model("backed up")
    client.create_model_version("backed up", f"{run.artifact_uri}/model", run.run_id, await_creation_for=0)
    client.set_registered_model_alias("backed up", "production", "1")
    backup.back_up(team, tmp_path / "archive.tar.gz")
    assert (tmp_path / "archive.tar.gz").stat().st_mode & 0o077 == 0
    assert restored(team, tmp_path / "other", tmp_path / "archive.tar.gz") == ([], [])


def test_a_backup_without_accounts_leaves_their_database_alone(team: Stack, whole: Left, tmp_path: Path) -> None:
    def run(name: str, host: str, folder: Path) -> str:
        section = (folder / "secrets" / secrets.MIGRATOR).read_text().partition("[auth]")[0]
        (tmp_path / "client.cnf").write_text(section.replace("[tracking]", "[client]"))
        command: list[str | Path] = [PROJECT / "deploy" / name, "archive.tar", host, "client.cnf", folder / "artifacts"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stderr

    other = tmp_path / "other"
    stderr = run("backup.sh", team.host, team.folder)
    assert stderr == f"without MLflow's accounts: {tmp_path / 'client.cnf'} has no section [auth]\n"
    with mysql.database(other, mysql.free_port()) as host:
        run("restore.sh", host, other)
        wrong = backup.differences(team, host, other)
    assert wrong
    assert all(name.startswith("auth.") for name in wrong)


def test_a_backup_during_a_training_has_the_files_of_all_that_had_ended(
    team: Stack, whole: Left, tmp_path: Path
) -> None:
    before = len(team.runs())
    with team.script("train.py", *QUICK) as training:
        while len(team.runs()) < before + 3:
            assert training.poll() is None
        backup.back_up(team, tmp_path / "archive.tar")
        assert training.poll() is None
        training.communicate()
    assert training.returncode == 0
    different, lacking = restored(team, tmp_path / "other", tmp_path / "archive.tar")
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
