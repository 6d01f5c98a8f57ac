"""Runs: the only module that writes them. A batch is a parent run with one nested run per model family.

Runs are found by tags, never by name, so that people may rename them and `mlflow run` may add its own.
"""

import hashlib
import json
import logging
import math
import os
import re
import shlex
import subprocess
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from importlib.metadata import version
from io import StringIO
from itertools import chain
from pathlib import Path
from platform import python_version
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import mlflow
import pandas as pd
import requests
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LoggedModel,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
    ErrorCode,
)
from mlflow.store.entities import PagedList
from mlflow.utils import mlflow_tags

from understudy import errors, outage, processes, reader, retry
from understudy.errors import UserError, stopped
from understudy.schema import Table

if TYPE_CHECKING:  # the live server's keeper stays for as long as the server, and needs none of these
    from matplotlib.figure import Figure
    from sklearn.pipeline import Pipeline

    from understudy.metrics import Interval

T = TypeVar("T")

PROJECT = Path(__file__).resolve().parents[1]
EMBEDDED = f"sqlite:///{PROJECT / 'mlflow.db'}"
KIND = "understudy.kind"
BATCH, FAMILY = "batch", "family"
REFERENCE = "reference"  # a family's run that shows what hiding the sensitive columns costs; never registered
RECORD = "promotion"  # what was decided about a version
WITH = " with sensitive columns"
FAMILY_NAME = "understudy.family"
TABLE_NAME = "understudy.table"
HOST, PID, STARTED = "process.host", "process.pid", "process.started"
DATA_PATH = "data.path"
DATA_DIGEST = "data.digest"
MODEL_DIGEST = "model.digest"
THRESHOLDS = "thresholds.csv"
ROWS, HELD_OUT, TRAINED_ON = "rows", "held_out.parquet", "trained_on.parquet"
TRAIN_AGAIN = "train again with this version of the project: python train.py"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    mlflow_tags.MLFLOW_RUN_NOTE: "Each row is a batch: open it, tick its model families, and press Compare.",
}
RECORDS_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    mlflow_tags.MLFLOW_RUN_NOTE: "Each row is a decision about a version: who asked for what, and what came of it.",
}
STORES = {"file", "s3", "gs", "abfss", "wasbs"}  # where artifacts may lie besides with the tracking server
NOT_THERE = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
DATABASE_AWAY = ErrorCode.Name(TEMPORARILY_UNAVAILABLE)  # in MLflow's answers
PACKAGES = ("mlflow", "scikit-learn", "pandas", "numpy", "scipy", "skops")


def connect(fail_fast: bool = False) -> mlflow.MlflowClient:
    """A client of `MLFLOW_TRACKING_URI`, or else of `mlflow.db` in the project's folder.

    Args:
        fail_fast: Whether to give up at once when a server's database is away or a server goes away later on, and not
            to wait for them.

    Raises:
        UserError: The server does not answer, what answers is not MLflow, or there is no place to make the file.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # the scripts name the one page to open
    address = uri()
    if is_server():
        _probe(address)
        outage.watch(address, fail_fast)
    elif address.startswith("sqlite:///"):
        _probe_folder(Path(address.removeprefix("sqlite:///").split("?")[0]))
    logging.getLogger("mlflow.store.artifact.artifact_repo").setLevel(logging.WARNING)
    # MLflow logs the traceback of what it then raises.
    logging.getLogger("mlflow.store.db.utils").addFilter(_is_no_error)
    mlflow.set_tracking_uri(address)
    return mlflow.MlflowClient(address)


def uri() -> str:
    """The store's address."""
    return os.environ.get("MLFLOW_TRACKING_URI") or EMBEDDED


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def _probe(uri: str) -> None:
    """MLflow's own client would try for two minutes before it gives up."""
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=10)
    except requests.RequestException:
        problem, fix = "no tracking server answers at", "start it, or correct MLFLOW_TRACKING_URI"
    else:
        if answer.status_code == HTTPStatus.OK and answer.text.strip() == "OK":
            return
        # With workspaces MLflow asks its database even for this; the next request waits for it, or says it is away.
        if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE and DATABASE_AWAY in answer.text:
            return
        problem, fix = "there is no MLflow server at", "correct MLFLOW_TRACKING_URI"
    raise UserError(f"{problem} {re.sub('//[^/]*@', '//', uri)}", fix)


