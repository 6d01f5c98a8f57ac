"""Who gets into a team's server, and what each account may do there."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient, MlflowException

import promote
import register
import train
from deploy import mysql, secrets
from tests.conftest import NO_DATABASE, PROJECT, Ended, Rows, Team, connected, is_refusal
from understudy.probation.trials import Trial
from understudy.probation.watch import Watcher
from understudy.registry import records, stages
from understudy.schema.limits import Limits
from understudy.table import TABLE
from understudy.tracking import connection, family_runs, runs

accounts = pytest.importorskip("deploy.accounts", exc_type=ImportError, reason=NO_DATABASE)
Call = Callable[..., Ended]
# What MLflow leaves open: the page's own files, a sign of life, and how a client has to log in.
OPEN = ("/health", "/static-files/", "/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info")
ROUTES = """
import json, warnings
warnings.simplefilter("ignore")
from mlflow.server import app
from mlflow.server.auth import create_app
native = create_app(app).routes
found = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods}
found |= {(method, route.path) for route in native for method in getattr(route, "methods", None) or ()}
print(json.dumps(sorted((method, path) for method, path in found if method not in ("HEAD", "OPTIONS"))))
"""


@pytest.fixture(scope="module")
def settings(team: tuple[Team, Rows]) -> dict[str, str]:
    """The environment of a server with accounts."""
    server, _ = team
    passwords = server.folder / "secrets"
    text = (PROJECT / "deploy" / "basic_auth.ini").read_text()
    address = secrets.address(server.host, "auth", passwords / secrets.RUNTIME)
    (server.folder / "basic_auth.ini").write_text(
        "".join(f"database_uri = {address}\n" if "database_uri" in line else line for line in text.splitlines(True))
    )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(server.folder / "basic_auth.ini"),
        "MLFLOW_ENABLE_WORKSPACES": "true",
        "MLFLOW_AUTH_ADMIN_PASSWORD": secrets.read(passwords / "admin_password"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.read(passwords / "flask_key"),
    }


@pytest.fixture(scope="module")
def guarded(team: tuple[Team, Rows], settings: dict[str, str]) -> Iterator[str]:
    """The address of a server with accounts and nothing in it but what they need."""
    server, empty = team
    server.put_back(empty)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        guard = ("--app-name", "basic-auth", "--workers", "1")
        with mysql.tracking_server(server.folder, server.host, mysql.free_port(), *guard) as uri:
            monkeypatch.delenv("MLFLOW_ENABLE_WORKSPACES")  # is the server's alone
            monkeypatch.setattr(sys, "argv", ["accounts", uri, str(server.folder / "secrets")])
            for name in ("TRACKING_URI", "TRACKING_USERNAME", "TRACKING_PASSWORD"):
                monkeypatch.setenv(f"MLFLOW_{name}", "")  # put back afterwards, whatever main leaves there
            accounts.main()
            accounts.main()
            yield uri


@pytest.fixture
def enter(
    guarded: str, team: tuple[Team, Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], MlflowClient]]:
    """What lets this process go on as one of the accounts."""

    def enter(name: str) -> MlflowClient:
        password = secrets.read(team[0].folder / "secrets" / f"{name}_password")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        return MlflowClient(guarded)

    for _ in connected(tmp_path, monkeypatch, guarded):
        yield enter


def test_nobody_without_an_account_reaches_any_route(guarded: str, settings: dict[str, str]) -> None:
    served_by = {"_MLFLOW_SGI_NAME": "uvicorn"}  # as mlflow server says
    environment = {**os.environ, **settings, **served_by}
    listed = subprocess.run([sys.executable, "-c", ROUTES], env=environment, capture_output=True, text=True, check=True)
    routes = json.loads(listed.stdout.splitlines()[-1])
    assert len(routes) > 200
    open_to_all = set()
    for method, path in routes:
        filled = path.replace("<path:", "<").replace("{", "<").replace("}", ">")
        while "<" in filled:
            filled = f"{filled.partition('<')[0]}x{filled.partition('>')[2]}"
        status = requests.request(method, f"{guarded}{filled}", timeout=10).status_code
        if status != 401:
            open_to_all.add((path, status))
    assert {(path, status) for path, status in open_to_all if not path.startswith(OPEN)} == set()
    assert len(open_to_all) == len(OPEN)


def test_a_wrong_password_is_said(
    enter: Callable[[str], MlflowClient], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter("trainer")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not the password")
    assert is_refusal(call(train))


def test_an_account_is_what_the_server_calls_it_however_it_is_spelt(
    enter: Callable[[str], MlflowClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    enter("promoter")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "Promoter")
    assert connection.account() == "promoter"


def is_forbidden(ask: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    with pytest.raises(MlflowException) as refused:
        ask(*arguments, **named)
    return "403" in str(refused.value)


@pytest.fixture
def moved(enter: Callable[[str], MlflowClient], call: Call) -> None:
    """The promoter has put a run of the trainer's into Production, once for all tests of the server."""
    if not records.find(enter("trainer"), TABLE.name):
        assert call(train, "--models", "LogisticRegression").code == 0
        assert is_refusal(call(register))
        enter("promoter")
        for verb in [(register,), (promote, "staging"), (promote, "production"), (promote, "check")]:
            assert call(*verb).code == 0, verb


