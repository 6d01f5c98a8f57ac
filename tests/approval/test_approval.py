"""One account asks, another approves, on a server that knows who is who; and what is said where it does not."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.server import get_app_client

import promote
import register
from deploy import mysql
from tests.conftest import MARIADB, NO_DATABASE, Ended, connected, is_refusal
from understudy.approval import requests
from understudy.errors import UserError
from understudy.registry import promotion, records, stages
from understudy.registry.records import Move, SavedRecord, Verdict
from understudy.schema.limits import Limits
from understudy.table import TABLE
from understudy.tracking import connection, runs

pytest.importorskip("flask_wtf", reason=NO_DATABASE)
Call = Callable[..., Ended]
ADMIN = "the admin's password"
SETTINGS = """[mlflow]
default_permission = MANAGE
database_uri = sqlite:///{folder}/auth.db
admin_username = admin
auth_cache_ttl_seconds = 60
"""
NAME = TABLE.name
REASON = ("--reason", "the card reads well")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Iterator[tuple[str, Path]]:
    """The address and the file of a server with one batch, whose accounts anna, bo and admin may do anything."""
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copy(trained / "mlflow.db", folder)
    (folder / "auth.ini").write_text(SETTINGS.format(folder=folder))
    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as monkeypatch:  # what the tests of other stores must not see
            monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(folder / "auth.ini"))
            monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", ADMIN)
            monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "what it signs its forms with")
            store = ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db")  # the last one counts
            guard = ("--app-name", "basic-auth", "--workers", "1")
            uri = running.enter_context(mysql.tracking_server(folder, "", mysql.free_port(), *store, *guard))
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN)
            accounts = get_app_client("basic-auth", uri)
            for name in ("anna", "bo"):
                accounts.create_user(name, f"{name}'s password")
        yield uri, folder / "mlflow.db"


@pytest.fixture
def needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table asks for a second person."""
    monkeypatch.setattr(promote, "TABLE", replace(TABLE, limits=Limits(approval=True)))


@pytest.fixture
def client(
    guarded: tuple[str, Path],
    tmp_path: Path,
    call: Call,
    made: dict[tuple[Any, ...], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MlflowClient]:
    """A client of the admin's, of a server that has version 1 in Production and version 2 in Staging."""
    uri, file = guarded
    for _ in connected(tmp_path, monkeypatch, uri):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN)
        client = MlflowClient(uri)
        with closing(sqlite3.connect(file)) as store:
            if (kept := made.get((uri,))) is not None:
                kept.backup(store)
            else:
                for family in ("LogisticRegression", "RandomForestClassifier", "DecisionTreeClassifier"):
                    assert call(register, "--model", family).code == 0
                put(client, "1", "production")
                put(client, "2", "staging")
                made[(uri,)] = sqlite3.connect(":memory:")
                store.backup(made[(uri,)])
        yield client


