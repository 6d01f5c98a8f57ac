"""The git repository that the project's folder is part of, if it is part of one."""

import subprocess
from collections.abc import Collection
from pathlib import Path

from understudy.errors import UserError

PACKAGE = Path(__file__).parents[1]
SHOWN = 10  # digits of a commit


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in the project's folder, without the repository's hooks.

    Raises:
        UserError: Git is not installed.
    """
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        return subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError("git is not installed", "install git, and start again") from None


def is_past(folder: Path, modules: Collection[str]) -> bool:
    """Whether each of these modules is, byte for byte, one that the package has or had, up to the commit at hand.

    Args:
        folder: Of a copy of the package.
        modules: Their paths in it.
    """
    try:
        past = set(git("rev-list", "--objects", "HEAD", "--", PACKAGE.name).stdout.splitlines())
        blobs = git("hash-object", "--no-filters", "--", *(str(folder / module) for module in modules)).stdout.split()
    except UserError:
        return False
    prefix = git("rev-parse", "--show-prefix").stdout.strip()
    return len(blobs) == len(modules) and all(
        f"{blob} {prefix}{PACKAGE.name}/{module}" in past for blob, module in zip(blobs, modules, strict=True)
    )
