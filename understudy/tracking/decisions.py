"""Decisions about versions as runs: opened before an alias is moved, closed after it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Metric, Run, RunTag, ViewType

from understudy.tracking import connection, experiments, runs, waiting

if TYPE_CHECKING:  # matplotlib takes half a second, and most who ask for records draw nothing
    from matplotlib.figure import Figure


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


def open_record(client: mlflow.MlflowClient, experiment: str, opening: Opening) -> Run:
    """A new, unfinished run of this process for a decision, in the experiment of that name.

    It is made in one write, with all its tags, so that it is whole wherever the process may be cut off.

    Raises:
        UserError: Two of the metrics have names that differ only in case, as the values of a column may.
    """
    runs.check_names("metrics", opening.metrics)
    runs.check_names("tags", opening.tags)
    experiment_id = experiments.make(client, experiment, experiments.RECORDS_TAGS).experiment_id
    tags = {**runs.process_tags(), runs.KIND: runs.RECORD, **opening.tags}
    run = client.create_run(experiment_id, tags=tags, run_name=opening.name)
    run_id, now = run.info.run_id, int(time.time() * 1000)
    if opening.metrics:
        client.log_batch(run_id, metrics=[Metric(key, value, now, 0) for key, value in opening.metrics.items()])
    for file, text in opening.files.items():
        client.log_text(run_id, text, file)
    for file, figure in opening.figures.items():
        client.log_figure(run_id, figure, file)
    return run


def tag_record(client: mlflow.MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Write more about a decision; doing it again changes nothing."""
    waiting.insist(client.log_batch, run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def close_record(client: mlflow.MlflowClient, run_id: str, tags: Mapping[str, str], status: str) -> None:
    """Say how a decision ended, then end its run; doing it again changes nothing."""
    tag_record(client, run_id, tags)
    waiting.insist(client.set_terminated, run_id, status)


def records(client: mlflow.MlflowClient, experiment: str) -> list[Run]:
    """The runs of the decisions in an experiment, in the order they were made; none if there is no such experiment.

    Deleted runs too: what they say has happened.

    Raises:
        UserError: The experiment is deleted.
    """
    known = experiments.find(client, experiment)
    if known is None:
        return []
    options = {"run_view_type": ViewType.ALL, "max_results": 10_000, "order_by": ["attributes.start_time ASC"]}
    query = f"tags.`{runs.KIND}` = '{runs.RECORD}'"
    return list(connection.pages(client.search_runs, [known.experiment_id], query, **options))