@pytest.fixture
def by(client: MlflowClient, needed: None, call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls promote.py with an account."""

    def by(account: str, *arguments: str) -> Ended:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", account)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"{account}'s password")
        return call(promote, *arguments)

    return by


def put(client: MlflowClient, version: str, stage: str) -> None:
    """Move a version without asking the gate, or anybody else."""
    promotion.promote(client, NAME, Move(stage, version, stage, forced=True), lambda _: Verdict())


def known(client: MlflowClient) -> list[SavedRecord]:
    return records.find(client, NAME)


def test_one_asks_and_another_approves_and_one_alone_cannot(client: MlflowClient, by: Call) -> None:
    asked = by("anna", "production", "--reason", "it knows the new district")
    assert asked.code == 0
    assert f"{NAME} version 2 waits for a second person to approve it: anna asked at " in asked.out
    assert asked.out.endswith('next: python promote.py approve 2 --reason "..."\n')
    before = known(client)
    alone = by("anna", "approve", "2", *REASON)
    assert is_refusal(alone)
    assert f"anna has asked for version 2 of {NAME}, and another account has to approve it" in alone.err
    assert stages.aliases(client, NAME) == {"production": "1", "staging": "2"}
    assert known(client) == before
    approved = by("bo", "approve", "2", *REASON)
    assert approved.code == 0, approved.err
    assert "anna has asked for version 2 by the rule not-worse\n" in approved.out
    assert "ROC AUC less champion's" in approved.out
    assert f"{NAME} version 2 is in Production, version 1 is archived\n" in approved.out
    request, move = known(client)[-2:]
    assert (request.action, request.who, request.reason) == ("request", "anna", "it knows the new district")
    assert (move.who, move.asker, move.request, move.before) == ("bo", "anna", request.run_id, "1")
    shown = by("bo").out.splitlines()
    assert shown[-3].split()[2:6] == ["request", "version", "2", "anna"]
    assert shown[-3].endswith('  "it knows the new district"; by the rule not-worse')
    assert "  production  version 2 in place of version 1  bo " in shown[-2]
    assert shown[-2].endswith("; asked for by anna and approved by bo")
    assert not any(line.startswith("request: ") for line in shown)
    assert is_refusal(by("bo", "approve", "2", *REASON))
    assert by("bo", "check").code == 0


def test_the_account_is_the_servers_word_and_not_the_environments(
    client: MlflowClient, by: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    by("anna", "production")
    credentials = tmp_path / ".mlflow" / "credentials"
    credentials.parent.mkdir()
    credentials.write_text("[mlflow]\nmlflow_tracking_username = anna\nmlflow_tracking_password = anna's password\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{variable}")
    assert connection.account() == "anna"
    with pytest.raises(UserError, match="anna has asked"):
        requests.approve(client, NAME, "2", "x")


def test_asked_again_there_is_no_second_request_unless_it_asks_for_something_else(
    client: MlflowClient, by: Call
) -> None:
    first, again = by("anna", "production"), by("bo", "production")
    assert again.out == first.out
    assert by("bo").out.count("  request ") == 1
    by("bo", "production", "--force", "--reason", "the old one fails")
    [request] = requests.waiting(known(client))
    assert (request.who, request.forced) == ("bo", True)
    assert "request: version 2 waits for a second person to approve it: bo asked at " in by("anna", "check").out
    assert is_refusal(by("bo", "approve", "2", *REASON))
    approved = by("anna", "approve", "2", *REASON)
    assert "bo has asked for version 2 by the rule not-worse, forced\n" in approved.out
    assert requests.waiting(known(client)) == []


def test_the_gate_judges_at_approval_and_its_refusal_closes_the_request(client: MlflowClient, by: Call) -> None:
    by("anna", "production", "--rule", "better")
    refused = by("bo", "approve", "2", *REASON)
    assert (refused.code, stages.aliases(client, NAME)["production"]) == (3, "1")
    assert "ROC AUC less champion's is above 0.000" in refused.err
    [refusal] = [line for line in by("bo").out.splitlines() if "production refused" in line]
    assert "  version 2 in place of version 1  bo" in refusal
    assert "asked for by anna and approved by bo; " in refusal
    assert f"nobody asks for version 2 of {NAME} to go to Production" in by("bo", "approve", "2", *REASON).err


def test_archiving_answers_a_request_and_a_rollback_needs_nobody(client: MlflowClient, by: Call) -> None:
    by("anna", "production")
    assert by("bo", "archive", "2", "--reason", "no").code == 0
    assert requests.waiting(known(client)) == []
    by("anna", "production", "--version", "2")
    by("bo", "approve", "2", *REASON)
    assert by("bo", "rollback", "--reason", "complaints").code == 0
    assert stages.aliases(client, NAME) == {"production": "1"}
    assert by("bo", "check").code == 0


def test_what_cannot_go_is_refused_when_it_is_asked_for(client: MlflowClient, by: Call) -> None:
    before = known(client)
    assert f"version 3 of {NAME} was never in Staging" in by("anna", "production", "--version", "3").err
    assert "--data says on which rows" in by("anna", "production", "--data", "loans.csv").err
    assert f"{NAME} has no version 9" in by("anna", "approve", "9", *REASON).err
    assert "approve needs a --reason" in by("anna", "approve", "2").err
    assert known(client) == before
    assert f"{NAME} version 1 is in Production\n" in by("anna", "production", "--version", "1").out
    assert known(client) == before


def test_check_finds_what_nobody_has_approved(
    client: MlflowClient, by: Call, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.set_registered_model_alias(NAME, "production", "2")
    found = by("anna", "check")
    assert found.code == 4
    assert 'fix: python promote.py rollback --reason "..."\n' in found.out
    adopted = by("anna", "adopt", *REASON)
    assert is_refusal(adopted)
    assert "version 2" in adopted.err
    assert "only if a second person approves it\nfix: python promote.py rollback " in adopted.err
    by("anna", "rollback", "--reason", "by hand")
    assert by("anna", "check").code == 0
    by("anna", "production", "--version", "2")
    with monkeypatch.context() as changed:
        changed.setattr(promote, "TABLE", TABLE)  # of a checkout that asks for no approval
        assert by("bo", "production", "--version", "2").code == 0
    found = by("anna", "check")
    assert found.code == 4
    assert "bo has put version 2 into Production, and no second person has approved it\n" in found.out
    forged = known(client)[-1]
    [request] = [record for record in known(client) if record.action == "request"]
    client.set_tag(forged.run_id, records.TAGS["request"], request.run_id)
    client.set_tag(forged.run_id, records.TAGS["who"], "anna")
    assert "no second person has approved it" in by("anna", "check").out


def test_check_finds_what_nobody_has_approved_after_rollbacks_too(
    client: MlflowClient, by: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    by("anna", "production", "--version", "2")
    with monkeypatch.context() as changed:
        changed.setattr(promote, "TABLE", TABLE)  # of a checkout that asks for no approval
        assert by("bo", "production", "--version", "2").code == 0
    by("anna", "rollback", *REASON)
    assert by("anna", "check").code == 0
    by("anna", "rollback", "--to", "2", *REASON)
    assert "bo has put version 2 into Production, and no second person has approved it\n" in by("anna", "check").out
    client.set_registered_model_alias(NAME, "production", "3")
    by("bo", "rollback", "--to", "1", *REASON)
    by("bo", "rollback", "--to", "3", *REASON)
    assert "bo has put version 3 into Production, and no second person has approved it\n" in by("anna", "check").out


def test_a_request_for_a_version_that_is_gone_is_found_and_closed(client: MlflowClient, by: Call) -> None:
    by("anna", "production")
    client.delete_registered_model_alias(NAME, "staging")
    client.delete_model_version(NAME, "2")
    assert "version 2, which anna has asked for, is deleted\n" in by("bo", "check").out
    assert (
        "mended: closed a request: version 2, which anna had asked for, is deleted\n"
        in by("bo", "check", "--repair").out
    )
    assert "which anna has asked for" not in by("bo", "check").out
    assert requests.waiting(known(client)) == []


def test_a_request_that_was_cut_off_is_none(client: MlflowClient, by: Call) -> None:
    by("anna", "production", "--version", "2")
    request = known(client)[-1]
    for tag in ("outcome", "number", "time"):
        client.delete_tag(request.run_id, records.TAGS[tag])
    client.update_run(request.run_id, "RUNNING")
    client.set_tag(request.run_id, runs.PID, "999999999")
    assert requests.waiting(known(client)) == []
    assert "closed a record: abandoned: production, version 2" in by("bo", "check", "--repair").out
    assert by("bo", "check").code == 0


def test_check_says_what_is_left_of_the_error_on_the_held_out_rows(client: MlflowClient, by: Call) -> None:
    rows = "rows like the 186 held-out rows of version 3"
    assert "budget: " not in by("anna", "check").out
    by("anna", "production")
    by("bo", "approve", "2", *REASON)
    assert f"1 challenger was asked about on {rows}; the next one spends 0.83% of error, of 2.50% that is left" in (
        by("anna", "check").out
    )


@pytest.mark.parametrize("backend", ["sqlite", MARIADB], indirect=True)
def test_without_accounts_nobody_can_ask_or_approve(in_production: str, needed: None, call: Call) -> None:
    client = MlflowClient(in_production)
    call(promote, "staging", "--version", "2")
    before = records.find(client, TABLE.name)
    for arguments in (["production"], ["production", "--force", *REASON], ["approve", "2", *REASON]):
        ended = call(promote, *arguments)
        assert is_refusal(ended), ended.err
        assert "a second person has to approve what goes to Production, and " in ended.err
        assert "cannot tell who is who\nfix: use a server with accounts" in ended.err
    assert records.find(client, TABLE.name) == before
    assert stages.aliases(client, TABLE.name) == {"production": "1", "staging": "2"}
    assert call(promote, "check").code == 0
