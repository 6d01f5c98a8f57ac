"""What a version's files were when it was recorded, and a private copy of them that is still the same.

A manifest maps every file of a model's folder to its SHA-256 digest. The manifest's own digest is a tag of the
version, so it lies in the database, out of reach of whoever can write to the files. The manifest lies beside the
run's other files, so that a changed file can be named.
"""

import hashlib
import json
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
import requests
from mlflow.entities.model_registry import ModelVersion
from mlflow.pyfunc import PyFuncModel

from understudy import errors
from understudy.errors import UserError
from understudy.tracking import naming, provenance, runs
from understudy.verification.digests import DIGEST, digest, file_digests, manifest_of

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

LOADER = "understudy.scoring.flavor"  # that loads a model, as MLmodel names it; it was another one before 0.2
LEFT_OUT = "registered_model_meta"  # MLflow writes it wherever it downloads a registered version to
NAMED = 3  # files that a message names
SHOWN = 200  # characters of what MLflow says


def record(client: mlflow.MlflowClient, run_id: str, folder: Path) -> dict[str, str]:
    """Put the manifest of a model's files onto its run; returns the tag that its version must carry.

    The folder is a private copy, which has been inspected. The file is named after its digest: doing it again changes
    nothing, and each model of a run has its own.
    """
    recorded = digest(folder)
    runs.log_text(client, run_id, manifest_of(folder), _name(recorded))
    return {DIGEST: recorded}


def _name(digest: str) -> str:
    return f"manifests/{digest[:12]}.json"


@contextmanager
def verified(client: mlflow.MlflowClient, version: ModelVersion) -> Iterator[Path]:
    """A private copy of a version's files, which are those that were recorded; it is removed afterwards.

    Raises:
        UserError: A file was changed, added or removed, the manifest too, nothing was recorded, or the model was saved
            by an earlier version of the project.
    """
    if DIGEST not in version.tags:
        fix = f'python promote.py adopt --version {version.version} --reason "..."{naming.option(version.name)}'
        raise UserError(f"{called(version)} has no manifest, so nobody can tell whether its files changed", fix)
    digest = version.tags[DIGEST]
    recorded = _read(client, str(version.run_id), _name(digest))
    with copied(client, uri(version), called(version)) as folder:
        if recorded is None or hashlib.sha256(recorded).hexdigest() != digest:
            how = "cannot be read" if recorded is None else "changed"
            differences = [f"{_name(digest)} of run {version.run_id} {how}"]
        else:
            differences = _differences(json.loads(recorded), file_digests(folder))
        if differences:
            fix = "bring the files back as they were, or promote another version"
            raise UserError(f"{called(version)} is not what was registered: {', '.join(differences)}", fix)
        check_age(folder, called(version))
        yield folder


def fault(client: mlflow.MlflowClient, version: ModelVersion) -> UserError | None:
    """What `verified` says is wrong with a version; None if nothing is."""
    try:
        with verified(client, version):
            return None
    except UserError as error:
        return error


def _read(client: mlflow.MlflowClient, run_id: str, name: str) -> bytes | None:
    """A file of a run; None if it cannot be read."""
    with TemporaryDirectory(prefix="understudy-") as folder:
        try:
            file = f"{client.get_run(run_id).info.artifact_uri}/{name}"
            return Path(mlflow.artifacts.download_artifacts(file, dst_path=folder)).read_bytes()
        except mlflow.MlflowException:  # of a missing file a server says that it had an internal error
            return None


def _differences(recorded: dict[str, str], present: dict[str, str]) -> list[str]:
    """The files that were changed, added or removed, for people: the first three, and how many more."""
    how = dict.fromkeys(present.keys() - recorded.keys(), "added")
    how |= dict.fromkeys(recorded.keys() - present.keys(), "removed")
    common = present.keys() & recorded.keys()
    how |= dict.fromkeys((path for path in common if present[path] != recorded[path]), "changed")
    named = [f"{errors.visible(path)} {how[path]}" for path in sorted(how)]
    return [*named[:NAMED], *([f"and {len(named) - NAMED} more"] if len(named) > NAMED else [])]


def check_age(folder: Path, called: str) -> None:
    """Refuse a model that was saved before 0.2, whose code this one cannot load.

    Raises:
        UserError: MLmodel names another loader than this version of the project has.
    """
    python = mlflow.models.Model.load(str(folder)).flavors.get("python_function", {})
    if python.get("loader_module") != LOADER:
        fix = "train and register another one: python train.py; python register.py"
        raise UserError(f"{called} was saved by an earlier version of this project, which this one cannot load", fix)


def load(folder: Path) -> tuple[PyFuncModel, "Pipeline"]:
    """The served form and the scikit-learn form of the model in a verified copy, which may be removed afterwards."""
    path, writes_no_bytecode = sys.path, sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        return mlflow.pyfunc.load_model(str(folder)), mlflow.sklearn.load_model(str(folder))
    finally:
        # MLflow leaves the copy's code on the path, where anyone could make that folder again.
        sys.path, sys.dont_write_bytecode = path, writes_no_bytecode


@contextmanager
def copied(client: mlflow.MlflowClient, uri: str, called: str) -> Iterator[Path]:
    """A private copy of a model's files, without what MLflow and Python leave in a folder that a model was loaded from.

    The address, as `models:/` has it, is that of a version or of a model that is not registered.

    Raises:
        UserError: The files are gone, or something among them is neither a file nor a folder.
    """
    with TemporaryDirectory(prefix="understudy-") as name:
        folder = Path(name)
        try:
            location = _location(client, uri)
            provenance.check_location(location, called)
            _check_kinds(location, called)
            # Without a destination MLflow hands out the store's own folder, and writes into it.
            mlflow.artifacts.download_artifacts(uri, dst_path=name)
        except (OSError, mlflow.MlflowException) as error:
            if errors.is_known(error) or isinstance(error, requests.RequestException):
                raise
            problem = f"the files of {called} cannot be read: {' '.join(str(error).split())[:SHOWN]}"
            raise UserError(problem, "mend them, or promote another version") from None
        if not any(folder.iterdir()):
            raise UserError(f"the files of {called} are gone", "bring them back, or train again: python train.py")
        if (folder / LEFT_OUT).is_file():
            (folder / LEFT_OUT).unlink()
        for bytecode in [path for path in folder.rglob("__pycache__") if path.is_dir()]:
            shutil.rmtree(bytecode, ignore_errors=True)  # it may be gone with one around it
        yield folder


def _location(client: mlflow.MlflowClient, uri: str) -> str:
    """Where a model's files lie, as the store says."""
    _, name, *number = uri.split("/")
    if number:
        uri = client.get_model_version_download_uri(name, number[0])
    if not uri.startswith("models:/"):
        return uri
    return str(client.get_logged_model(uri.split("/")[1]).artifact_location)


def _check_kinds(location: str, called: str) -> None:
    """Refuse links, pipes and sockets, which would be followed or waited for; a server hands out none."""
    if (folder := naming.path_of(location)) is None:
        return
    for path in folder.rglob("*"):
        if not stat.S_ISREG(path.lstat().st_mode) and not stat.S_ISDIR(path.lstat().st_mode):
            name = errors.visible(str(path.relative_to(folder)))
            problem = f"{called} has something among its files that is neither a file nor a folder: {name}"
            raise UserError(problem, "take it away, or promote another version")


def uri(version: ModelVersion) -> str:
    """Where a version's files are, as MLflow has it."""
    return f"models:/{version.name}/{version.version}"


def called(version: ModelVersion) -> str:
    """What people call a version."""
    return f"{version.name} version {version.version}"
