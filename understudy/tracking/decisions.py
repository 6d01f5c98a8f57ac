"""Decisions about versions as runs: opened before an alias is moved, closed after it."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import (
    Metric,
    Run,
    RunTag,
    ViewType,
)

from understudy.tracking import connection, experiments, retrying, runs

if TYPE_CHECKING:  # the live server's keeper stays for as long as the server, and needs none of these
    from matplotlib.figure import Figure


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
    runs.check_names("metrics", metrics)
    runs.check_names("tags", tags)
    there = experiments.make(client, experiment, experiments.RECORDS_TAGS)
    made = client.create_run(
        there.experiment_id, tags={**runs.process_tags(), runs.KIND: runs.RECORD, **tags}, run_name=name
    )
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
    retrying.insist(client.log_batch, run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def close_record(client: mlflow.MlflowClient, run_id: str, tags: Mapping[str, str], status: str) -> None:
    """Say how a decision ended, then end its run; doing it again changes nothing."""
    tag_record(client, run_id, tags)
    retrying.insist(client.set_terminated, run_id, status)


def records(client: mlflow.MlflowClient, experiment: str) -> list[Run]:
    """The runs of the decisions in an experiment, in the order they were made; none if there is no such experiment.

    Deleted runs too: what they say has happened.

    Raises:
        UserError: The experiment is deleted.
    """
    there = client.get_experiment_by_name(experiment)
    if there is None:
        return []
    experiments.refuse_deleted(there)
    return list(
        connection.pages(
            client.search_runs,
            [there.experiment_id],
            f"tags.`{runs.KIND}` = '{runs.RECORD}'",
            run_view_type=ViewType.ALL,
            max_results=10_000,
            order_by=["attributes.start_time ASC"],
        )
    )
