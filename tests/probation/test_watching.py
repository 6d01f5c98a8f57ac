"""How a probation goes on and ends: started again, with servers that are away, and when others move the version."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import requests
from mlflow import MlflowClient

import monitor
import promote
from deploy.mysql import free_port
from tests.conftest import environment, is_refusal
from tests.monitoring.conftest import WrittenLog, drawn
from tests.probation.conftest import HARMFUL, NAME, Call, address, ask, is_forward, watching
from tests.serving.conftest import served, until
from tests.terminal.test_documented import KEYS
from understudy.monitoring import window
from understudy.probation import trials, watch
from understudy.probation.counts import ServerCounts
from understudy.probation.evidence import ServerEvidence
from understudy.probation.watch import Watcher
from understudy.registry import records, stages
from understudy.schema.columns import listed
from understudy.schema.declaration import Live as Places
from understudy.schema.limits import Limits, Probation
from understudy.scoring.scorer import PROBABILITY
from understudy.serving.app import FLUSH
from understudy.table import TABLE

COLUMNS = [column.name for column in TABLE.columns]


def stood(client: MlflowClient) -> list[records.SavedRecord]:
    return [of for of in records.find(client, NAME) if of.action == records.PROBATION]


def answer(log: WrittenLog, client: MlflowClient, version: str, rows: pd.DataFrame) -> None:
    """Let the log hold the answers of a version to rows, one a request, from now on."""
    model = window.reference(client, client.get_model_version(NAME, version)).model
    for number in range(len(rows)):
        row = rows[number : number + 1]
        scores = model.predict({name: listed(row[name]) for name in COLUMNS}, PROBABILITY)
        log.answer(row, scores, days=-1 - number / 1e6, version=version)


def test_a_version_that_stands_is_recorded_and_not_watched_again(
    in_production: str, client: MlflowClient, tmp_path: Path, call: Call, watches: Call
) -> None:
    log = tmp_path / "rows"
    with served(tmp_path, in_production, "--log", str(log)) as live:
        until(lambda: live.version() == "1")
        is_forward(call)
        until(lambda: live.version() == "2")
        assert ask(live, 40) == {200}
    with served(tmp_path, in_production, "--log", str(log)) as live:
        ended = watches(address(live), "--log", str(log), minutes=0.001, rows=40)
        again = watches(address(live), "--log", str(log), minutes=0.001, rows=40)
        outcome = json.loads(watches(address(live), "--json").out)["outcome"]
    assert (ended.code, ended.err, outcome) == (0, "", "stood")
    assert f"{NAME} version 2 has stood its probation" in ended.out
    [record] = stood(client)
    assert (record.version, record.outcome, record.by) == ("2", "completed", "probation")
    assert record.figures["rows"] == 40
    assert re.search("  probation +version 2 has stood it  ", call(promote).out)
    assert (again.code, again.out) == (0, f"version 2 of {NAME} has stood its probation\n")
    assert len(stood(client)) == 1
    assert call(promote, "check").code == 0


def test_a_world_that_drifts_does_not_send_a_good_version_back(
    in_production: str, client: MlflowClient, tmp_path: Path, call: Call, watches: Call
) -> None:
    log, poorer = WrittenLog(tmp_path / "kept"), {"ApplicantIncome": lambda cells: cells // 4}
    answer(log, client, "1", drawn(150))
    is_forward(call)
    answer(log, client, "2", drawn(150, 1, Credit_History=lambda cells: cells * 0, **poorer))
    log.refuse(["Property_Area: unknown category"] * 60, days=-2, version="2")
    with served(tmp_path, in_production) as live:
        until(lambda: live.version() == "2")
        assert ask(live, 30) == {200}
        ended = watches(address(live), "--log", str(log.folder), minutes=0.001, rows=100, shift=0.1)
    assert (ended.code, ended.err) == (0, ""), ended.out
    kept = pd.read_parquet(log.folder).groupby("version")["probability"].mean()
    assert abs(kept["2"] - kept["1"]) > 0.2  # which by itself would be taken for the version's fault
    assert "as the version before would have" in str(stood(client)[0].reason)


def test_what_was_killed_goes_on_and_a_signal_ends_it(
    in_production: str, client: MlflowClient, tmp_path: Path, turns_bad: Callable[[str], None]
) -> None:
    with served(tmp_path, in_production) as live:
        until(lambda: live.version() == "1")
        assert ask(live, 120) == {200}
        turns_bad("fail")
        until(lambda: live.version() == "3")
        with watching(in_production, address(live)) as first:
            first.says("version 3: ")
            first.process.send_signal(signal.SIGTERM)
            assert first.process.wait(60) == 143
        with watching(in_production, address(live)) as second:
            second.says("version 3: ")
            second.process.kill()
            second.process.wait()
        assert ask(live, 30, HARMFUL) == {500}
        with watching(in_production, address(live)) as third:
            assert "version 1 is in Production again" in third.says("in Production")
            assert third.process.wait(60) == 7
    assert [of.by for of in records.find(client, NAME) if of.action == records.ROLLBACK] == ["probation"]


def test_a_rollback_by_somebody_else_ends_it(in_production: str, tmp_path: Path, call: Call) -> None:
    with served(tmp_path, in_production) as live:
        until(lambda: live.version() == "1")
        is_forward(call)
        with watching(in_production, address(live)) as watch:
            watch.says("version 2: ")
            assert call(promote, "rollback", "--reason", "a person has seen it").code == 0
            over = watch.says("in Production")
            assert f"version 1 is in Production now: the probation of {NAME} version 2 is over (" in over
            assert "rollback, version 1 in place of version 2; reason: a person has seen it)" in over
            assert watch.process.wait(60) == 7


def test_a_live_server_that_is_away_is_waited_for(
    in_production: str, client: MlflowClient, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_forward(call)
    port = free_port()
    monkeypatch.setattr("tests.serving.conftest.free_port", lambda: port)
    with watching(in_production, f"http://127.0.0.1:{port}", minutes=0.001, rows=10) as watch:
        watch.says("waiting: the live server")
        with served(tmp_path, in_production) as live:
            until(lambda: live.version() == "2")
            assert ask(live, 5) == {200}
            watch.says("5 of 10 rows")
        watch.says("waiting: the live server")
        with served(tmp_path, in_production) as live:
            until(lambda: live.version() == "2")
            assert ask(live, 5) == {200}  # which add up with those before it was started anew
            watch.says("has stood its probation")
            assert watch.process.wait(60) == 0
    assert len(stood(client)) == 1


def test_above_what_answers_count_as_slow_is_said_where_it_is_not_the_limit(in_production: str, tmp_path: Path) -> None:
    said = []
    with served(tmp_path, in_production) as live:
        until(lambda: live.version() == "1")
        assert ask(live, 20) == {200}
        for limit in (TABLE.limits.milliseconds, 400, 5_000):
            evidence = ServerEvidence(ServerCounts(address(live), NAME, ("1", "2"), limit, is_again=False), limit)
            evidence.read()
            evidence.look(is_last=True)
            said.append(evidence.signs[1].text)
    assert said == [
        "slow: 0 of 20 requests, held against 1%",
        "slow: 0 of 20 requests, held against 1% (above 500 ms)",
        "slow: the live server does not tell answers above 5,000 ms from others",
    ]


def test_what_is_not_on_probation_is_said(in_production: str, watches: Call, call: Call) -> None:
    ended = watches("http://127.0.0.1:9")
    nothing = f"version 1 of {NAME} replaced none, so there is nothing to go back to\n"
    assert (ended.code, ended.err, ended.out) == (0, "", nothing)
    answer = json.loads(watches("http://127.0.0.1:9", "--json").out)
    assert answer.keys() == KEYS["monitor.py --probation"] | {"next"}
    assert (answer["version"], answer["production"], answer["outcome"], answer["exit"]) == (None, "1", None, 0)
    MlflowClient(in_production).set_registered_model_alias(NAME, "production", "2")
    assert "and no record says why: python promote.py check" in watches("http://127.0.0.1:9").out


@pytest.mark.parametrize("options", [("--data", "a"), ("--since", "7d"), ("--retrain",)])
def test_probation_has_few_options(options: tuple[str, ...], in_production: str, watches: Call) -> None:
    assert is_refusal(watches("http://127.0.0.1:9", *options))


def test_probation_is_off_unless_the_table_says_otherwise(in_production: str, call: Call) -> None:
    ended = call(monitor, "--probation")
    assert is_refusal(ended)
    assert "Limits(probation=Probation())" in ended.err


def test_people_are_told_what_is_on_probation_and_what_nobody_watches(
    in_production: str, client: MlflowClient, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    probation = Probation(minutes=1e-6, rows=3)
    assert trials.described(client, NAME, probation, None)[1] == []
    is_forward(call)
    log = WrittenLog(tmp_path / "kept")
    log.answer(drawn(2), days=-1, version="2")
    line, findings = trials.described(client, NAME, probation, log.folder)
    assert line.endswith("2 of 3 rows")
    assert findings == []
    monkeypatch.setattr(trials, "UNWATCHED", timedelta())
    [finding] = trials.described(client, NAME, probation, log.folder)[1]
    assert finding.what.endswith("and nobody has watched it")
    assert finding.fix == "python monitor.py --probation"
    trial = trials.current(client, NAME)
    assert isinstance(trial, trials.Trial)
    watcher = Watcher(client, NAME, trial, Limits(), "http://127.0.0.1:9", None)
    [finding] = trials.described(client, NAME, probation, None)[1]
    assert f"and nobody has watched it since {datetime.now(UTC):%Y-%m-%d}" in finding.what
    time.sleep(3)
    monkeypatch.setattr(trials, "UNWATCHED", timedelta(seconds=2.5))
    assert len(trials.described(client, NAME, probation, None)[1]) == 1
    monkeypatch.setattr(watch, "TELL", 0.0)
    watcher.step()  # it waits for the server, and is there
    assert trials.described(client, NAME, probation, None)[1] == []


def test_a_version_is_watched_on_though_the_record_of_its_move_is_deleted(
    in_production: str, client: MlflowClient, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    is_forward(call)
    trial = trials.current(client, NAME)
    assert isinstance(trial, trials.Trial)
    client.delete_run(trial.move)
    assert trials.current(client, NAME) == trial
    assert Watcher(client, NAME, trial, Limits(), "http://127.0.0.1:9", None).step() is None
    assert "waiting: " in capsys.readouterr().out


def test_a_broken_file_of_the_log_is_a_finding(
    in_production: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_forward(call)
    day = tmp_path / f"day={datetime.now(UTC):%Y-%m-%d}"
    day.mkdir()
    (day / "rows.parquet").write_text("no Parquet")
    limits, places = Limits(probation=Probation()), Places(log=str(tmp_path))
    monkeypatch.setattr(promote, "TABLE", replace(TABLE, limits=limits, live=places))
    ended = call(promote, "check")
    assert (ended.code, ended.err) == (4, "")
    assert "rows.parquet is broken Parquet\n  fix: move it out of the log" in ended.out
    assert f"probation: version 2 of {NAME} is on probation since" in ended.out


@contextmanager
def tracking_server(store: str, folder: Path, port: int) -> Iterator[None]:
    """`mlflow server` on the test's store, until the block ends."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(port)]
    quiet = environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen([*command, "--workers", "1"], cwd=folder, env=quiet, stdout=log, stderr=log)
    try:
        until(lambda: is_up(port), 120)
        yield
    finally:
        process.terminate()
        process.wait(20)


