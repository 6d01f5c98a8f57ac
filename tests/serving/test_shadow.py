"""The version in Staging answers too, off the answers' way, and whatever it does the answers and the log go on."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient

from tests.conftest import PROJECT, Ended, environment, is_refusal
from tests.scoring.test_scoring import APPLICANT
from tests.serving.conftest import ENCODED, NAME, Live, hammered, served, until
from tests.serving.misbehaving import Misbehaving
from tests.serving.test_following import made, made_with
from understudy.schema.logged import LoggedAnswer
from understudy.scoring import scorer
from understudy.serving import shadow
from understudy.serving.following import Settings
from understudy.table import TABLE

RICH = [*ENCODED[:-1], 14.5]  # what makes `Misbehaving` do harm
SHADOW = ["shadow_version", "shadow_label", "shadow_probability", "shadow_fault"]


@pytest.fixture(autouse=True)
def nothing_in_staging(store: str) -> Iterator[None]:
    """Other tests of the store may have left a version there."""
    MlflowClient(store).delete_registered_model_alias(NAME, "staging")
    yield
    MlflowClient(store).delete_registered_model_alias(NAME, "staging")


def stage(store: str, version: str) -> None:
    MlflowClient(store).set_registered_model_alias(NAME, "staging", version)


def shadows(live: Live, version: str, workers: int = 1) -> None:
    """Wait until version 1 answers in each worker, and another one shadows it."""
    until(lambda: live.log.read_text().count("version 1 answers") == workers)
    until(lambda: live.log.read_text().count(f"version {version} shadows") == workers)
    until(lambda: len(processes(live)) == workers)


def processes(live: Live) -> list[psutil.Process]:
    """The processes of the shadow."""
    shadows = []
    for process in psutil.Process(live.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "understudy.serving.shadow" in process.cmdline():
                shadows.append(process)
    return shadows


def folder(tmp_path: Path) -> Path:
    """A new folder for the files of a version."""
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def misbehaving(store: str, tmp_path: Path, how: str) -> str:
    """A new version in Staging, all of whose files are as registered, but whose classifier is `Misbehaving`."""
    version = made_with(store, tmp_path / "model", Misbehaving(how))
    stage(store, version)
    return version


def logged(live: Live, folder: Path) -> pd.DataFrame:
    """The log of a server, which is ended."""
    live.process.terminate()
    live.process.wait(20)
    until(lambda: not any(path.name.startswith(".") for path in folder.rglob("*")))
    return pd.read_parquet(folder).sort_values("time", ignore_index=True, kind="stable")


def outcomes(log: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By a row's id, why it was refused, and what is there of the shadow's."""
    rows: dict[str, dict[str, Any]] = log.set_index("id")[["fault", *SHADOW]].T.to_dict()  # type: ignore[assignment]
    return {name: {key: cell for key, cell in row.items() if pd.notna(cell)} for name, row in rows.items()}


def test_the_log_has_what_both_versions_answer(store: str, tmp_path: Path) -> None:
    stage(store, "2")
    rows = [{**APPLICANT, "ApplicantIncome": 1_000 * number} for number in range(1, 21)]
    files = mlflow.artifacts.download_artifacts(f"models:/{NAME}/2", dst_path=str(folder(tmp_path)))
    second = scorer.load(Path(files))
    with served(tmp_path, store, "--log", str(tmp_path / "rows"), "--shadow", "staging") as live:
        shadows(live, "2")
        assert live.ask({"dataframe_records": rows}, X_Request_Id="raw").headers["x-model-version"] == "1"
        for _ in range(10):
            live.ask({"inputs": [ENCODED, RICH]}, X_Request_Id="encoded")
        until(lambda: live.metric("shadow_rows_total") == 40)
        agree, differ = (live.metric(f'shadow_labels_total{{agree="{agree}"}}') for agree in ("yes", "no"))
        assert live.metric("shadow_difference_count") == 40
        differences = live.metric("shadow_difference_sum")
        assert live.metric("shadow_seconds_count") >= 1
        assert live.metric("shadow_missed_rows_total") == live.metric("shadow_errors_total") == 0
        [process] = processes(live)
        assert process.nice() == shadow.NICE
        assert not list((tmp_path / "tmp").rglob(f"*_{process.pid}.db"))  # it may be started often, and leaves nothing
        assert list((tmp_path / "tmp").rglob(f"*_{process.ppid()}.db"))
        log = logged(live, tmp_path / "rows")
    assert len(log) == 40
    assert {*log["version"]} == {"1"}
    assert {*log["shadow_version"]} == {"2"}
    raw, encoded = log[log["request"] == "raw"], log[log["request"] == "encoded"]
    assert raw["shadow_probability"].tolist() == second.predict(rows, "probability")
    assert raw["shadow_label"].tolist() == second.predict(rows)
    assert encoded["shadow_probability"].tolist() == second.predict([ENCODED, RICH], "probability") * 10
    assert log["shadow_fault"].isna().all()
    assert (log["label"] == log["shadow_label"]).value_counts().to_dict() == {
        is_same: count for is_same, count in ((True, agree), (False, differ)) if count
    }
    assert (log["probability"] - log["shadow_probability"]).abs().sum() == pytest.approx(differences)