def _probe_folder(file: Path) -> None:
    """MLflow would try for minutes to make its file in a folder that is read-only."""
    folder = next(path for path in file.absolute().parents if path.exists())
    if not file.exists() and not os.access(folder, os.W_OK):
        raise UserError(f"cannot make {file}: {folder} is read-only", errors.MAKE_WRITABLE)


def pages(search: Callable[..., PagedList[T]], *asked: Any, **more: Any) -> Iterator[T]:
    """All that one of MLflow's searches finds, which hands it out in pages."""
    token = None
    while True:
        page = search(*asked, page_token=token, **more)
        yield from page
        token = page.token
        if not token:
            return


def experiments(client: mlflow.MlflowClient) -> list[str]:
    """The ids of all experiments that are not deleted."""
    return [experiment.experiment_id for experiment in pages(client.search_experiments)]


def choose_experiment(client: mlflow.MlflowClient, name: str) -> None:
    """Make `name` the active experiment, created and described if it is new.

    Inside `mlflow run` the project's run has chosen already, and MLflow refuses another choice.
    """
    if "MLFLOW_RUN_ID" in os.environ:
        chosen = client.get_experiment(client.get_run(os.environ["MLFLOW_RUN_ID"]).info.experiment_id)
    else:
        make_experiment(client, name, EXPERIMENT_TAGS)
        chosen = mlflow.set_experiment(name)
    for tag, value in EXPERIMENT_TAGS.items():
        if tag not in chosen.tags:
            client.set_experiment_tag(chosen.experiment_id, tag, value)


def make_experiment(client: mlflow.MlflowClient, name: str, tags: Mapping[str, str]) -> Experiment:
    """The experiment of that name, made with these tags if there is none.

    Raises:
        UserError: It is deleted.
    """
    there = client.get_experiment_by_name(name)
    if there:
        _refuse_deleted(there, ", or use another name")
    if there is None:
        # The embedded store would put the artifacts into whatever folder one happens to be in.
        embedded = mlflow.get_tracking_uri() == EMBEDDED
        try:
            client.create_experiment(name, str(PROJECT / "mlruns" / name) if embedded else None, dict(tags))
        except mlflow.MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):  # another process was faster
                raise
    return client.get_experiment_by_name(name)  # type: ignore[return-value]


def _refuse_deleted(experiment: Experiment, otherwise: str = "") -> None:
    if experiment.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise UserError(f"experiment {experiment.name} is deleted", restore + otherwise)


def page(experiment_id: str) -> str:
    """Where MLflow's UI shows an experiment as model training, whatever the browser showed last."""
    address = f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    if is_server():  # which may have workspaces, and else asks each browser once for one
        return f"{uri().rstrip('/')}{address}&workspace=default"
    return f"http://127.0.0.1:5000{address}"


def is_server() -> bool:
    """Whether the store is behind a server, which has MLflow's UI."""
    return uri().startswith(("http://", "https://"))


def table_path(default: str, given: str) -> str:
    """The address that was asked for, or else the default one, a path being relative to the project's folder.

    Raises:
        UserError: It has a password, and `mlflow run` has logged it.
    """
    if "MLFLOW_RUN_ID" in os.environ and reader.shown(given) != given:
        run_id = os.environ["MLFLOW_RUN_ID"]
        raise UserError(
            f"mlflow run has written the credentials in data into run {run_id}",
            f"change them, mlflow runs delete --run-id {run_id}, and use {reader.USER} and {reader.PASSWORD}",
        )
    return given or (default if "://" in default else str(PROJECT / default))


