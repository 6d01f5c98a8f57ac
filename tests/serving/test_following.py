"""That a new version takes over while the old one answers, and what happens when anything on that way fails."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.models import Model

from deploy.mysql import free_port
from tests.conftest import PROJECT, Ended, environment, is_refusal
from tests.scoring.test_scoring import APPLICANT
from tests.serving.conftest import (
    CUT_OFF,
    ENCODED,
    NAME,
    ONE,
    Live,
    answering,
    connections,
    hammered,
    probability,
    promote,
    request,
    served,
    until,
)
from understudy.reading import table_rows
from understudy.scoring import model_files, pipelines
from understudy.serving.following import CURRENT, Follower, Settings, named
from understudy.table import TABLE
from understudy.verification import manifest
from understudy.verification.digests import DIGEST, digest
from understudy.verification.version_cache import VersionCache, VersionKey


def test_another_version_takes_over_between_two_answers(live: Live, store: str) -> None:
    swaps = live.metric("swaps_total")
    with hammered(live, 4) as replies:
        for version in ("2", "1"):
            promote(store, version)
            answering(live, version)
    assert {reply.status for reply in replies} == {200}
    assert {version for version, _ in map(probability, replies)} == {"1", "2"}
    assert len(set(map(probability, replies))) == 2  # an answer of each version, and none that mixes them
    assert live.metric("swaps_total") == swaps + 2


def made(store: str, folder: Path, change: Callable[[Path], object]) -> tuple[str, Path]:
    """A new version with the files of version 1, changed before they are recorded; its number and its folder."""
    client = MlflowClient(store)
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", dst_path=str(folder)))
    (files / manifest.LEFT_OUT).unlink(missing_ok=True)
    change(files)
    run_id = client.get_model_version(NAME, "1").run_id or ""
    version = client.create_model_version(NAME, str(files), run_id)
    for tag, value in manifest.record(client, run_id, files).items():
        client.set_model_version_tag(NAME, version.version, tag, value)
    return str(version.version), files


def made_with(store: str, folder: Path, classifier: Any) -> str:
    """A new version whose files are as registered, but whose classifier is this one, trained here; its number."""
    rows, _ = TABLE.split(table_rows.read(TABLE, PROJECT / TABLE.path))
    pipeline = pipelines.build(TABLE, pipelines.decided(TABLE, classifier, None, 0.5))
    pipeline.fit(rows, rows[TABLE.target.name])

    def change(files: Path) -> None:
        shutil.rmtree(files)
        model_files.save_model(str(files), Model(), pipeline, rows)

    folder.mkdir()
    return made(store, folder, change)[0]


def lie(folder: Path) -> None:
    written = json.loads((folder / "scorer.json").read_text())
    written["stored"]["probabilities"][0] = 0.123
    (folder / "scorer.json").write_text(json.dumps(written))


def refused(live: Live, store: str, version: str) -> str:
    """What is said of a version that is promoted and refused, while version 1 goes on."""
    before = live.metric("refused_versions_total")
    promote(store, version)
    try:
        until(lambda: live.metric("refused_versions_total") == before + 1)
        assert {live.version() for _ in range(4)} == {"1"}
    finally:
        promote(store, "1")
    [line] = [line for line in live.log.read_text().splitlines() if f"version {version} is refused" in line]
    assert "version 1 goes on" in line
    return line


def test_a_version_whose_files_changed_is_refused(live: Live, store: str, tmp_path: Path) -> None:
    version, files = made(store, tmp_path, lambda files: (files / "conda.yaml").write_text("as registered"))
    (files / "conda.yaml").write_text("changed")
    assert "conda.yaml changed" in refused(live, store, version)


def test_a_version_that_does_not_give_its_stored_answers_is_refused(live: Live, store: str, tmp_path: Path) -> None:
    version, _ = made(store, tmp_path, lie)
    assert "the stored rows do not get the stored answers" in refused(live, store, version)


def test_a_version_that_cannot_be_loaded_is_refused(live: Live, store: str, tmp_path: Path) -> None:
    version, _ = made(store, tmp_path, lambda files: (files / "scorer.json").unlink())
    assert "scorer.json" in refused(live, store, version)


def test_a_worker_that_is_killed_is_started_again_and_answers_at_once_with_what_the_others_do(live: Live) -> None:
    killed, other = live.workers()
    killed.kill()
    until(lambda: live.log.read_text().count("version 1 answers") >= 3)
    assert other in live.workers()
    until(lambda: len(live.workers()) == 2)
    assert {live.ask({"inputs": [ENCODED]}).status for _ in range(8)} == {200}


def test_no_process_with_mlflow_stays(live: Live) -> None:
    processes = [psutil.Process(live.process.pid), *psutil.Process(live.process.pid).children(recursive=True)]
    assert len(processes) == 3
    for process in processes:
        assert not any("mlflow" in file.path or "pandas" in file.path for file in process.memory_maps())


def test_workers_end_when_what_started_them_was_killed(store: str, tmp_path: Path) -> None:
    with served(tmp_path, store, "--workers", "2") as live:
        workers = live.workers()
        live.process.kill()
        gone, _ = psutil.wait_procs(workers, 60)
    assert len(gone) == 2


def test_a_server_waits_for_a_first_version_and_drains(store: str, tmp_path: Path) -> None:
    with served(tmp_path, store, "--stage", "Staging") as live:
        waiting = live.ask({"inputs": [ENCODED]})
        assert (waiting.status, waiting.headers["retry-after"]) == (503, "5")
        assert live.ask(path="/health").json == {"status": "waiting"}
        assert live.ask(path="/schema").status == live.ask(path="/version").status == 503
        MlflowClient(store).set_registered_model_alias(NAME, "staging", "2")
        until(lambda: live.version() == "2")
        half = connections(live, 20)
        for connection in half:
            connection.sendall(ONE[:-9])
        processes = [psutil.Process(live.process.pid), *psutil.Process(live.process.pid).children(recursive=True)]
        with hammered(live, 4) as replies:
            until(lambda: len(replies) > 100)
            live.process.terminate()
            time.sleep(0.2)
            for connection in half:
                connection.sendall(ONE[-9:])
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
                connection.close()
            assert live.process.wait(10) == 0
        assert {reply.status for reply in replies} <= {200, CUT_OFF}  # a kept connection is closed between two requests
        assert not psutil.wait_procs(processes, 5)[1]
        assert list((tmp_path / "tmp").iterdir()) == []
        assert "ERROR" not in live.log.read_text()


def test_what_cannot_be_answered_within_five_seconds_of_the_end_is_cut_off(store: str, tmp_path: Path) -> None:
    MlflowClient(store).set_registered_model_alias(NAME, "staging", "2")
    slow = request({"inputs": [ENCODED] * 1_000, "params": {"output": "detail"}})
    with served(tmp_path, store, "--stage", "Staging") as live:
        until(lambda: live.version() == "2")
        opened = connections(live, 400)
        for connection in opened:
            connection.sendall(slow)
        time.sleep(0.5)
        live.process.terminate()
        assert live.process.wait(15) == 0
        answers = []
        for connection in opened:
            with suppress(ConnectionError):
                answers.append(connection.recv(1000))
            connection.close()
    assert {answer[9:12] for answer in answers} <= {b"200", b""}
    assert len([answer for answer in answers if answer]) < len(opened)


class Relay:
    """A way to a server, which can be shut and opened again."""

    def __init__(self, port: int) -> None:
        self.to, self.port = port, free_port()
        self.connections: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def shut(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.connections = []

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self.listening.accept()
                theirs = socket.create_connection(("127.0.0.1", self.to))
                self.connections += [ours, theirs]
                for ends in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self.pass_on, args=ends, daemon=True).start()

    def pass_on(self, source: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                other.sendall(part)
            other.shutdown(socket.SHUT_WR)


def is_listening(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture
def relay(store: str, tmp_path: Path) -> Iterator[Relay]:
    """The way to a tracking server on the store."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(port)]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--workers", "1"], cwd=tmp_path, env=environment(), stdout=log, stderr=log, process_group=0
        )
    try:
        until(lambda: is_listening(port))  # which it says before it is so
        yield Relay(port)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_the_tracking_server_may_go_away_and_come_back(store: str, relay: Relay, tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{relay.port}"
    with served(tmp_path, uri) as live:
        until(lambda: live.version() == "1")
        with hammered(live, 2) as replies:
            relay.shut()
            until(lambda: live.metric("tracking_away") == 1)
            seen = len(replies)
            until(lambda: len(replies) > seen + 50)
        assert {reply.status for reply in replies} == {200}
    with served(tmp_path, uri) as live:
        until(lambda: live.version() == "1")
        assert live.ask({"dataframe_records": [APPLICANT]}).json == {"predictions": ["Y"]}
        until(lambda: live.metric("tracking_away") == 1)
        relay.open()
        until(lambda: live.metric("tracking_away") == 0)
        promote(store, "2")
        until(lambda: live.version() == "2")
    promote(store, "1")


def test_a_tracking_server_names_the_version_by_rest(relay: Relay, tmp_path: Path) -> None:
    settings = Settings(tmp_path, f"http://127.0.0.1:{relay.port}/", NAME, "Production", 5, tmp_path, None)
    key = named(settings)
    assert key
    assert named(replace(settings, name="another")) is named(replace(settings, stage="Archived")) is None
    relay.shut()
    with pytest.raises(OSError, match="refused"):
        named(settings)


def test_a_sqlite_file_and_a_database_by_sqlalchemy_name_the_same(store: str, tmp_path: Path) -> None:
    settings = Settings(tmp_path, store, NAME, "Production", 5, tmp_path, None)
    assert named(settings) == named(replace(settings, uri=store.replace("sqlite:", "sqlite+pysqlite:")))
    assert named(settings) == VersionKey("1", MlflowClient(store).get_model_version(NAME, "1").tags[DIGEST])
    with pytest.raises(Exception, match="unable to open"):
        named(replace(settings, uri=f"sqlite:///{tmp_path}/none.db"))


def test_each_worker_says_the_start_that_it_was_given_whatever_the_clock_says_since(store: str, tmp_path: Path) -> None:
    settings = Settings(tmp_path, store, NAME, "Production", 5, tmp_path, None, started=1_700_000_000.5)
    program = f"""
import os
from pathlib import Path, PosixPath
from understudy.serving import metrics
from understudy.serving.app import App
from understudy.serving.following import Settings
App({settings}, parent=os.getpid())
print(metrics.page().decode())
"""
    worker = environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    page = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, env=worker, capture_output=True, text=True, check=True
    ).stdout
    assert "\nunderstudy_start_seconds 1.7000000005e+09\n" in page


