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

from tests.conftest import PROJECT, SAMPLE
from tests.scoring.test_scoring import APPLICANT
from tests.serving.conftest import ENCODED, NAME, NAMES, hammered, served, until
from understudy.serving import following, row_log
from understudy.serving.metrics import DROPPED, LOGGED
from understudy.serving.version_cache import VersionKey
from understudy.table import TABLE

PAGE = (PROJECT / "docs" / "scoring.md").read_text()


def test_a_live_server_keeps_accepted_rows(store: str, tmp_path: Path) -> None:
    with served(tmp_path, store, "--log", str(tmp_path / "rows")) as live:
        until(lambda: live.version() == "1")
        raw = [{**APPLICANT, "Gender": " Male\t", "ApplicantIncome": 4711 + number} for number in range(3)]
        answers = live.ask({"dataframe_records": raw, "params": {"output": "detail"}}).json["predictions"]
        live.ask({"dataframe_records": [{**APPLICANT, "Gender": "secret"}]})
        with hammered(live, 4) as replies:
            until(lambda: len(replies) > 100)
            live.process.terminate()
            assert live.process.wait(10) == 0
    kept = pd.concat([pd.read_parquet(path) for path in (tmp_path / "rows").glob("*-raw.parquet")])
    assert list(kept) == ["time", "version", "label", "probability", *NAMES]
    assert kept["ApplicantIncome"].tolist() == [4711, 4712, 4713]
    assert kept["Gender"].tolist() == ["Male"] * 3
    assert kept["probability"].tolist() == [answer["probability"] for answer in answers]
    assert kept["version"].tolist() == ["1"] * 3
    assert (pd.Timestamp.now("UTC") - kept["time"].max()).total_seconds() < 60
    encoded = pd.concat([pd.read_parquet(path) for path in (tmp_path / "rows").glob("*-encoded.parquet")])
    assert len(encoded) == len([reply for reply in replies if reply.status == 200])


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
    assert {label: int(count) for label, count in counts} == {label: labels.count(label) for label in "NY"}


def logged(version: str, form: str, cell: Any) -> row_log.LoggedAnswer:
    """An accepted row of a table whose encoded columns are called as its raw ones."""
    types = {"raw": {"Area": True}, "encoded": {"Area": False}}
    return row_log.LoggedAnswer(time.time(), version, types, form, {"Area": [cell]}, "label", ["Y"])


def counted(counter: Any) -> float:
    return float(counter.collect()[0].samples[0].value)


def test_rows_are_kept_by_form_and_version_and_what_cannot_be_written_is_counted(tmp_path: Path) -> None:
    written, dropped = counted(LOGGED), counted(DROPPED)
    parts = row_log.Parts(tmp_path)
    for answer in (logged("1", "raw", "Urban"), logged("1", "encoded", 2), logged("2", "raw", 4)):
        parts.add(answer)
    parts.write()
    [raw], [encoded] = (list(tmp_path.glob(f"*-{form}.parquet")) for form in ("raw", "encoded"))
    assert pd.read_parquet(raw)["Area"].tolist() == ["Urban"]
    assert pd.read_parquet(encoded)["Area"].tolist() == [2]
    assert (counted(LOGGED) - written, counted(DROPPED) - dropped) == (2, 1)


def test_rows_are_written_in_time_though_none_come_after_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = row_log.Parts(tmp_path)
    parts.add(logged("1", "encoded", 2))
    parts.tick()
    assert not list(tmp_path.glob("*.parquet"))
    monkeypatch.setattr(row_log, "PART", 0)
    parts.tick()
    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_rows_are_kept_again_when_what_writes_them_was_killed(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(row_log, "PAUSE", 0)
    (tmp_path / "files").mkdir()
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", dst_path=str(tmp_path / "files")))
    loaded, dropped = following.load(VersionKey("1", ""), files), counted(DROPPED)
    columns = {column.name: [cell] for column, cell in zip(TABLE.encoded, ENCODED, strict=True)}
    log = row_log.RowLog(tmp_path)
    os.kill(log.writer.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while counted(DROPPED) == dropped and time.monotonic() < deadline:
        log.put(loaded, "encoded", columns, "label", ["Y"])
        time.sleep(0.05)
    log.put(loaded, "encoded", columns | {"TotalIncome": [9]}, "label", ["Y"])
    log.close()
    [part] = tmp_path.glob("*-encoded.parquet")
    assert pd.read_parquet(part)["TotalIncome"].tolist()[-1] == 9
    assert part.stat().st_mode & 0o077 == 0
    assert "is started again" in capfd.readouterr().err
