"""Promotions and rollbacks while 16 connections ask the live server: failures, answers that mix versions, seconds.

python -m bench.swap                    20 moves, a look at the alias every 5 seconds, one worker
python -m bench.swap --poll 0.5 --workers 2 --server
"""

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mlflow import MlflowClient, artifacts

from deploy.mysql import free_port
from understudy.registry import promotion, stages
from understudy.registry.records import Move, Verdict
from understudy.scoring import scorer
from understudy.table import TABLE
from understudy.tracking import connection

PROJECT = Path(__file__).resolve().parents[1]
NAME = TABLE.name
CONNECTIONS = 16
ROW = [1, 1, 0, 0, 0, 4.79, 360, 1, 2, 8.78]
FAMILIES = ("LogisticRegression", "RandomForestClassifier")
LONGEST = 60  # seconds to wait for a version's first answer


class Client(threading.Thread):
    """One connection that asks all the while; what it saw is `seen`, as time, header and answer."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.is_over = port, threading.Event()
        self.seen: list[tuple[float, str, Any]] = []
        self.failures: list[str] = []

    def run(self) -> None:
        """Ask until it is over."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        body = json.dumps({"inputs": [ROW], "params": {"output": "detail"}})
        while not self.is_over.is_set():
            try:
                connection.request("POST", "/invocations", body)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 200:
                    raise ValueError(f"status {answer.status}")
                answered = (answer.headers["X-Model-Version"], json.loads(content)["predictions"][0])
                self.seen.append((time.monotonic(), *answered))
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection.close()


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=20, help="promotions and rollbacks (default: %(default)s)")
    parser.add_argument("--poll", default="5", help="seconds between two looks at the alias (default: %(default)s)")
    parser.add_argument("--workers", default="1", help="processes that answer (default: %(default)s)")
    parser.add_argument("--server", action="store_true", help="follow over a tracking server, not by the SQLite file")
    return parser


def main() -> None:
    args = options().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        client = prepared(Path(folder))
        own = {version: answer(client, version) for version in ("1", "2")}
        store = tracking_server(Path(folder), client.tracking_uri) if args.server else nullcontext(client.tracking_uri)
        with store as uri, served(Path(folder), uri, args) as port:
            clients = [Client(port) for _ in range(CONNECTIONS)]
            for asking in clients:
                asking.start()
            seconds = [moved(client, clients, to="21"[number % 2]) for number in range(args.moves)]
            for asking in clients:
                asking.is_over.set()
                asking.join()
    report(clients, own, seconds)


def prepared(folder: Path) -> MlflowClient:
    """A store in a folder with two versions, the first of which is in Production."""
    os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    commands = [
        ["train.py", "--models", ",".join(FAMILIES)],
        *(["register.py", "--model", family] for family in FAMILIES),
    ]
    for script, *arguments in commands:
        command = [sys.executable, str(PROJECT / script), *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    client = connection.connect()
    for stage in ("staging", "production"):
        promotion.promote(client, NAME, Move(stage, "1", stage, reason="bench", forced=True), lambda _: Verdict())
    promotion.promote(client, NAME, Move("staging", "2", "staging", reason="bench", forced=True), lambda _: Verdict())
    return client


def answer(client: MlflowClient, version: str) -> Any:
    """What a version says of the row when nothing else is there."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(artifacts.download_artifacts(f"models:/{NAME}/{version}", dst_path=folder))
        return scorer.load(files).predict([ROW], "detail", version)[0]


@contextmanager
def tracking_server(folder: Path, store: str) -> Iterator[str]:
    """`mlflow server` on the store; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(port)]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([*command, "--workers", "1"], stdout=log, stderr=log, process_group=0)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def served(folder: Path, uri: str, args: argparse.Namespace) -> Iterator[int]:
    """A live server with a first version; yields its port."""
    port = free_port()
    command = [str(PROJECT / "serve.sh"), "--live", "--port", str(port)]
    command += ["--poll", args.poll, "--workers", args.workers]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {**os.environ, "PATH": path, "VIRTUAL_ENV": sys.prefix, "MLFLOW_TRACKING_URI": uri}
    process = subprocess.Popen([*command, "--cache", str(folder / "cache")], env=settings)
    try:
        while not is_serving(port):
            time.sleep(0.2)
        time.sleep(2)  # for the other workers
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def is_serving(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as health:
            return bool(json.load(health)["status"] == "serving")
    except OSError:
        return False


def moved(client: MlflowClient, clients: list[Client], to: str) -> float:
    """Put a version into Production; returns the seconds from the alias naming it to its first answer."""
    verb = ["rollback"] if to == "1" else ["production", "--version", to, "--force"]
    started = time.monotonic()
    promote = [sys.executable, str(PROJECT / "promote.py"), *verb, "--reason", "bench"]
    with subprocess.Popen(promote, stdout=subprocess.DEVNULL) as process:
        while stages.aliases(client, NAME)["production"] != to:
            time.sleep(0.05)
        named = time.monotonic()
    if process.returncode:
        raise RuntimeError(f"promote.py ended with {process.returncode}")
    while time.monotonic() < named + LONGEST:
        firsts = [at for asking in clients for at, version, _ in asking.seen if version == to and at > started]
        if firsts and all(asking.seen[-1][1] == to for asking in clients):
            return max(0.0, min(firsts) - named)
        time.sleep(0.2)
    raise TimeoutError(f"version {to} has not answered within {LONGEST} seconds")


def report(clients: list[Client], own: dict[str, Any], seconds: list[float]) -> None:
    seen = [answer for client in clients for answer in client.seen]
    mixed = [probability for _, version, probability in seen if probability != own[version]]
    failures = [failure for client in clients for failure in client.failures]
    print(f"{len(seen):,} answers on {CONNECTIONS} connections during {len(seconds)} promotions and rollbacks")
    print(f"failed requests: {len(failures)} {sorted(set(failures)) or ''}")
    print(f"answers that are not wholly those of the version in the header: {len(mixed)}")
    middle, worst = statistics.median(seconds), max(seconds)
    print(f"seconds from the alias naming a version to its first answer: median {middle:.1f}, most {worst:.1f}")


if __name__ == "__main__":
    main()