def test_what_was_kept_and_changed_is_not_used(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "MLmodel").write_text("as it was")
    cache = VersionCache.of(tmp_path / "cache", "sqlite:///", NAME, "Production")
    key = VersionKey("7", digest(files))
    assert cache.last() is None
    assert not cache.holds(key)
    cache.put(key, files)
    cache.answers(key)
    assert (cache.last(), cache.holds(key)) == (key, True)
    assert not cache.holds(VersionKey("7", ""))
    (cache.files(key) / "MLmodel").write_text("changed")
    assert not cache.holds(key)
    cache.put(key, files)
    assert cache.holds(key)
    (files / "MLmodel").write_text("another")
    another = VersionKey("8", digest(files))
    cache.put(another, files)
    assert (cache.holds(key), cache.holds(another)) == (True, True)  # a rollback finds what it goes back to
    cache.answers(another)
    (files / "MLmodel").write_text("a third")
    cache.put(VersionKey("9", digest(files)), files)
    assert (cache.holds(key), cache.holds(another)) == (False, True)


@pytest.fixture
def kept(store: str, tmp_path: Path) -> Settings:
    """The settings of a live server whose cache holds version 1, of a tracking server that is away."""
    (tmp_path / "files").mkdir()
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", dst_path=str(tmp_path / "files")))
    (files / manifest.LEFT_OUT).unlink()
    uri = f"http://127.0.0.1:{free_port()}"
    cache, key = VersionCache.of(tmp_path, uri, NAME, "Staging"), VersionKey("1", digest(files))
    cache.put(key, files)
    cache.answers(key)
    return Settings(tmp_path, uri, NAME, "Staging", 5, tmp_path, None)


