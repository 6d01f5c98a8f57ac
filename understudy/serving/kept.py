"""The last version that a live server has verified, kept in a folder of the user's for the next start."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from understudy.serving.current import Version
from understudy.verification import manifest

LAST = "last.json"


class Kept:
    """One version's files and its digest.

    Args:
        folder: Of all that are kept.
        uri: The tracking store's.
        name: The registered model's.
        stage: The stage's.
    """

    def __init__(self, folder: Path, uri: str, name: str, stage: str) -> None:
        mark = "\n".join((uri, name, stage))
        self._folder = folder / hashlib.sha256(mark.encode()).hexdigest()[:12]

    def last(self) -> Version | None:
        """The version that was kept last; None if there is none, or none that can be read."""
        try:
            return Version(**json.loads((self._folder / LAST).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def copy(self, version: Version) -> bool:
        """Copy a version's files to its folder, and say whether they are there and what was registered."""
        kept, copy = self._folder / version.digest, Path(version.folder)
        if not version.digest or not kept.is_dir():
            return False
        shutil.copytree(kept, copy)
        if manifest.digest(copy) == version.digest:
            return True
        shutil.rmtree(copy)
        return False

    def keep(self, version: Version) -> None:
        """Keep a version, and no other. Raises `OSError` where that cannot be written."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept, last = self._folder / version.digest, self._folder / LAST
        new, new_last = (self._folder / f"{name}.{os.getpid()}" for name in (version.digest, LAST))
        if not kept.is_dir() or manifest.digest(kept) != version.digest:
            shutil.rmtree(new, ignore_errors=True)
            shutil.copytree(version.folder, new)
            shutil.rmtree(kept, ignore_errors=True)
            new.rename(kept)
        new_last.write_text(json.dumps(asdict(version)))
        new_last.replace(last)
        for path in self._folder.iterdir():
            if path.is_dir() and path != kept:
                shutil.rmtree(path, ignore_errors=True)
            elif path not in (kept, last):
                path.unlink(missing_ok=True)
