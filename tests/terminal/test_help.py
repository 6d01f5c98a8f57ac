"""Every help has examples, and the script itself takes each of them."""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType

import pytest

import evaluate
import monitor
import promote
import register
import score
import train
from deploy import cluster, migrate, mysql, secrets
from understudy.declare import __main__ as declare
from understudy.serving import __main__ as serve

SCRIPTS: list[ModuleType] = [train, evaluate, register, promote, score, monitor, declare, serve]
SCRIPTS += [cluster, migrate, mysql, secrets]
if find_spec("flask_wtf"):  # which MLflow's accounts need
    SCRIPTS.append(importlib.import_module("deploy.accounts"))


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser, argparse.ArgumentParser]]:
    """What each script and each verb is called, its parser, and the script's."""
    for script in SCRIPTS:
        of = script.options()
        yield script.__name__, of, of
        for action in of._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from ((name, verb, of) for name, verb in action.choices.items())


@pytest.mark.parametrize(("name", "parser", "script"), [pytest.param(*each, id=each[0]) for each in parsers()])
def test_each_example_is_taken(name: str, parser: argparse.ArgumentParser, script: argparse.ArgumentParser) -> None:
    _, _, below = parser.format_help().partition("\nexamples:\n")
    examples = [re.split(r"\s{2,}", line.strip())[0] for line in below.partition("\n\n")[0].splitlines()]
    assert examples
    for example in examples:
        words = shlex.split(example.partition(" > ")[0])
        begun = next(start for start, word in enumerate(words) if word.endswith((".py", ".sh")) or "." in word) + 1
        asked = script.parse_args(words[begun:])
        if parser is not script:
            assert asked.action == name