def cached(settings: Settings) -> VersionCache:
    return VersionCache.of(settings.cache, settings.uri, settings.name, settings.stage)


def test_what_was_kept_answers_while_the_tracking_server_is_away(kept: Settings) -> None:
    follower = Follower(kept)
    follower.look()
    assert follower.loaded
    assert follower.loaded.key == cached(kept).last()
    assert VersionKey.read(kept.folder / CURRENT) == follower.loaded.key


def test_what_was_kept_is_not_for_a_stage_that_is_known_to_be_empty(kept: Settings, store: str, tmp_path: Path) -> None:
    MlflowClient(store).delete_registered_model_alias(NAME, "staging")
    known = replace(kept, uri=store)
    last = cached(kept).last()
    assert last
    cached(known).put(last, cached(kept).files(last))
    cached(known).answers(last)
    follower = Follower(known)
    follower.look()
    assert follower.loaded is None


def test_what_was_kept_and_does_not_work_any_more_is_not_used(kept: Settings, tmp_path: Path) -> None:
    last = cached(kept).last()
    assert last
    files = tmp_path / "lying"
    shutil.copytree(cached(kept).files(last), files)
    lie(files)
    cached(kept).put(VersionKey("1", digest(files)), files)
    cached(kept).answers(VersionKey("1", digest(files)))
    follower = Follower(kept)
    with pytest.raises(ValueError, match="stored answers"):
        follower.look()
    assert follower.loaded is None


