"""How scripts end: a mistake in two lines and exit 2, a refusal in one and exit 3, and neither with a traceback."""

import errno
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any, NoReturn, TextIO

# Python looks for garbage after so many new objects, by default 700. Importing MLflow and reading a thousand runs make
# hundreds of thousands that stay: looking through them took a quarter of `promote.py show`.
OBJECTS = 50_000


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

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str]]:
        """It comes from other processes too, whose errors are copied by what they were made from."""
        return type(self), (self.problem, self.fix)


class Refused(Exception):  # noqa: N818
    """A decision against what was asked. It is nobody's mistake, and nothing was moved unless `why` says so.

    Args:
        why: One sentence, without a full stop.

    Attributes:
        values: What a script that answers in JSON says of it besides; filled in by whoever knows it.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.values: Mapping[str, Any] = {}


RED, GREEN, BOLD = "31", "32", "1"  # what a terminal calls them
FREE_SPACE = "free some space there, and start again"
MAKE_WRITABLE = "make it writable, or use another folder"
# What the operating system says of a file or a disk: the verb that failed, and the fix.
OF_THE_DISK = {
    errno.ENOSPC: ("write", FREE_SPACE),
    errno.EDQUOT: ("write", FREE_SPACE),
    errno.EROFS: ("write", MAKE_WRITABLE),
    errno.EACCES: ("open", "make it readable and writable for this user"),  # it may be either
}
# What SQLite and MLflow say: a pattern, what people read instead, in which {} stands for the group, and the fix. The
# first pattern that fits counts. MLflow's server repeats what SQLite says, and MLflow's client what the server says.
OF_MLFLOW = (
    (r"(database or disk is full)", "cannot write the tracking store: {}", FREE_SPACE),
    (r"(attempt to write a readonly database)", "cannot write the tracking store: {}", MAKE_WRITABLE),
    (r"(unable to open database file)", "cannot write the tracking store: {}", MAKE_WRITABLE),
    (
        r"endpoint (\S+) failed .*Invalid Host header",
        "the tracking server does not go by the name in MLFLOW_TRACKING_URI: {}",
        "use another name of it, or let it allow this one: HOSTS in docs/operations.md",
    ),
    (
        r"endpoint (\S+) failed with error code 401",
        "the tracking server does not know this account: {}",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to one that it knows",
    ),
    (
        r"endpoint (\S+) failed with error code 403",
        "the tracking server does not allow that to this account: {}",
        "use an account that may, see docs/operations.md: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    ),
)
# What MLflow's client says when it gives up: the server's address, the path, and why.
GIVEN_UP = re.compile(r"API request to (https?://[^/]+)(\S*) failed with (.*)", re.DOTALL)
SERVER_DISK = "see in its log whether the disk of its artifacts is full, then start again"
SERVER_LOG = "look into its log; starting again closes the runs that this one could not"
_signals: list[int] = []


def run(main: Callable[[], None]) -> None:
    """Call a script's main function and turn its end into an exit code.

    Exits 2 after a `UserError`, when a disk is full or read-only or a file is not for this user, or when a server has
    gone away or does not let this account do something; 3 after a `Refused`; 130 after Ctrl-C, 143 after SIGTERM.
    Anything else is a bug and keeps its traceback.
    """
    gc.set_threshold(OBJECTS, *gc.get_threshold()[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        main()
    except UserError as error:
        _end(error)
    except Refused as refused:
        print(f"{painted('refused:', RED, sys.stderr)} {visible(refused.why)}", file=sys.stderr)
        sys.exit(3)
    except Exception as error:
        # What a signal cuts off may fail in its own way while it is unwound, as joblib's workers do.
        if stopped():
            sys.exit(128 + _signals[0])
        mistake = known(error)
        if mistake is None:
            raise
        _end(mistake)


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """End after a `UserError` that comes before `run` is called: one in a declaration, which is made on import."""
    if isinstance(error, UserError):
        _end(error)
    sys.__excepthook__(kind, error, traceback)


sys.excepthook = _uncaught


def visible(text: str) -> str:
    """The text with an escape for each character that a terminal would obey instead of showing it."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def painted(text: str, style: str, stream: TextIO | None = None) -> str:
    """The text in a style, for a stream (stdout by default) that is a terminal where nobody has asked for none.

    Source:
        What asks for none: a NO_COLOR that is not empty (no-color.org), and a terminal that is called dumb.
    """
    shows = (stream or sys.stdout).isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
    return f"\033[{style}m{text}\033[0m" if shows and style else text


def is_known(error: Exception) -> bool:
    """Whether it says something of a disk, a server or an account that `run` puts into two lines."""
    return known(error) is not None


def known(error: Exception) -> UserError | None:
    """What an exception says of a disk, a server or an account, in words for people; None if it says nothing."""
    return next(_known(error), None)


def _end(error: UserError) -> NoReturn:
    # Two lines, whatever a file's header or a query brings along.
    problem, fix = (visible(" ".join(text.split())) for text in (error.problem, error.fix))
    said, then = painted("error:", RED, sys.stderr), painted("fix:", BOLD, sys.stderr)
    print(f"{said} {problem}\n{then} {fix}", file=sys.stderr)
    sys.exit(2)


def _known(error: Exception) -> Iterator[UserError]:
    """What an exception, or one that it came from, says of a disk, a file or a server, in words for people."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in OF_THE_DISK:
            verb, fix = OF_THE_DISK[cause.errno]
            yield UserError(f"cannot {verb} {cause.filename2 or cause.filename or 'a file'}: {cause.strerror}", fix)
        for pattern, problem, fix in OF_MLFLOW:
            if match := re.search(pattern, str(cause), re.DOTALL):
                yield UserError(problem.format(match[1]), fix)
    # The first failure explains the others: without the server, the ending of the runs fails as well.
    for cause in reversed(causes):
        if given_up := GIVEN_UP.match(str(cause)):
            yield _of_the_server(*given_up.groups())


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that it came from, the first of all last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_the_server(server: str, path: str, why: str) -> UserError:
    called = f"tracking server at {re.sub('//[^/]*@', '//', server)}"
    status = re.search("too many ([0-9]+) error", why)
    if "/mlflow-artifacts/" in path and (status or "Connection aborted" in why):
        return UserError(f"the {called} does not take or give {path.rpartition('/')[2]}", SERVER_DISK)
    if status and status[1] == "503":
        return UserError(f"the database of the {called} does not answer", SERVER_LOG)
    return UserError(f"the {called} {f'fails (error {status[1]})' if status else 'does not answer'}", SERVER_LOG)


def stopped() -> bool:
    """Whether Ctrl-C or SIGTERM has come."""
    return bool(_signals)


def _stop(number: int, frame: FrameType | None) -> None:
    # Ctrl-C under `mlflow run` brings a SIGTERM right behind, which must not cut off the ending of the runs.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _signals.append(number)
    sys.exit(128 + number)
