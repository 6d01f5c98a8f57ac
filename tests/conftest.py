"""Real MLflow on a SQLite file of its own for every test, and one trained batch that a worker's tests share."""

import getpass
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pytest
import sqlalchemy
from mlflow.tracking.context.registry import resolve_tags
from xdist.scheduler import LoadScopeScheduling

import promote
import register
import train
from deploy import migrate, mysql, secrets
from deploy.mysql import free_port
from understudy import errors
from understudy.table import TABLE
from understudy.tracking import connection, experiments

PROJECT = Path(__file__).resolve().parents[1]
REAL = PROJECT.parent / "shared" / "data" / "loan_prediction_train.csv"
SAMPLE = PROJECT / TABLE.path

# On SQLite, and on MariaDB behind a server.
ON_BOTH = {"test_by_hand", "test_promotion", "test_race", "test_story", "test_loop"}
MARIADB = "mariadb"
# mysql://root:PASSWORD@HOST:PORT of a server to use instead of a private one; one process at a time (pytest -n 0).
MYSQL = os.environ.get("UNDERSTUDY_MYSQL", "")
MEMORY, ROOM = Path("/dev/shm"), 6_000_000_000  # noqa: S108 - bytes; a whole run writes half of that
TEMPORARY = "PYTEST_DEBUG_TEMPROOT"  # where pytest makes its temporary folders
LONGEST = ["stories", "tracking", "registry", "deploy", "training", "serving", "verification"]
Rows = list[tuple[sqlalchemy.Table, list[dict[str, Any]]]]

LACKING = mysql.missing() or ", ".join(name for name in ("MySQLdb", "flask_wtf") if not find_spec(name))
NO_DATABASE = f"make mysql's packages and requirements-server.lock are not installed: {LACKING}"
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


@dataclass
class Team:
    """An MLflow server on a database server, and what both have stored."""

    uri: str
    host: str
    folder: Path

    def engine(self) -> sqlalchemy.Engine:
        accounts = self.folder / "secrets" / secrets.RUNTIME
        return sqlalchemy.create_engine(secrets.address(self.host, "tracking", accounts))

    def rows(self) -> Rows:
        """All that the database holds."""
        tables = sqlalchemy.MetaData()
        with self.engine().connect() as connection:
            tables.reflect(connection)
            return [
                (table, [dict(row) for row in connection.execute(table.select()).mappings()])
                for table in tables.sorted_tables
            ]

    def put_back(self, kept: Rows) -> None:
        """Let the database hold this again, and nothing else."""
        with self.engine().begin() as connection:
            # The experiment Default has the number 0, which MySQL would take for "the next one".
            connection.exec_driver_sql("set foreign_key_checks = 0, sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")
            for table, rows in kept:
                connection.execute(table.delete())
                if rows:
                    connection.execute(table.insert(), rows)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A private MariaDB or MySQL, or the given one, with MLflow's two databases: its folder and its address."""
    if LACKING:
        pytest.skip(NO_DATABASE)
    folder = tmp_path_factory.mktemp("mysql")
    with _given(folder) if MYSQL else mysql.database(folder, free_port()) as host:
        for name in secrets.DATABASES:
            migrate.upgrade(host, name, folder / "secrets" / secrets.MIGRATOR)
        yield folder, host


@contextmanager
def _given(folder: Path) -> Iterator[str]:
    """The given server with the databases and users of `deploy.secrets`, of which the databases go away in the end."""
    secrets.make(folder / "secrets")
    engine = sqlalchemy.create_engine(MYSQL)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("set global log_bin_trust_function_creators = 1"))
        for statement in (folder / "secrets" / secrets.USERS).read_text().splitlines():
            connection.execute(sqlalchemy.text(statement))
    yield f"{engine.url.host}:{engine.url.port}"
    with engine.begin() as connection:
        for name in secrets.DATABASES:
            connection.execute(sqlalchemy.text(f"drop database {name}"))
    engine.dispose()


@pytest.fixture(scope="session")
def owner(database: tuple[Path, str]) -> Iterator[sqlalchemy.Engine]:
    """Of the database server: a private one lets in who has started it, by the socket."""
    folder, host = database
    socket = folder / "data" / f"{host.rpartition(':')[2]}.sock"
    engine = sqlalchemy.create_engine(MYSQL or f"mysql://{getpass.getuser()}@localhost/mysql?unix_socket={socket}")
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def team(database: tuple[Path, str]) -> Iterator[tuple[Team, Rows]]:
    """A server on it, and what it holds while it is empty."""
    folder, host = database
    with mysql.tracking_server(folder, host, free_port(), "--workers", "2") as uri:
        server = Team(uri, host, folder)
        mlflow.MlflowClient(uri).search_experiments()  # makes the first one
        yield server, server.rows()


