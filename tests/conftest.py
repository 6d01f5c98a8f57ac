"""Real MLflow on a SQLite file of its own for every test, and one trained batch that a worker's tests share."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import mlflow
import pytest
from mlflow.tracking.context.registry import resolve_tags

import promote
import register
import train
from understudy import errors, tracking
from understudy.table import TABLE

PROJECT = Path(__file__).resolve().parents[1]
REAL = PROJECT.parent / "shared" / "data" / "loan_prediction_train.csv"
SAMPLE = PROJECT / TABLE.path

needs_real_table = pytest.mark.skipif(not REAL.exists(), reason="the real loan table is not beside the project")


@dataclass
class Ended:
    """How a script ended."""

    code: int
    out: str
    err: str


def is_refusal(ended: Ended) -> bool:
    lines = ended.err.splitlines()
    return ended.code == 2 and len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("fix: ")


@pytest.fixture(scope="session", autouse=True)
def _commit() -> None:
    """MLflow looks for the commit once in a process, beside the script that runs; that is not pytest here."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", [str(PROJECT / "train.py")])
        resolve_tags()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty, migrated store: creating one takes seconds, copying one does not."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty store; what is drawn goes to the same folder."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    yield from connected(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    """A folder with a store that holds one batch on the sample; to be copied."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(migrated, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for _ in connected(folder, monkeypatch):
            monkeypatch.setattr(sys, "argv", [str(PROJECT / "train.py")])
            errors.run(train.main)
    return folder


@pytest.fixture
def batch_store(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a store of the test's own, with one batch on the sample (its artifacts are shared)."""
    shutil.copy(trained / "mlflow.db", tmp_path / "mlflow.db")
    yield from connected(tmp_path, monkeypatch)


def connected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setattr(tracking, "PROJECT", folder)
    monkeypatch.setattr(tracking, "EMBEDDED", uri)
    (folder / "data").mkdir(exist_ok=True)
    shutil.copy(SAMPLE, folder / "data")
    yield uri


@pytest.fixture
def client(batch_store: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(batch_store)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Call a script's main function with arguments, in this process."""

    def call(script: ModuleType, *arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [script.__file__ or "", *arguments])
        capsys.readouterr()
        try:
            errors.run(script.main)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


@pytest.fixture
def registered(batch_store: str, call: Callable[..., Ended]) -> str:
    """A store with two versions, none of them in a stage, of which the gate lets the second replace the first."""
    call(register, "--model", "LogisticRegression")
    call(register, "--model", "RandomForestClassifier")
    return batch_store


@pytest.fixture
def in_production(registered: str, call: Callable[..., Ended]) -> str:
    """A store with version 1 in Production."""
    call(promote, "staging", "--version", "1")
    call(promote, "production")
    return registered


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    """The project as git would hand it out, with the working tree's changes, an empty store, and its .venv."""
    folder = tmp_path_factory.mktemp("clone") / "project"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, folder / name)
    shutil.copy(migrated, folder / "mlflow.db")
    return folder


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without its MLflow settings, with the tests' Python first on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "VIRTUAL_ENV": sys.prefix, "MLFLOW_DISABLE_TELEMETRY": "true", **extra}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
