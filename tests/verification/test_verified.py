"""Only the files that were registered are loaded and served; what somebody put in their place never runs."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

import promote
import register
from bench.planted import PLANTED, canary
from deploy.mysql import free_port
from tests.conftest import PROJECT, Ended, environment, is_refusal
from tests.scoring.test_scoring import APPLICANT
from tests.serving.test_supervisor import group, is_left
from understudy.errors import UserError
from understudy.reading import table_rows
from understudy.scoring import model_files
from understudy.table import TABLE
from understudy.tracking import connection, family_runs
from understudy.verification import digests, manifest

NAME = TABLE.name
Call = Callable[..., Ended]


def planted(name: str) -> Callable[[Path, str], object]:
    return PLANTED[name].plant


FOLDERS = [model_files.PACKAGE / room for room in model_files.ROOMS]
MODULES = len(model_files.MODULES) + sum(len([*folder.glob("*.py")]) for folder in FOLDERS)
# What somebody does to a registered model's folder, and how it is named.
TAMPERINGS: dict[str, tuple[Callable[[Path, str], object], str]] = {
    "bundled code": (planted("code of another text"), "code/understudy/scoring/flavor.py changed"),
    "another loader": (planted("another loader"), "MLmodel changed, code/planted_loader.py added"),
    "pickle": (planted("pickle"), "MLmodel changed, model.pkl added"),
    "cloudpickle": (planted("pickle under skops's name"), "MLmodel changed, model.skops changed"),
    "skops": (
        planted("a class of somebody's own"),
        "MLmodel changed, code/planted_skops.py added, model.skops changed",
    ),
    "changed": (lambda folder, _: (folder / "conda.yaml").write_text(""), "conda.yaml changed"),
    "added": (lambda folder, _: (folder / "code" / "more").touch(), "code/more added"),
    "removed": (lambda folder, _: (folder / "model.skops").unlink(), "model.skops removed"),
    "many removed": (
        lambda folder, _: shutil.rmtree(folder / "code"),
        "code/understudy/__init__.py removed, code/understudy/errors.py removed, "
        f"code/understudy/families.py removed, and {MODULES - manifest.NAMED} more",
    ),
}


@pytest.fixture
def version(client: MlflowClient, call: Call) -> ModelVersion:
    call(register)
    return client.get_model_version(NAME, "1")


@pytest.fixture
def stored(version: ModelVersion, client: MlflowClient, tmp_path: Path) -> Iterator[Path]:
    """The store's own folder of version 1, put back afterwards as it was."""
    folder = Path(client.get_model_version_download_uri(NAME, "1"))
    (folder / manifest.LEFT_OUT).unlink(missing_ok=True)  # of a test that has loaded it as anyone may
    shutil.copytree(folder, tmp_path / "kept")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tmp_path / "kept", folder)


def refusal(client: MlflowClient, version: ModelVersion) -> UserError:
    """How a version is refused before it is loaded."""
    with pytest.raises(UserError) as refused, manifest.verified(client, version) as folder:
        manifest.load(folder)
    return refused.value


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", list(TAMPERINGS))
def test_files_that_are_not_what_was_registered_are_refused_by_name(
    name: str, version: ModelVersion, stored: Path, client: MlflowClient, tmp_path: Path
) -> None:
    tamper, named = TAMPERINGS[name]
    tamper(stored, canary(tmp_path / "ran"))
    assert refusal(client, version).problem == f"{NAME} version 1 is not what was registered: {named}"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a file name of two lines", "a folder where MLflow leaves a file"])
