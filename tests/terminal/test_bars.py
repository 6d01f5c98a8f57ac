"""A bar for what takes long: in a terminal while it lasts, and nowhere else."""

import subprocess
import sys

from tests.conftest import PROJECT, environment
from tests.terminal.conftest import in_terminal

RESAMPLING = """
import numpy as np
from understudy import terminal
from understudy.figures import metrics
terminal.SHORT = float("SECONDS")
labels = np.arange(2_000) % 2
metrics.areas(labels, [labels / 2 + 0.1], 3_000)
terminal.say("all is resampled")
"""


def test_a_terminal_shows_how_far_it_is_and_clears_that() -> None:
    written = in_terminal(RESAMPLING.replace("SECONDS", "0"))
    assert "resamples/s" in written
    *bars, last = written.removesuffix("\n").split("\r")
    assert len(bars) > 3
    assert not bars[-1].strip()
    assert last == "all is resampled"


def test_what_is_short_has_no_bar() -> None:
    assert in_terminal(RESAMPLING.replace("SECONDS", "60")) == "all is resampled\n"


def test_a_log_has_no_bar() -> None:
    program = RESAMPLING.replace("SECONDS", "0")
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, env=environment(), capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("all is resampled\n", "")
