"""Following a stage: a thread asks what its alias names; in each worker it exchanges the version that answers.

It asks over plain REST or by one SELECT, since MLflow's client takes 200 MB. Only where the alias names another
version, one process with MLflow in it fetches that (`verification/version_cache.py`), for all workers of a host.
"""

import configparser
import os
import sqlite3
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from understudy.scoring import scorer
from understudy.scoring.scorer import Scorer
from understudy.serving import metrics
from understudy.verification.digests import DIGEST
from understudy.verification.version_cache import VersionCache, VersionKey

PATIENCE = 5.0  # seconds for the tracking server's answer
CURRENT = "current.json"  # in the server's own folder: which version answers, for a worker that is started anew
ALIAS = "/api/2.0/mlflow/registered-models/alias"
NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # no such registered model, no such alias
SELECT = f"""
    SELECT a.version, t.value FROM registered_model_aliases a LEFT JOIN model_version_tags t
    ON t.workspace = a.workspace AND t.name = a.name AND t.version = a.version AND t.key = '{DIGEST}'
    WHERE a.workspace = :workspace AND a.name = :name AND a.alias = :alias
"""  # noqa: S608


@dataclass(frozen=True)
class Settings:
    """What `serve.sh --live` was started with.

    Args:
        folder: The server's own; removed when it ends.
        uri: Of the tracking store.
        name: The registered model's.
        stage: That is followed.
        poll: Seconds between two looks at the alias.
        cache: The folder of all version caches.
        log: The folder for rows and answers; None to keep none.
        shadow: The stage of the version that is asked beside; None for none.
        started: When that was, in seconds since 1970.
    """

    folder: Path
    uri: str
    name: str
    stage: str
    poll: float
    cache: Path
    log: Path | None
    shadow: str | None = None
    started: float = 0.0


@dataclass(frozen=True)
class ServedVersion:
    """A version that can answer.

    Args:
        key: Which version.
        scorer: What answers.
        types: Form ("raw", "encoded") to column to whether its cells are text.
        since: When it was loaded, in seconds since 1970.
    """

    key: VersionKey
    scorer: Scorer
    types: dict[str, dict[str, bool]]
    since: float


class StageFollower(ABC):
    """What a process knows of a stage; `key` is the version that it uses, None until there is a first one."""

    def __init__(self, settings: Settings, called: str) -> None:
        self.key: VersionKey | None = None
        self._settings, self._called = settings, called
        self.cache = VersionCache.of(settings.cache, settings.uri, settings.name, settings.stage)
        self._told: str | None = None

    def start(self) -> None:
        """Follow in a thread."""
        threading.Thread(target=self._run, daemon=True).start()

    def look(self) -> None:
        """Ask once what the alias names, and use that if it is another version than before."""
        try:
            key = named(self._settings)
        except Exception as error:  # whatever it is, the version that is used goes on
            metrics.AWAY.set(1)
            self._tell(f"the tracking server does not answer: {type(error).__name__}")
            key = self.cache.last()
            if self.key is None and key and self.cache.holds(key):
                self._exchange(key)
            return
        metrics.AWAY.set(0)
        if key is None:
            self._tell(f"no version is in {self._settings.stage}")
            self._leave()
        elif self.key != key and self._fetched(key):
            self._exchange(key)

    @abstractmethod
    def _exchange(self, key: VersionKey) -> None:
        """Use a version that the cache holds."""

    @abstractmethod
    def _leave(self) -> None:
        """Do what is to be done when the alias names no version."""

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:  # a full disk, or a version that cannot be loaded; the old one goes on
                self._tell(f"{type(error).__name__}: {error}")
            time.sleep(self._settings.poll)

    def _fetched(self, key: VersionKey) -> bool:
        """Whether the cache holds a version, after one process of the host has had it fetched."""
        with self.cache.lock():
            if self.cache.holds(key):
                return True
            if self.cache.refuses(key):
                return False
            why = self.cache.fetch(self._settings.uri, self._settings.name, key.number, self._settings.folder)
            if why and named(self._settings) == key:  # raises if the files cannot be read since the server has gone
                self.cache.refuse(key)
                metrics.REFUSED.inc()
                goes_on = f"version {self.key.number} goes on" if self.key else "there is no other"
                self._tell(f"version {key.number} is refused, {goes_on}: {why}")
            return not why

    def _show(self, gauge: Any, before: VersionKey | None, after: VersionKey | None) -> None:
        """Let a metric show 1 for one version and 0 for the one before."""
        for key, value in ((before, 0), (after, 1)):
            if key:
                gauge.labels(self._settings.name, key.number).set(value)

    def _tell(self, line: str) -> None:
        """Tell something once, not at every look."""
        if line != self._told:
            tell(f"{self._called}: {line}")
        self._told = line


