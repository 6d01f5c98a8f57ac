"""The keys of each object that docs/terminal.md names are those that are printed."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import evaluate
import monitor
import promote
import register
import score
import train
from tests.conftest import PROJECT, SAMPLE, Ended
from understudy.registry.reproduction import Reproduction
from understudy.replies import moves

Call = Callable[..., Ended]
PAGE = (PROJECT / "docs" / "terminal.md").read_text()
REASON = ("--reason", "it was worse")
COMMANDS: dict[str, tuple[ModuleType, tuple[str, ...]]] = {
    "evaluate.py": (evaluate, ()),
    "register.py": (register, ()),
    "promote.py staging": (promote, ("staging", "2")),
    "promote.py production": (promote, ("production", "--force", *REASON)),
    "promote.py rollback": (promote, ("rollback", *REASON)),
    "promote.py archive": (promote, ("archive", "2")),
    "promote.py adopt": (promote, ("adopt", *REASON)),
    "promote.py show": (promote, ()),
    "promote.py show N": (promote, ("show", "1")),
    "promote.py show N --card": (promote, ("show", "1", "--card")),
    "promote.py show --at TIME": (promote, ("show", "--at", "2026-01-01")),
    "promote.py check": (promote, ("check",)),
    "promote.py relocate": (promote, ("relocate",)),
    "score.py": (score, (str(SAMPLE), "scores.csv")),
    "monitor.py": (monitor, ("--data", str(SAMPLE))),
}


def documented() -> Iterator[tuple[str, set[str]]]:
    """Each command or part that the page names, and its keys."""
    lines = "\n".join(re.findall("^ {4,}.*", PAGE, re.MULTILINE))
    for line in re.sub(r"\n +(?=[a-z_ ]+$)", " ", lines, flags=re.MULTILINE).splitlines():
        if named := re.fullmatch(r" *([^:$]+): ([a-z_ ]+)", line):
            script, _, verbs = named[1].partition(" ")
            for verb in verbs.split(", "):
                yield f"{script} {verb}".strip(), {*named[2].split()}


KEYS = dict(documented())


@pytest.fixture
def printed(call: Call, in_production: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each command printed, one after the other on one store."""
    monkeypatch.chdir(tmp_path)
    return {
        command: json.loads(call(script, *arguments, "--json").out or "{}")
        for command, (script, arguments) in COMMANDS.items()
    }


def parts(printed: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "gate", printed["promote.py production"]["gate"]
    yield from (("check", check) for check in printed["promote.py production"]["gate"]["checks"])
    yield from (("record", record) for record in printed["promote.py show"]["records"])


def test_each_object_has_the_keys_that_are_documented(printed: dict[str, Any]) -> None:
    for command, values in printed.items():
        if command != "promote.py relocate":  # which has nothing to do in a store that is not the project's
            assert values.keys() == KEYS[command] | {"next"}, command
    for part, values in parts(printed):
        assert values.keys() == KEYS[part], part


def test_nothing_else_is_documented() -> None:
    elsewhere = {"train.py", "register.py reproduce", "promote.py approve", "monitor.py --probation"}
    assert KEYS.keys() == {*COMMANDS, "gate", "check", "record", *elsewhere}
    assert KEYS["train.py"] == KEYS["evaluate.py"] | {"warnings"}
    again = {"name", "version", "same", "differences"}
    assert KEYS["register.py reproduce"] == again | {part.name for part in fields(Reproduction)}
    assert KEYS["promote.py approve"] == {"name", *moves.NOTHING}


def test_a_training_answers_with_its_families(store: str, call: Call) -> None:
    ended = call(train, "--models", "DecisionTreeClassifier", "--json")
    trained = json.loads(ended.out)
    assert trained.keys() == KEYS["train.py"] | {"next"}
    [tree, floor] = trained["families"]
    assert (tree["name"], floor["name"], trained["rows"]) == ("DecisionTreeClassifier", "DummyClassifier", 186)
    assert tree["metrics"]["AUC"]["low"] < tree["metrics"]["AUC"]["value"] < tree["metrics"]["AUC"]["high"]
    assert tree["params"]
    assert trained["next"] == "python register.py"
    assert "DecisionTreeClassifier: mean CV score" in ended.err


def test_the_page_is_short() -> None:
    assert len(PAGE.splitlines()) <= 120
