"""What a run was made from: its data, code, packages and seed."""

import getpass
import hashlib
import json
import os
import re
import shlex
import subprocess
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from urllib.parse import urlsplit

import mlflow
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Run
from mlflow.utils import mlflow_tags

from understudy.errors import UserError
from understudy.reading import reader
from understudy.schema.declaration import Table
from understudy.tracking import connection

TABLE_NAME = "understudy.table"
DATA_PATH = "data.path"
DATA_DIGEST = "data.digest"
CHANGES = "git.changes"  # files that were not committed as they were
MOST_FILES, LONGEST_FILE = 10, 300
STORES = {"file", "s3", "gs", "abfss", "wasbs"}  # where artifacts may lie besides with the tracking server
PACKAGES = ("mlflow", "scikit-learn", "pandas", "numpy", "scipy", "skops")


def table_path(default: str, given: str | None) -> str:
    """The address that was given, or else the default one, whose path is relative to the project's folder.

    A path that was given is made absolute, so that people see in which folder `mlflow run` looks for it.

    Raises:
        UserError: It has a password, and `mlflow run` has logged it.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id and given and reader.shown(given) != given:
        raise UserError(
            f"mlflow run has written the credentials in data into run {run_id}",
            f"change them, mlflow runs delete --run-id {run_id}, and use {reader.USER} and {reader.PASSWORD}",
        )
    folder = Path.cwd() if given else connection.PROJECT
    address = given or default
    return address if "://" in address else str(folder / address)


def recorded_address(run: Run, default: str, given: str | None, verb: str) -> str:
    """The address of the table that a run was trained on, if the project's table or the person at hand names it too.

    Otherwise whoever may write to a run would decide which files are read here, and which hosts get a database's
    password.

    Args:
        run: A batch or a family's run.
        default: The address that the project's table names.
        given: The one that the person has named; None for none.
        verb: The command that takes it as `--data`.

    Raises:
        UserError: Only the run names it.
    """
    recorded, address = run.data.tags.get(DATA_PATH, "nothing"), table_path(default, given)
    if given or recorded == recorded_form(address):
        return address
    shown = recorded if recorded.isprintable() else repr(recorded)
    problem = f"run {run.info.run_id} says that it was trained on {shown}, which the table does not name"
    raise UserError(problem, f"if that is to be read, name it: {verb} --data {shlex.quote(shown)}")


def tags(table: Table, address: str, digest: str, seed: int) -> dict[str, str]:
    """The tags that say what a run was made from: data, code, packages and seed."""
    changed = _changed_files()
    lock = connection.PROJECT / "requirements.lock"
    return {
        DATA_PATH: recorded_form(address),
        DATA_DIGEST: digest,
        "git.dirty": "unknown" if changed is None else str(bool(changed)).lower(),
        **({CHANGES: _listed(changed)} if changed else {}),
        "lock.digest": hashlib.sha256(lock.read_bytes()).hexdigest()[:12] if lock.exists() else "none",
        "seed": str(seed),
        "packages": ", ".join([f"python {python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]),
        TABLE_NAME: table.name,
    }


def _changed_files() -> list[str] | None:
    """Files that are not committed as they are; None without a repository, or without git, as in the server's image."""
    command = ["git", "status", "--porcelain"]
    try:
        status = subprocess.run(command, cwd=connection.PROJECT, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return [line[3:] for line in status.stdout.splitlines()]


def _listed(files: list[str]) -> str:
    """The first names of changed files, as many as a tag has room for in any store."""
    more = f" and {len(files) - MOST_FILES} more" if len(files) > MOST_FILES else ""
    return f"{', '.join(file[:LONGEST_FILE] for file in files[:MOST_FILES])}{more}"


def recorded_form(address: str) -> str:
    """The address without credentials, whatever folder it is read again from."""
    if "://" in address:
        return re.sub("(?<=^sqlite:///)(?=[^/])", f"{Path.cwd()}/", reader.shown(address))
    path = Path(address).resolve()
    # The project may be somewhere else by then.
    return str(path.relative_to(connection.PROJECT) if path.is_relative_to(connection.PROJECT) else path)


def datasets(table: Table, address: str, training: pd.DataFrame, held_out: pd.DataFrame) -> list[DatasetInput]:
    """The training side and the held-out side of a table as inputs of a run, with their digests."""
    inputs, shown = [], reader.shown(address)
    # MLflow has no source that is any database, and none for some object stores.
    scheme = shown.partition("://")[0] if "://" in shown else "file"
    kind = "sql" if reader.is_database(address) else scheme.lower()
    is_known = kind in ("file", "http", "https")
    source = {} if is_known else {"source_type": kind, "source": json.dumps({"uri": shown})}
    for context, rows in [("training", training), ("held-out", held_out)]:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # two of MLflow's sources fit a path
            dataset = mlflow.data.from_pandas(  # type: ignore[attr-defined]
                rows,
                source=None if source else shown,
                targets=table.target.name,
                name=f"{reader.name(address)} {context}",
                digest=table.digest(rows),
            )
        tag = InputTag(mlflow_tags.MLFLOW_DATASET_CONTEXT, context)
        inputs.append(DatasetInput(Dataset(**{**dataset.to_dict(), **source}), [tag]))
    return inputs


def log_scored(
    client: mlflow.MlflowClient, run_id: str, address: str, digest: str, metrics: Mapping[str, float]
) -> None:
    """Put the input of a scoring onto its run as a dataset, and the figures of what came of it."""
    source = json.dumps({"uri": recorded_form(address)})
    profile = json.dumps({"num_rows": metrics["rows"]})
    dataset = Dataset(reader.name(address), digest[:12], "local", source, profile=profile)
    client.log_inputs(
        run_id, datasets=[DatasetInput(dataset, [InputTag(mlflow_tags.MLFLOW_DATASET_CONTEXT, "scored")])]
    )
    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(key, value, now, 0) for key, value in metrics.items()])


def check_location(location: str, called: str) -> None:
    """Refuse artifacts that lie where MLflow's client would go with the password of the tracking server.

    A run is in an experiment, and whoever makes an experiment says where the artifacts of its runs are.

    Raises:
        UserError: They are at an address that is neither the tracking server's own nor a path or an object store.
    """
    place, server = urlsplit(location), urlsplit(connection.uri())
    is_path = len(place.scheme) <= 1  # or the letter of a disk
    is_servers = place.scheme in ("mlflow-artifacts", server.scheme) and place.netloc in ("", server.netloc)
    if not (is_path or is_servers or place.scheme in STORES):
        problem = f"the artifacts of {called} are at {reader.USERINFO.sub('', location)}, which is not followed"
        raise UserError(problem, "train again in an experiment of the table's: python train.py")


def who() -> str:
    """The user of the tracking server, or else the login name."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return str(os.getuid())
