"""The version that a worker answers with, and how another one takes its place between two requests.

The keeper (`follow.py`) puts a verified version's files into a folder and names it in a small file. Each worker looks
at that file, loads what it names in a thread, lets it score its stored rows, and only then exchanges one reference.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from understudy.scoring import scorer
from understudy.scoring.scorer import Scorer
from understudy.serving.counters import Counters

LOOK = 0.1  # seconds between two looks
AGAIN = 10.0  # seconds until a version that could not be loaded is tried again
NAMED = "current.json"


@dataclass(frozen=True)
class Version:
    """A verified version: its number, its manifest's digest, and the folder that a copy of its files is in."""

    number: str
    digest: str
    folder: str = field(compare=False)


@dataclass(frozen=True)
class Served:
    """A version that answers.

    Args:
        version: Which one.
        scorer: What answers.
        types: Form ("raw", "encoded") to column to whether its cells are text.
        since: When it was loaded, in seconds since 1970.
        header: Of its answers, which names it.
    """

    version: Version
    scorer: Scorer
    types: dict[str, dict[str, bool]]
    since: float
    header: bytes


def name(folder: Path, version: Version) -> None:
    """Let the workers know of a version; they see the old file or the new one, never half of it."""
    new = folder / f"{NAMED}.new"
    new.write_text(json.dumps(asdict(version)))
    new.replace(folder / NAMED)


def named(folder: Path) -> Version:
    """The version that the workers were told of."""
    return Version(**json.loads((folder / NAMED).read_text()))


class Current:
    """What a worker answers with: `served`, None until there is a first version."""

    def __init__(self, folder: Path, counters: Counters, called: str) -> None:
        self.served: Served | None = None
        self._folder, self._counters, self._called = folder, counters, called
        self._seen = self._refused = 0
        self._again = 0.0

    def look(self) -> None:
        """Take over a version that is named since the last look, if there is one."""
        changed = _changed(self._folder / NAMED)
        if changed == self._seen or (changed == self._refused and time.monotonic() < self._again):
            return
        try:
            self._take(named(self._folder))
            self._seen = changed
        except Exception as error:  # it has passed the keeper's trial; whatever the matter is, the old one goes on
            if changed != self._refused:
                self._counters.add(1, "refused_versions")
            self._refused, self._again = changed, time.monotonic() + AGAIN
            tell(f"{self._called}: a worker refuses what it was told of: {type(error).__name__}: {error}")

    async def follow(self) -> None:
        """Look all the while, in a thread."""
        while True:
            await asyncio.sleep(LOOK)
            await asyncio.get_running_loop().run_in_executor(None, self.look)

    def _take(self, version: Version) -> None:
        before = self.served
        if before and before.version == version:
            return
        self.served = load(version)
        if before:
            self._counters.add(1, "swaps")
        tell(f"{self._called} version {version.number} answers" + (f", {before.version.number} did" if before else ""))


def load(version: Version) -> Served:
    """A version that is ready to answer. Raises whatever is wrong with it."""
    loaded = scorer.load(Path(version.folder))
    loaded.smoke()
    forms = {"raw": loaded.table.columns, "encoded": loaded.table.encoded}
    types = {form: {column.name: column.is_text for column in columns} for form, columns in forms.items()}
    return Served(version, loaded, types, time.time(), f"x-model-version: {version.number}\r\n".encode())


def tell(line: str) -> None:
    """Print a line for people, whole even when several processes print."""
    sys.stderr.flush()
    os.write(2, f"{' '.join(line.split())}\n".encode())


def _changed(path: Path) -> int:
    try:
        return path.stat().st_ino + path.stat().st_mtime_ns
    except OSError:
        return 0


if __name__ == "__main__":  # the keeper's trial of a version, in a process that may break
    load(Version("", "", sys.argv[1]))
