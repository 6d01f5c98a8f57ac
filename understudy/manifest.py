"""What a version's files were when it was recorded, and a private copy of them that is still the same.

A manifest maps every file of a model's folder to its SHA-256 digest. The manifest's own digest is a tag of the
version, so it lies in the database, out of reach of whoever can write to the files. The manifest lies beside the
run's other files, so that a changed file can be named.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel

from understudy import tracking
from understudy.errors import UserError
from understudy.table import TABLE

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

DIGEST = "understudy.manifest"
LOADER = "understudy.scoring"
TRUSTED = {"sklearn", "numpy", "scipy", "understudy"}  # packages whose classes and functions a model may be made of
LEFT_OUT = "registered_model_meta"  # MLflow writes it wherever it downloads a registered version to


def record(client: mlflow.MlflowClient, run_id: str, uri: str) -> dict[str, str]:
    """Put the manifest of a model's files onto its run; returns the tag that its version must carry.

    The file is named after its digest: doing it again changes nothing, and each model of a run has its own.

    Raises:
        UserError: The files are gone.
    """
    with _copied(uri) as folder:
        if not (folder / "MLmodel").exists():
            raise UserError(f"the files of {uri} are gone", "bring them back, or train again: python train.py")
        text = _text(folder)
    found = hashlib.sha256(text.encode()).hexdigest()
    tracking.log_text(client, run_id, text, _name(found))
    return {DIGEST: found}


def digest(folder: Path) -> str:
    """The digest of the manifest that a folder's files have now."""
    return hashlib.sha256(_text(folder).encode()).hexdigest()


def _text(folder: Path) -> str:
    return json.dumps(_digests(folder), indent=1, sort_keys=True)


def record_manifest(client: mlflow.MlflowClient, version: ModelVersion) -> None:
    """Record the files of a version as they are now: for one that was made in MLflow's UI.

    Raises:
        UserError: It has no run that could keep the manifest, or its files are gone.
    """
    if not version.run_id:
        fix = "register the model of a run: python register.py --run RUN_ID"
        raise UserError(f"{_called(version)} has no run, where its manifest would be kept", fix)
    for tag, digest in record(client, version.run_id, _uri(version)).items():
        client.set_model_version_tag(version.name, str(version.version), tag, digest)


@contextmanager
def verified(client: mlflow.MlflowClient, version: ModelVersion) -> Iterator[Path]:
    """A private folder with a copy of the version's files, which are those that were recorded; removed afterwards.

    Raises:
        UserError: A file was changed, added or removed, the manifest too, or nothing was recorded; or there is
            something that training does not write, and that would run where the model is loaded.
    """
    if DIGEST not in version.tags:
        name = "" if version.name == TABLE.name else f" --name {version.name}"
        fix = f'python promote.py adopt --version {version.version} --reason "..."{name}'
        raise UserError(f"{_called(version)} has no manifest, so nobody can tell whether its files changed", fix)
    digest = version.tags[DIGEST]
    recorded = _read(client, str(version.run_id), _name(digest))
    with _copied(_uri(version)) as folder:
        if recorded is None or hashlib.sha256(recorded).hexdigest() != digest:
            fault = f"{_name(digest)} of run {version.run_id} {'cannot be read' if recorded is None else 'changed'}"
        else:
            fault = _difference(json.loads(recorded), _digests(folder))
        if fault:
            fix = "bring the files back as they were, or promote another version"
            raise UserError(f"{_called(version)} is not what was registered: {fault}", fix)
        if foreign := _foreign(folder):
            problem = f"{_called(version)} is none that training saves, and could run anything: {foreign}"
            raise UserError(problem, "register a run of this project: python register.py --run RUN_ID")
        yield folder


def load(folder: Path) -> tuple[PyFuncModel, "Pipeline"]:
    """The served form and the scikit-learn form of the model in a verified copy, which may be removed then."""
    path, writes_no_bytecode = sys.path, sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        return mlflow.pyfunc.load_model(str(folder)), mlflow.sklearn.load_model(str(folder))
    finally:
        # MLflow leaves the copy's code on the path, where anyone could make that folder again.
        sys.path, sys.dont_write_bytecode = path, writes_no_bytecode


@contextmanager
def _copied(uri: str) -> Iterator[Path]:
    """A private copy without what MLflow and Python leave in a folder that a model was loaded from."""
    with TemporaryDirectory(prefix="understudy-") as name:
        folder = Path(name)
        # Without a destination MLflow hands out the store's own folder, and writes into it.
        mlflow.artifacts.download_artifacts(uri, dst_path=name)
        (folder / LEFT_OUT).unlink(missing_ok=True)
        for bytecode in [path for path in folder.rglob("__pycache__") if path.is_dir()]:
            shutil.rmtree(bytecode, ignore_errors=True)  # gone with the one around it; what stays is a file too many
        yield folder


def _foreign(folder: Path) -> str:
    """What training does not write, of all that decides what loading a model runs; empty if there is nothing."""
    flavors = Model.load(str(folder)).flavors
    served, fitted = (flavors.get(name, {}) for name in (mlflow.pyfunc.FLAVOR_NAME, "sklearn"))
    packages = {str(name).partition(".")[0] for name in fitted.get("skops_trusted_types", [])}
    code = {path.name for path in folder.glob("code/*")}
    is_other = {
        "its loader": served.get("loader_module") != LOADER,
        "its code": code != {LOADER.partition(".")[0]},
        "the form of its Pipeline": fitted.get("serialization_format") != "skops",
        f"what it is made of, {', '.join(sorted(packages - TRUSTED))}": bool(packages - TRUSTED),
    }
    return ", ".join(what for what, is_so in is_other.items() if is_so)


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _difference(recorded: dict[str, str], found: dict[str, str]) -> str:
    """Every file that was changed, added or removed, for people; empty if there is none."""
    how = dict.fromkeys(found.keys() - recorded.keys(), "added")
    how |= dict.fromkeys(recorded.keys() - found.keys(), "removed")
    how |= dict.fromkeys((path for path in found.keys() & recorded.keys() if found[path] != recorded[path]), "changed")
    return ", ".join(f"{path} {how[path]}" for path in sorted(how))


def _read(client: mlflow.MlflowClient, run_id: str, name: str) -> bytes | None:
    """A file of a run; None if it cannot be read."""
    with TemporaryDirectory(prefix="understudy-") as folder:
        try:
            uri = f"{client.get_run(run_id).info.artifact_uri}/{name}"
            return Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder)).read_bytes()
        except mlflow.MlflowException:  # a server says of a missing file that it had an internal error
            return None


def _name(digest: str) -> str:
    return f"manifests/{digest[:12]}.json"


def _uri(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"


def _called(version: ModelVersion) -> str:
    return f"{version.name} version {version.version}"
