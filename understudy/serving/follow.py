"""The live server's keeper: follows a stage's alias, and hands verified copies of its versions to the workers.

python -m understudy.serving.follow SETTINGS     the one process of a live server that has MLflow in it

The workers see a version only when its files are, byte for byte, those that were registered, and when it has given
its stored answers in a process of its own. The last one is kept in a folder of the user's: a server that is started
while the tracking server is away answers with it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient

from understudy import errors
from understudy.errors import UserError
from understudy.registry import stages
from understudy.serving import current
from understudy.serving.counters import AWAY, Counters
from understudy.serving.current import Version, tell
from understudy.serving.kept import Kept
from understudy.serving.live import Settings
from understudy.tracking import connection
from understudy.verification import manifest

AGAIN = 60.0  # seconds until a version that was refused is looked at again
PATIENCE = 10.0  # seconds for the store's first answer; a database's client would try for minutes
TRIAL = 60.0  # seconds for a version to be loaded and to give its stored answers


class Keeper:
    """What is known of the alias, and what the workers were told of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: MlflowClient | None = None
        self._folder = Path(settings.folder)
        self._versions = self._folder / "versions"
        self._counters = Counters(self._folder / "keeper.counters")
        self._kept = Kept(Path(settings.cache), connection.uri(), settings.name, settings.stage)
        self._told = current.named(self._folder) if (self._folder / current.NAMED).exists() else None
        self._is_sure = False  # that it is what the alias names now
        self._is_none = False  # that the alias names none
        self._refused, self._again = "", 0.0
        self._said = ""
        self._lock = threading.Lock()  # the first `fall_back` may come beside a `look`

    def look(self) -> None:
        """Ask once what the alias names, and tell the workers if it is another version than before."""
        try:
            number = self._named()
            self._is_none = False
            self._counters.set(0, AWAY)
            if self._told and self._is_sure and number == self._told.number:
                self._said = self._refused = ""
            else:
                self._take(number)
        except UserError as error:
            self._is_none = True
            self._counters.set(0, AWAY)
            self._say(f"{error.problem} (fix: {error.fix})")
        except Exception as error:  # whatever it is, the workers go on
            if isinstance(error, OSError) and error.errno in errors.OF_THE_DISK:
                verb, fix = errors.OF_THE_DISK[error.errno]
                self._say(f"cannot {verb} {error.filename}: {error.strerror} (fix: {fix})")
                return
            self._counters.set(1, AWAY)
            self._say(f"the tracking server does not answer: {type(error).__name__}")
            self.fall_back()

    def fall_back(self) -> None:
        """Tell the workers of the last version that was verified here, if nobody knows of another one or of none."""
        with self._lock:
            last = self._kept.last() if self._told is None and not self._is_none else None
            if last is None:
                return
            try:
                version = replace(last, folder=str(self._place(last.digest)))
                if not self._kept.copy(version):
                    raise UserError("its copy has changed", "wait for the tracking server")
                _try(version)
            except (OSError, UserError) as error:
                self._say(f"version {last.number}, which was kept here, is not used: {error}")
            else:
                self._tell(version)

    def _named(self) -> str:
        """The number of the version that the alias names.

        Raises:
            UserError: It names none.
            Exception: The store does not answer.
        """
        if self._client is None:
            try:
                self._client = connection.connect(fail_fast=True)  # the next look is soon enough
            except UserError as error:
                raise ConnectionError(error.problem) from error
        return stages.in_stage(self._client, self._settings.name, self._settings.stage.lower())

    def _take(self, number: str) -> None:
        if number == self._refused and time.monotonic() < self._again:
            return
        try:
            version = self._fetched(number)
            _try(version)
        except UserError as error:
            self._named()  # raises if the files could not be read because the server has gone
            if number != self._refused:
                self._counters.add(1, "refused_versions")
            self._refused, self._again = number, time.monotonic() + AGAIN
            goes_on = f"version {self._told.number} goes on" if self._told else "there is no other"
            self._say(f"version {number} is refused, {goes_on}: {error.problem} (fix: {error.fix})")
            return
        with self._lock:
            self._tell(version)
        self._is_sure = True
        try:
            self._kept.keep(version)
        except OSError as error:
            self._say(f"version {number} cannot be kept for a start without a tracking server: {error}")

    def _fetched(self, number: str) -> Version:
        """A verified version, with its files in the server's own folder."""
        assert self._client is not None  # noqa: S101
        found = self._client.get_model_version(self._settings.name, number)
        digest = found.tags.get(manifest.DIGEST, "")
        with self._lock:
            self._clear()
            version = Version(number, digest, str(self._place(digest)))
            if self._kept.copy(version):
                return version
        with manifest.verified(self._client, found) as copy:
            shutil.copytree(copy, version.folder)
        return version

    def _place(self, digest: str) -> Path:
        """A new folder for a version's files."""
        self._versions.mkdir(exist_ok=True)
        return self._versions / f"{digest[:12]}-{time.time_ns()}"

    def _clear(self) -> None:
        """Remove all versions' files but those that the workers were told of."""
        for path in self._versions.glob("*"):
            if self._told is None or str(path) != self._told.folder:
                shutil.rmtree(path, ignore_errors=True)

    def _tell(self, version: Version) -> None:
        current.name(self._folder, version)
        self._told = version

    def _say(self, line: str) -> None:
        """Print a line once, not at every look."""
        if line != self._said:
            tell(f"{self._settings.name}: {line}")
        self._said = line


def _try(version: Version) -> None:
    """Let a version be loaded and give its stored answers.

    Raises:
        UserError: It cannot be loaded, gives other answers, or ends its process.
    """
    command = [sys.executable, "-m", "understudy.serving.current", version.folder]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL)
        why = (ended.stderr.strip().splitlines() or [f"its process ended with {ended.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        why = f"it has not answered within {TRIAL:.0f} seconds"
    else:
        if ended.returncode == 0:
            return
    raise UserError(why, "promote another version")


def main() -> None:
    """Follow the alias until the server ends, or is killed."""
    settings = Settings(**json.loads(sys.argv[1]))
    tempfile.tempdir = settings.folder  # which is removed even if this process ends during a download
    keeper = Keeper(settings)
    waiting = threading.Timer(PATIENCE, keeper.fall_back)
    waiting.daemon = True
    waiting.start()
    parent = os.getppid()
    while os.getppid() == parent:
        keeper.look()
        time.sleep(settings.poll)


if __name__ == "__main__":
    main()
