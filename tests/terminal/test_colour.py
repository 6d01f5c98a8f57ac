"""Colour tells what went wrong and what went well, in a terminal that is meant to show it."""

import pytest

from tests.terminal.conftest import in_terminal
from understudy import errors

PROGRAM = """
import sys
from understudy import errors, terminal
from understudy.errors import Refused, UserError
def refuse():
    raise Refused("it is worse")
def err():
    raise UserError("no file", "make one")
def go():
    terminal.answer(lambda: terminal.Reply({}, ["done"], "./serve.sh"), False)
errors.run({"refuse": refuse, "err": err, "go": go}[sys.argv[1]])
"""
RED, BOLD, END = "\033[31m", "\033[1m", "\033[0m"


@pytest.mark.parametrize(
    ("what", "written"),
    [
        ("refuse", f"{RED}refused:{END} it is worse\n"),
        ("err", f"{RED}error:{END} no file\n{BOLD}fix:{END} make one\n"),
        ("go", f"done\n{BOLD}next:{END} ./serve.sh\n"),
    ],
)
def test_the_first_word_has_the_colour(what: str, written: str) -> None:
    assert in_terminal(PROGRAM, what) == written


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_none_has_none(setting: dict[str, str]) -> None:
    assert in_terminal(PROGRAM, "err", settings=setting) == "error: no file\nfix: make one\n"


def test_an_empty_no_color_asks_for_nothing() -> None:
    assert in_terminal(PROGRAM, "refuse", settings={"NO_COLOR": ""}).startswith(RED)


def test_what_is_no_terminal_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert errors.painted("fail", errors.RED) == "fail"
