"""The decisions that show prints can be pasted into a chat as they are."""

import re
from collections.abc import Callable

import promote
from tests.conftest import PROJECT, Ended

WHEN = r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\dZ)"
LINE = re.compile(WHEN + r"  (?P<verb>\w+( \w+)?) +(?P<what>version .*?)  +(?P<who>\S+)(?P<why>.*)")


def test_a_decision_is_a_line_with_the_newest_last(in_production: str, call: Callable[..., Ended]) -> None:
    call(promote, "staging", "2", "--reason", "it knows the new district")
    assert call(promote, "production", "--rule", "better").code == 3
    shown = call(promote).out.splitlines()
    assert shown[-1].startswith("next: ")
    lines = [match for line in shown if (match := LINE.fullmatch(line))]
    assert [line["verb"] for line in lines] == ["staging", "production", "staging", "production refused"]
    assert [line["what"] for line in lines] == [
        "version 1",
        "version 1",
        "version 2",
        "version 2 in place of version 1",
    ]
    assert len({line.start("who") for line in lines}) == 1
    assert lines[2]["why"] == '  "it knows the new district"'
    assert lines[3]["why"].startswith("  too few rows to tell whether ROC AUC less champion's")
    then = call(promote, "show", "--at", lines[1]["time"].replace(" ", "T"))
    assert then.out.startswith(f"in Production at {lines[1]['time'].replace(' ', 'T')}: ")


def test_the_documented_log_is_in_the_form_of_one() -> None:
    text = (PROJECT / "docs" / "terminal.md").read_text()
    shown = re.findall(r"^    (\d{4}-.*)", text, re.MULTILINE)
    lines = [match for line in shown if (match := LINE.fullmatch(line))]
    assert len(lines) == len(shown) == 4
    for part in ("verb", "what", "who"):
        assert len({line.start(part) for line in lines}) == 1, part
