"""Only the files that were registered are loaded and served; what somebody put in their place never runs."""

import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from skops import io as skops

import register
from deploy.mysql import free_port
from tests.conftest import PROJECT, Ended, environment, is_refusal
from tests.test_scoring import APPLICANT
from tests.test_supervise import group, is_left
from understudy import manifest, tracking
from understudy.errors import UserError
from understudy.table import TABLE

NAME = TABLE.name
Call = Callable[..., Ended]


def replace(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


class Runs:
    """What runs a program when it is unpickled."""

    def __init__(self, program: str) -> None:
        self.program = program

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return exec, (self.program,)


def other_loader(folder: Path, program: str) -> None:
    (folder / "code" / "planted_loader.py").write_text(f"{program}\ndef _load_pyfunc(path): return exec\n")
    replace(folder / "MLmodel", "loader_module: understudy.scoring", "loader_module: planted_loader")


def pickled(folder: Path, program: str) -> None:
    (folder / "model.pkl").write_bytes(pickle.dumps(Runs(program)))
    replace(folder / "MLmodel", "serialization_format: skops", "serialization_format: pickle")
    replace(folder / "MLmodel", "pickled_model: model.skops", "pickled_model: model.pkl")


def cloudpickled(folder: Path, program: str) -> None:
    (folder / "model.skops").write_bytes(pickle.dumps(Runs(program)))
    replace(folder / "MLmodel", "serialization_format: skops", "serialization_format: cloudpickle")


def other_skops(folder: Path, program: str) -> None:
    planted = types.ModuleType("planted_skops")
    planted.Planted = type("Planted", (), {"__module__": planted.__name__})  # type: ignore[attr-defined]
    sys.modules[planted.__name__] = planted
    (folder / "model.skops").write_bytes(skops.dumps(planted.Planted()))
    del sys.modules[planted.__name__]
    (folder / "code" / "planted_skops.py").write_text(f"{program}\nclass Planted: pass\n")
    replace(folder / "MLmodel", "skops_trusted_types:\n", "skops_trusted_types:\n    - planted_skops.Planted\n")


def bundled_code(folder: Path, program: str) -> None:
    replace(folder / "code" / "understudy" / "scoring.py", "PACKAGE = ", f"{program}\nPACKAGE = ")


@dataclass(frozen=True)
class Tampering:
    """What somebody does to a model's folder, how it is named, and whether code runs when the folder is loaded."""

    plant: Callable[[Path, str], object]
    named: str
    runs: bool = True
    in_our_process: bool = True  # where the installed package is loaded, not the one beside the model


TAMPERINGS = {
    "bundled code": Tampering(bundled_code, "code/understudy/scoring.py changed", in_our_process=False),
    "another loader": Tampering(other_loader, "MLmodel changed, code/planted_loader.py added"),
    "pickle": Tampering(pickled, "MLmodel changed, model.pkl added"),
    "cloudpickle": Tampering(cloudpickled, "MLmodel changed, model.skops changed"),
    "skops": Tampering(other_skops, "MLmodel changed, code/planted_skops.py added, model.skops changed"),
    "changed": Tampering(lambda folder, _: (folder / "conda.yaml").write_text(""), "conda.yaml changed", False),
    "added": Tampering(lambda folder, _: (folder / "code" / "more").touch(), "code/more added", False),
    "removed": Tampering(lambda folder, _: (folder / "model.skops").unlink(), "model.skops removed", False),
    "all removed": Tampering(lambda folder, _: shutil.rmtree(folder), "scorer.json removed", False),
}


def canary(mark: Path) -> str:
    """A program that leaves a mark when it runs."""
    return f"from pathlib import Path; Path({str(mark)!r}).touch()"


@pytest.fixture
def version(client: MlflowClient, call: Call) -> ModelVersion:
    call(register)
    return client.get_model_version(NAME, "1")


@pytest.fixture
def stored(version: ModelVersion, client: MlflowClient, tmp_path: Path) -> Iterator[Path]:
    """The store's own folder of version 1, put back afterwards as it was."""
    folder = Path(client.get_model_version_download_uri(NAME, "1"))
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


def test_planted_code_runs_where_nothing_is_verified(stored: Path, tmp_path: Path) -> None:
    running = [name for name, tampering in TAMPERINGS.items() if tampering.runs]
    for name in running:
        shutil.copytree(stored, tmp_path / name)
        TAMPERINGS[name].plant(tmp_path / name, canary(tmp_path / f"{name} ran"))
    program = (
        "import contextlib, sys, mlflow\n"
        "for name in sys.argv[1:]:\n"
        "    with contextlib.suppress(Exception): mlflow.pyfunc.load_model(name)\n"
        "    with contextlib.suppress(Exception): mlflow.sklearn.load_model(name)\n"
    )
    subprocess.run([sys.executable, "-c", program, *running], cwd=tmp_path, env=environment(), check=True)
    assert [name for name in running if not (tmp_path / f"{name} ran").exists()] == []


@pytest.mark.parametrize("name", list(TAMPERINGS))
def test_files_that_are_not_what_was_registered_are_refused_by_name(
    name: str, version: ModelVersion, stored: Path, client: MlflowClient, tmp_path: Path
) -> None:
    TAMPERINGS[name].plant(stored, canary(tmp_path / "ran"))
    problem = refusal(client, version).problem
    assert problem.startswith(f"{NAME} version 1 is not what was registered: ")
    assert problem.endswith(TAMPERINGS[name].named)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [name for name, how in TAMPERINGS.items() if how.runs and how.in_our_process])