def recorded_address(run: Run, default: str, given: str, verb: str) -> str:
    """The address of the table that a run was trained on, if the project's table or the person at hand names it too.

    Who may write to a run would else decide which files are read here, and which hosts get a database's password.

    Args:
        run: A batch or a family's run.
        default: The address that the project's table names.
        given: The one that the person has named; empty for none.
        verb: The command that takes it as `--data`.

    Raises:
        UserError: Only the run names it.
    """
    recorded, address = run.data.tags.get(DATA_PATH, "nothing"), table_path(default, given)
    if given or recorded == _recorded(address):
        return address
    named = recorded if recorded.isprintable() else repr(recorded)
    problem = f"run {run.info.run_id} says that it was trained on {named}, which the table does not name"
    raise UserError(problem, f"if that is to be read, name it: {verb} --data {shlex.quote(named)}")


@contextmanager
def run(name: str, kind: str, tags: Mapping[str, str]) -> Iterator[str]:
    """An active run of a kind ("batch" or "family"), nested if one is active already; yields its id.

    Ends FINISHED, FAILED after an exception, KILLED after Ctrl-C or SIGTERM; what was killed in a way that lets it
    end nothing is for `close_killed`.
    """
    _check_names("tags", tags)
    status = "FAILED"
    nested = mlflow.active_run() is not None
    process = _process()
    active = mlflow.start_run(run_name=name, nested=nested, tags=process)
    try:
        # Set here and not at the start, which ignores them where it takes over the run of `mlflow run`.
        mlflow.set_tags({**tags, **process, KIND: kind, mlflow_tags.MLFLOW_RUN_NAME: name})
        yield active.info.run_id
        status = "FINISHED"
    finally:
        if status == "FAILED":
            outage.hurry()
        mlflow.end_run("KILLED" if stopped() else status)


def _process() -> dict[str, str]:
    """The tags that say which process a run belongs to."""
    return {HOST: processes.host(), PID: str(os.getpid()), STARTED: processes.started(os.getpid())}


def is_left(run: Run) -> bool:
    """Whether a run is unfinished, and not deleted, although its process, of this host, is gone."""
    tags = run.data.tags
    if run.info.status != "RUNNING" or run.info.lifecycle_stage == "deleted" or tags.get(HOST) != processes.host():
        return False
    try:
        return processes.is_gone(int(tags[PID]), tags[STARTED])
    except (LookupError, ValueError):  # somebody has changed its tags
        return False


def close_killed(client: mlflow.MlflowClient) -> list[str]:
    """End the runs of processes of this host that are gone, as KILLED, where this account may; returns their names.

    Not the records of promotions: only the aliases know how those ended.
    """
    query = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{processes.host()}'"
    closed = []
    for found in list(pages(client.search_runs, experiments(client), query)):  # what is closed leaves the pages
        if found.data.tags.get(KIND) == RECORD or not is_left(found):
            continue
        try:
            client.set_terminated(found.info.run_id, "KILLED")
        except mlflow.MlflowException as error:
            if error.error_code != ErrorCode.Name(PERMISSION_DENIED):
                raise
        else:
            closed.append(str(found.info.run_name))
    return closed


