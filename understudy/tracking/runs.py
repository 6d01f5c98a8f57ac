"""Runs: begun for a process and ended whatever happens to it; what training writes on them, and what decisions do."""

import hashlib
import math
import os
import re
import socket
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import psutil
from mlflow.entities import Metric, Run, RunTag, ViewType
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, ErrorCode
from mlflow.utils import mlflow_tags, name_utils

from understudy.errors import UserError, stopped
from understudy.tracking import connection, experiments, waiting

if TYPE_CHECKING:  # matplotlib takes half a second, and most who ask for records draw nothing
    from matplotlib.figure import Figure

KIND = "understudy.kind"
BATCH, FAMILY = "batch", "family"
REFERENCE = "reference"  # a family's run that shows what hiding the sensitive columns costs; never registered
RECORD = "promotion"  # what was decided about a version
SCORING = "scoring"  # of the rows of files
MONITORING = "monitoring"  # of the rows that a version has answered
OURS = "understudy."  # what begins the names of tags that only the project reads, so that they come last
HOST, PID, STARTED = f"{OURS}process.host", f"{OURS}process.pid", f"{OURS}process.started"
TRAIN_AGAIN = "train again with this version of the project: python train.py"


def is_made_up(name: str) -> bool:
    """Whether a run has one of the names that MLflow gives to runs without one, such as calm-fox-12."""
    predicate, noun, number, *more = [*name.split("-"), "", ""]
    is_known = predicate in name_utils._GENERATOR_PREDICATES and noun in name_utils._GENERATOR_NOUNS
    return is_known and number.isdecimal() and more == ["", ""]


@contextmanager
def run(name: str, kind: str, tags: Mapping[str, str]) -> Iterator[str]:
    """An active run of a kind ("batch" or "family"), nested if one is active already; yields its id.

    It ends FINISHED, FAILED after an exception, or KILLED after Ctrl-C or SIGTERM. After `kill -9` it stays open until
    `close_killed` ends it.
    """
    check_names("tags", tags)
    status = "FAILED"
    nested = mlflow.active_run() is not None
    written = {**tags, KIND: kind, **process_tags()}
    if projects_run := os.environ.get("MLFLOW_RUN_ID"):  # which the start takes over, and off the environment
        given = str(mlflow.get_run(projects_run).info.run_name)
        name = name if is_made_up(given) else given
    active = mlflow.start_run(run_name=name, nested=nested, tags=written)
    try:
        # Set again, since the start ignores them where it takes over the run of `mlflow run`.
        mlflow.set_tags({**written, mlflow_tags.MLFLOW_RUN_NAME: name})
        yield active.info.run_id
        status = "FINISHED"
    finally:
        if status == "FAILED" and connection.is_server():
            waiting.hurry(connection.uri())
        mlflow.end_run("KILLED" if stopped() else status)


def process_tags() -> dict[str, str]:
    """The tags that say which process a run belongs to."""
    return {HOST: host(), PID: str(os.getpid()), STARTED: started(os.getpid())}


def host() -> str:
    """The host's name, and a mark of what else must be the same for a process id to mean the same process.

    Two machines may have the same name, as clones do; a container may have its host's, with process ids of its own.
    """
    machine, processes = Path("/etc/machine-id"), Path("/proc/self/ns/pid")
    marks = [machine.read_text() if machine.exists() else "", str(processes.readlink()) if processes.exists() else ""]
    return f"{socket.gethostname()} {hashlib.sha256(' '.join(marks).encode()).hexdigest()[:8]}"


def started(pid: int) -> str:
    """When a process started, in seconds since the machine did, which setting the clock does not change."""
    return f"{psutil.Process(pid).create_time() - psutil.boot_time():.2f}"


def is_gone(pid: int, since: str) -> bool:
    """Whether the process that started at `since` has ended; its number may belong to another process by now.

    False where that cannot be seen.
    """
    try:
        os.kill(pid, 0)  # psutil says of another user's process, where /proc hides it, that it has ended
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    try:
        # One that has ended stays a zombie until its parent collects it, in a container perhaps for good.
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE or started(pid) != since
    except psutil.Error:
        return False


def is_left(run: Run) -> bool:
    """Whether a run is unfinished, and not deleted, although its process, of this host, is gone."""
    # In 0.2 the names did not begin with `OURS`.
    tags = {re.sub("^process[.]", f"{OURS}process.", key): value for key, value in run.data.tags.items()}
    if run.info.status != "RUNNING" or run.info.lifecycle_stage == "deleted" or tags.get(HOST) != host():
        return False
    try:
        return is_gone(int(tags[PID]), tags[STARTED])
    except (LookupError, ValueError):  # somebody has changed its tags
        return False


