"""The git repository that the project's folder is part of, if it is part of one."""

import re
import subprocess
from collections.abc import Collection
from pathlib import Path

from understudy.errors import UserError

PACKAGE = Path(__file__).parents[1]
SHOWN = 10  # digits of a commit
# A line of `git log --raw`: of each changed file two modes, the old and the new digest, a letter and the path.
CHANGE = re.compile(r"^:\d+ \d+ \w+ (\w+) \w\t(.+)$", re.MULTILINE)


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


def is_past(package: Path, modules: Collection[str]) -> bool:
    """Whether modules in a copy of the package are, byte for byte, some that it has or had up to this commit."""
    log = ["log", "--format=", "--raw", "--no-abbrev", "--no-renames", "-m", "--relative", "HEAD", "--", PACKAGE.name]
    try:
        past = {*CHANGE.findall(git(*log).stdout)}
        digests = git("hash-object", "--no-filters", "--", *(str(package / module) for module in modules))
    except UserError:
        return False
    paths = [f"{PACKAGE.name}/{module}" for module in modules]
    written = digests.stdout.split()
    return len(written) == len(paths) and past >= {*zip(written, paths, strict=True)}