def provenance(table: Table, address: str, digest: str, seed: int) -> dict[str, str]:
    """The tags that say what a run was made from: data, code, packages and seed."""
    changes = subprocess.run(["git", "status", "--porcelain"], cwd=PROJECT, capture_output=True, text=True, check=False)
    lock = PROJECT / "requirements.lock"
    return {
        TABLE_NAME: table.name,
        DATA_PATH: _recorded(address),
        DATA_DIGEST: digest,
        "git.dirty": str(bool(changes.stdout.strip())).lower() if changes.returncode == 0 else "unknown",
        "lock.digest": hashlib.sha256(lock.read_bytes()).hexdigest()[:12] if lock.exists() else "none",
        "seed": str(seed),
        "packages": ", ".join([f"python {python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]),
    }


def _recorded(address: str) -> str:
    """The address without credentials, whatever folder it is read again from."""
    if "://" in address:
        return re.sub("(?<=^sqlite:///)(?=[^/])", f"{Path.cwd()}/", reader.shown(address))
    path = Path(address).resolve()
    # The project may be somewhere else by then.
    return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)


def datasets(table: Table, address: str, training: pd.DataFrame, held_out: pd.DataFrame) -> list[DatasetInput]:
    """The two sides of a table as inputs of a run, with their digests."""
    inputs, shown = [], reader.shown(address)
    # MLflow knows no source that is any database.
    source = {"source_type": "sql", "source": json.dumps({"uri": shown})} if reader.is_database(address) else {}
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


def _check_names(kind: str, *names: Iterable[str]) -> None:
    """Refuse names that MySQL takes for one and the same (error 1062), before anything of them is written.

    Raises:
        UserError: Two of them differ only in case, in accents or in the space behind them.
    """
    known: dict[str, str] = {}
    for name in chain(*names):
        twin = known.setdefault(folded(name), name)
        if twin != name:
            problem = f"the {kind} {twin!r} and {name!r} of one run differ only in case or accents"
            raise UserError(problem, "give one of them, or the column or value that it is named after, another name")


def folded(name: str) -> str:
    """A name without case, accents and the space behind it, as MySQL compares names."""
    letters = (letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return "".join(letters).casefold().rstrip()


def log_batch(
    client: mlflow.MlflowClient, run_id: str, params: Mapping[str, object], inputs: list[DatasetInput]
) -> None:
    """Log a batch's options, unless `mlflow run` has done it with its own spelling, and which rows it takes."""
    there = client.get_run(run_id).data.params
    _check_names("params", params, there)
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items() if key not in there])
    client.log_inputs(run_id, inputs)


def log_rows(client: mlflow.MlflowClient, run_id: str, held_out: pd.DataFrame, trained_on: pd.DataFrame) -> None:
    """Keep with a batch the rows that later versions are compared on, and the identifiers of those it learned from."""
    with TemporaryDirectory() as folder:
        tags = []
        for name, rows in [(HELD_OUT, held_out), (TRAINED_ON, trained_on)]:
            rows.to_parquet(Path(folder, name), index=False)
            tags.append(RunTag(f"{ROWS}.{name}", hashlib.sha256(Path(folder, name).read_bytes()).hexdigest()))
        client.log_artifacts(run_id, folder, ROWS)
        client.log_batch(run_id, tags=tags)


def check_location(location: str, called: str) -> None:
    """Refuse artifacts that lie where MLflow's client would go with the password of the tracking server.

    A run is in an experiment, and whoever makes an experiment says where the artifacts of its runs are.

    Raises:
        UserError: They are at an address that is neither the tracking server's own nor a path or an object store.
    """
    place, server = urlsplit(location), urlsplit(uri())
    is_path = len(place.scheme) <= 1  # or the letter of a disk
    is_servers = place.scheme in ("mlflow-artifacts", server.scheme) and place.netloc in ("", server.netloc)
    if not (is_path or is_servers or place.scheme in STORES):
        problem = f"the artifacts of {called} are at {reader.USERINFO.sub('', location)}, which is not followed"
        raise UserError(problem, "train again in an experiment of the table's: python train.py")


def rows_digest(client: mlflow.MlflowClient, run: Run, name: str) -> str:
    """The SHA-256 digest of `HELD_OUT` or `TRAINED_ON`, as the batch says that a family's run is part of.

    Raises:
        UserError: The run is none of training's.
    """
    return tag(_batch(client, run, name), f"{ROWS}.{name}")


