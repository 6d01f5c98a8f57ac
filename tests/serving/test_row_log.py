"""Accepted rows, kept as Parquet files."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from deploy.mysql import free_port
from tests.conftest import PROJECT, SAMPLE, Ended, environment, is_refusal
from tests.scoring.test_scoring import APPLICANT
from tests.serving.conftest import ENCODED, NAME, NAMES, hammered, served, until
from understudy.schema import logged
from understudy.schema.logged import LoggedAnswer
from understudy.scoring.scorer import Answered
from understudy.serving import following, row_log
from understudy.serving.following import Settings
from understudy.serving.metrics import DROPPED, LOGGED
from understudy.table import TABLE
from understudy.verification.version_cache import VersionKey

PAGE = (PROJECT / "docs" / "scoring.md").read_text()


def test_a_live_server_keeps_accepted_rows(store: str, tmp_path: Path) -> None:
    with served(tmp_path, store, "--log", str(tmp_path / "rows")) as live:
        until(lambda: live.version() == "1")
        rows = [{**APPLICANT, "Gender": " Male\t", "ApplicantIncome": 4711 + number} for number in range(3)]
        body = {"dataframe_records": rows, "ids": ["LP0", "LP1", None], "params": {"output": "detail"}}
        answers = live.ask(body, X_Request_Id="three").json["predictions"]
        live.ask({"dataframe_records": [APPLICANT, {**APPLICANT, "Gender": "secret"}]}, X_Request_Id="two")
        live.ask({"dataframe_records": [{**APPLICANT, "secret": "secret"}]}, X_Request_Id="none")
        with hammered(live, 4) as replies:
            until(lambda: len(replies) > 100)
            live.process.terminate()
            assert live.process.wait(10) == 0
    log = pd.read_parquet(tmp_path / "rows")  # raw and encoded rows, accepted and refused, by one call
    assert list(log) == [*logged.COLUMNS, *NAMES, *(f"encoded_{column.name}" for column in TABLE.encoded), "day"]
    assert (log["day"].astype(str) == log["time"].dt.date.astype(str)).all()
    raw = log[(log["form"] == "raw")].sort_values("ApplicantIncome")
    assert raw["id"].tolist() == ["LP0", "LP1", "three:3"]
    assert raw["request"].tolist() == ["three"] * 3
    assert raw["ApplicantIncome"].tolist() == [4711, 4712, 4713]
    assert raw["Gender"].tolist() == ["Male"] * 3
    assert raw["probability"].tolist() == [answer["probability"] for answer in answers]
    assert raw["label"].tolist() == [answer["label"] for answer in answers]
    assert {*raw["threshold"]} == {answer["threshold"] for answer in answers}
    assert ({*log["version"]}, {*log["stage"]}) == ({"1"}, {"Production"})
    assert (pd.Timestamp.now("UTC") - log["time"].max()).total_seconds() < 60
    encoded = log[log["form"] == "encoded"]
    assert len(encoded) == len([reply for reply in replies if reply.status == 200])
    assert encoded["label"].notna().all()
    assert (encoded["encoded_TotalIncome"] == ENCODED[-1]).all()
    assert encoded["Gender"].isna().all()
    refused = log[log["fault"].notna()]
    assert refused[["id", "fault"]].to_numpy().tolist() == [
        ["two:2", "Gender: unknown category"],
        ["none", "other: column is not known"],
    ]
    assert refused[["label", "probability", "form", *NAMES]].isna().all(axis=None)
    assert "secret" not in log.to_string()


def test_the_commands_of_the_page_ask_with_a_file_and_from_python_and_read_what_was_kept(
    store: str, tmp_path: Path
) -> None:
    curl, client, reader = re.findall(r"^```(?:bash|python)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "loans.csv").write_bytes(SAMPLE.read_bytes())

    def says(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    with served(tmp_path, store, "--log", str(tmp_path / "kept")) as live:
        until(lambda: live.version() == "1")
        here = f"127.0.0.1:{live.port}"
        labels = json.loads(says("bash", "-c", curl.replace("127.0.0.1:1234", here)))["predictions"]
        [probability] = json.loads(says(sys.executable, "-c", client.replace("127.0.0.1:1234", here)))
    assert {*labels} == {"N", "Y"}
    assert len(labels) == len(SAMPLE.read_text().splitlines()) - 1
    assert 0.5 < probability < 1
    counts = re.findall(r"([NY]) +(\d+)$", says(sys.executable, "-c", reader), re.MULTILINE)
    assert {label: int(count) for label, count in counts} == {"N": labels.count("N"), "Y": labels.count("Y") + 1}


def answer(version: str, form: str, cell: Any, **more: Any) -> LoggedAnswer:
    """An accepted row of a table whose encoded column is called as its raw one, and as one of the log's."""
    types = {"raw": {"time": True}, "encoded": {"time": False}}
    known = (version, "Production", 0.5, ("N", "Y"), types)
    asked = {"time": time.time(), **more}
    return LoggedAnswer(known, request="r", form=form, rows={"time": [cell]}, probabilities=[0.7], **asked)


