"""How mistakes and refusals end: two lines on standard error and exit 2, or one and exit 3; never a traceback."""

import errno
import re
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn


class UserError(Exception):
    """A mistake that the person at the keyboard can mend.

    Args:
        problem: What is wrong and where, without a full stop.
        fix: What to do about it, best as a command to type.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix


class Refused(Exception):  # noqa: N818
    """A decision against what was asked: nobody's mistake, and nothing was moved unless `why` says so.

    Args:
        why: One sentence, without a full stop.
        table: What was looked at, as lines for people; may be empty.
    """

    def __init__(self, why: str, table: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.table = table


FREE_SPACE = "free some space there, and start again"
MAKE_WRITABLE = "make it writable, or use another folder"
OF_THE_DISK = {
    errno.ENOSPC: ("write", FREE_SPACE),
    errno.EDQUOT: ("write", FREE_SPACE),
    errno.EROFS: ("write", MAKE_WRITABLE),
    errno.EACCES: ("open", "make it readable and writable for this user"),  # it may be either
}
# What SQLite says, and what MLflow's server repeats.
OF_THE_STORE = {
    "database or disk is full": FREE_SPACE,
    "attempt to write a readonly database": MAKE_WRITABLE,
    "unable to open database file": MAKE_WRITABLE,
}
# What MLflow's client repeats of a server that has accounts, or that goes by other names; the first that fits.
OF_THE_SERVER = {
    "Invalid Host header": (
        "the tracking server does not go by the name in MLFLOW_TRACKING_URI",
        "use another name of it, or let it allow this one: HOSTS in docs/operations.md",
    ),
    "failed with error code 401": (
        "the tracking server does not know this account",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to one that it knows",
    ),
    "failed with error code 403": (
        "the tracking server does not allow that to this account",
        "use an account that may, see docs/operations.md: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    ),
}
# What MLflow's client says when it gives up: the server's address, the path, and why.
GIVEN_UP = re.compile(r"API request to (https?://[^/]+)(\S*) failed with (.*)", re.DOTALL)
FULL = "see in its log whether the disk of its artifacts is full, then start again"
LOOK = "look into its log; starting again closes the runs that this one could not"
_signals: list[int] = []


def run(main: Callable[[], None]) -> None:
    """Call a script's main function and turn its end into an exit code.

    Exits 2 after a `UserError`, when a disk is full or read-only or a file is not for this user, or when a server has
    gone away or does not let this account do something; 3 after a `Refused`; 130 after Ctrl-C, 143 after SIGTERM.
    Anything else is a bug and keeps its traceback.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        main()
    except UserError as error:
        _refuse(error)
    except Refused as refused:
        print(refused.table, end="\n" if refused.table else "")
        print(f"refused: {visible(refused.why)}", file=sys.stderr)
        sys.exit(3)
    except Exception as error:
        # What a signal cuts off may fail in its own way while it is unwound, as joblib's workers do.
        if stopped():
            sys.exit(128 + _signals[0])
        refusal = next(_refusals(error), None)
        if refusal is None:
            raise
        _refuse(refusal)


def visible(text: str) -> str:
    """A text that a terminal only shows: in place of each character that it would obey, its escape."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _refuse(error: UserError) -> NoReturn:
    # Two lines, whatever a file's header or a query brings along.
    problem, fix = (visible(" ".join(said.split())) for said in (error.problem, error.fix))
    print(f"error: {problem}\nfix: {fix}", file=sys.stderr)
    sys.exit(2)


def _refusals(error: Exception) -> Iterator[UserError]:
    """What an exception, or one that it came from, says of a disk or a file, or of a server."""
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, OSError) and one.errno in OF_THE_DISK:
            where = one.filename2 or one.filename or "a file"
            verb, fix = OF_THE_DISK[one.errno]
            yield UserError(f"cannot {verb} {where}: {one.strerror}", fix)
        for said, fix in OF_THE_STORE.items():
            if said in str(one):
                yield UserError(f"cannot write the tracking store: {said}", fix)
        for said, (problem, fix) in OF_THE_SERVER.items():
            if said in str(one):
                asked = re.search(r"API request to endpoint (\S+) failed", str(one))
                yield UserError(f"{problem}: {asked[1]}" if asked else problem, fix)
    # What came first: without the server, the ending of the runs fails as well.
    for one in reversed(chain):
        if given_up := GIVEN_UP.match(str(one)):
            yield _away(*given_up.groups())


def is_known(error: Exception) -> bool:
    """Whether it says of a server, a disk or an account what `run` makes two lines of."""
    return next(_refusals(error), None) is not None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _away(server: str, path: str, why: str) -> UserError:
    where = f"tracking server at {re.sub('//[^/]*@', '//', server)}"
    status = re.search("too many ([0-9]+) error", why)
    if "/mlflow-artifacts/" in path and (status or "Connection aborted" in why):
        return UserError(f"the {where} does not take or give {path.rpartition('/')[2]}", FULL)
    if status and status[1] == "503":
        return UserError(f"the database of the {where} does not answer", LOOK)
    return UserError(f"the {where} {f'fails (error {status[1]})' if status else 'does not answer'}", LOOK)


def stopped() -> bool:
    """Whether Ctrl-C or SIGTERM has come."""
    return bool(_signals)


def _stop(number: int, frame: FrameType | None) -> None:
    # Ctrl-C under `mlflow run` brings a SIGTERM right behind, which must not cut off the ending of the runs.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _signals.append(number)
    sys.exit(128 + number)