def test_files_that_mlflow_does_not_copy_are_said_in_one_line(
    name: str, version: ModelVersion, stored: Path, client: MlflowClient
) -> None:
    planted(name)(stored, "")
    problem = refusal(client, version).problem
    assert problem.startswith(f"the files of {NAME} version 1 cannot be read: ")
    assert problem.isprintable()


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/dev/zero"), os.mkfifo], ids=["link", "pipe"])
def test_what_is_no_file_is_neither_followed_nor_waited_for_and_hides_no_other_version(
    make: Callable[[Path], object], version: ModelVersion, stored: Path, client: MlflowClient, call: Call
) -> None:
    call(register, "--model", "DummyClassifier")
    make(stored / "code" / "more")
    problem = refusal(client, version).problem
    assert problem == f"{NAME} version 1 has something among its files that is neither a file nor a folder: code/more"
    other = Path(client.get_model_version_download_uri(NAME, "2"))
    (other / "more").touch()
    checked = call(promote, "check")
    (other / "more").unlink()
    assert checked.code == 4
    assert problem in checked.out
    assert f"{NAME} version 2 is not what was registered: more added" in checked.out


def test_a_model_whose_files_are_gone_is_said_in_one_line(
    version: ModelVersion, stored: Path, client: MlflowClient, call: Call
) -> None:
    shutil.rmtree(stored)
    assert refusal(client, version).problem == f"the files of {NAME} version 1 are gone"


def test_files_that_change_while_they_are_copied_end_in_two_lines(
    version: ModelVersion, stored: Path, client: MlflowClient
) -> None:
    """Whichever moment it is: the version is refused, or its copy is what was registered."""
    ended, file = threading.Event(), stored / "scorer.json"
    kept = file.read_bytes()

    def swap() -> None:
        while not ended.is_set():
            file.unlink(missing_ok=True)
            file.write_bytes(kept)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(20):
            with contextlib.suppress(UserError), manifest.verified(client, version) as folder:
                assert (folder / "scorer.json").read_bytes() == kept
    finally:
        ended.set()
        swapping.join()


def test_a_manifest_that_changed_or_is_gone_is_said_by_name(version: ModelVersion, client: MlflowClient) -> None:
    name = f"manifests/{version.tags[digests.DIGEST][:12]}.json"
    artifacts = Path(client.get_run(version.run_id or "").info.artifact_uri or "")
    recorded = (artifacts / name).read_text()
    (artifacts / name).write_text(recorded.replace("MLmodel", "model"))
    for how in ["changed", "cannot be read"]:
        with (
            pytest.raises(UserError, match=f"{name} of run {version.run_id} {how}$"),
            manifest.verified(client, version),
        ):
            pass
        (artifacts / name).unlink(missing_ok=True)
    (artifacts / name).write_text(recorded)


def test_what_is_verified_is_a_private_copy_that_is_removed(
    version: ModelVersion, stored: Path, client: MlflowClient, tmp_path: Path
) -> None:
    before, path = contents(stored), list(sys.path)
    with manifest.verified(client, version) as folder:
        assert not folder.is_relative_to(stored)
        assert folder.stat().st_mode & 0o077 == 0
        kept = {file.relative_to(stored) for file in before} - {Path(manifest.LEFT_OUT)}
        assert {file.relative_to(folder) for file in contents(folder)} == kept
        served, pipeline = manifest.load(folder)
    assert not folder.exists()
    assert served.predict([APPLICANT]) == ["Y"]
    assert pipeline.predict_proba(table_rows.read(TABLE, PROJECT / TABLE.path)).shape == (614, 2)
    assert (contents(stored), sys.path) == (before, path)


def test_what_plain_loading_leaves_in_the_store_is_neither_a_fault_nor_loaded(
    version: ModelVersion, stored: Path, client: MlflowClient
) -> None:
    program = f"import mlflow; mlflow.pyfunc.load_model('models:/{NAME}/1')"
    writes = {key: value for key, value in environment().items() if key != "PYTHONDONTWRITEBYTECODE"}
    uri = mlflow.get_tracking_uri()
    subprocess.run([sys.executable, "-c", program], cwd=stored, env={**writes, "MLFLOW_TRACKING_URI": uri}, check=True)
    assert (stored / "registered_model_meta").exists()
    assert (stored / "code" / "understudy" / "__pycache__").exists()
    with manifest.verified(client, version) as folder:
        assert "registered_model_meta" not in names(folder)
        assert "__pycache__" not in names(folder / "code" / "understudy")


