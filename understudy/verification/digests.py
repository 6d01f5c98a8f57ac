"""What a folder's files are now, as digests; without MLflow, for the processes that have none in them."""

import hashlib
import json
from pathlib import Path

DIGEST = "understudy.digest"  # of a version, with the digest of its manifest


def manifest_of(folder: Path) -> str:
    """The text of the manifest that a folder's files have now."""
    return json.dumps(file_digests(folder), indent=1, sort_keys=True)


def digest(folder: Path) -> str:
    """The digest of the manifest that a folder's files have now."""
    return hashlib.sha256(manifest_of(folder).encode()).hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """Every file's path in the folder, and its SHA-256 digest."""
    digests = {}
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