def test_a_version_is_fetched_once_for_a_host_and_refused_once(store: str, tmp_path: Path) -> None:
    settings = Settings(tmp_path, store, NAME, "Production", 5, tmp_path / "cache", None)
    followers = [Follower(settings), Follower(settings)]
    threads = [threading.Thread(target=follower.look) for follower in followers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [first, second] = followers
    assert first.loaded
    assert second.loaded
    assert first.loaded.key == second.loaded.key == cached(settings).last()
    cache, key = cached(settings), VersionKey("9", "of another version")
    assert not cache.refuses(key)
    cache.refuse(key)
    assert cache.refuses(key)
    os.utime(cache.folder / "refused.json", (0, 0))
    assert not cache.refuses(key)


def test_an_address_that_is_taken_is_said_in_two_lines(live: Live, store: str, tmp_path: Path) -> None:
    command = [str(PROJECT / "serve.sh"), "--live", "--port", str(live.port), "--cache", str(tmp_path)]
    settings = environment(MLFLOW_TRACKING_URI=store)
    ended = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=20, check=False)
    assert is_refusal(Ended(ended.returncode, ended.stdout, ended.stderr))


def test_a_worker_waits_for_no_heavy_package(tmp_path: Path) -> None:
    program = "import sys, understudy.serving.__main__, understudy.serving.app; print(*sys.modules)"
    settings = environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=PROJECT, env=settings, capture_output=True, text=True, check=True)
    heavy = {"mlflow", "pandas", "sklearn", "scipy", "pyarrow", "fastapi", "sqlalchemy", "requests"}
    assert not heavy & {*ran.stdout.split()}
