"""The team's server from nothing to its end, in Docker: one story, in the order of the tests."""

import base64
import hmac
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
import requests

from deploy import secrets
from deploy.mysql import free_port
from tests.conftest import PROJECT, Ended, environment, is_refusal

ENGINE = PROJECT.parent / "shared" / "containers" / "up.sh"  # where images cannot be pulled
RECORD = {
    "Gender": "Male",
    "Married": "Yes",
    "Dependents": "0",
    "Education": "Graduate",
    "Self_Employed": "No",
    "ApplicantIncome": 5000,
    "CoapplicantIncome": 1500,
    "LoanAmount": 120,
    "Loan_Amount_Term": 360,
    "Credit_History": 1,
    "Property_Area": "Urban",
}
ROW = json.dumps({"dataframe_records": [RECORD]}).encode()
PROCESSING = "from distributed import Client; print(Client('tcp://127.0.0.1:8786').processing())"
WITH_MONITOR = ("-f", "docker-compose.yml", "-f", "deploy/monitor.compose.yml")
WITH_CLUSTER = ("-f", "docker-compose.yml", "-f", "deploy/dask.compose.yml")
SECOND = """
import os, sys
from deploy import accounts
server = accounts.get_app_client("basic-auth", os.environ["MLFLOW_TRACKING_URI"])
[role] = [role.id for role in server.list_roles("default") if role.name == "promoter"]
accounts.set_user(server, "second", sys.argv[1], role)
"""
WEBHOOK = """
import sys
from mlflow import MlflowClient
events = ["model_version_alias.created", "model_version_tag.set"]
MlflowClient().create_webhook("chat", sys.argv[1], events, secret=sys.argv[2])
"""
RECEIVER = """
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        print(json.dumps({"headers": dict(self.headers), "body": body}), flush=True)
        self.send_response(204)
        self.end_headers()
HTTPServer(("", 8000), Receiver).serve_forever()
"""
REMEMBERED = 60  # seconds for which MLflow goes on with the webhooks that it knew
PATIENCE = 120  # seconds that a container may take to be back


class Stack:
    """A copy of the project, whose stack has names and ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"understudy-{os.getpid()}"
        self.volumes_before = volumes()
        self.tracking, self.model, self.proxy = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
        ports = {
            f"{name}_PORT": address.rsplit(":", 1)[1]
            for name, address in [("TRACKING", self.tracking), ("MODEL", self.model), ("PROXY", self.proxy)]
        }
        self.environment = environment(
            COMPOSE_PROJECT_NAME=self.name,
            IMAGE=self.name,
            PYTHON=sys.executable,
            MLFLOW_TRACKING_URI=self.tracking,
            WEBHOOK_SCHEMES="http",
            WEBHOOK_PRIVATE="true",
            **ports,
        )

    def run(self, *command: str, **more: str) -> Ended:
        ran = subprocess.run(
            command, cwd=self.folder, env={**self.environment, **more}, capture_output=True, text=True, check=False
        )
        return Ended(ran.returncode, ran.stdout, ran.stderr)

    def compose(self, *arguments: str) -> str:
        ended = self.run("docker", "compose", *arguments)
        assert ended.code == 0, ended.err
        return ended.out

    def secret(self, name: str) -> str:
        return secrets.read(self.folder / "deploy" / "secrets" / name)

    def script(self, account: str, *arguments: str, **more: str) -> Ended:
        """Run one of the project's scripts with an account."""
        password = self.secret(f"{account}_password")
        more |= {"MLFLOW_TRACKING_USERNAME": account, "MLFLOW_TRACKING_PASSWORD": password}
        return self.run(sys.executable, *arguments, **more)

    def says(self, account: str, *arguments: str, **more: str) -> str:
        ended = self.script(account, *arguments, **more)
        assert ended.code == 0, ended.err
        return ended.out


