"""How a person's mistake ends: two lines on standard error and exit 2, never a traceback."""

import signal
import sys
from collections.abc import Callable
from types import FrameType


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


_signals: list[int] = []


def run(main: Callable[[], None]) -> None:
    """Call a script's main function and turn its end into an exit code.

    Exits 2 after a `UserError`, 130 after Ctrl-C, 143 after SIGTERM; anything else is a bug and
    keeps its traceback.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        main()
    except UserError as error:
        # Two lines, whatever a file's header or a query brings along.
        problem, fix = (" ".join(said.split()) for said in (error.problem, error.fix))
        print(f"error: {problem}\nfix: {fix}", file=sys.stderr)
        sys.exit(2)
    except Exception:
        # What a signal cuts off may fail in its own way while it is unwound, as joblib's workers do.
        if not stopped():
            raise
        sys.exit(128 + _signals[0])


def stopped() -> bool:
    """Whether Ctrl-C or SIGTERM has come."""
    return bool(_signals)


def _stop(number: int, frame: FrameType | None) -> None:
    # Ctrl-C under `mlflow run` brings a SIGTERM right behind, which must not cut off the ending of the runs.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _signals.append(number)
    sys.exit(128 + number)