def rows(client: mlflow.MlflowClient, run: Run, name: str, digest: str) -> pd.DataFrame:
    """`HELD_OUT` or `TRAINED_ON` of the batch that a family's run is part of.

    Args:
        client: Of the store that holds the run.
        run: The family's.
        name: Which of the two.
        digest: SHA-256 that the file must have.

    Raises:
        UserError: The rows are gone, or not those of the digest.
    """
    from pyarrow import parquet  # takes memory that following an alias does not need

    batch_id = _batch(client, run, name).info.run_id
    with TemporaryDirectory() as folder:
        try:
            path = Path(client.download_artifacts(batch_id, f"{ROWS}/{name}", folder))
            content = path.read_bytes()
        except (mlflow.MlflowException, OSError):
            raise UserError(f"run {batch_id} has no {ROWS}/{name}", TRAIN_AGAIN) from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise UserError(f"{ROWS}/{name} of run {batch_id} is not what training kept", TRAIN_AGAIN)
        try:
            # Each row has an identifier of its own, which takes some bits however well it is packed.
            if parquet.read_metadata(path).num_rows > 8 * len(content):
                raise UserError(f"{ROWS}/{name} of run {batch_id} has more rows than it can have", TRAIN_AGAIN)
            return pd.read_parquet(path)
        except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are among these
            problem = f"{ROWS}/{name} of run {batch_id} is no Parquet: {type(error).__name__}"
            raise UserError(problem, TRAIN_AGAIN) from None


def _batch(client: mlflow.MlflowClient, run: Run, name: str) -> Run:
    """The batch that a family's run is part of, which has kept a file of rows."""
    batch_id = str(run.data.tags.get(mlflow_tags.MLFLOW_PARENT_RUN_ID, run.info.run_id))
    batch = run_or_none(client, batch_id)
    if batch is None:
        raise UserError(f"run {batch_id}, which kept {ROWS}/{name}, is gone", TRAIN_AGAIN)
    check_location(str(batch.info.artifact_uri), f"run {batch_id}")
    return batch


def log_family(
    client: mlflow.MlflowClient,
    run_id: str,
    name: str,
    pipeline: "Pipeline",
    training: pd.DataFrame,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    thresholds: pd.DataFrame,
    inputs: list[DatasetInput],
) -> None:
    """Log what training found: the model in its two flavors, the best params, cross-validation's figures, the rows."""
    from understudy import models, scoring

    _check_names("params", params)
    _check_names("metrics", metrics)
    info = Model.log(
        None,
        flavor=scoring,
        flavor_name="sklearn",
        name=name,
        run_id=run_id,
        params=dict(params),
        pipeline=pipeline,
        rows=training,
    )
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=_metrics(metrics, now, info.model_id, inputs, "training"),
        params=[Param(key, str(value)) for key, value in params.items()],
        tags=[RunTag(MODEL_DIGEST, models.digest(pipeline))],
    )
    client.log_text(run_id, thresholds.to_csv(index=False), THRESHOLDS)
    client.log_inputs(run_id, inputs)


def thresholds(run: Run) -> pd.DataFrame:
    """What each threshold costs on the folds, as a family's run logged it.

    Raises:
        UserError: It is gone, or no such table.
    """
    check_location(str(run.info.artifact_uri), f"run {run.info.run_id}")
    try:
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{THRESHOLDS}")
        return pd.read_csv(StringIO(text))[["threshold", "cost"]].astype(float)
    except (OSError, LookupError, ValueError, mlflow.MlflowException) as error:
        if errors.is_known(error):
            raise
        raise UserError(f"run {run.info.run_id} has no {THRESHOLDS} of training's", TRAIN_AGAIN) from None


def tag(run: Run, name: str) -> str:
    """A tag that training gives each run.

    Raises:
        UserError: The run has none of that name.
    """
    if name not in run.data.tags:
        raise UserError(f"run {run.info.run_id} has no tag {name}, which training gives", TRAIN_AGAIN)
    return str(run.data.tags[name])


def metric(run: Run, name: str) -> float:
    """A metric that training gives each family's run.

    Raises:
        UserError: The run has none of that name, or it is no number.
    """
    value = run.data.metrics.get(name, math.nan)
    if not math.isfinite(value):
        raise UserError(f"run {run.info.run_id} has no metric {name}, which training gives", TRAIN_AGAIN)
    return float(value)


