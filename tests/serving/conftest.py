"""A live server for the tests of its room: one for all that answer with version 1, and others that tests start."""

import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from mlflow import MlflowClient

from deploy.mysql import free_port
from tests.conftest import PROJECT, connected, environment
from tests.scoring.test_scoring import APPLICANT
from understudy.registry import registration
from understudy.table import TABLE
from understudy.tracking import connection as store_connection
from understudy.tracking import family_runs

NAME = TABLE.name
CUT_OFF = 0  # in place of the status of an answer that never came
ENCODED = [1, 1, 0, 0, 0, 4.8, 360, 1, 2, 8.5]
NAMES, CELLS = list(APPLICANT), list(APPLICANT.values())


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Live:
    """A running live server."""

    port: int
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def ask(self, body: Any = None, path: str = "/invocations", method: str = "", **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        content = body if isinstance(body, str | bytes | None) else json.dumps(body)
        kind = {"Content-Type": "application/json"} if body is not None else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in {**kind, **named}.items() if value}
        content = content.encode() if isinstance(content, str) else content
        connection.request(method or ("GET" if body is None else "POST"), path, content, given)
        answer = connection.getresponse()
        reply = Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return reply

    def raw(self, *parts: bytes, pause: float = 0) -> tuple[bytes, float]:
        """What comes back for bytes sent one after another until the server closes, and after how many seconds."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            started, answer = time.monotonic(), b""
            with suppress(ConnectionError):
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
            with suppress(ConnectionError):
                while more := connection.recv(65536):
                    answer += more
            return answer, time.monotonic() - started

    def memory(self) -> float:
        """What its processes have for themselves, in millions of bytes."""
        process = psutil.Process(self.process.pid)
        return sum(each.memory_full_info().uss for each in [process, *process.children(recursive=True)]) / 1e6

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        running = [each for each in children if each.status() != psutil.STATUS_ZOMBIE]
        return [each for each in running if "--live" in each.cmdline()]

    def metric(self, sample: str) -> float:
        lines = self.ask(path="/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"understudy_{sample}"))

    def is_listening(self) -> bool:
        try:
            return self.ask(path="/ping").status == 200
        except ConnectionError:
            return False

    def version(self) -> str:
        reply = self.ask(path="/version")
        return str(reply.json["version"]) if reply.status == 200 else ""


def until(holds: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def served(folder: Path, uri: str, *options: str) -> Iterator[Live]:
    """`serve.sh --live` with a cache in the folder and a temporary folder of its own, until the block ends."""
    live = Live(free_port(), folder / f"log-{time.time_ns()}")
    (folder / "tmp").mkdir(exist_ok=True)
    options = ("--live", "--port", str(live.port), "--poll", "0.2", "--cache", str(folder / "cache"), *options)
    settings = environment(MLFLOW_TRACKING_URI=uri, TMPDIR=str(folder / "tmp"))
    with live.log.open("w") as log:
        command = [str(PROJECT / "serve.sh"), *options]
        live.process = subprocess.Popen(command, env=settings, stdout=log, stderr=log, process_group=0)
    try:
        until(live.is_listening)
        yield live
    finally:
        live.process.terminate()
        live.process.wait(20)


@pytest.fixture(scope="session")
def store(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with two versions of a model, of which the first is in Production; only its alias says so."""
    folder = tmp_path_factory.mktemp("live")
    shutil.copy(trained / "mlflow.db", folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for _ in connected(folder, monkeypatch):
            client = store_connection.connect()
            runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
            for run in sorted(runs, key=family_runs.family_name)[-2:]:
                registration.register(client, run, TABLE, NAME)
            client.set_registered_model_alias(NAME, "production", "1")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def connected_to_the_store(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of other stores may have run in this process meanwhile."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    mlflow.set_tracking_uri(store)


@pytest.fixture(scope="session")
def live(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server of two workers, which answer with version 1 when a test begins."""
    with served(tmp_path_factory.mktemp("server"), store, "--workers", "2") as live:
        until(lambda: live.log.read_text().count("version 1 answers") == 2)
        yield live


def promote(store: str, version: str) -> None:
    MlflowClient(store).set_registered_model_alias(NAME, "production", version)


def request(body: Any, *lines: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = ["POST /invocations HTTP/1.1", "Host: a", *lines, f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(head).encode() + content


ONE = request({"inputs": [ENCODED]})
LAST = request({"inputs": [ENCODED]}, "Connection: close")
LONG = request(json.dumps({"inputs": [ENCODED]}).encode().ljust(20_001))


def connections(live: Live, number: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", live.port), timeout=20) for _ in range(number)]


def probability(reply: Reply) -> tuple[str, float]:
    return reply.headers["x-model-version"], reply.json["predictions"][0]


@contextmanager
def hammered(live: Live, number: int, pause: float = 0) -> Iterator[list[Reply]]:
    """Ask for a probability over and over on connections of their own, with pauses in seconds; yields the replies."""
    replies: list[Reply] = []
    is_over = threading.Event()

    def ask() -> None:
        body = json.dumps({"inputs": [ENCODED], "params": {"output": "probability"}})
        with closing(http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)) as connection:
            while not is_over.wait(pause):
                try:
                    connection.request("POST", "/invocations", body)
                    answer = connection.getresponse()
                    replies.append(Reply(answer.status, dict(answer.getheaders()), answer.read()))
                except (ConnectionError, http.client.HTTPException):
                    replies.append(Reply(CUT_OFF, {}, b""))
                    return
                if answer.getheader("connection") == "close":
                    return

    threads = [threading.Thread(target=ask) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield replies
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def answering(live: Live, version: str) -> None:
    """Wait until both workers answer with a version."""
    until(lambda: {live.version() for _ in range(4)} == {version})
