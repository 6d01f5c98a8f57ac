"""What the live server counts, for Prometheus: prometheus_client adds up what all of its processes have counted.

To count with prometheus_client costs 35 microseconds a request. So what every request brings is counted in memory, and
handed over once a second.
"""

import math
import os
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.utils import floatToGoString
from prometheus_client.values import ValueClass

from understudy.schema.logged import LoggedAnswer
from understudy.table import TABLE

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it as it is imported, and takes it from nowhere else
LIMIT = TABLE.limits.milliseconds / 1000  # a probation counts the answers above it
SECONDS = sorted({0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, LIMIT, math.inf})
DIFFERENCES = (0.001, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, math.inf)

REQUESTS = Counter("understudy_requests", "Answers to /invocations, by status", ["status", "version"])
ROWS = Counter("understudy_rows", "Rows scored", ["version"])
REJECTED = Counter("understudy_rejected_rows", "Rows refused, by column and fault", ["column", "fault", "version"])
UNLISTED = Counter("understudy_unlisted_values", "Values that are not listed and count as other, by column", ["column"])
SWAPS = Counter("understudy_swaps", "Times that another version took over")
REFUSED = Counter("understudy_refused_versions", "Versions that failed verification, loading or their stored answers")
LOGGED = Counter("understudy_logged_rows", "Rows written by --log")
DROPPED = Counter("understudy_dropped_rows", "Rows that --log could not keep up with, or write")
STARTED = Gauge("understudy_start_seconds", "When the server was started, since 1970", multiprocess_mode="mostrecent")
AWAY = Gauge("understudy_tracking_away", "1 while the tracking server does not answer", multiprocess_mode="mostrecent")
VERSION = Gauge(
    "understudy_model_version",
    "1 for the version that answers",
    ["name", "version"],
    multiprocess_mode="mostrecent",
)
SHADOW_ROWS = Counter("understudy_shadow_rows", "Rows that the shadow has scored or refused")
SHADOW_LABELS = Counter("understudy_shadow_labels", "Rows that both scored, by whether the labels agree", ["agree"])
SHADOW_REFUSED = Counter("understudy_shadow_refused_rows", "Rows that only one refused, by which", ["only"])
SHADOW_MISSED = Counter("understudy_shadow_missed_rows", "Rows that the shadow was there for, and not asked in time")
SHADOW_ERRORS = Counter("understudy_shadow_errors", "Times that the shadow had to be ended, by reason", ["reason"])
SHADOW_VERSION = Gauge(
    "understudy_shadow_version",
    "1 for the version that shadows",
    ["name", "version"],
    multiprocess_mode="mostrecent",
)


class Buckets:
    """A histogram in memory; prometheus_client's own takes a lock and a mapped file for each observation."""

    def __init__(self, name: str, about: str, bounds: Sequence[float], **labels: str) -> None:
        self._bounds = bounds
        names, values = tuple(labels), tuple(labels.values())
        # These are the values that prometheus_client's is made of.
        self._cells = [
            ValueClass("histogram", name, f"{name}_bucket", (*names, "le"), (*values, floatToGoString(bound)), about)
            for bound in bounds
        ]
        self._total = ValueClass("histogram", name, f"{name}_sum", names, values, about)
        self._sum, self._counts = 0.0, [0] * len(bounds)

    def count(self, value: float) -> None:
        """Count an observation."""
        self._sum += value
        self._counts[bisect_left(self._bounds, value)] += 1

    def flush(self) -> None:
        """Hand over what was counted."""
        for cell, number in zip(self._cells, self._counts, strict=True):
            if number:
                cell.inc(number)
        self._total.inc(self._sum)
        self._sum, self._counts = 0.0, [0] * len(self._bounds)


class VersionTally:
    """What a version has answered in this process since the last `flush`."""

    def __init__(self, version: str) -> None:
        self._version = version
        self.statuses: Counts[int] = Counts()
        self.rows = 0
        about = "From a request's last byte to its answer"
        self.seconds = Buckets("understudy_request_seconds", about, SECONDS, version=version)

    def flush(self) -> None:
        """Hand over what was counted."""
        for status, number in self.statuses.items():
            REQUESTS.labels(str(status), self._version).inc(number)
        ROWS.labels(self._version).inc(self.rows)
        self.seconds.flush()
        self.statuses.clear()
        self.rows = 0


class RequestTally:
    """What this process has answered since the last `flush`, by the version that did."""

    def __init__(self) -> None:
        self._versions: dict[str, VersionTally] = {}

    def count(self, status: int, seconds: float, rows: int, version: str) -> None:
        """Count an answer: its status, how long it took, how many rows it is for, and whose it is, "" for nobody's."""
        tally = self._versions.get(version)
        if tally is None:
            tally = self._versions[version] = VersionTally(version)
        tally.statuses[status] += 1
        tally.rows += rows
        tally.seconds.count(seconds)

    def flush(self) -> None:
        """Hand over what was counted."""
        for tally in self._versions.values():
            tally.flush()


class ShadowTally:
    """What the shadow has answered since the last `flush`, beside the version that answers."""

    def __init__(self) -> None:
        self._rows = 0
        self._agree: Counts[str] = Counts()
        self._refused: Counts[str] = Counts()
        about = "Between the probabilities, where both scored"
        self._difference = Buckets("understudy_shadow_difference", about, DIFFERENCES)
        self._seconds = Buckets("understudy_shadow_seconds", "For the rows that the shadow is asked at once", SECONDS)

    def compare(self, answer: LoggedAnswer) -> None:
        """Count rows that the shadow has scored or refused."""
        self._rows += answer.size
        if answer.faults:
            self._refused["live"] += sum(fault is None for _, _, fault in answer.outcomes)
            return
        for label, probability, outcome in zip(answer.labels, answer.probabilities, answer.outcomes, strict=True):
            shadow_label, shadow_probability, _ = outcome
            if shadow_probability is None:
                self._refused["shadow"] += 1
            else:
                self._agree["yes" if label == shadow_label else "no"] += 1
                self._difference.count(abs(probability - shadow_probability))

    def flush(self, seconds: float) -> None:
        """Hand over what was counted of rows that the shadow has taken so long for."""
        SHADOW_ROWS.inc(self._rows)
        for agree, number in self._agree.items():
            SHADOW_LABELS.labels(agree).inc(number)
        for only, number in self._refused.items():
            SHADOW_REFUSED.labels(only).inc(number)
        self._seconds.count(seconds)
        self._seconds.flush()
        self._difference.flush()
        self._rows = 0
        self._agree.clear()
        self._refused.clear()


def page() -> bytes:
    """What all processes have counted, in Prometheus' text format."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, os.environ[FOLDER])
    return generate_latest(registry)
