"""What the live server counts and logs of the versions that answer, as counts and arrays."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import requests
from prometheus_client.parser import text_string_to_metric_families

from understudy.errors import UserError
from understudy.monitoring import log_rows
from understudy.probation.looks import Share
from understudy.registry.stages import STAGES
from understudy.schema import logged

PATIENCE = 5.0  # seconds for the live server's answer
OF_A_REQUEST = [logged.TIME, "request"]  # all rows of a request have the same time; clients may repeat an id


class ServerAway(Exception):  # noqa: N818
    """The live server does not answer, or not as one does."""


@dataclass(frozen=True)
class Served:
    """What a live server has counted of a version.

    Args:
        requests: That it has answered, in whatever way.
        failed: Those of them that were answered with 5xx.
        slow: Those of them that certainly took longer than the limit.
        rows: That it has scored.
    """

    requests: int = 0
    failed: int = 0
    slow: int = 0
    rows: int = 0

    def plus(self, other: "Served", sign: int = 1) -> "Served":
        """The sums of the counts, or with -1 as sign their differences."""
        return Served(*(own + sign * more for own, more in zip(astuple(self), astuple(other), strict=True)))


def served(server: str, name: str, milliseconds: float) -> tuple[float, float, Callable[[str], Served]]:
    """What a live server has counted of each version since it was started.

    Returns when that was, in seconds since 1970; the milliseconds above which it counts an answer as slow, which are
    infinite where it has no bucket from the limit on; and the counts of a version by its number.

    Args:
        server: Its address.
        name: The registered model's.
        milliseconds: Answers that took longer are meant to be slow.

    Raises:
        ServerAway: It does not answer.
        UserError: It answers for another registered model.
    """
    try:
        answer = requests.get(f"{server.rstrip('/')}/metrics", timeout=PATIENCE)
        answer.raise_for_status()
        samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    except (requests.RequestException, ValueError) as error:
        raise ServerAway(f"the live server at {server} does not answer: {type(error).__name__}") from None
    names = {sample.labels["name"] for sample in samples if sample.name == "understudy_model_version"}
    if names - {name}:
        raise UserError(
            f"the server at {server} answers for {', '.join(sorted(names))}", f"name the one of {name} with --server"
        )

    started = max((sample.value for sample in samples if sample.name == "understudy_start_seconds"), default=0.0)
    timed = [sample for sample in samples if sample.name == "understudy_request_seconds_bucket"]
    bounds = {float(sample.labels["le"]) for sample in timed}
    limit = milliseconds / 1000
    above = min((bound for bound in bounds if bound >= limit), default=limit)

    def of(version: str) -> Served:
        own = [sample for sample in samples if sample.labels.get("version") == version]
        statuses = [sample for sample in own if sample.name == "understudy_requests_total"]
        buckets = {float(of.labels["le"]): int(of.value) for of in timed if of.labels.get("version") == version}
        return Served(
            requests=sum(int(sample.value) for sample in statuses),
            failed=sum(int(sample.value) for sample in statuses if sample.labels["status"].startswith("5")),
            slow=max(buckets.values()) - buckets[above] if buckets else 0,
            rows=sum(int(sample.value) for sample in own if sample.name == "understudy_rows_total"),
        )

    return started, milliseconds if above == limit else above * 1000, of


class ServerCounts:
    """What a live server counts of a version and the one before, also if it is started anew meanwhile.

    Args:
        server: Its address.
        name: The registered model's.
        versions: The number of the version on probation, and that of the one before.
        milliseconds: Answers that took longer are slow.
        is_again: Whether the first version has been in Production before; what was counted of it until now does not
            count then.

    Attributes:
        above: The milliseconds above which the server counts an answer as slow, see `served`.
    """

    def __init__(self, server: str, name: str, versions: tuple[str, str], milliseconds: float, is_again: bool) -> None:
        self._asked, self._versions, self._is_again = (server, name, milliseconds), versions, is_again
        self._carried = dict.fromkeys(versions, Served())
        self._last = dict.fromkeys(versions, Served())
        self._started, self.above = 0.0, milliseconds

    def read(self) -> tuple[Served, Served]:
        """What was counted of both until now. Raises as `served` does."""
        started, self.above, of = served(*self._asked)
        for version in self._versions:
            if started != self._started:
                self._carried[version] = self._carried[version].plus(self._last[version])
            self._last[version] = of(version)
        self._started = started
        new, before = self._versions
        if self._is_again:
            self._carried[new], self._is_again = Served().plus(self._last[new], -1), False
        return self._carried[new].plus(self._last[new]), self._carried[before].plus(self._last[before])


@dataclass(frozen=True)
class LoggedRequests:
    """What the log has of a version's requests, in the order of their times.

    Args:
        rows: Of each, shape (requests,).
        is_refused: Whether rows of it were refused, and so all of it, shape (requests,).
    """

    rows: "pd.Series[int]"
    is_refused: "pd.Series[bool]"

    @classmethod
    def of(cls, parts: list[pa.Table]) -> "LoggedRequests":
        """The requests of rows of the log, which come in parts."""
        rows = pa.concat_tables(parts).to_pandas() if parts else pd.DataFrame(columns=[*OF_A_REQUEST, "fault"])
        by_request = rows.assign(is_refused=rows["fault"].notna()).groupby(OF_A_REQUEST)["is_refused"]
        return cls(by_request.size(), by_request.any())

    def refused(self, count: int | None = None) -> Share:
        """How many of the first requests were refused, by default of all."""
        first = self.is_refused[:count]
        return Share(int(first.sum()), len(first))


def logged_requests(folder: Path, version: str, since: datetime) -> LoggedRequests:
    """What the log has of the requests that a version in Production has answered after a time.

    Raises:
        UserError: There is no such folder, or a file in it is broken.
    """
    parts = log_rows.read(folder, [*OF_A_REQUEST, "version", "stage", "fault"], since)
    return LoggedRequests.of([part.filter(is_answer(part, version)) for part in parts])


def is_answer(rows: pa.Table, version: str) -> pa.ChunkedArray:
    """Whether a version has answered or refused rows of the log in Production, shape (n,)."""
    return pc.and_(pc.equal(rows["version"], version), pc.equal(rows["stage"], STAGES["production"]))
