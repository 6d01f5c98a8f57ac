"""Addresses as people write them, databases that are away, and what else a person tells MLflow about the store."""

import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from mlflow import MlflowClient

import evaluate
import promote
import register
import train
from deploy.mysql import free_port
from tests.conftest import LACKING, NO_DATABASE, Ended, environment, is_refusal
from understudy.errors import UserError
from understudy.families import FLOOR
from understudy.serving import __main__ as serve
from understudy.table import TABLE
from understudy.tracking import connection, experiments, family_runs, naming, runs

Call = Callable[..., Ended]
SECRET = "geheim"  # noqa: S105
needs_mysql = pytest.mark.skipif(bool(LACKING), reason=NO_DATABASE)


@pytest.mark.parametrize(
    ("address", "better"),
    [
        ("localhost:5000", "http://localhost:5000"),
        ("mlflow.example.org:80/team", "http://mlflow.example.org:80/team"),
        ("./mlruns2", "sqlite:///{cwd}/mlruns2/mlflow.db"),
        ("file:///srv/mlruns", "sqlite:////srv/mlruns/mlflow.db"),
        ("file:mlruns", "sqlite:///{cwd}/mlruns/mlflow.db"),
        ("my runs/mlflow.db", "sqlite+pysqlite:///{cwd}/my%20runs/mlflow.db"),
        ("databricks", None),
        ("databricks://profile", None),
        ("postgres://host/tracking", None),
        ("uc:http://localhost:5000", None),
    ],
)
@pytest.mark.parametrize("options", [(promote,), (serve, "--live")], ids=["script", "live server"])
def test_an_address_that_is_none_is_said_with_the_one_that_works(
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[ModuleType, ...],
    address: str,
    better: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    script, *arguments = options
    ended = call(script, *map(str, arguments), *(["--port", str(free_port())] if arguments else []))
    assert is_refusal(ended)
    problem, fix = ended.err.splitlines()
    assert problem.startswith(f"error: MLFLOW_TRACKING_URI is {address}, which is neither")
    quoted = (
        f"export MLFLOW_TRACKING_URI={better.format(cwd=tmp_path)}"
        if better
        else f"unset it, or set it to {naming.ADDRESSES}"
    )
    assert fix == f"fix: {quoted}"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "address",
    [
        f"mysql://ann:p@{SECRET}@127.0.0.1/tracking",
        f"mysql://ann:p/{SECRET}@127.0.0.1/tracking",
        f"mysql://ann:p#{SECRET}@127.0.0.1/tracking",
        f"http://ann:p/{SECRET}@127.0.0.1:5000",
        f"databricks://{SECRET}@host",
        f"ann:{SECRET}@127.0.0.1:5000",
    ],
)
@pytest.mark.parametrize("options", [(promote,), (serve, "--live")], ids=["script", "live server"])
def test_no_part_of_a_password_that_nobody_has_escaped_is_shown(
    call: Call, monkeypatch: pytest.MonkeyPatch, options: tuple[ModuleType, ...], address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    script, *arguments = options
    ended = call(script, *map(str, arguments), *(["--port", str(free_port())] if arguments else []))
    assert is_refusal(ended)
    assert "write @ as %40" in ended.err
    assert SECRET not in ended.out + ended.err


@needs_mysql
@pytest.mark.parametrize("is_listening", [True, False])
def test_a_database_that_is_down_is_said_without_its_password(
    call: Call, monkeypatch: pytest.MonkeyPatch, is_listening: bool
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if is_listening:
            silent.listen()
        port = silent.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"mysql://ann:{SECRET}%40@127.0.0.1:{port}/tracking")
        ended = call(promote)
    assert is_refusal(ended)
    assert ended.err.startswith("error: the database mysql://127.0.0.1/tracking cannot be used: ")
    assert ("no answer within 8 seconds" if is_listening else "Can't connect") in ended.err
    assert SECRET not in ended.out + ended.err


@needs_mysql
def test_a_database_that_does_not_know_the_account_says_so_at_once(
    database: tuple[Path, str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"mysql://ann:{SECRET}@{database[1]}/tracking")
    ended = call(promote)
    assert is_refusal(ended)
    assert "Access denied for user 'ann'" in ended.err
    assert SECRET not in ended.err


@pytest.mark.parametrize("name", ["a%25b", "what?#x"])
def test_an_address_whose_path_nobody_has_escaped_is_not_another_database(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{name}/mlflow.db")
    ended = call(promote)
    assert is_refusal(ended)
    fix = ended.err.splitlines()[1].removeprefix("fix: ")
    assert {*tmp_path.rglob("*")} == {tmp_path / name}
    shown = subprocess.run(
        ["bash", "-c", f'{fix}; echo "$MLFLOW_TRACKING_URI"'], capture_output=True, text=True, check=True
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shown.stdout.strip())
    assert "there is no registered model" in call(promote).err
    assert {*tmp_path.rglob("*")} == {tmp_path / name, tmp_path / name / "mlflow.db"}


class Healthy(http.server.BaseHTTPRequestHandler):
    """Says that it is an MLflow server."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"OK")


@pytest.fixture
def secure_server(tmp_path: Path) -> Iterator[str]:
    """The address of a server whose certificate nobody has signed."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make a certificate")
    options = ["-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=127.0.0.1", "-days", "2"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", *options], cwd=tmp_path, check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_what_a_person_says_of_certificates_counts(secure_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secure_server)
    with pytest.raises(UserError, match="no tracking server answers"):
        connection.connect(fail_fast=True)
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    connection.connect(fail_fast=True)


@pytest.mark.parametrize(
    ("given", "environ", "chosen"),
    [
        (None, {}, "default"),
        (None, {experiments.NAME: "named"}, "named"),
        (None, {experiments.ID: "1"}, "other"),
        (None, {experiments.NAME: "named", experiments.ID: "1"}, "named"),
        ("given", {experiments.NAME: "named", experiments.ID: "1"}, "given"),
    ],
)
def test_the_experiment_that_a_person_names_is_the_one(
    store: str, monkeypatch: pytest.MonkeyPatch, given: str | None, environ: dict[str, str], chosen: str
) -> None:
    client = MlflowClient(store)
    assert client.create_experiment("other") == "1"
    monkeypatch.setattr(experiments, "GIVEN", {experiments.NAME: None, experiments.ID: None, **environ})
    experiments.choose(client, given, "default")
    described = [
        each.name
        for each in client.search_experiments()
        if each.tags.items() >= experiments.TRAINING.tags(each.experiment_id).items()
    ]
    assert described == [chosen]


def test_an_experiment_id_that_is_none_is_said(store: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(experiments.GIVEN, experiments.ID, "77")
    ended = call(train)
    assert is_refusal(ended)
    assert "MLFLOW_EXPERIMENT_ID is 77" in ended.err


def test_only_a_name_of_mlflows_own_is_taken_for_made_up(store: str) -> None:
    assert all(runs.is_made_up(str(MlflowClient(store).create_run("0").info.run_name)) for _ in range(20))
    assert not any(map(runs.is_made_up, ["loan-model-2", "My run", "calm-fox", "calm-fox-b", ""]))


def test_mlflow_run_keeps_the_name_it_was_given_and_shows_where_it_looks(clone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(clone, folder, ignore=shutil.ignore_patterns("mlflow.db", "mlruns"))

    def run(*options: str) -> str:
        command = ["mlflow", "run", str(folder), "--env-manager", "local", "-P", "models=LogisticRegression", *options]
        uri = f"sqlite:///{folder}/mlflow.db"
        env = environment(MLFLOW_TRACKING_URI=uri, MLFLOW_EXPERIMENT_NAME="Mine")
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False).stderr

    assert f"error: there is no file {folder}/my.csv\n" in run("-P", "data=my.csv")
    assert "succeeded" in run("--run-name", "My run", "-P", "seed=1.0")
    assert "succeeded" in run()
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    mine = client.get_experiment_by_name("Mine")
    batches = client.search_runs([mine.experiment_id], "tags.`understudy.kind` = 'batch'")  # type: ignore[union-attr]
    assert [(run.info.run_name, run.data.tags["seed"]) for run in batches] == [("loans quick", "0"), ("My run", "1")]


@pytest.mark.parametrize("value", ["1.5", "inf", "one"])
def test_a_seed_that_is_no_whole_number_is_refused(call: Call, value: str) -> None:
    ended = call(train, "--seed", value)
    assert ended.code == 2
    assert f"invalid whole_number value: '{value}'" in ended.err


def test_a_batch_whose_runs_are_deleted_is_said(client: MlflowClient, call: Call) -> None:
    families = family_runs.families(client, family_runs.get_batch(client, TABLE))
    last = [run for run in families if family_runs.family_name(run) == FLOOR]
    for run in [run for run in families if run not in last]:
        client.delete_run(run.info.run_id)
    ended = call(register)
    assert is_refusal(ended)
    assert f"no run but that of {FLOOR} is left" in ended.err
    client.delete_run(last[0].info.run_id)
    for script in (register, evaluate):
        ended = call(script)
        assert is_refusal(ended)
        assert ended.err.endswith("are deleted\nfix: python train.py\n")


@pytest.mark.parametrize(
    ("option", "value"), [("--host", "nonsense.invalid"), ("--host", "192.0.2.1"), ("--port", None)]
)
def test_what_cannot_be_listened_on_names_its_own_option(call: Call, option: str, value: str | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ["--port", port] if value is None else ["--port", str(free_port()), option, value]
        ended = call(serve, *options)
    assert is_refusal(ended)
    assert ended.err.endswith(f"fix: choose another {option}\n")


def test_a_registry_elsewhere_is_not_silently_ignored(store: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"{store}.other")
    ended = call(serve, "--live", "--port", str(free_port()))
    assert is_refusal(ended)
    assert "fix: unset MLFLOW_REGISTRY_URI" in ended.err
