"""The last verified versions of a stage, kept in a folder of the user's; and the process that fetches one into it.

python -m understudy.verification.version_cache FOLDER NAME NUMBER

The process is the only part of the live server that loads MLflow, and ends when the version lies in the folder. The
workers load it from there, as does a server that is started while the tracking server is away.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from understudy import errors
from understudy.errors import UserError
from understudy.scoring import scorer
from understudy.verification.digests import DIGEST, digest

LAST, LOCK, REFUSED = "last.json", "lock", "refused.json"
AGAIN = 60.0  # seconds until a version that was refused is looked at again
LONGEST = 120.0  # seconds for a version to be fetched and verified


@dataclass(frozen=True)
class VersionKey:
    """Which version: its number, and the digest of its manifest."""

    number: str
    digest: str

    def write(self, path: Path) -> None:
        """Write the key to a file, which others see as it was or as it is, never in part."""
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(asdict(self)))
        new.replace(path)

    @classmethod
    def read(cls, path: Path) -> "VersionKey | None":
        """The key in a file; None if there is none that can be read."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None


class VersionCache:
    """The folder of one stage of one registered model; all servers of this user on this host share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, folder: Path, uri: str, name: str, stage: str) -> "VersionCache":
        """The cache of a stage of a model in a tracking store, in a folder that holds all caches."""
        mark = hashlib.sha256("\n".join((uri, name, stage)).encode()).hexdigest()[:12]
        (folder / mark).mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(folder / mark)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait until no other process holds the lock, and hold it."""
        with (self.folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def files(self, key: VersionKey) -> Path:
        """Where a version's files are, if the cache holds it."""
        return self.folder / key.digest

    def holds(self, key: VersionKey) -> bool:
        """Whether the version's files are there, and are those that were registered."""
        return bool(key.digest) and self.files(key).is_dir() and digest(self.files(key)) == key.digest

    def last(self) -> VersionKey | None:
        """The version that has answered last."""
        return VersionKey.read(self.folder / LAST)

    def answers(self, key: VersionKey) -> None:
        """Note that a version answers."""
        key.write(self.folder / LAST)

    def put(self, key: VersionKey, files: Path) -> None:
        """Keep a copy of a version's files beside those of the version that answers, and no other's."""
        new = self.folder / f"{key.digest}.{os.getpid()}"
        shutil.copytree(files, new)
        shutil.rmtree(self.files(key), ignore_errors=True)
        new.rename(self.files(key))
        kept = {self.files(version) for version in (key, self.last()) if version}
        for path in self.folder.iterdir():
            if path.is_dir() and path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def refuse(self, key: VersionKey) -> None:
        """Let nobody fetch a version again for a minute."""
        key.write(self.folder / REFUSED)

    def refuses(self, key: VersionKey) -> bool:
        """Whether the version was refused within the last minute."""
        path = self.folder / REFUSED
        return VersionKey.read(path) == key and time.time() - path.stat().st_mtime < AGAIN

    def fetch(self, uri: str, name: str, number: str, temporary: Path) -> str | None:
        """Let a process of its own put a version here; returns why it could not, if so.

        If that is killed, what it leaves behind is in the temporary folder.
        """
        command = [sys.executable, "-m", "understudy.verification.version_cache", str(self.folder), name, number]
        env = os.environ | {"MLFLOW_TRACKING_URI": uri, "TMPDIR": str(temporary)}
        try:
            ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LONGEST)
        except subprocess.TimeoutExpired:
            return f"it could not be fetched within {LONGEST:.0f} seconds"
        if ended.returncode == 0:
            return None
        lines = ended.stderr.strip().splitlines() or [f"its process ended with {ended.returncode}"]
        if ended.returncode != 2:
            return lines[-1]
        problem, fix = (line.partition(": ")[2] for line in lines[-2:])
        return f"{problem} (fix: {fix})"


def fetch(cache: VersionCache, name: str, number: str) -> None:
    """Put a version into the cache if its files are those that were registered, and it gives its stored answers.

    Raises:
        UserError: They are not, or it does not.
    """
    from understudy.tracking import connection
    from understudy.verification import manifest

    client = connection.connect(fail_fast=True)
    version = client.get_model_version(name, number)
    with manifest.verified(client, version) as copy:
        try:
            scorer.load(copy).smoke()
        except Exception as error:
            raise UserError(f"{type(error).__name__}: {error}", "promote another version") from error
        cache.put(VersionKey(number, version.tags[DIGEST]), copy)


if __name__ == "__main__":
    errors.run(lambda: fetch(VersionCache(Path(sys.argv[1])), *sys.argv[2:]))