def test_what_would_run_is_refused_though_it_was_registered(
    name: str, stored: Path, client: MlflowClient, tmp_path: Path
) -> None:
    TAMPERINGS[name].plant(stored, canary(tmp_path / "ran"))
    run_id = client.get_model_version(NAME, "1").run_id or ""
    made = client.create_model_version(NAME, str(stored), run_id)
    manifest.record_manifest(client, made)
    refused = refusal(client, client.get_model_version(NAME, str(made.version)))
    assert "could run anything: " in refused.problem
    assert not (tmp_path / "ran").exists()


def test_a_manifest_that_changed_or_is_gone_is_said_by_name(version: ModelVersion, client: MlflowClient) -> None:
    name = f"manifests/{version.tags[manifest.DIGEST][:12]}.json"
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
    assert pipeline.predict_proba(TABLE.read(PROJECT / TABLE.path)).shape == (614, 2)
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


def test_a_version_made_by_hand_is_refused_until_its_manifest_is_recorded(
    client: MlflowClient,
) -> None:
    tracking.connect()
    run = tracking.families(client, tracking.get_batch(client, TABLE))[0]
    client.create_registered_model("By_hand")
    made = client.create_model_version("By_hand", tracking.model_uri(run), run.info.run_id)
    refused = refusal(client, made)
    assert refused.problem.startswith("By_hand version 1 has no manifest")
    assert refused.fix == 'python promote.py adopt --version 1 --reason "..." --name By_hand'
    manifest.record_manifest(client, made)
    with manifest.verified(client, client.get_model_version("By_hand", "1")) as folder:
        assert (folder / "MLmodel").exists()


def test_a_version_without_a_run_has_no_place_for_a_manifest(client: MlflowClient, version: ModelVersion) -> None:
    made = client.create_model_version(NAME, client.get_model_version_download_uri(NAME, "1"))
    with pytest.raises(UserError, match="version 2 has no run"):
        manifest.record_manifest(client, made)


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
        TAMPERINGS[name].plant(stored, canary(tmp_path / "ran"))
    (tmp_path / "tmp").mkdir()
    settings = environment(MLFLOW_TRACKING_URI=mlflow.get_tracking_uri(), TMPDIR=str(tmp_path / "tmp"))
    command = [str(PROJECT / "serve.sh"), "--port", str(free_port())]
    ran = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=60, check=False)
    assert is_refusal(Ended(ran.returncode, ran.stdout, ran.stderr))
    for path in ["MLmodel changed", "code/planted_loader.py added", "code/understudy/scoring.py changed"]:
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
