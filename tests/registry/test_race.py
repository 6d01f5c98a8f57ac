"""Promotions at the same time, and promotions that kill -9 cuts off: afterwards everything fits together."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from mlflow import MlflowClient, MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, TEMPORARILY_UNAVAILABLE

import promote
import register
from bench import race
from tests.conftest import MARIADB, Ended, Rows, Team
from understudy.registry import history, promotion, records, registered, stages
from understudy.registry.records import Move, Verdict
from understudy.table import TABLE
from understudy.tracking import waiting

NAME = TABLE.name
ROUNDS = 2
FORK = multiprocessing.get_context("fork")
WRITES = [
    *("create_experiment", "set_experiment_tag", "create_run", "log_batch", "log_text", "set_tag", "set_terminated"),
    *("set_registered_model_alias", "delete_registered_model_alias", "set_model_version_tag"),
    *("set_registered_model_tag", "transition_model_version_stage"),
]
Call = Callable[..., Ended]


Racing = tuple[MlflowClient, race.Race]


@contextmanager
def racers(uri: str) -> Iterator[Racing]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        with race.racers(uri) as run:
            yield MlflowClient(uri), run


@pytest.fixture(scope="module")
def racing_on_sqlite(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Racing]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated, folder / "mlflow.db")
    with race.server(folder) as uri, racers(uri) as racing:
        yield racing


@pytest.fixture(scope="module")
def racing_on_mariadb(team: tuple[Team, Rows]) -> Iterator[Racing]:
    with racers(team[0].uri) as racing:
        yield racing


@pytest.fixture
def racing(backend: str, request: pytest.FixtureRequest) -> Racing:
    started: Racing = request.getfixturevalue(f"racing_on_{backend}")
    race.a_model.cache_clear()  # another test may have put the store back to what it was before the model
    mlflow.set_tracking_uri(started[0].tracking_uri)
    return started


@pytest.mark.parametrize("occupied", [False, True], ids=["empty", "occupied"])
def test_eight_at_once_leave_one_in_production(racing: tuple[MlflowClient, race.Race], occupied: bool) -> None:
    for _ in range(ROUNDS):
        outcome = race.one_round(*racing, "ours", occupied)
        assert outcome.in_production == 1
        assert outcome.wrong == []
        assert set(outcome.ended) <= {"done", "refused", "superseded"}


def test_the_race_is_one_that_mlflows_own_call_loses(racing: tuple[MlflowClient, race.Race]) -> None:
    rounds = (race.one_round(*racing, "stock", False).in_production for _ in range(30))
    assert any(number != 1 for number in rounds)


@pytest.mark.parametrize("seed", [7, 9, 23])
def test_moves_by_hand_are_told_as_a_plain_reading_finds_them(racing: Racing, seed: int) -> None:
    assert race.by_hand_round(racing[0], seed) == []


def cut(store: str, number: int, verb: Callable[[MlflowClient], object]) -> bool:
    """Let a process do something and kill itself before its `number`th write; whether it came to that."""

    def body() -> None:
        written = 0

        def counting(write: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*args: Any, **kwargs: Any) -> Any:
                nonlocal written
                written += 1
                if written == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return write(*args, **kwargs)

            return counted

        for name in WRITES:
            setattr(MlflowClient, name, counting(getattr(MlflowClient, name)))
        mlflow.set_tracking_uri(store)
        verb(MlflowClient(store))

    process = FORK.Process(target=body)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def shown(client: MlflowClient) -> tuple[dict[str, str], dict[str, str]]:
    return stages.aliases(client, NAME), {
        str(version.version): str(version.current_stage) for version in registered.versions(client, NAME)
    }


def to_production(client: MlflowClient) -> None:
    verdict = Verdict(metrics={"roc auc": 0.7}, files={"gate.json": "{}"})
    promotion.promote(client, NAME, Move("production", "2", "production"), lambda planned: verdict)


def back(client: MlflowClient) -> None:
    promotion.rollback(client, NAME, None, "complaints", promotion.scores_a_row(client, NAME))


def out_of_use(client: MlflowClient) -> None:
    promotion.archive(client, NAME, "2", "old")


BEFORE = ({"production": "1", "staging": "2"}, {"1": "Production", "2": "Staging"})
AFTER = ({"production": "2"}, {"1": "Archived", "2": "Production"})
BACK = ({"production": "1"}, {"1": "Production", "2": "Archived"})


@pytest.fixture
def copy(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[int], str]:
    """What makes the store as it is at the first call once more, by a number, and says where it is."""
    kept: list[Rows] = []

    def in_a_file(number: int) -> str:
        shutil.copy(tmp_path / "mlflow.db", tmp_path / f"{number}.db")
        return f"sqlite:///{tmp_path / f'{number}.db'}"

    def in_place(number: int) -> str:
        team, _ = request.getfixturevalue("team")
        if not kept:
            kept.append(team.rows())
        team.put_back(kept[0])
        return str(team.uri)

    return in_place if backend == MARIADB else in_a_file


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [(to_production, BEFORE, AFTER), (back, AFTER, BACK), (out_of_use, BEFORE, BACK)],
    ids=["production", "rollback", "archive"],
)
@pytest.mark.parametrize(
    ("mended_by", "backend"),
    [("check", "sqlite"), ("check", MARIADB), ("promotion", "sqlite"), ("refusal", "sqlite")],
    indirect=["backend"],
)
def test_wherever_kill_9_cuts_the_next_start_brings_it_right(
    in_production: str,
    copy: Callable[[int], str],
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    mended_by: str,
    verb: Callable[[MlflowClient], object],
    before: object,
    after: object,
) -> None:
    if mended_by != "check":
        call(register, "--model", "DecisionTreeClassifier")
    call(promote, "staging", "--version", "2")
    if before == AFTER:
        call(promote, "production")
    are_after, number = set(), 1
    while True:
        store = copy(number)
        if not cut(store, number, verb):
            break
        client = MlflowClient(store)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        if mended_by == "check":
            assert call(promote, "check", "--repair").code == 0
            assert shown(client) in (before, after)
            are_after.add(shown(client) == after)
        elif mended_by == "refusal":
            assert call(promote, "production", "--version", "3").code == 2
            whole = {**shown(client)[1]}
            assert whole.pop("3") == "None"
            assert (shown(client)[0], whole) in (before, after)
        else:
            call(promote, "staging", "--version", "2")
            current = stages.in_stage(client, NAME, "production")
            asked = Move("production", "3", "production", forced=True)
            promotion.promote(client, NAME, asked, lambda planned: Verdict())
            assert shown(client)[1]["3"] == "Production"
            assert history.champions(records.find(client, NAME))[-2:] == [current, "3"]
            assert call(promote, "check").code == 0
        number += 1
    assert number > 6
    assert are_after in ({False, True}, set())


@contextmanager
def flaky(uri: str, fail: Callable[[], bool]) -> Iterator[str]:
    """The address of a way to a server on which the first answer to a moved alias is lost.

    Args:
        uri: The server's.
        fail: Called instead of passing the request on; whether it is to be passed on before the answer is lost.
    """
    lost: list[bool] = []

    class Way(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            moves = self.command == "POST" and self.path.endswith("/registered-models/alias")
            first = moves and not lost
            if first:
                lost.append(fail())
            if not first or lost[0]:
                headers = {"Content-Type": "application/json"}
                answer = requests.request(self.command, f"{uri}{self.path}", data=body, headers=headers, timeout=60)
            self.send_response(502 if first else answer.status_code)
            self.end_headers()
            self.wfile.write(b"" if first else answer.content)

        do_GET = do_POST = do_DELETE = do_PATCH = pass_on  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Way) as way:
        thread = threading.Thread(target=way.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{way.server_port}"
        finally:
            way.shutdown()
            thread.join()


def three(client: MlflowClient) -> str:
    """A new model with three versions, the first in Production."""
    name = f"flaky-{time.time_ns()}"
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, "s3://nowhere/model", await_creation_for=0)
    race.call("ours", client, name, "1")
    return name


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_an_answer_that_is_lost_is_asked_for_again(racing: tuple[MlflowClient, race.Race], written: bool) -> None:
    client, _ = racing
    name = three(client)
    with flaky(client.tracking_uri, lambda: written) as uri:
        assert race.call("ours", MlflowClient(uri), name, "2") == "done"
    assert stages.aliases(client, name) == {"production": "2"}
    assert history.champions(records.find(client, name)) == ["1", "2"]


def test_a_write_that_failed_is_not_repeated_over_somebody_elses(racing: tuple[MlflowClient, race.Race]) -> None:
    client, _ = racing
    name = three(client)

    def meanwhile() -> bool:
        race.call("ours", client, name, "3")
        return False

    with flaky(client.tracking_uri, meanwhile) as uri:
        assert race.call("ours", MlflowClient(uri), name, "2") == "refused"
    assert stages.aliases(client, name) == {"production": "3"}
    assert history.champions(records.find(client, name)) == ["1", "3"]


def test_only_writes_that_were_undone_are_tried_again() -> None:
    errors = ["(sqlite3.OperationalError) database is locked", "(MySQLdb.IntegrityError) (1062, ...)", ""]
    left = list(errors)

    def write() -> str:
        if text := left.pop(0):
            raise MlflowException(text, TEMPORARILY_UNAVAILABLE if "locked" in text else BAD_REQUEST)
        return "written"

    assert waiting.insist(write) == "written"
    with pytest.raises(MlflowException, match="no such column"):
        waiting.insist(lambda: raising(MlflowException("no such column", BAD_REQUEST)))


def raising(error: Exception) -> None:
    raise error