@pytest.fixture(scope="session")
def team_trained(team: tuple[Team, Rows], tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What the server holds after one batch on the sample."""
    server, empty = team
    server.put_back(empty)
    one_batch(tmp_path_factory.mktemp("trained"), server.uri)
    return server.rows()


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """Where the test's store is: "sqlite", and in some files also "mariadb"."""
    return str(getattr(request, "param", "sqlite"))


def pytest_configure(config: pytest.Config) -> None:
    """Tests write to memory where there is room: their stores, put on a disk, wait for it at each commit."""
    if TEMPORARY not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ[TEMPORARY] = tempfile.mkdtemp(prefix="understudy-tests-", dir=MEMORY)
        config.add_cleanup(partial(shutil.rmtree, os.environ[TEMPORARY], ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folders whose tests take longest come first, so that none is left to the end alone."""
    items.sort(key=lambda item: LONGEST.index(item.path.parent.name) if item.path.parent.name in LONGEST else 99)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    said = any("backend" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if metafunc.module.__name__.split(".")[-1] in ON_BOTH and "backend" in metafunc.fixturenames and not said:
        metafunc.parametrize("backend", ["sqlite", MARIADB], indirect=True)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait for servers a third of the time."""
    return (os.cpu_count() or 1) + 1


class ByStore(LoadScopeScheduling):  # type: ignore[misc]
    """Keeps a file's tests in one process, those on the database server apart, which else are the last by minutes."""

    def _split_scope(self, nodeid: str) -> str:
        return f"{nodeid.partition('::')[0]} {MARIADB if MARIADB in nodeid else ''}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return ByStore(config, log)


@pytest.fixture(autouse=True)
def path_without_models() -> Iterator[None]:
    """MLflow leaves the code of each model that it loads on the path, where joblib's processes would look first."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture
def store(
    tmp_path: Path, migrated: Path, backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The address of an empty store; what is drawn goes to the test's folder."""
    if backend == MARIADB:
        server, empty = request.getfixturevalue("team")
        server.put_back(empty)
        yield from connected(tmp_path, monkeypatch, server.uri)
    else:
        shutil.copy(migrated, tmp_path / "mlflow.db")
        yield from connected(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    """A folder with a store that holds one batch on the sample; to be copied."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(migrated, folder / "mlflow.db")
    one_batch(folder)
    return folder


def one_batch(folder: Path, uri: str = "") -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for _ in connected(folder, monkeypatch, uri):
            monkeypatch.setattr(sys, "argv", [str(PROJECT / "train.py")])
            errors.run(train.main)


@pytest.fixture
def batch_store(
    tmp_path: Path, backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The address of a store of the test's own, with one batch on the sample (its artifacts are shared)."""
    if backend == MARIADB:
        kept = request.getfixturevalue("team_trained")
        server, _ = request.getfixturevalue("team")
        server.put_back(kept)
        yield from connected(tmp_path, monkeypatch, server.uri)
    else:
        shutil.copy(request.getfixturevalue("trained") / "mlflow.db", tmp_path / "mlflow.db")
        yield from connected(tmp_path, monkeypatch)


@pytest.fixture
def files(backend: str, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Where the files of an artifact location lie."""
    artifacts = request.getfixturevalue("team")[0].folder / "artifacts" if backend == MARIADB else Path("/")
    return lambda location: artifacts / location.removeprefix("mlflow-artifacts:/")


def connected(folder: Path, monkeypatch: pytest.MonkeyPatch, uri: str = "") -> Iterator[str]:
    embedded = f"sqlite:///{folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri or embedded)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setattr(connection, "PROJECT", folder)
    mlflow.set_tracking_uri(uri or embedded)  # what a test before has set stays, and counts more than the environment
    (folder / "data").mkdir(exist_ok=True)
    shutil.copy(SAMPLE, folder / "data")
    yield uri or embedded


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
def registered(batch_store: str, call: Callable[..., Ended], prepared: Callable[..., None]) -> str:
    """A store with two versions, none of them in a stage, of which the gate lets the second replace the first."""
    prepared((register, "--model", "LogisticRegression"), (register, "--model", "RandomForestClassifier"))
    return batch_store


@pytest.fixture
def in_production(registered: str, prepared: Callable[..., None]) -> str:
    """A store with version 1 in Production."""
    prepared((promote, "staging", "--version", "1"), (promote, "production"))
    return registered


@pytest.fixture(scope="session")
def made() -> dict[tuple[Any, ...], Any]:
    """What a store holds after some commands: the rows of MariaDB, or a SQLite database in memory."""
    return {}


@pytest.fixture
def prepared(
    call: Callable[..., Ended], backend: str, made: dict[tuple[Any, ...], Any], request: pytest.FixtureRequest
) -> Callable[..., None]:
    """Call scripts the first time, and then put back what they left in the store, which is much faster."""

    def prepare(*commands: tuple[Any, ...]) -> None:
        key = (backend, *commands)
        if key in made and backend == MARIADB:
            request.getfixturevalue("team")[0].put_back(made[key])
        elif key in made:
            with closing(sqlite3.connect(connection.PROJECT / "mlflow.db")) as store:
                made[key].backup(store)  # into the same file, which MLflow has open
        else:
            for command in commands:
                assert call(*command).code in (0, 3)  # a refusal is on record too
            if backend == MARIADB:
                made[key] = request.getfixturevalue("team")[0].rows()
            else:
                made[key] = sqlite3.connect(":memory:")
                with closing(sqlite3.connect(connection.PROJECT / "mlflow.db")) as store:
                    store.backup(made[key])

    return prepare


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


@pytest.fixture
def project(clone: Path, tmp_path: Path, migrated: Path) -> Path:
    """A copy of the project with an empty store, whatever another test has trained in the clone meanwhile."""
    folder = tmp_path / "project"
    shutil.copytree(clone, folder, ignore=shutil.ignore_patterns("mlruns"))
    shutil.copy(migrated, folder / "mlflow.db")
    return folder


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without its MLflow settings, with the tests' Python first on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "VIRTUAL_ENV": sys.prefix, "MLFLOW_DISABLE_TELEMETRY": "true", **extra}


def started_training(uri: str, folder: Path) -> subprocess.Popen[str]:
    """A training of some minutes in a process group of its own, once it has made both of its runs."""
    process = subprocess.Popen(
        [sys.executable, PROJECT / "train.py", "--grid", "book", "--models", "RandomForestClassifier"],
        cwd=folder,
        env=environment(MLFLOW_TRACKING_URI=uri),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    client, deadline = mlflow.MlflowClient(uri), time.monotonic() + 60
    while time.monotonic() < deadline and len(client.search_runs(experiments.all_ids(client))) < 2:
        time.sleep(0.2)
    return process