def test_a_version_made_by_hand_is_refused_until_its_manifest_is_recorded(client: MlflowClient, call: Call) -> None:
    connection.connect()
    run = family_runs.families(client, family_runs.get_batch(client, TABLE))[0]
    client.create_registered_model("By_hand")
    made = client.create_model_version("By_hand", family_runs.model_uri(run), run.info.run_id)
    refused = refusal(client, made)
    assert refused.problem.startswith("By_hand version 1 has no manifest")
    assert refused.fix == 'python promote.py adopt --version 1 --reason "..." --name By_hand'
    assert call(promote, "adopt", "--version", "1", "--reason", "by hand", "--name", "By_hand").code == 0
    with manifest.verified(client, client.get_model_version("By_hand", "1")) as folder:
        assert (folder / "MLmodel").exists()


def test_a_version_without_a_run_has_no_place_for_a_manifest(
    client: MlflowClient, version: ModelVersion, call: Call
) -> None:
    client.create_model_version(NAME, client.get_model_version_download_uri(NAME, "1"))
    refused = call(promote, "adopt", "--version", "2", "--reason", "by hand")
    assert is_refusal(refused)
    assert "version 2 has no run" in refused.err


def test_a_model_whose_files_are_gone_is_not_registered(
    version: ModelVersion, stored: Path, client: MlflowClient, call: Call
) -> None:
    shutil.rmtree(stored)
    assert "are gone" in call(register, "--name", "Another", "--run", version.run_id or "").err
    assert [model.name for model in client.search_registered_models()] == [NAME]


def test_registering_again_mends_what_a_killed_one_left(
    version: ModelVersion, client: MlflowClient, call: Call
) -> None:
    model = str(version.source).removeprefix("models:/")
    linked = client.get_logged_model(model).tags["mlflow.modelVersions"]
    client.delete_logged_model_tag(model, "mlflow.modelVersions")
    assert "version 1 was registered already" in call(register).out
    assert client.get_logged_model(model).tags["mlflow.modelVersions"] == linked
    assert call(register, "--name", "Another").code == 0
    assert client.get_logged_model(model).tags["mlflow.modelVersions"].count("version") == 2


def test_serve_sh_serves_no_planted_code(stored: Path, client: MlflowClient, tmp_path: Path) -> None:
    client.set_registered_model_alias(NAME, "production", "1")
    for name in ["bundled code", "another loader", "skops"]:
        TAMPERINGS[name][0](stored, canary(tmp_path / "ran"))
    (tmp_path / "tmp").mkdir()
    settings = environment(MLFLOW_TRACKING_URI=mlflow.get_tracking_uri(), TMPDIR=str(tmp_path / "tmp"))
    command = [str(PROJECT / "serve.sh"), "--port", str(free_port())]
    ran = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=60, check=False)
    assert is_refusal(Ended(ran.returncode, ran.stdout, ran.stderr))
    for path in ["MLmodel changed", "code/planted_loader.py added", "and 2 more"]:
        assert path in ran.stderr
    assert not (tmp_path / "ran").exists()
    assert names(tmp_path / "tmp") == set()


def test_serve_sh_serves_a_copy_and_leaves_nothing(stored: Path, client: MlflowClient, tmp_path: Path) -> None:
    client.set_registered_model_alias(NAME, "production", "1")
    before, port = contents(stored), free_port()
    (tmp_path / "tmp").mkdir()
    settings = environment(MLFLOW_TRACKING_URI=mlflow.get_tracking_uri(), TMPDIR=str(tmp_path / "tmp"))
    command = [str(PROJECT / "serve.sh"), "--port", str(port), "--workers", "2"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=settings, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 60
    while "Application startup complete" not in (tmp_path / "log").read_text():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    server = group(process.pid)
    assert len(names(tmp_path / "tmp")) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert not is_left(server)
    assert names(tmp_path / "tmp") == set()
    assert contents(stored) == before
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
