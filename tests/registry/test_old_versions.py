"""A version that was saved before 0.2, whose loader and code had other names, is named and never loaded."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

import promote
import register
from deploy.mysql import free_port
from tests.conftest import PROJECT, Ended, environment
from understudy.registry import audit
from understudy.table import TABLE
from understudy.verification import manifest

NAME = TABLE.name
PROBLEM = f"{NAME} version 2 was saved by an earlier version of this project, which this one cannot load"
FIX = "train and register another one: python train.py; python register.py"
Call = Callable[..., Ended]


@pytest.fixture
def old(client: MlflowClient, call: Call, tmp_path: Path) -> MlflowClient:
    """A store with a version of today, and in Production version 2, whose folder has the form of 0.1."""
    call(register)
    version, folder = client.get_model_version(NAME, "1"), tmp_path / "model"
    left_out = shutil.ignore_patterns(manifest.LEFT_OUT, "__pycache__")
    shutil.copytree(client.get_model_version_download_uri(NAME, "1"), folder, ignore=left_out)
    code, text = folder / "code" / "understudy", (folder / "MLmodel").read_text()
    for module in (code / "scoring").iterdir():
        module.rename(code / module.name.replace("flavor", "scoring"))
    (code / "scoring").rmdir()
    assert "understudy.scoring.flavor" in text
    (folder / "MLmodel").write_text(text.replace("understudy.scoring.flavor", "understudy.scoring"))
    tags = version.tags | manifest.record(client, str(version.run_id), folder)
    client.create_model_version(NAME, str(folder), version.run_id, tags, await_creation_for=0)
    client.set_registered_model_alias(NAME, "production", "2")
    return client


def serve(*options: str) -> list[str]:
    """The command that serves Production, on a port that is free."""
    return [str(PROJECT / "serve.sh"), "--port", str(free_port()), *options]


def settings() -> dict[str, str]:
    return environment(MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"])


def test_check_finds_an_old_version(old: MlflowClient) -> None:
    assert f"{PROBLEM}\n  fix: {FIX}" in [str(finding) for finding in audit.findings(old, NAME)]


def test_the_gate_names_an_old_challenger_and_an_old_champion(old: MlflowClient, call: Call) -> None:
    for stage in ("staging", "production"):
        refused = call(promote, stage, "--version", "1")
        assert (refused.code, refused.err) == (3, f"refused: the gate cannot decide: {PROBLEM}\n")
        assert call(promote, stage, "--version", "1", "--force", "--reason", "it is of 0.2").code == 0
    for arguments in (["staging", "--version", "2", "--force"], ["rollback"]):
        ended = call(promote, *arguments, "--reason", "it is of 0.1")
        assert (ended.code, ended.err) == (2, f"error: {PROBLEM}\nfix: {FIX}\n")


def test_serving_with_mlflow_names_an_old_version(old: MlflowClient) -> None:
    ended = subprocess.run(serve(), env=settings(), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (2, f"error: {PROBLEM}\nfix: {FIX}\n")


def test_the_live_server_names_an_old_version(old: MlflowClient, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with log.open("w") as output:
        command = serve("--live", "--cache", str(tmp_path / "cache"))
        server = subprocess.Popen(command, env=settings(), stdout=output, stderr=output)
    try:
        until = time.monotonic() + 120
        while "is refused" not in log.read_text() and time.monotonic() < until:
            time.sleep(0.2)
    finally:
        server.terminate()
        server.wait()
    assert f"{NAME}: version 2 is refused, there is no other: {PROBLEM} (fix: {FIX})\n" in log.read_text()
    assert "Traceback" not in log.read_text()