def counted(counter: Any) -> float:
    return float(counter.collect()[0].samples[0].value)


def test_rows_are_kept_by_version_and_day_and_what_cannot_be_written_is_counted(tmp_path: Path) -> None:
    written, dropped = counted(LOGGED), counted(DROPPED)
    parts = row_log.Parts(tmp_path)
    for each in (answer("1", "raw", "Urban"), answer("1", "encoded", 2, time=86_399.5), answer("2", "raw", 4)):
        parts.add(each)
    parts.add(answer("1", "encoded", 3, time=86_401.0))
    parts.write()
    log = pd.read_parquet(tmp_path).sort_values("time", ignore_index=True)
    assert log["row_time"].isna().tolist() == [True, True, False]
    assert log["encoded_time"].tolist()[:2] == [2, 3]
    assert log["day"].astype(str).tolist()[:2] == ["1970-01-01", "1970-01-02"]
    assert log["id"].tolist() == ["r:1"] * 3
    assert (counted(LOGGED) - written, counted(DROPPED) - dropped) == (3, 1)


def test_rows_are_written_in_time_though_none_come_after_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = row_log.Parts(tmp_path)
    parts.add(answer("1", "encoded", 2))
    parts.tick()
    assert not list(tmp_path.rglob("*.parquet"))
    monkeypatch.setattr(row_log, "PART", 0)
    parts.tick()
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_a_folder_of_an_earlier_release_is_refused(store: str, tmp_path: Path) -> None:
    (tmp_path / "20260101T000000Z-1-1-raw.parquet").touch()
    command = [str(PROJECT / "serve.sh"), "--live", "--port", str(free_port()), "--log", str(tmp_path)]
    settings = environment(MLFLOW_TRACKING_URI=store)
    ended = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=20, check=False)
    assert is_refusal(Ended(ended.returncode, ended.stdout, ended.stderr))
    assert "earlier release" in ended.stderr


def test_rows_are_kept_again_when_what_writes_them_was_killed(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(row_log, "PAUSE", 0)
    (tmp_path / "files").mkdir()
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", dst_path=str(tmp_path / "files")))
    loaded, dropped = following.load(VersionKey("1", ""), files), counted(DROPPED)
    columns = {column.name: [cell] for column, cell in zip(TABLE.encoded, ENCODED, strict=True)}
    rows, scored = tmp_path / "rows", Answered("encoded", columns, None, [0.7], ["Y"])
    rows.mkdir()
    log = row_log.RowLog(Settings(tmp_path, store, NAME, "Production", 5, tmp_path, rows))
    os.kill(log.writer.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while counted(DROPPED) == dropped and time.monotonic() < deadline:
        log.put(loaded, "r", scored)
        time.sleep(0.05)
    log.put(loaded, "last", scored._replace(columns=columns | {"TotalIncome": [9]}))
    log.close()
    [part] = rows.rglob("*.parquet")
    assert pd.read_parquet(part)[["request", "encoded_TotalIncome"]].to_numpy().tolist()[-1] == ["last", 9]
    assert part.stat().st_mode & 0o077 == 0
    assert "is started again" in capfd.readouterr().err