def is_up(port: int) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
    return False


def test_a_tracking_server_that_is_away_is_waited_for(
    in_production: str, client: MlflowClient, tmp_path: Path, turns_bad: Callable[[str], None]
) -> None:
    port = free_port()
    with served(tmp_path, in_production) as live:
        until(lambda: live.version() == "1")
        assert ask(live, 120) == {200}
        turns_bad("fail")
        until(lambda: live.version() == "3")
        with tracking_server(in_production, tmp_path, port):
            watch = ExitStack()
            watcher = watch.enter_context(watching(f"http://127.0.0.1:{port}", address(live)))
            watcher.says("version 3: ")
        with watch:
            assert ask(live, 30, HARMFUL) == {500}
            watcher.says("waiting for the tracking server")
            assert client.get_model_version_by_alias(NAME, "production").version in (3, "3")
            with tracking_server(in_production, tmp_path, port):
                assert "version 1 is in Production again" in watcher.says("in Production")
                assert watcher.process.wait(60) == 7


def test_who_moves_the_version_between_the_look_and_the_rollback_is_not_undone(
    in_production: str,
    client: MlflowClient,
    tmp_path: Path,
    turns_bad: Callable[[str], None],
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns_bad("fail")
    trial = trials.current(client, NAME)
    assert isinstance(trial, trials.Trial)
    with served(tmp_path, in_production) as live:
        until(lambda: live.version() == "3")
        assert ask(live, 30, HARMFUL) == {500}
        watcher = Watcher(client, NAME, trial, Limits(), address(live), None)
        read = ServerEvidence.read

        def somebody_is_faster(evidence: ServerEvidence) -> None:
            read(evidence)
            assert call(promote, "production", "--version", "2", "--force", "--reason", "a person").code == 0

        monkeypatch.setattr(ServerEvidence, "read", somebody_is_faster)
        assert watcher.step() is None
        assert stages.aliases(client, NAME)["production"] == "2"
        assert watcher.step() == trials.REPLACED


def test_what_a_version_has_done_before_is_not_held_against_it(
    in_production: str, client: MlflowClient, tmp_path: Path, turns_bad: Callable[[str], None], call: Call
) -> None:
    turns_bad("fail")
    with served(tmp_path, in_production) as live:
        until(lambda: live.version() == "3")
        assert ask(live, 30, HARMFUL) == {500}
        assert call(promote, "rollback", "--reason", "a person has seen it").code == 0
        assert call(promote, "production", "--version", "3", "--force", "--reason", "nobody is as rich").code == 0
        trial = trials.current(client, NAME)
        assert isinstance(trial, trials.Trial)
        assert trial.is_again
        watcher = Watcher(client, NAME, trial, Limits(probation=Probation(rows=10_000)), address(live), None)
        assert watcher.step() is None
        until(lambda: live.version() == "3")
        assert ask(live, 30, HARMFUL) == {500}
        time.sleep(2 * FLUSH)
        assert watcher.step() == trials.GONE_BACK