def _metrics(
    values: Mapping[str, float], time: int, model_id: str, inputs: list[DatasetInput], context: str
) -> list[Metric]:
    """Metrics of a model on the rows of a context, at a time in milliseconds."""
    [rows] = [found.dataset for found in inputs if found.tags[0].value == context]
    known = {"model_id": model_id, "dataset_name": rows.name, "dataset_digest": rows.digest}
    return [Metric(key, value, time, 0, **known) for key, value in values.items()]


def get_batch(client: mlflow.MlflowClient, table: Table, run_id: str = "") -> Run:
    """The batch of that id, or else the one of this table that finished last, in any experiment.

    Raises:
        UserError: There is none.
    """
    if run_id:
        return get_run(client, run_id, BATCH)
    query = f"tags.`{KIND}` = '{BATCH}' and tags.`{TABLE_NAME}` = '{table.name}' and attributes.status = 'FINISHED'"
    found = client.search_runs(experiments(client), query, max_results=1, order_by=["attributes.end_time DESC"])
    if not found:
        raise UserError(f"no finished training of {table.name} in the tracking store", "python train.py")
    return found[0]


def run_or_none(client: mlflow.MlflowClient, run_id: str) -> Run | None:
    """A run by its id; None if there is none."""
    try:
        return client.get_run(run_id)
    except mlflow.MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        return None


def get_run(client: mlflow.MlflowClient, run_id: str, kind: str) -> Run:
    """A finished run by its id.

    Raises:
        UserError: There is no such run, it is not of this kind, or it has not finished.
    """
    found = run_or_none(client, run_id)
    if found is None or found.data.tags.get(KIND) != kind or found.info.status != "FINISHED":
        raise UserError(f"{run_id} is not the id of a finished {kind} run", "copy it from its page in MLflow's UI")
    return found


def families(client: mlflow.MlflowClient, batch: Run, kind: str = FAMILY) -> list[Run]:
    """The nested runs of a batch of a kind, in the order they were made."""
    query = f"tags.`{mlflow_tags.MLFLOW_PARENT_RUN_ID}` = '{batch.info.run_id}' and tags.`{KIND}` = '{kind}'"
    order = ["attributes.start_time ASC"]
    return list(pages(client.search_runs, [batch.info.experiment_id], query, order_by=order))


def family_name(run: Run) -> str:
    """The family that a run trained, however people have renamed the run."""
    return tag(run, FAMILY_NAME)


def model_uri(run: Run) -> str:
    """Where a family run's model is, as `models:/<id>`."""
    return f"models:/{model_id(run)}"


def model_id(run: Run) -> str:
    """The id of the model that a family run logged."""
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise UserError(f"run {run.info.run_id} has logged no model", TRAIN_AGAIN)
    return str(outputs[0].model_id)


def linked_versions(model: LoggedModel) -> list[dict[str, Any]]:
    """The versions, by `name` and `version`, that a logged model says it is; none if that is no such list."""
    try:
        links = json.loads(model.tags.get(mlflow_tags.MLFLOW_MODEL_VERSIONS, "[]"))
        return [{"name": link["name"], "version": link["version"]} for link in links]
    except (LookupError, TypeError, ValueError):  # somebody has changed the tag
        return []


def logged_models(client: mlflow.MlflowClient) -> list[LoggedModel]:
    """All models that runs have logged, in any experiment."""
    return list(pages(client.search_logged_models, experiments(client)))