@pytest.mark.usefixtures("moved")
def test_trainers_log_promoters_move_and_readers_read(enter: Callable[[str], MlflowClient], call: Call) -> None:
    name = TABLE.name
    for account in ("promoter", "trainer", "reader"):
        client = enter(account)
        assert is_forbidden(client.create_registered_model, "another")
        assert is_forbidden(client.create_experiment, "another")
    for account in ("trainer", "reader"):
        client = enter(account)
        assert stages.aliases(client, name) == {"production": "1"}
        assert call(promote, "check").code == 0
        assert is_refusal(call(promote, "adopt", "--version", "1", "--reason", "x"))
        assert is_forbidden(client.set_registered_model_alias, name, "production", "1")
        assert is_forbidden(client.delete_registered_model_alias, name, "production")
        assert is_forbidden(client.set_model_version_tag, name, "1", "a", "b")
        assert is_forbidden(client.delete_registered_model, name)
        assert is_forbidden(client.create_model_version, name, "s3://nowhere", await_creation_for=0)
    run = family_runs.get_batch(client, TABLE).info
    assert is_forbidden(client.log_metric, run.run_id, "a", 1)
    assert is_forbidden(client.set_tag, run.run_id, "a", "b")
    assert is_forbidden(client.create_run, run.experiment_id)
    assert is_forbidden(client.delete_run, run.run_id)
    with pytest.raises(Exception, match="403"):
        client.log_text(run.run_id, "a", "a.txt")


@pytest.mark.usefixtures("moved")
def test_an_account_that_is_away_is_no_misbehaviour_of_a_version(
    enter: Callable[[str], MlflowClient], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client, nobody = enter("promoter"), f"http://127.0.0.1:{mysql.free_port()}"
    move = records.find(client, TABLE.name)[-1].run_id
    trial = Trial("1", "0", datetime.now(UTC), move, is_again=False)
    watcher = Watcher(client, TABLE.name, trial, Limits(), nobody, None)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not the password")
    assert watcher.step() is None
    assert "waiting: the tracking server does not know this account" in capsys.readouterr().out
    enter("promoter")
    watcher.step()
    assert "tracking server" not in capsys.readouterr().out
    for account in ("trainer", "reader"):  # who may not bring a version back does not begin to watch one
        assert is_forbidden(Watcher, enter(account), TABLE.name, trial, Limits(), nobody, None)


def test_a_killed_run_of_somebody_else_stops_nobody(enter: Callable[[str], MlflowClient]) -> None:
    client = enter("admin")
    gone = {runs.HOST: runs.host(), runs.PID: "999999999", runs.STARTED: "1", runs.KIND: "family"}
    run = client.create_run(client.create_experiment("the admin's own"), tags=gone, run_name="killed")
    assert runs.close_killed(enter("trainer")) == []
    assert client.get_run(run.info.run_id).info.status == "RUNNING"
    assert runs.close_killed(enter("admin")) == ["killed"]


@pytest.mark.usefixtures("moved")
def test_doing_it_again_takes_away_what_was_given_by_hand(
    enter: Callable[[str], MlflowClient], guarded: str, team: tuple[Team, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = TABLE.name
    enter("admin")
    server = accounts.get_app_client("basic-auth", guarded)
    server.grant_user_permission("reader", "registered_model", name, "MANAGE")
    server.assign_role("reader", next(role.id for role in server.list_roles("default") if role.name == "promoter"))
    server.update_user_admin("trainer", True)
    monkeypatch.setattr(sys, "argv", ["accounts", guarded, str(team[0].folder / "secrets")])
    accounts.main()
    assert [role.name for role in server.list_user_roles("reader")] == ["reader"]
    for account in ("reader", "trainer"):
        assert is_forbidden(enter(account).set_registered_model_tag, name, "a", "b")


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 403), ({"Origin": "http://evil.example"}, 403), ({}, 200)],
    ids=["a foreign host", "a foreign origin", "neither"],
)
def test_a_foreign_page_gets_nothing(
    guarded: str, settings: dict[str, str], headers: dict[str, str], status: int
) -> None:
    admin = ("admin", settings["MLFLOW_AUTH_ADMIN_PASSWORD"])
    search = f"{guarded}/api/2.0/mlflow/experiments/search"
    assert requests.post(search, json={"max_results": 1}, auth=admin, headers=headers, timeout=10).status_code == status


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "a%2f%2e%2e%2f%2e%2e%2fetc", "a/../../secrets"],
)
def test_no_path_leads_out_of_the_artifacts(guarded: str, settings: dict[str, str], path: str) -> None:
    admin = ("admin", settings["MLFLOW_AUTH_ADMIN_PASSWORD"])
    for method in ("GET", "PUT", "DELETE"):
        request = requests.Request(method, "http://x", auth=admin, data=b"x" if method == "PUT" else None).prepare()
        request.url = f"{guarded}/api/2.0/mlflow-artifacts/artifacts/{path}"
        assert 400 <= requests.Session().send(request, timeout=10).status_code < 500


@pytest.mark.parametrize("source", ["file:///etc", "http://127.0.0.1/x", "/etc", "mlflow-artifacts:/../../etc"])
def test_no_version_comes_from_a_file_or_an_address(guarded: str, settings: dict[str, str], source: str) -> None:
    admin = ("admin", settings["MLFLOW_AUTH_ADMIN_PASSWORD"])
    body = {"name": TABLE.name, "source": source}
    answer = requests.post(f"{guarded}/api/2.0/mlflow/model-versions/create", json=body, auth=admin, timeout=10)
    assert 400 <= answer.status_code < 500, answer.text
