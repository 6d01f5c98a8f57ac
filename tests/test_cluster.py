"""A search on a Dask cluster gives what it gives on one core, whatever becomes of a worker."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pandas as pd
import psutil
import pytest
from distributed import Client
from mlflow import MlflowClient

import train
from deploy.mysql import free_port
from tests.conftest import PROJECT, SAMPLE, Ended, environment, is_refusal
from understudy import cluster
from understudy.errors import UserError
from understudy.families import FAMILIES
from understudy.reading import table_rows
from understudy.scoring import pipelines
from understudy.table import TABLE
from understudy.tracking import family_runs
from understudy.training import search

TRAINING, _ = TABLE.split(table_rows.read(TABLE, SAMPLE))
FOREST = FAMILIES["RandomForestClassifier"]
LONG: dict[str, Sequence[object]] = {
    "n_estimators": [20, 40],
    "max_depth": [3, 5, 7, 9],
    "criterion": ["gini", "entropy"],
}  # some seconds
PATIENCE = 60  # seconds that a process may take to come up


@contextmanager
def started(*command: str, cwd: Path = PROJECT, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A program of this Python, which is asked to end with the block."""
    python = [sys.executable, "-m", *command]
    with subprocess.Popen(python, cwd=cwd, env=environment(**more), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


@contextmanager
def local(cwd: Path = PROJECT, **more: str) -> Iterator[str]:
    """What `make cluster` starts; yields its address."""
    port = free_port()
    with started("deploy.cluster", "--port", str(port), cwd=cwd, **more) as process:
        assert process.stdout
        assert f"python train.py --cluster tcp://127.0.0.1:{port}\n" in process.stdout.readline()
        yield f"tcp://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local() as address:
        yield address


@pytest.fixture
def client(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Of a cluster, to which even a short search goes."""
    monkeypatch.setattr(search, "SECONDS_TO_START", 0)
    with cluster.connect(address) as client:
        yield client


def executed(client: Client) -> dict[str, int]:
    """How many tasks each worker has done."""
    counts: dict[str, int] = client.run(lambda dask_worker: dask_worker.state.executed_count)
    return counts


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_search_gives_the_same_model_on_a_cluster(client: Client, name: str) -> None:
    family, before = FAMILIES[name], executed(client)
    on_one = search.search(TABLE, TRAINING, family, family.quick, seed=3, jobs=1)
    on_cluster = search.search(TABLE, TRAINING, family, family.quick, seed=3, jobs=-1, cluster=client)
    assert on_one.metrics == on_cluster.metrics
    assert pipelines.digest(on_one.pipeline) == pipelines.digest(on_cluster.pipeline)
    after = executed(client)
    assert all(after[worker] > before[worker] for worker in before)
    assert sum(after.values()) - sum(before.values()) < 60  # fits of folds, and not of a forest's trees


def test_workers_that_die_cost_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SECONDS_TO_START", 0)
    expected = search.search(TABLE, TRAINING, FOREST, LONG, seed=0, jobs=1)

    def kill(client: Client) -> None:
        while sum(executed(client).values()) < 30:
            time.sleep(0.05)
        for pid in client.run(os.getpid).values():  # all at once, so that nobody has the rows any more
            os.kill(pid, signal.SIGKILL)

    with local() as address, cluster.connect(address) as client:
        workers = {*client.nthreads()}
        killer = Thread(target=kill, args=[client])
        killer.start()
        result = search.search(TABLE, TRAINING, FOREST, LONG, seed=0, jobs=-1, cluster=client)
        assert not killer.is_alive()
        assert not workers & {*client.nthreads()}
    assert result.metrics == expected.metrics
    assert pipelines.digest(result.pipeline) == pipelines.digest(expected.pipeline)


class Relay:
    """Passes on what comes to its port, and counts the bytes."""

    def __init__(self, port: int) -> None:
        self.sent, self.target = 0, port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
            Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket, counted: bool) -> None:
        with suppress(OSError):  # the other direction may have closed both
            while data := source.recv(2**16):
                self.sent += len(data) if counted else 0
                to.sendall(data)
        to.close()


def test_rows_travel_once_however_many_tasks_take_them(
    client: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = pd.concat([TRAINING] * 40)
    x = TABLE.encode(many)
    relay = Relay(int(address.rsplit(":", 1)[1]))
    with cluster.connect(relay.address) as relayed:
        relay.sent = 0
        family = FAMILIES["DecisionTreeClassifier"]
        search.search(TABLE, many, family, {"max_depth": [1, 2, 3, 4, 5, 6, 7, 8]}, seed=0, jobs=-1, cluster=relayed)
    relay.listener.close()
    shared = x.nbytes + (2 + pipelines.FOLDS) * 8 * len(many)  # labels, as they are and encoded, and the folds' rows
    assert x.nbytes < relay.sent < 1.3 * shared  # of 45 tasks, to two workers
    logs = client.run(lambda dask_worker: [entry["keys"] for entry in dask_worker.transfer_incoming_log])
    for log in logs.values():  # Dask may drop a copy between the search and the best one's probabilities
        assert sum(size >= x.nbytes for keys in log for size in keys.values()) <= 2
    assert not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))


def test_train_py_says_the_same_with_a_cluster(
    batch_store: str, address: str, call: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SECONDS_TO_START", 0)
    server = MlflowClient(batch_store)
    runs = {run.info.run_name: run for run in family_runs.families(server, family_runs.get_batch(server, TABLE))}
    ended = call(train, "--cluster", address)
    assert ended.code == 0, ended.err
    assert "distributed" not in ended.err  # Dask's log
    batch = family_runs.get_batch(server, TABLE)
    assert batch.data.params["cluster"] == address
    for run in family_runs.families(server, batch):
        before = runs[run.info.run_name]
        assert run.info.run_id != before.info.run_id
        assert run.data.tags[family_runs.MODEL_DIGEST] == before.data.tags[family_runs.MODEL_DIGEST]
        seconds = {"training/seconds": before.data.metrics["training/seconds"]}
        assert run.data.metrics | seconds == before.data.metrics


def test_without_a_cluster_nothing_of_it_is_imported(store: str) -> None:
    # Where Dask is installed, skops imports its arrays by importing all of scikit-learn.
    program = (
        "import sys, train\n"
        "sys.argv = ['train.py', '--models', 'LogisticRegression']\n"
        "train.main()\n"
        "print({'distributed', 'joblib._dask', 'joblib'} & {*sys.modules})\n"
    )
    command, env = [sys.executable, "-c", program], environment(MLFLOW_TRACKING_URI=store)
    ended = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("{'joblib'}\n")


@pytest.mark.parametrize("address", ["8786", "localhost:8786", "http://localhost:8786", "tcp://localhost", "tcp://a:b"])
def test_an_address_that_is_none_is_said(store: str, call: Callable[..., Ended], address: str) -> None:
    ended = call(train, "--cluster", address)
    assert is_refusal(ended)
    assert f"{address} is not the address of a Dask scheduler" in ended.err
    assert [experiment.name for experiment in MlflowClient(store).search_experiments()] == ["Default"]


def test_an_address_where_no_scheduler_answers_is_said(call: Callable[..., Ended]) -> None:
    assert is_refusal(call(train, "--cluster", f"tcp://127.0.0.1:{free_port()}"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended = call(train, "--cluster", f"tcp://127.0.0.1:{silent.getsockname()[1]}")
    assert is_refusal(ended)
    assert "no Dask scheduler answers" in ended.err


def test_dask_that_is_not_installed_is_said(call: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    ended = call(train, "--cluster", "tcp://127.0.0.1:8786")
    assert is_refusal(ended)
    assert "pip install" in ended.err


def test_a_cluster_without_workers_is_said(call: Callable[..., Ended]) -> None:
    port = str(free_port())
    with started("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"):
        deadline = time.monotonic() + PATIENCE
        while "no Dask scheduler" in (ended := call(train, "--cluster", f"tcp://127.0.0.1:{port}")).err:
            assert time.monotonic() < deadline
    assert is_refusal(ended)
    assert "has no workers" in ended.err


@pytest.mark.parametrize("differs", ["project", "package"])
def test_a_cluster_that_does_not_fit_is_said(call: Callable[..., Ended], tmp_path: Path, differs: str) -> None:
    for name in ("deploy", "understudy"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    if differs == "project":
        (tmp_path / "understudy" / "more.py").touch()
    else:
        (tmp_path / "numpy-0.1.dist-info").mkdir()
        (tmp_path / "numpy-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.1\n")
    with local(tmp_path, PYTHONPATH=str(tmp_path)) as address:
        ended = call(train, "--cluster", address)
    assert is_refusal(ended), ended.err
    named = "numpy is 0.1 on " if differs == "package" else f"and {cluster.digest()} here"
    assert named in ended.err


def test_workers_that_die_of_the_work_are_said() -> None:
    with (
        local() as address,
        pytest.raises(UserError, match="died of one piece of work"),
        cluster.connect(address) as client,
    ):
        client.submit(os._exit, 1).result()


def test_a_scheduler_that_is_gone_is_said() -> None:
    def lose(client: Client) -> None:
        sleeping = client.submit(time.sleep, 600)
        os.kill(int(client.run_on_scheduler(os.getpid)), signal.SIGKILL)
        sleeping.result()

    with local() as address, pytest.raises(UserError, match="has lost the work"), cluster.connect(address) as client:
        lose(client)


def test_make_cluster_ends_all_that_it_started_and_listens_on_loopback_alone() -> None:
    port = free_port()
    with started("deploy.cluster", "--port", str(port)) as process:
        assert process.stdout
        process.stdout.readline()
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        listening = [held.laddr for member in family for held in member.net_connections() if held.status == "LISTEN"]
        taken = subprocess.run(
            [sys.executable, "-m", "deploy.cluster", "--port", str(port)],
            cwd=PROJECT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert {place.ip for place in listening} == {"127.0.0.1"}
    assert port in {place.port for place in listening}
    assert "is taken\nfix: " in taken.stderr
    assert taken.returncode == 2
    gone, alive = psutil.wait_procs(family, PATIENCE)
    assert len(gone) >= 3
    assert not alive