def log_evaluation(
    client: mlflow.MlflowClient,
    run: Run,
    metrics: "Mapping[str, Interval]",
    figures: "Mapping[str, Figure]",
    tables: Mapping[str, pd.DataFrame],
    description: str,
) -> None:
    """Add held-out metrics, figures, tables and a description to a finished run; doing it again changes nothing.

    A metric's bounds are logged beside it, as `interval/<name> low` and `interval/<name> high`. The time is the run's
    own, so that a second evaluation writes the same rows.
    """
    values = {name: value for name, (value, _, _) in metrics.items()}
    for name, (_, low, high) in metrics.items():
        values |= {f"interval/{name} low": low, f"interval/{name} high": high}
    _check_names("metrics", values, run.data.metrics)
    inputs = run.inputs.dataset_inputs  # type: ignore[union-attr]
    client.log_batch(
        run.info.run_id,
        metrics=_metrics(values, run.info.end_time, model_id(run), inputs, "held-out"),
        tags=[RunTag(mlflow_tags.MLFLOW_RUN_NOTE, description)],
    )
    log_figures(client, run, figures, PROJECT / "plots" / family_name(run))
    log_tables(client, run, tables)


def log_figures(client: mlflow.MlflowClient, run: Run, figures: "Mapping[str, Figure]", folder: Path) -> None:
    """Save figures as PNG into a folder of the project, and onto a run.

    On the run they have no folder: MLflow's compare page shows files of the top level side by side, and no others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")
        client.log_artifact(run.info.run_id, str(folder / f"{name}.png"))


def log_tables(client: mlflow.MlflowClient, run: Run, tables: Mapping[str, pd.DataFrame]) -> None:
    """Put tables onto a run, as CSV files of their names."""
    for name, table in tables.items():
        client.log_text(run.info.run_id, table.to_csv(index=False), f"{name}.csv")


def log_text(client: mlflow.MlflowClient, run_id: str, text: str, name: str) -> None:
    """Put a text onto a run, as a file of that name."""
    client.log_text(run_id, text, name)


def describe(client: mlflow.MlflowClient, run: Run, description: str) -> None:
    """What MLflow's UI shows on top of a run's page, as Markdown."""
    client.set_tag(run.info.run_id, mlflow_tags.MLFLOW_RUN_NOTE, description)


def open_record(
    client: mlflow.MlflowClient,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    files: Mapping[str, str],
    figures: "Mapping[str, Figure]",
) -> Run:
    """A new, unfinished run of this process for a decision, with the texts and figures that it rests on.

    It is made in one write, with all its tags, so that it is whole wherever the process may be cut off.

    Raises:
        UserError: Two of the metrics have names that differ only in case, as the values of a column may.
    """
    _check_names("metrics", metrics)
    _check_names("tags", tags)
    there = make_experiment(client, experiment, RECORDS_TAGS)
    made = client.create_run(there.experiment_id, tags={**_process(), KIND: RECORD, **tags}, run_name=name)
    if metrics:
        now = int(time.time() * 1000)
        client.log_batch(made.info.run_id, metrics=[Metric(key, value, now, 0) for key, value in metrics.items()])
    for file, text in files.items():
        client.log_text(made.info.run_id, text, file)
    for file, figure in figures.items():
        client.log_figure(made.info.run_id, figure, file)
    return made


def tag_record(client: mlflow.MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Write more about a decision; doing it again changes nothing."""
    retry.insist(client.log_batch, run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def close_record(client: mlflow.MlflowClient, run_id: str, tags: Mapping[str, str], status: str) -> None:
    """Say how a decision ended, then end its run; doing it again changes nothing."""
    tag_record(client, run_id, tags)
    retry.insist(client.set_terminated, run_id, status)


def records(client: mlflow.MlflowClient, experiment: str) -> list[Run]:
    """The runs of the decisions in an experiment, in the order they were made; none if there is no such experiment.

    Deleted runs too: what they say has happened.

    Raises:
        UserError: The experiment is deleted.
    """
    there = client.get_experiment_by_name(experiment)
    if there is None:
        return []
    _refuse_deleted(there)
    return list(
        pages(
            client.search_runs,
            [there.experiment_id],
            f"tags.`{KIND}` = '{RECORD}'",
            run_view_type=ViewType.ALL,
            max_results=10_000,
            order_by=["attributes.start_time ASC"],
        )
    )