def volumes() -> set[str]:
    """The names of all that the engine has."""
    command = ["docker", "volume", "ls", "--quiet"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def ask(address: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, str]:
    """Status and answer; 0 if nobody answers."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        headers = {"Content-Type": kind} if kind else {}
        connection.request("GET" if body is None else "POST", parts.path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def dropped_after(address: str, request: bytes) -> float:
    """The seconds after which a client is dropped who says that and no more."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30) as client:
        client.sendall(request)
        begun = time.monotonic()
        while client.recv(1024):
            pass
        return time.monotonic() - begun


def wait_for(address: str) -> None:
    """Until the model server says that the applicant gets the loan."""
    deadline = time.monotonic() + PATIENCE
    while (answered := ask(f"{address}/invocations", ROW)) != (200, '{"predictions":["Y"]}'):
        assert time.monotonic() < deadline, answered
        time.sleep(0.5)


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # a process that has ended
        return ""


@pytest.fixture(scope="module")
def engine() -> None:
    commands = [[str(ENGINE)]] if ENGINE.exists() else [["docker", "compose", "version"], ["docker", "info"]]
    for command in commands:
        if not shutil.which(command[0]) or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"no Docker engine here: {' '.join(command)} fails")


@pytest.fixture(scope="module")
def stack(engine: None, clone: Path) -> Iterator[Stack]:
    for path in clone.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)  # as a clone that was made under umask 077
    stack = Stack(clone)
    try:
        yield stack
    finally:
        every = (*WITH_MONITOR, "--profile", "by-hand")
        stack.compose(*every, "down", "--volumes", "--remove-orphans", "--timeout", "5")
        stack.run("docker", "image", "rm", stack.name, f"{stack.name}-proxy")


def test_up_from_nothing_says_where_it_is_and_how_to_log_in(stack: Stack) -> None:
    ended = stack.run("make", "up")
    assert ended.code == 0, ended.err + stack.compose("logs")
    assert f"MLflow: {stack.tracking}, as admin with the password in deploy/secrets/admin_password\n" in ended.out
    assert f"model server: {stack.model}\n" in ended.out
    assert "these images are not pinned and may change: mysql:9.7, nginx:stable, python:3.11-" in ended.out
    assert stack.secret("admin_password") not in ended.out + ended.err
    status, body = ask(f"{stack.model}/health")
    assert (status, json.loads(body)["status"]) == (200, "waiting")
    assert ask(f"{stack.model}/invocations", ROW)[0] == 503


def test_without_an_account_nothing_is_done(stack: Stack) -> None:
    ended = stack.run(sys.executable, "train.py")
    assert is_refusal(ended), ended.err
    assert "does not know this account" in ended.err


def test_a_trainer_trains_and_only_a_promoter_promotes(stack: Stack) -> None:
    assert "next: python register.py" in stack.says("trainer", "train.py", "--models", "LogisticRegression")
    refused = [stack.script("trainer", "register.py")]
    refused += [stack.script("trainer", "train.py", "--experiment-name", "another")]
    assert "version 1 registered" in stack.says("promoter", "register.py")
    refused += [stack.script("trainer", "promote.py", "staging")]
    for ended in refused:
        assert is_refusal(ended), ended.err
        assert "does not allow that to this account" in ended.err
    assert "completed" not in stack.says("reader", "promote.py")
    assert "version 1 is in Staging" in stack.says("promoter", "promote.py", "staging")
    assert "version 1 is in Production" in stack.says("promoter", "promote.py", "production")
    wait_for(stack.model)


def test_the_server_may_not_change_the_databases_schema(stack: Stack) -> None:
    program = (
        "import sqlalchemy, sys\n"
        "with sqlalchemy.create_engine(sys.argv[1]).connect() as server:\n"
        "    print(server.exec_driver_sql('select current_user()').scalar())\n"
        "    server.exec_driver_sql('create table more (one int)')\n"
    )
    address = secrets.address("db", "tracking", Path("/run/secrets/runtime.cnf"))
    command = ["docker", "compose", "exec", "-T", "mlflow", "python", "-c", program, address]
    ended = stack.run(*command)
    assert ended.out == "tracking_runtime@%\n"
    assert "CREATE command denied" in ended.err
    users = "select group_concat(distinct user) from information_schema.processlist where db = 'tracking'"
    root = 'MYSQL_PWD=$(cat /run/secrets/root_password) mysql -uroot -Ne "$0"'
    assert stack.compose("exec", "-T", "db", "sh", "-c", root, users) == "tracking_runtime\n"


