"""Mistakes people make end in two lines, exit 2, no traceback, and leave nothing behind."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from mlflow import MlflowClient

import evaluate
import promote
import register
import train
from deploy.mysql import free_port
from tests.conftest import PROJECT, SAMPLE, Ended, environment, is_refusal
from understudy import errors
from understudy.serving import __main__ as serve
from understudy.tracking import family_runs

Call = Callable[..., Ended]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: None,
        lambda text: "",
        lambda text: text.replace("Gender", "Sex"),
        lambda text: text.replace(",Male,", ",Man,"),
        lambda text: text.replace(",360,", ",3600,"),
        lambda text: text.replace(",360,", ",long,"),
        lambda text: text.replace(",N\n", ",Y\n"),
        lambda text: "\n".join(text.split("\n")[:20]),
    ],
    ids=["no file", "empty", "column", "category", "range", "text in a number", "one class", "too few rows"],
)
def test_a_table_that_cannot_be_trained_on_leaves_nothing(
    store: str, tmp_path: Path, call: Call, change: Callable[[str], str | None]
) -> None:
    path = tmp_path / "table.csv"
    text = change(SAMPLE.read_text())
    if text is not None:
        path.write_text(text)
    ended = call(train, "--data", str(path))
    assert is_refusal(ended)
    assert ended.out == ""
    assert [experiment.name for experiment in MlflowClient(store).search_experiments()] == ["Default"]


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (train, ["--models", "XGBoost"]),
        (evaluate, []),
        (evaluate, ["--batch", "0" * 32]),
        (register, []),
        (register, ["--run", "0" * 32]),
        (promote, ["staging"]),
        (serve, []),
        (serve, ["--stage", "Staging"]),
    ],
)
def test_what_is_not_there_is_said(store: str, call: Call, script: ModuleType, arguments: list[str]) -> None:
    assert is_refusal(call(script, *arguments))


def test_a_family_that_was_not_trained_is_said(batch_store: str, call: Call) -> None:
    ended = call(register, "--model", "XGBoost")
    assert is_refusal(ended)
    assert "choose from DecisionTreeClassifier, LogisticRegression" in ended.err


def test_a_name_mlflow_does_not_take_is_said(batch_store: str, call: Call) -> None:
    assert is_refusal(call(register, "--name", "a/b"))


def test_a_deleted_experiment_is_said(batch_store: str, call: Call) -> None:
    client = MlflowClient(batch_store)
    client.delete_experiment(client.get_experiment_by_name("Loan_prediction").experiment_id)  # type: ignore[union-attr]
    ended = call(train)
    assert is_refusal(ended)
    assert "mlflow experiments restore" in ended.err


def test_a_run_that_did_not_finish_is_said(batch_store: str, call: Call) -> None:
    client = MlflowClient(batch_store)
    family = client.search_runs(["1"], "attributes.run_name = 'LogisticRegression'")[0].info.run_id
    client.set_terminated(family, "KILLED")
    assert is_refusal(call(register, "--run", family))


def test_a_model_whose_upload_was_cut_off_is_not_registered(batch_store: str, call: Call) -> None:
    client = MlflowClient(batch_store)
    run = client.search_runs(["1"], "attributes.run_name = 'LogisticRegression'")[0]
    client.finalize_logged_model(family_runs.model_id(run), "FAILED")
    ended = call(register, "--model", "LogisticRegression")
    assert is_refusal(ended)
    assert "was cut off" in ended.err
    assert client.search_registered_models() == []


def test_an_address_is_shown_without_its_password(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    assert "secret" not in call(promote).err


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table.csv"
    path.touch(0o000)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything
        with pytest.raises(SystemExit) as end:
            errors.run(lambda: print(path.read_text()))
    finally:
        os.seteuid(user)
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: cannot open {path}: Permission denied\nfix: make it readable ")


def test_a_run_of_another_kind_is_said(batch_store: str, call: Call) -> None:
    client = MlflowClient(batch_store)
    family = client.search_runs(["1"], "attributes.run_name = 'LogisticRegression'")[0].info.run_id
    assert is_refusal(call(evaluate, "--batch", family))


@pytest.mark.parametrize("script", [train, evaluate, register, promote, serve])
def test_an_unreachable_tracking_server_is_said_at_once(
    call: Call, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    ended = call(script)
    assert is_refusal(ended)
    assert "no tracking server answers" in ended.err


def test_a_foreign_server_is_not_taken_for_mlflow(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    port = free_port()
    foreign = subprocess.Popen(["python", "-m", "http.server", str(port), "--bind", "127.0.0.1"], cwd=tmp_path)
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        ended = call(promote)
    finally:
        foreign.terminate()
        foreign.wait()
    assert is_refusal(ended)
    assert "there is no MLflow server" in ended.err


def test_an_occupied_port_is_said(in_production: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = subprocess.run(
            [PROJECT / "serve.sh", "--port", port],
            env=environment(MLFLOW_TRACKING_URI=in_production),
            capture_output=True,
            text=True,
            check=False,
        )
    assert is_refusal(Ended(ran.returncode, ran.stdout, ran.stderr))
    assert "Address already in use" in ran.stderr
