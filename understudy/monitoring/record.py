"""What MLflow keeps of the monitor: a run for each window, and one for each version with the course of its windows."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils import mlflow_tags

from understudy.figures import cards, windows
from understudy.monitoring.report import WindowReport
from understudy.monitoring.window import Window
from understudy.report import page, window_page
from understudy.tracking import connection, experiments, naming, provenance, runs, waiting
from understudy.verification.digests import DIGEST

COURSE = "course"  # the kind of the run of a version
VERSION, VERSION_DIGEST = "monitoring.version", "monitoring.digest"
SOURCE, SINCE, UNTIL = "monitoring.rows from", "monitoring.since", "monitoring.until"
ROWS, NUMBER, VERDICT = "monitoring.rows", "monitoring.window", "monitoring.verdict"
MOST = 1_000  # metrics that MLflow takes at once


def experiment(name: str) -> str:
    """The name of the experiment that keeps the windows of a registered model."""
    return f"{name} monitoring"


class Course:
    """The windows of a version in MLflow.

    Another registered model of the same name may have had a version of the same number, so its digest counts too.

    Args:
        client: Of the store.
        version: The version.
    """

    def __init__(self, client: MlflowClient, version: ModelVersion) -> None:
        self._client, self._version, self._experiment = client, version, experiment(str(version.name))
        self._tags = {VERSION: str(version.version), VERSION_DIGEST: version.tags[DIGEST]}

    def end_of_last(self, source: str) -> datetime | None:
        """When the last window ended that was recorded to the end, of rows from this place; None if there is none."""
        known = experiments.find(self._client, self._experiment)
        finished = " and attributes.status = 'FINISHED'"
        for run in self._runs(known.experiment_id, runs.MONITORING, finished, "DESC") if known else ():
            if run.data.tags.get(SOURCE) == provenance.recorded_form(source):
                return datetime.fromisoformat(run.data.tags[UNTIL])
        return None

    @contextmanager
    def window(self, source: str, window: Window) -> Iterator["WindowRun"]:
        """A run for a window of rows from a place, which ends as `runs.run` does."""
        made = experiments.make(self._client, self._experiment, experiments.MONITORING).experiment_id
        course = self._course(made)
        history = self._client.get_metric_history(course, "rows")
        number = 1 + max((point.step for point in history), default=0)
        name, since = f"version {self._version.version}, window {number}", window.since
        tags = {
            **self._tags,
            SOURCE: provenance.recorded_form(source),
            SINCE: since.isoformat() if since else "the first row",
            UNTIL: window.until.isoformat(),
            ROWS: str(window.accepted),
            NUMBER: str(number),
            mlflow_tags.MLFLOW_USER: provenance.who(),
        }
        with runs.inactive(self._client, made, runs.MONITORING, name, tags, None) as run_id:
            yield WindowRun(self._client, run_id, course, number, f"{self._version.name} {name}")

    def _course(self, experiment_id: str) -> str:
        """The run that holds the course of the version's windows, made once."""
        known = next(self._runs(experiment_id, COURSE, "", "ASC"), None)
        if known:
            return str(known.info.run_id)
        name = f"version {self._version.version}"
        with runs.inactive(self._client, experiment_id, COURSE, name, self._tags, None) as run_id:
            return run_id

    def _runs(self, experiment_id: str, kind: str, condition: str, order: str) -> Iterator[Run]:
        named = {**self._tags, runs.KIND: kind}
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in named.items()) + condition
        options = {"order_by": [f"attributes.start_time {order}"], "max_results": 100}
        return connection.pages(self._client.search_runs, [experiment_id], query, **options)


class WindowRun:
    """The run of a window, while it is written.

    Args:
        client: Of the store.
        run_id: The run's.
        course: The run that holds the course of the version's windows.
        number: Of the window, from 1 on.
        name: What people call the window.
    """

    def __init__(self, client: MlflowClient, run_id: str, course: str, number: int, name: str) -> None:
        self._client, self.run_id, self._course, self.number, self.name = client, run_id, course, number, name

    def write(self, report: WindowReport) -> None:
        """Write what was found onto the run, and last of all its figures onto the course."""
        metrics = {naming.metric(name): value for name, value in report.metrics().items()}
        runs.check_names("metrics", metrics)
        self._client.log_text(self.run_id, report.table().to_csv(index=False), "columns.csv")
        found = report.as_dict()
        self._client.log_text(self.run_id, json.dumps(found, indent=1), "report.json")
        for file, html in page.drawn(lambda: window_page.html(self.name, found, report.drawn)).items():
            self._client.log_text(self.run_id, html, file)
        title = (
            f"{self.name}: {report.window.accepted:,} rows to {cards.shown_time(report.window.until)}\n{report.verdict}"
        )
        self._client.log_figure(self.run_id, windows.figure(report.drawn, title), "columns.png")
        runs.tag_record(
            self._client, self.run_id, {VERDICT: report.verdict, mlflow_tags.MLFLOW_RUN_NOTE: report.verdict}
        )
        for run_id, step in ((self.run_id, 0), (self._course, self.number)):
            self._log(run_id, metrics, int(report.window.until.timestamp() * 1000), step)

    def _log(self, run_id: str, metrics: Mapping[str, float], time: int, step: int) -> None:
        points = [Metric(name, value, time, step) for name, value in metrics.items()]
        for first in range(0, len(points), MOST):
            waiting.insist(self._client.log_batch, run_id, metrics=points[first : first + MOST])