def test_it_follows_its_alias_and_where_that_names_none_rows_are_just_logged(store: str, tmp_path: Path) -> None:
    third, _ = made(store, folder(tmp_path), lambda files: None)
    with served(tmp_path, store, "--log", str(tmp_path / "rows"), "--shadow", "staging") as live:
        until(lambda: live.version() == "1")
        live.ask({"inputs": [ENCODED]})
        assert not processes(live)
        for version in ("2", third):
            stage(store, version)
            shadows(live, version)
            live.ask({"inputs": [ENCODED]})
            until(lambda: live.metric("shadow_rows_total") == {"2": 1, third: 2}[version])  # noqa: B023
        [process] = processes(live)
        MlflowClient(store).delete_registered_model_alias(NAME, "staging")
        until(lambda: not process.is_running())
        live.ask({"inputs": [ENCODED]})
        assert live.metric("shadow_version") == live.metric("shadow_missed_rows_total") == 0
        log = logged(live, tmp_path / "rows")
    assert log["shadow_version"].fillna("none").tolist() == ["none", "2", third, "none"]
    assert log["shadow_label"].notna().tolist() == [False, True, True, False]


def test_without_a_log_it_is_only_counted(store: str, tmp_path: Path) -> None:
    stage(store, "2")
    with served(tmp_path, store, "--shadow", "Staging", "--workers", "2") as live:
        shadows(live, "2", workers=2)
        with hammered(live, 4) as replies:
            until(lambda: len(replies) > 200)
        until(lambda: live.metric("shadow_rows_total") + live.metric("shadow_missed_rows_total") == len(replies))
        assert live.metric("shadow_rows_total") > 0
        assert live.metric("logged_rows_total") == live.metric("dropped_rows_total") == 0


def other_limits(files: Path) -> None:
    """Let a version take higher incomes than those before, and lower ones of the second applicant."""
    written = json.loads((files / "scorer.json").read_text())
    columns = {column["name"]: column for column in written["table"]["columns"]}
    columns["ApplicantIncome"]["high"] = 2_000_000
    columns["CoapplicantIncome"]["high"] = 100_000
    (files / "scorer.json").write_text(json.dumps(written))


def test_what_only_one_of_the_two_refuses_is_logged_and_counted(store: str, tmp_path: Path) -> None:
    version, files = made(store, folder(tmp_path), other_limits)
    stage(store, version)
    known: dict[str, Any] = APPLICANT
    rich, supported = {**APPLICANT, "ApplicantIncome": 1.5e6}, {**APPLICANT, "CoapplicantIncome": 2e5}
    both = {**APPLICANT, "Gender": "secret"}
    with served(tmp_path, store, "--log", str(tmp_path / "rows"), "--shadow", "staging") as live:
        shadows(live, version)
        assert live.ask({"dataframe_records": [known, supported]}, X_Request_Id="accepted").status == 200
        assert live.ask({"dataframe_records": [known, rich]}, X_Request_Id="refused").status == 400
        assert live.ask({"dataframe_records": [both]}, X_Request_Id="both").status == 400
        assert live.ask({"dataframe_records": [{**known, "more": 1}]}, X_Request_Id="all").status == 400
        assert live.ask({"dataframe_records": [rich] * 200}, X_Request_Id="long").status == 400
        until(lambda: live.metric("shadow_rows_total") == 5)
        assert live.metric('shadow_refused_rows_total{only="shadow"}') == 1
        assert live.metric('shadow_refused_rows_total{only="live"}') == 1
        assert live.metric("shadow_labels_total") == 1
        assert live.metric("shadow_missed_rows_total") == 200  # the body is too long to be kept waiting
        log = logged(live, tmp_path / "rows")
    shadowing, shadowed = scorer.load(files), {"shadow_version": version}

    def scores(row: dict[str, Any]) -> dict[str, Any]:
        [label], [probability] = shadowing.predict([row]), shadowing.predict([row], "probability")
        return {"shadow_label": label, "shadow_probability": probability}

    gender, more, high = "Gender: unknown category", "other: column is not known", "out of range"
    assert outcomes(log[log["request"] != "long"]) == {
        "accepted:1": shadowed | scores(known),
        "accepted:2": shadowed | {"shadow_fault": f"CoapplicantIncome: {high}"},
        "refused:2": shadowed | scores(rich) | {"fault": f"ApplicantIncome: {high}"},
        "both:1": shadowed | {"fault": gender, "shadow_fault": gender},
        "all": shadowed | {"fault": more, "shadow_fault": more},
    }
    assert log[log["request"] == "long"][SHADOW].isna().all(axis=None)
    assert "secret" not in log.to_string()


