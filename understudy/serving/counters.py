"""Counters that several processes keep and any of them can show, in Prometheus' format.

Each process counts into a file of its own that is mapped into its memory, so counting is an addition, and nothing is
lost or late when another process answers /metrics. A process that is started again goes on with its file.
"""

import mmap
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

SLOTS, KEY = 512, 120  # how many counters, and the most bytes of a counter's name and labels
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)  # seconds
PREFIX = "understudy_"
CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
SUM, BUCKETS = "request_seconds_sum", [f"request_seconds {bound}" for bound in (*BOUNDS, "+Inf")]
AWAY = "tracking_away"
OTHER = "other"
COUNTERS = {
    "requests": ("Requests to /invocations, and refused ones, by the answer's status", ["status"]),
    "rows": ("Rows scored", []),
    "rejected_rows": ("Rows refused, by column and fault", ["column", "fault"]),
    "swaps": ("Times that another version took over", []),
    "refused_versions": ("Versions that failed verification, loading or their stored answers", []),
    "logged_rows": ("Rows written by --log", []),
    "dropped_rows": ("Rows that --log could not keep up with, or write", []),
    OTHER: ("Whatever there was no room to count by its name", []),
}
MOST = {"swaps"}  # each worker counts the same ones


class Counters:
    """The counters of this process: `add` for any, `slot` and `values` for those that are counted all the time."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(SLOTS * (8 + KEY)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.values = memoryview(self._map)[: SLOTS * 8].cast("d")
        self._slots = {key: slot for slot, (key, _) in enumerate(_entries(self._map))}
        self._other = self.slot(OTHER)  # the first of all, so that there is room
        self._buckets = [self.slot(key) for key in BUCKETS]
        self._sum = self.slot(SUM)

    def slot(self, name: str, *labels: str) -> int:
        """Where a counter is in `values`; made if it is new, and one for all the rest when there is no room."""
        key = "\n".join((name, *labels))
        if key not in self._slots:
            if len(key.encode()) > KEY or len(self._slots) >= SLOTS:
                return self._other
            slot = self._slots[key] = len(self._slots)
            start = SLOTS * 8 + slot * KEY
            self._map[start : start + KEY] = key.encode().ljust(KEY, b"\0")
        return self._slots[key]

    def add(self, number: float, name: str, *labels: str) -> None:
        """Count."""
        self.values[self.slot(name, *labels)] += number

    def set(self, number: float, name: str, *labels: str) -> None:
        """Say what is so now."""
        self.values[self.slot(name, *labels)] = number

    def observe(self, seconds: float) -> None:
        """Count a request that took so long."""
        self.values[self._buckets[bisect_left(BOUNDS, seconds)]] += 1
        self.values[self._sum] += seconds


def exposition(folder: Path, name: str, version: str) -> bytes:
    """What all processes with a file in a folder have counted, as /metrics shows it.

    Args:
        folder: Of the files.
        name: The registered model's.
        version: The one that answers; "" while there is none.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(_merged(folder), name, version))
    return generate_latest(registry)


class _Collector:
    def __init__(self, counted: Counter[str], name: str, version: str) -> None:
        self.counted, self.name, self.version = counted, name, version

    def collect(self) -> Iterator[Metric]:
        for name, (said, labels) in COUNTERS.items():
            family = CounterMetricFamily(PREFIX + name, said, labels=labels)
            found = [key.split("\n") for key in sorted(self.counted) if key.split("\n")[0] == name]
            for key in found or ([] if labels else [[name]]):
                family.add_metric(key[1:], self.counted["\n".join(key)])
            yield family
        yield self._histogram()
        yield GaugeMetricFamily(PREFIX + AWAY, "1 while the tracking server does not answer", self.counted[AWAY])
        version = GaugeMetricFamily(PREFIX + "model_version", "The version that answers", labels=["name", "version"])
        if self.version:
            version.add_metric([self.name, self.version], 1)
        yield version

    def _histogram(self) -> Metric:
        total, buckets = 0.0, []
        for key in BUCKETS:
            total += self.counted[key]
            buckets.append((key.split()[1], total))
        family = HistogramMetricFamily(PREFIX + "request_seconds", "From a request's last byte to its answer")
        family.add_metric([], buckets, self.counted[SUM])
        return family


def _merged(folder: Path) -> Counter[str]:
    counted: Counter[str] = Counter()
    for path in folder.glob("*.counters"):
        for key, value in _entries(path.read_bytes()):
            if key in MOST:
                counted[key] = max(counted[key], value)  # type: ignore[assignment]
            else:
                counted[key] += value  # type: ignore[assignment]
    return counted


def _entries(content: bytes | mmap.mmap) -> Iterator[tuple[str, float]]:
    values = memoryview(content)[: SLOTS * 8].cast("d")
    for slot in range(SLOTS):
        start = SLOTS * 8 + slot * KEY
        if key := bytes(content[start : start + KEY]).rstrip(b"\0").decode():
            yield key, values[slot]