class Follower(StageFollower):
    """What one worker answers with: `loaded`, None until there is a first version."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, settings.name)
        self.loaded: ServedVersion | None = None

    def start(self) -> None:
        """Follow in a thread; a version that the cache holds answers from the first request on."""
        with suppress(Exception):  # the thread tries again, and tells what is wrong
            key = VersionKey.read(self._settings.folder / CURRENT) or named(self._settings)
            if key and self.cache.holds(key):
                self._exchange(key)
        super().start()

    def _exchange(self, key: VersionKey) -> None:
        """Load a version beside the one that answers, and let it take over."""
        before, current = self.key, self._settings.folder / CURRENT
        self.loaded, self.key = load(key, self.cache.files(key)), key
        with self.cache.lock():  # a swap is counted once, though every worker makes it
            if before and VersionKey.read(current) != key:
                metrics.SWAPS.inc()
            key.write(current)
            self.cache.answers(key)
        self._show(metrics.VERSION, before, key)
        self._tell(f"version {key.number} answers" + (f", {before.number} did" if before else ""))

    def _leave(self) -> None:
        """Let the last version go on."""


class ShadowFollower(StageFollower):
    """What the process that asks the shadow knows of its stage; whether it runs is not told here."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(replace(settings, stage=settings.shadow or ""), f"{settings.name}, shadow")

    def _exchange(self, key: VersionKey) -> None:
        with self.cache.lock():
            self.cache.answers(key)
        self._show(metrics.SHADOW_VERSION, self.key, key)
        self.key = key
        self._tell(f"version {key.number} shadows")

    def _leave(self) -> None:
        """Ask no version."""
        self._show(metrics.SHADOW_VERSION, self.key, None)
        self.key = None


def load(key: VersionKey, folder: Path) -> ServedVersion:
    """A version that has given its stored answers. Raises whatever is wrong with it."""
    loaded = scorer.load(folder)
    loaded.smoke()
    forms = {"raw": loaded.table.columns, "encoded": loaded.table.encoded}
    types = {form: {column.name: column.is_text for column in columns} for form, columns in forms.items()}
    return ServedVersion(key, loaded, types, time.time())


def named(settings: Settings) -> VersionKey | None:
    """The version that the stage's alias names; None if it names none.

    Raises:
        Exception: The store does not answer, in whatever way.
    """
    alias = {"name": settings.name, "alias": settings.stage.lower()}
    if settings.uri.startswith(("http://", "https://")):
        return _by_rest(settings.uri, alias)
    asked = alias | {"workspace": os.environ.get("MLFLOW_WORKSPACE", "default")}
    if settings.uri.startswith("sqlite:///"):
        path = quote(unquote(settings.uri.removeprefix("sqlite:///").partition("?")[0]))
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)) as file:
            row: Any = file.execute(SELECT, asked).fetchone()
    else:
        import sqlalchemy  # takes 12 MB

        with sqlalchemy.create_engine(settings.uri, poolclass=sqlalchemy.NullPool).connect() as database:
            row = database.execute(sqlalchemy.text(SELECT), asked).first()
    return VersionKey(str(row[0]), row[1] or "") if row else None


def _by_rest(uri: str, alias: Mapping[str, str]) -> VersionKey | None:
    import requests  # takes 5 MB

    env, account = os.environ, _account()
    headers = {"X-MLFLOW-WORKSPACE": env.get("MLFLOW_WORKSPACE")}
    if not account and "MLFLOW_TRACKING_TOKEN" in env:
        headers["Authorization"] = f"Bearer {env['MLFLOW_TRACKING_TOKEN']}"
    is_checked = env.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("true", "1")
    answer = requests.get(
        uri.rstrip("/") + ALIAS,
        alias,
        headers=headers,
        auth=account,
        timeout=PATIENCE,
        verify=env.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or is_checked,
        cert=env.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
    )
    if answer.status_code in (400, 404) and answer.json()["error_code"] in NOT_THERE:
        return None
    answer.raise_for_status()
    version = answer.json()["model_version"]
    tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
    return VersionKey(version["version"], tags.get(DIGEST, ""))


def _account() -> tuple[str, str] | None:
    """The account's name and password, from where MLflow's client takes them too."""
    file = configparser.ConfigParser()
    file.read(Path.home() / ".mlflow" / "credentials")
    saved = dict(file["mlflow"]) if file.has_section("mlflow") else {}
    keys = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    name, password = (os.environ.get(key) or saved.get(key.lower()) for key in keys)
    return (name, password) if name and password else None


def tell(line: str) -> None:
    """Print a line for people, whole even when several processes print."""
    sys.stderr.flush()
    os.write(2, f"{' '.join(line.split())}\n".encode())