def test_every_container_has_bounds(stack: Stack) -> None:
    containers = stack.compose("ps", "--all", "--quiet").split()
    settings = [json.loads(stack.run("docker", "inspect", name).out)[0]["HostConfig"] for name in containers]
    assert len(settings) == 6
    for bounds in settings:
        assert 0 < bounds["Memory"] <= 3 * 2**30
        assert bounds["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "5", "max-size": "10m"}}
        assert all("size=" in options for options in bounds["Tmpfs"].values())


def test_the_model_server_does_not_reach_the_database(stack: Stack) -> None:
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = stack.run(
        "docker", "inspect", "--format", template, stack.compose("ps", "--quiet", "db").strip()
    ).out.strip()
    program = "import socket, sys; socket.create_connection((sys.argv[1], 3306), 3)"
    for name in ("db", address):
        command = ["docker", "compose", "exec", "-T", "{}", "python", "-c", program, name]
        assert [stack.run(*(part.format(of) for part in command)).code for of in ("mlflow", "model")] == [0, 1]


def test_a_trainer_writes_large_files_and_none_outside_the_workspace(stack: Stack) -> None:
    account = ("trainer", stack.secret("trainer_password"))
    large = os.urandom(2**20) * 300
    for prefix in ("api", "ajax-api"):
        artifacts = f"{stack.tracking}/{prefix}/2.0/mlflow-artifacts/artifacts"
        for path in ("1/small", "%31/small", "workspaces%2f..%2f1/small"):
            assert requests.put(f"{artifacts}/{path}", b"x", auth=account, timeout=60).status_code == 403
        inside = f"{artifacts}/workspaces/default/1/large"
        assert requests.put(inside, large, auth=account, timeout=60).status_code == 200
        assert requests.get(inside, auth=account, timeout=60).content == large
    stack.compose("exec", "-T", "mlflow", "rm", "/artifacts/workspaces/default/1/large")
    assert stack.compose("exec", "-T", "mlflow", "ls", "/artifacts").split() == ["workspaces"]


def test_nobody_reads_what_the_database_says(stack: Stack) -> None:
    stack.compose("stop", "db")
    known = {"account": ("trainer", stack.secret("trainer_password")), "stranger": ("x", "y"), "nobody": None}
    for _ in range(8):  # so that each of MLflow's four workers is asked
        for path in ("health", "version", "ping", "api/2.0/mlflow/registered-models/search"):
            for account in known.values():
                answer = requests.get(f"{stack.tracking}/{path}", auth=account, timeout=120)
                assert answer.status_code == (404 if path == "ping" else 503)
                assert "sql" not in answer.text.lower()
    ended = stack.script("reader", "promote.py", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    stack.compose("up", "--detach", "--wait")
    assert is_refusal(ended), ended.err
    assert f"the database of the tracking server at {stack.tracking} does not answer" in ended.err


def test_the_proxy_takes_rows_and_nothing_too_large_or_too_slow(stack: Stack) -> None:
    wait_for(stack.proxy)
    assert ask(f"{stack.proxy}/invocations", ROW, kind="") == ask(f"{stack.model}/invocations", ROW)
    assert ask(f"{stack.proxy}/invocations", b" " * 9_000_000)[0] == 413
    assert ask(f"{stack.proxy}/api/2.0/mlflow/runs/create", b" " * 9_000_000)[0] == 401
    shown = stack.says("reader", "promote.py")
    assert stack.says("reader", "promote.py", MLFLOW_TRACKING_URI=stack.proxy) == shown
    start = b"POST /invocations HTTP/1.1\r\n"
    slow = [start, start + b"Host: localhost\r\nContent-Length: 9\r\n\r\n{"]
    with ThreadPoolExecutor() as clients:
        for seconds in clients.map(partial(dropped_after, stack.proxy), slow):
            assert 9 < seconds < 15


def test_a_killed_model_server_comes_back(stack: Stack) -> None:
    stack.run("docker", "compose", "exec", "-T", "model", "sh", "-c", "kill -9 -1")
    deadline = time.monotonic() + 10
    while ask(f"{stack.model}/ping")[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    wait_for(stack.model)


def test_all_is_there_after_every_container_has_restarted(stack: Stack) -> None:
    before = stack.says("reader", "promote.py", "show", "1")
    running = stack.compose("ps", "--services", "--status", "running").split()
    assert sorted(running) == ["db", "mlflow", "model", "proxy"]
    stack.compose("restart", "--timeout", "20", *running)
    stack.compose("up", "--detach", "--wait")
    for address in (stack.model, stack.proxy):
        wait_for(address)
    assert stack.says("reader", "promote.py", "show", "1") == before
    assert "was registered already" in stack.says("promoter", "register.py")


def test_no_secret_is_shown(stack: Stack) -> None:
    folder = stack.folder / "deploy" / "secrets"
    hidden = {name: stack.secret(name) for name in secrets.SINGLE}
    for name in (secrets.MIGRATOR, secrets.RUNTIME):
        lines = [line.partition("=") for line in (folder / name).read_text().splitlines()]
        hidden |= {f"{name} {number}": value for number, (key, _, value) in enumerate(lines) if key == "password"}
    assert len(hidden) == len(secrets.SINGLE) + 4
    containers = stack.compose("ps", "--all", "--quiet").split()
    kept = [path for path in stack.folder.rglob("*") if path.is_file() and folder not in path.parents]
    shown = {
        "history": stack.run("docker", "history", "--no-trunc", stack.name).out,
        "image": stack.run("docker", "inspect", stack.name).out,
        "inspect": stack.run("docker", "inspect", *containers).out,
        "ps": "".join(read(path) for path in Path("/proc").glob("[0-9]*/cmdline")),
        "logs": stack.compose("logs"),
        "files": stack.run("docker", "run", "--rm", "--entrypoint", "ls", stack.name, "-AR", "/app").out,
        "repository": "".join(read(path) for path in kept),
    }
    for name, text in shown.items():
        assert text, name
        for secret, value in hidden.items():
            assert value not in text, f"{secret} in {name}"
    assert "mysqld" in shown["ps"]
    assert "basic_auth.ini" in shown["files"]
    assert "runtime.cnf" not in shown["files"]


def test_a_backup_comes_back_on_an_empty_stack(stack: Stack) -> None:
    before = stack.says("reader", "promote.py", "show", "1")
    archive = str(stack.folder.parent / "backup.tar.gz")
    ended = stack.run("deploy/backup.sh", archive)
    assert ended.code == 0, ended.err
    stack.compose("down", "--volumes")
    stack.compose("up", "--detach", "--wait", "db")
    ended = stack.run("deploy/restore.sh", archive)
    assert ended.code == 0, ended.err
    ended = stack.run("make", "up")
    assert ended.code == 0, ended.err
    assert stack.says("reader", "promote.py", "show", "1") == before
    wait_for(stack.model)


def digests(stack: Stack) -> list[str]:
    """Of the forests that were trained, the newest first."""
    account = ("reader", stack.secret("reader_password"))
    asked = {"experiment_ids": ["1"], "filter": "attributes.run_name = 'RandomForestClassifier'"}
    answer = requests.post(f"{stack.tracking}/api/2.0/mlflow/runs/search", json=asked, auth=account, timeout=60)
    return [
        tag["value"] for run in answer.json()["runs"] for tag in run["data"]["tags"] if tag["key"] == "model.digest"
    ]


def test_a_search_on_a_cluster_outlives_a_worker(stack: Stack) -> None:
    both = WITH_CLUSTER
    stack.compose(*both, "up", "--detach", "--wait", "scheduler", "worker")
    workers = stack.compose(*both, "ps", "--quiet", "worker").split()
    assert len(workers) == 2
    inside = [*both, "exec", "-T", "worker", "python", "-c"]
    for name, port in [("mlflow", 5000), ("db", 3306), ("1.1.1.1", 443), ("scheduler", 8786)]:
        program = f"import socket; socket.create_connection(({name!r}, {port}), 3)"
        assert stack.run("docker", "compose", *inside, program).code == (name != "scheduler")
    assert stack.run("docker", "compose", *both, "port", "scheduler", "8786").out.strip() in ("", ":0")
    loans = stack.folder.parent / "loans.csv"
    subprocess.run([sys.executable, PROJECT / "data" / "make_loans.py", "--rows", "20000", "--to", loans], check=True)
    with loans.open() as rows:
        command = ["docker", "compose", *both, "exec", "-T", "worker", "sh", "-c", "cat > /data/loans.csv"]
        subprocess.run(command, cwd=stack.folder, env=stack.environment, stdin=rows, check=True)
    train = [*both, "run", "--rm", "-T", "train", "--models", "RandomForestClassifier", "--data", "/data/loans.csv"]
    stack.compose(*train, "--cluster", "")  # the last one counts
    command = ["docker", "compose", *train]
    with subprocess.Popen(command, cwd=stack.folder, env=stack.environment, stdout=subprocess.DEVNULL) as training:
        deadline = time.monotonic() + PATIENCE
        while "_fit_and_score" not in stack.compose(*both, "exec", "-T", "scheduler", "python", "-c", PROCESSING):
            assert time.monotonic() < deadline
            assert training.poll() is None
        stack.run("docker", "kill", workers[0])
        assert training.poll() is None
    assert training.returncode == 0
    assert len(stack.compose(*both, "ps", "--quiet", "worker").split()) == 1
    with_one_killed, without = digests(stack)[:2]
    assert with_one_killed == without


def test_a_scoring_on_a_cluster_outlives_a_worker(stack: Stack) -> None:
    stack.compose(*WITH_CLUSTER, "up", "--detach", "--wait", "scheduler", "worker")
    inside = ["docker", "compose", *WITH_CLUSTER, "exec", "-T", "--index"]
    workers = [stack.run(*inside, index, "worker", "hostname").out.strip() for index in ("1", "2")]
    many = (
        "mkdir /data/new; cd /data/new; head -1 ../loans.csv > 1.csv; "
        "for n in $(seq 50); do tail -n +2 ../loans.csv >> 1.csv; done; for n in 2 3 4 5 6; do cp 1.csv $n.csv; done"
    )
    assert stack.run(*inside, "1", "worker", "sh", "-c", many).code == 0
    score = [*WITH_CLUSTER, "run", "--rm", "-T", "score", "/data/new"]
    assert "6,000,000 rows scored with Loan_prediction version 1" in stack.compose(*score, "/data/one.parquet")
    command = ["docker", "compose", *score, "/data/two.parquet", "--cluster", "tcp://scheduler:8786"]
    with subprocess.Popen(command, cwd=stack.folder, env=stack.environment, stdout=subprocess.DEVNULL) as scoring:
        deadline = time.monotonic() + PATIENCE
        while not stack.run(*inside, "1", "worker", "sh", "-c", "ls /data/.two.parquet.scoring/figures/*").out:
            assert time.monotonic() < deadline
            assert scoring.poll() is None
        stack.run("docker", "kill", workers[1])
        assert scoring.poll() is None
    assert scoring.returncode == 0
    same = (
        "from pyarrow import parquet\n"
        "paths = ['/data/one.parquet', '/data/two.parquet']\n"
        "one, two = (parquet.read_table(path).drop_columns('scored_at') for path in paths)\n"
        "assert len(one) == 6_000_000 and one.equals(two)"
    )
    assert stack.run(*inside, "1", "worker", "python", "-c", same).code == 0
    stack.compose(*WITH_CLUSTER, "rm", "--force", "--stop", "--volumes", "scheduler", "worker")
    assert stack.run("docker", "volume", "rm", f"{stack.name}_rows").code == 0


def test_a_model_is_watched_and_trained_again(stack: Stack) -> None:
    watched = [*WITH_MONITOR, "run", "--rm", "-T"]

    def put(name: str, content: str) -> None:
        command = ["docker", "compose", *watched, "--entrypoint", "sh", "monitor", "-c", f"cat > /data/{name}"]
        subprocess.run(command, cwd=stack.folder, env=stack.environment, input=content.encode(), check=True)

    def answer(rows: pd.DataFrame) -> None:
        stack.compose(*WITH_MONITOR, "up", "--detach", "--wait", "model")
        wait_for(stack.model)
        deadline = time.monotonic() + PATIENCE
        while (
            'understudy_shadow_version{name="Loan_prediction",version="2"} 1.0' not in ask(f"{stack.model}/metrics")[1]
        ):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        body = rows.drop(columns="Loan_Status").to_csv(index=False).encode()
        assert ask(f"{stack.model}/invocations", body, "text/csv")[0] == 200
        stack.compose(*WITH_MONITOR, "stop", "model")  # which writes what it has

    stack.says("trainer", "train.py", "--models", "DecisionTreeClassifier")
    assert "version 2 registered" in stack.says("promoter", "register.py")
    stack.says("promoter", "promote.py", "staging", "--version", "2")
    rows = pd.read_csv(stack.folder / "data" / "loans.csv", dtype=str)
    put("labels.csv", rows[["Loan_ID", "Loan_Status"]].to_csv(index=False))
    answer(rows)
    calm = stack.run("docker", "compose", *watched, "monitor", "--labels", "/data/labels.csv")
    assert calm.code == 0, calm.out + calm.err
    assert "shadow version 2" in calm.out
    drifted = rows.assign(Loan_ID="N" + rows["Loan_ID"], Property_Area="Rural")
    put("grown.csv", pd.concat([rows, drifted]).to_csv(index=False))
    answer(drifted)
    found = stack.run("docker", "compose", *watched, "monitor", "--retrain", "/data/grown.csv")
    assert found.code == 5, found.out + found.err
    assert "Loan_prediction version 3 is in Staging" in found.out
    assert "Production: version 1" in stack.says("reader", "promote.py")
    stack.compose("up", "--detach", "--wait", "model")
    assert all(stack.run("docker", "volume", "rm", f"{stack.name}_{of}").code == 0 for of in ("log", "rows"))


@pytest.fixture
def received(stack: Stack) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What MLflow has told a receiver that only the stack's network reaches, as far as its signature fits."""
    name, key = f"{stack.name}-receiver", "a secret of both"
    command = ["docker", "run", "--detach", "--name", name, "--network", f"{stack.name}_default"]
    command += ["--network-alias", "receiver", "--entrypoint", "python", stack.name, "-c", RECEIVER]
    assert stack.run(*command).code == 0
    stack.says("admin", "-c", WEBHOOK, "http://receiver:8000/", key)

    def received() -> list[dict[str, Any]]:
        told = []
        for line in stack.run("docker", "logs", name).out.splitlines():
            headers, body = (heard := json.loads(line))["headers"], heard["body"]
            signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.{body}".encode()
            signature = base64.b64encode(hmac.digest(key.encode(), signed, "sha256")).decode()
            if headers["X-MLflow-Signature"] == f"v1,{signature}":
                told.append(json.loads(body))
        return told

    try:
        yield received
    finally:
        stack.run("docker", "rm", "--force", name)


def test_one_asks_and_another_approves_and_others_hear_of_it(
    stack: Stack, received: Callable[[], list[dict[str, Any]]]
) -> None:
    made = time.monotonic()
    assert "403" in stack.script("promoter", "-c", WEBHOOK, "http://receiver:8000/", "x").err
    table, password = stack.folder / "understudy" / "table.py", "of the second account"
    table.write_text(table.read_text().replace("limits=Limits(", "limits=Limits(approval=True, "))
    (stack.folder / "deploy" / "secrets" / "second_password").write_text(password)
    stack.says("admin", "-c", SECOND, password)
    stack.says("trainer", "train.py", "--models", "RandomForestClassifier")
    stack.says("promoter", "register.py")
    stack.says("promoter", "promote.py", "staging")
    version = stack.says("reader", "promote.py").partition("Staging: version ")[2].splitlines()[0]
    asked = stack.says("promoter", "promote.py", "production")
    assert f"version {version} waits for a second person to approve it: promoter asked at " in asked
    approve = ("promote.py", "approve", version, "--reason", "the chat says yes")
    alone = stack.script("promoter", *approve)
    assert is_refusal(alone), alone.err
    assert "another account has to approve it" in alone.err
    assert "Production: version 1\n" in stack.says("reader", "promote.py")
    time.sleep(max(0, made + REMEMBERED - time.monotonic()))
    assert f"version {version} is in Production, version 1 is archived" in stack.says("second", *approve)
    assert "asked for by promoter and approved by second" in stack.says("reader", "promote.py")
    assert "all is well" in stack.says("reader", "promote.py", "check")
    moved = {"name": "Loan_prediction", "alias": "production", "version": version}
    deadline = time.monotonic() + PATIENCE
    while moved not in [told["data"] for told in received()]:
        assert time.monotonic() < deadline
        time.sleep(1)
    [told] = [told for told in received() if told["data"] == moved]
    assert (told["entity"], told["action"]) == ("model_version_alias", "created")
    recorded = [told["data"] for told in received() if told["data"].get("key") == "understudy.record"]
    assert recorded[-1]["version"] == version


def test_down_keeps_what_was_kept(stack: Stack) -> None:
    assert stack.run("make", "down").code == 0
    assert stack.compose("ps", "--all", "--quiet") == ""
    left = volumes() - stack.volumes_before
    assert left == {f"{stack.name}_{kept}" for kept in ("artifacts", "database", "served")}


def test_images_are_held_by_digest_until_they_are_pinned_again(engine: None, tmp_path: Path) -> None:
    registry = shutil.which("docker-registry")
    if not registry:
        pytest.skip("no registry here: Debian's docker-registry")
    (tmp_path / "deploy").mkdir()
    for name in ("docker-compose.yml", "Makefile", "deploy/pin.sh"):
        shutil.copy(PROJECT / name, tmp_path / name)
    port = free_port()
    image = f"127.0.0.1:{port}/base:1"
    names = ("MYSQL_IMAGE", "NGINX_IMAGE", "PYTHON_IMAGE")
    (tmp_path / ".env").write_text("BIND=127.0.0.2\n")
    config = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(tmp_path)}}}
    (tmp_path / "registry.yml").write_text(json.dumps({**config, "http": {"addr": f"127.0.0.1:{port}"}}))

    def run(*command: str, **more: str) -> Ended:
        env = environment(**more)
        ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        return Ended(ran.returncode, ran.stdout, ran.stderr)

    def publish(content: str) -> None:
        (tmp_path / "content").write_text(content)
        assert run("tar", "-cf", "content.tar", "content").code == 0
        for command in (["import", "content.tar", image], ["push", image]):
            assert run("docker", *command).code == 0

    def pin() -> Ended:
        return run("make", "--silent", "pin", **dict.fromkeys(names, image))

    ended = pin()
    assert ended.code == 2
    assert ended.err.splitlines()[1:3] == [
        f"error: {image} cannot be pulled, for the reason above; nothing is pinned",
        "fix: let this machine reach its registry, or name a mirror: MYSQL_IMAGE=... make pin",
    ]
    assert (tmp_path / ".env").read_text() == "BIND=127.0.0.2\n"
    pinned = []
    with subprocess.Popen([registry, "serve", "registry.yml"], cwd=tmp_path, stderr=subprocess.DEVNULL) as serving:
        try:
            while ask(f"http://127.0.0.1:{port}/v2/")[0] != 200:
                assert serving.poll() is None
            for content in ("old", "new"):
                publish(content)
                assert pin().code == 0
                bind, *lines = (tmp_path / ".env").read_text().splitlines()
                assert bind == "BIND=127.0.0.2"
                [digest] = {
                    line.removeprefix(f"{name}={image}@sha256:") for name, line in zip(names, lines, strict=True)
                }
                assert len(digest) == 64
                assert f"image: {image}@sha256:{digest}\n" in run("docker", "compose", "config").out
                pinned.append(digest)
        finally:
            serving.terminate()
            run("docker", "image", "rm", "--force", *run("docker", "images", "--quiet", image[:-2]).out.split())
    assert len(set(pinned)) == 2
