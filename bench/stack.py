"""A team's server on this machine, whose database and tracking server can be stopped, killed and started again."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from deploy import mysql, secrets
from understudy.tracking.connection import PROJECT

SCRIPTS = ("train.py", "evaluate.py", "register.py", "promote.py", "score.py", "requirements.lock")


@dataclass
class Stack:
    """MariaDB or MySQL and MLflow's server on it, with all their files in a folder.

    Args:
        folder: Where the data, the secrets, the artifacts and a copy of the project are.
        options: More of `mlflow server`.
    """

    folder: Path
    options: tuple[str, ...] = ()
    ports: tuple[int, int] = field(default_factory=lambda: (mysql.free_port(), mysql.free_port()))
    _database: ExitStack = field(default_factory=ExitStack)
    _server: ExitStack = field(default_factory=ExitStack)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def start_database(self) -> None:
        self._database.enter_context(mysql.database(self.folder, self.ports[0]))

    def stop_database(self) -> None:
        self._database.close()

    def start_server(self) -> None:
        self._server.enter_context(mysql.tracking_server(self.folder, self.host, self.ports[1], *self.options))

    def stop_server(self) -> None:
        self._server.close()

    def kill_server(self) -> None:
        """As kill -9 does, with all its workers."""
        ours = ["pgrep", "--parent", str(os.getpid()), "--full", f"server .*--port {self.ports[1]}"]
        listed = subprocess.run(ours, check=True, capture_output=True, text=True)
        os.killpg(int(listed.stdout), signal.SIGKILL)
        self._server.close()

    def script(self, name: str, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        """One of the project's scripts, run against this server in a copy of the project."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        return subprocess.Popen(
            [sys.executable, "-u", name, *arguments],
            cwd=self.folder / "project",
            env={**kept, "MLFLOW_TRACKING_URI": self.uri, "MLFLOW_DISABLE_TELEMETRY": "true", **extra},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, name: str, *arguments: str) -> None:
        """Run a script that must end well."""
        with self.script(name, *arguments) as process:
            _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(errors)

    def runs(self) -> list[Run]:
        """All runs, the oldest first."""
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        return list(self.client.search_runs(experiments, order_by=["attributes.start_time ASC"], max_results=50_000))


def copy_project(folder: Path) -> None:
    """What its scripts need, in a new folder."""
    for name in ("understudy", "data"):
        shutil.copytree(PROJECT / name, folder / name)
    for name in SCRIPTS:
        shutil.copy(PROJECT / name, folder)


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Stack]:
    """A stack on migrated databases."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # for the clients of this process
    stack = Stack(folder, options)
    (folder / "artifacts").mkdir(parents=True)
    copy_project(folder / "project")
    try:
        stack.start_database()
        accounts = folder / "secrets" / secrets.MIGRATOR
        subprocess.run([sys.executable, "-m", "deploy.migrate", stack.host, accounts], cwd=PROJECT, check=True)
        stack.start_server()
        yield stack
    finally:
        stack.stop_server()
        stack.stop_database()
