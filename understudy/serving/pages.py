"""What the live server says of itself: everything but the answers to rows."""

import json
import time
from pathlib import Path
from typing import Any

from understudy.schema.json_schema import row_schema
from understudy.serving import counters
from understudy.serving.current import Served
from understudy.serving.refusal import error

JSON = b"application/json"
Page = tuple[int, bytes, bytes]


class Pages:
    """Pages to GET; each is a status, a body and its Content-Type.

    Args:
        name: The registered model's.
        stage: The stage that is followed.
        folder: That the processes' counters are in.
    """

    def __init__(self, name: str, stage: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._called = {"name": name, "stage": stage}
        self.none_yet = f"{name} has no version in {stage} that could be served yet"
        self.paths = {
            "/ping": self._ping,
            "/health": self._health,
            "/version": self._version,
            "/schema": self._schema,
            "/metrics": self._metrics,
        }

    def page(self, path: str, served: Served | None) -> Page:
        """The page at a path that is one of `paths`."""
        return self.paths[path](served)

    def _ping(self, served: Served | None) -> Page:
        return _json(200, {"status": "alive"})

    def _health(self, served: Served | None) -> Page:
        if served is None:
            return _json(200, {"status": "waiting", "message": self.none_yet})
        return _json(200, {"status": "serving", "version": served.version.number})

    def _version(self, served: Served | None) -> Page:
        if served is None:
            return _json(503, error(503, self.none_yet))
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(served.since))
        version = {"version": served.version.number, "manifest": served.version.digest, "since": since}
        return _json(200, self._called | version)

    def _schema(self, served: Served | None) -> Page:
        if served is None:
            return _json(503, error(503, self.none_yet))
        status, body, _ = _json(200, row_schema(served.scorer.table))
        return status, body, b"application/schema+json"

    def _metrics(self, served: Served | None) -> Page:
        version = served.version.number if served else ""
        return 200, counters.exposition(self._folder, self._name, version), counters.CONTENT_TYPE


def _json(status: int, said: Any) -> Page:
    return status, json.dumps(said).encode(), JSON