def close_killed(client: mlflow.MlflowClient) -> list[str]:
    """End as KILLED the runs whose process, of this host, is gone, where this account may; returns their names.

    Records of promotions are left open: only the aliases know how those ended.
    """
    running = list(connection.pages(client.search_runs, experiments.all_ids(client), "attributes.status = 'RUNNING'"))
    closed = []
    for run in [run for run in running if run.data.tags.get(KIND) != RECORD and is_left(run)]:
        try:
            client.set_terminated(run.info.run_id, "KILLED")
        except mlflow.MlflowException as error:
            if error.error_code != ErrorCode.Name(PERMISSION_DENIED):
                raise
        else:
            closed.append(str(run.info.run_name))
    return closed


def check_names(kind: str, *names: Iterable[str]) -> None:
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


def run_or_none(client: mlflow.MlflowClient, run_id: str) -> Run | None:
    """A run by its id; None if there is none."""
    try:
        return client.get_run(run_id)
    except mlflow.MlflowException as error:
        if error.error_code not in connection.NOT_THERE:
            raise
        return None


def get_run(client: mlflow.MlflowClient, run_id: str, kind: str) -> Run:
    """A finished run by its id.

    Raises:
        UserError: There is no such run, it is not of this kind, or it has not finished.
    """
    run = run_or_none(client, run_id)
    if run is None or run.data.tags.get(KIND) != kind or run.info.status != "FINISHED":
        raise UserError(f"{run_id} is not the id of a finished {kind} run", "copy it from its page in MLflow's UI")
    return run


def log_text(client: mlflow.MlflowClient, run_id: str, text: str, name: str) -> None:
    """Put a text onto a run, as a file of that name."""
    client.log_text(run_id, text, name)


@dataclass(frozen=True)
class Opening:
    """What is written about a decision when its record is opened.

    Args:
        name: Of the run.
        tags: What was asked, and by whom.
        metrics: The figures that the decision rests on.
        files: Texts that it rests on, by file name.
        figures: Plots that it rests on, by file name.
    """

    name: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    files: Mapping[str, str]
    figures: "Mapping[str, Figure]"


def open_record(client: mlflow.MlflowClient, experiment: str, opening: Opening, opened: str | None = None) -> Run:
    """A new, unfinished run of this process for a decision, in the experiment of that name; or more for an opened one.

    It is made in one write, with all its tags, so that it is whole wherever the process may be cut off.

    Raises:
        UserError: Two of the metrics have names that differ only in case, as the values of a column may.
    """
    check_names("metrics", opening.metrics)
    check_names("tags", opening.tags)
    experiment_id = experiments.make(client, experiment, experiments.RECORDS).experiment_id
    tags = {**opening.tags, KIND: RECORD, **process_tags()}
    run = client.get_run(opened) if opened else client.create_run(experiment_id, tags=tags, run_name=opening.name)
    run_id, now = run.info.run_id, int(time.time() * 1000)
    if opened:
        tag_record(client, run_id, tags)
    if opening.metrics:
        client.log_batch(run_id, metrics=[Metric(key, value, now, 0) for key, value in opening.metrics.items()])
    for file, text in opening.files.items():
        client.log_text(run_id, text, file)
    for file, figure in opening.figures.items():
        client.log_figure(run_id, figure, file)
    return run


@contextmanager
def inactive(
    client: mlflow.MlflowClient, experiment_id: str, kind: str, name: str, tags: Mapping[str, str], before: str | None
) -> Iterator[str]:
    """A run that is not MLflow's active one, perhaps one that a process `before` has left; it ends as `run` does."""
    tags, status = {**tags, KIND: kind, **process_tags()}, "FAILED"
    known = run_or_none(client, before) if before else None
    if known and known.info.lifecycle_stage != "deleted":
        tag_record(client, run_id := known.info.run_id, tags)
    else:
        run_id = client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
    try:
        yield run_id
        status = "FINISHED"
    finally:
        waiting.insist(client.set_terminated, run_id, "KILLED" if stopped() else status)


def tag_record(client: mlflow.MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Write more about a decision; doing it again changes nothing."""
    waiting.insist(client.log_batch, run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def close_record(client: mlflow.MlflowClient, run_id: str, tags: Mapping[str, str], status: str) -> None:
    """Say how a decision ended, then end its run; doing it again changes nothing."""
    tag_record(client, run_id, tags)
    waiting.insist(client.set_terminated, run_id, status)


def records(
    client: mlflow.MlflowClient, experiment: str, condition: str | None = None, latest: int | None = None
) -> list[Run]:
    """The runs of the decisions in an experiment, the latest first; none if there is no such experiment.

    Deleted runs too: what they say has happened. A thousand take a second to read; a condition of MLflow's leaves some
    out, and `latest` says how many are enough.

    Raises:
        UserError: The experiment is deleted.
    """
    known = experiments.find(client, experiment)
    if known is None:
        return []
    query = " and ".join(filter(None, [f"tags.`{KIND}` = '{RECORD}'", condition]))
    options = {"run_view_type": ViewType.ALL, "max_results": latest or 10_000}
    return list(islice(connection.pages(client.search_runs, [known.experiment_id], query, **options), latest))