def test_a_shadow_that_refuses_every_row_is_no_failure(store: str, tmp_path: Path) -> None:
    version, _ = made(store, folder(tmp_path), other_limits)
    stage(store, version)
    rows = [{**APPLICANT, "CoapplicantIncome": 2e5 + number} for number in range(10)]
    with served(tmp_path, store, "--log", str(tmp_path / "rows"), "--shadow", "staging") as live:
        shadows(live, version)
        assert {live.ask({"dataframe_records": rows}).status for _ in range(20)} == {200}
        until(lambda: live.metric('shadow_refused_rows_total{only="shadow"}') == 200)
        assert live.metric("shadow_rows_total") == 200
        assert live.metric("shadow_labels_total") == live.metric("shadow_errors_total") == 0
        log = logged(live, tmp_path / "rows")
    assert log["shadow_fault"].tolist() == ["CoapplicantIncome: out of range"] * 200
    assert log["label"].notna().all()
    assert log[["shadow_label", "shadow_probability"]].isna().all(axis=None)


@pytest.mark.parametrize(("how", "code"), [("crash", -11), ("hang", -9), ("memory", -9)])
def test_answers_and_log_go_on_when_it_misbehaves(store: str, tmp_path: Path, how: str, code: int) -> None:
    version = misbehaving(store, tmp_path, how)
    with served(tmp_path, store, "--log", str(tmp_path / "rows"), "--shadow", "staging") as live:
        shadows(live, version)
        live.ask({"inputs": [ENCODED]}, X_Request_Id="before")
        until(lambda: live.metric("shadow_rows_total") == 1)
        with hammered(live, 4, pause=0.01) as replies:  # the shadow is to have its share of a busy machine
            assert live.ask({"inputs": [RICH]}, X_Request_Id="harmful").status == 200
            until(lambda: live.metric(f'shadow_errors_total{{reason="{how}"}}') == 1)
            seen = len(replies)
            until(lambda: len(replies) > seen + 200)
        assert live.metric("shadow_errors_total") == 1
        assert not processes(live)
        missed = live.metric("shadow_missed_rows_total")
        assert f"({how}, exit code {code})" in live.log.read_text()
        log = logged(live, tmp_path / "rows").set_index("request")
    assert {reply.status for reply in replies} == {200}
    assert len(log) == len(replies) + 2
    assert log.loc["before", "shadow_version"] == version
    assert log.loc["harmful", SHADOW].isna().all()
    assert log.loc["harmful", "label"] in ("N", "Y")
    assert log["shadow_version"].isna().sum() >= missed > 0


def answered(cells: list[Any]) -> LoggedAnswer:
    """A row that the live version has accepted, as a worker passes it on."""
    known: tuple[Any, ...] = ("1", "Production", 0.5, ("N", "Y"), {})
    rows = {column.name: [cell] for column, cell in zip(TABLE.encoded, cells, strict=True)}
    return LoggedAnswer(known, 0, "r", "encoded", rows, probabilities=[0.7])


def test_it_is_started_again_after_a_pause(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "PAUSE", 2)
    version = misbehaving(store, tmp_path, "crash")
    passed: list[LoggedAnswer] = []
    asking = shadow.Shadow(Settings(tmp_path, store, NAME, "Production", 0.2, tmp_path, None, "Staging"), passed.append)

    def passes_on(cells: list[Any]) -> LoggedAnswer:
        before = len(passed)
        asking.add(answered(cells))
        until(lambda: asking.tick() or len(passed) > before)  # type: ignore[func-returns-value]
        return passed[-1]

    def is_answered(cells: list[Any]) -> bool:
        return passes_on(cells).shadow_version == version

    until(lambda: is_answered(ENCODED))
    assert not is_answered(RICH)
    failed = time.monotonic()
    assert not is_answered(ENCODED)
    until(lambda: is_answered(ENCODED))
    assert time.monotonic() > failed + 2
    asking.add(answered(ENCODED))
    asking.close()
    assert passed[-1].shadow_version == version
    assert passed[0].outcomes == []


@pytest.mark.parametrize("is_hanging", [False, True], ids=["idle", "hanging"])
def test_it_ends_when_what_started_it_was_killed(store: str, tmp_path: Path, is_hanging: bool) -> None:
    version = misbehaving(store, tmp_path, "hang")
    with served(tmp_path, store, "--shadow", "staging") as live:
        shadows(live, version)
        live.ask({"inputs": [ENCODED]})
        until(lambda: live.metric("shadow_rows_total") == 1)
        [process] = processes(live)
        if is_hanging:
            spent = process.cpu_times().user
            live.ask({"inputs": [RICH]})
            until(lambda: process.cpu_times().user > spent + 0.1)
        process.parent().kill()  # type: ignore[union-attr]
        process.wait(shadow.ALARM + 10)


def test_a_stage_cannot_shadow_itself(store: str, tmp_path: Path) -> None:
    command = [
        str(PROJECT / "serve.sh"),
        "--live",
        "--cache",
        str(tmp_path),
        "--stage",
        "Staging",
        "--shadow",
        "staging",
    ]
    settings = environment(MLFLOW_TRACKING_URI=store)
    ended = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=20, check=False)
    assert is_refusal(Ended(ended.returncode, ended.stdout, ended.stderr))
    assert "Staging" in ended.stderr
