"""What the pages say: links lead somewhere, commands exist, printed output is what is printed, pictures are young."""

import argparse
import importlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import matplotlib.image
import mlflow
import numpy as np
import pytest
import yaml

import monitor
import promote
import score
from docs import flows, pictures
from tests.conftest import PROJECT, Ended
from tests.monitoring.conftest import WrittenLog, drawn
from tests.test_workflows import STEPS
from understudy.monitoring import window
from understudy.schema.columns import listed
from understudy.scoring.scorer import PROBABILITY
from understudy.serving import __main__ as serve
from understudy.table import TABLE

PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), PROJECT / "data" / "README.md"])
NAMES = [str(page.relative_to(PROJECT)) for page in PAGES]
LINK = re.compile(r'\]\((?!\w+:)([^)\s]+)\)|(?:src|srcset|href)="(?!\w+:)([^"]+)"')
BLOCK = re.compile(
    r"^```(?P<kind>.*)\n(?P<fenced>(?:.*\n)*?)```$|(?<=\n\n)(?P<indented>(?:    .*\n|\n(?=    ))+)", re.M
)
SHELL = ("", "bash", "bash serve", "bash mysql")  # kinds of fenced blocks that people type in
OPERATORS = "&|;<>"
BEFORE = {"time", "do", "sudo", "then"}  # words that may stand before a command
PROGRAMS = ("make", "python", "./serve.sh", "mlflow run", "bash .ci/run")
# What differs from run to run; columns are as wide as their widest cell, so that spaces differ too.
MASKS = {
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d": "TIME",
    r"\b[0-9a-f]{32}\b|(?<=runs/)[0-9a-f]{4}\.\.\.": "RUN",
    r"in [\d.]+ s\b": "in N s",
    r"(milliseconds for one row|megabytes of files) +[\d.]+": r"\1 N",
    r" +": " ",
}


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub makes of the headings of a page."""
    plain = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", plain, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = PROJECT / name
    for target in (
        "".join(found) for found in LINK.findall(re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S))
    ):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def blocks(page: Path) -> Iterator[str]:
    """What a page shows as typed in or printed, without its indentation."""
    for block in BLOCK.finditer(page.read_text()):
        if block["indented"]:
            yield re.sub(r"^    ", "", block["indented"], flags=re.M)
        elif block["kind"] in SHELL:
            yield block["fenced"]


def words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=OPERATORS)
    lexer.whitespace_split = True
    return list(lexer)


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of the project's own in a page, each as its words."""
    typed = [line.removeprefix("$ ") for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    typed += [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", page.read_text())]
    for line in typed:
        if not re.search(rf"(?:^|[;&] *|/bin/)(?:\w+ )?(?:{'|'.join(map(re.escape, PROGRAMS))})\b", line):
            continue
        try:
            split = words(line)
        except ValueError:  # a quotation that goes on in the next line is Python's
            continue
        command: list[str] = []
        for word in [*split, ";"]:
            if set(word) <= set(OPERATORS):
                yield command
                command = []
            elif command or (word not in BEFORE and not re.match(r"\w+=", word)):
                command.append(word.removeprefix(".venv/bin/") if not command else word)


def check_make(*goals: str) -> None:
    makefile = (PROJECT / "Makefile").read_text()
    for goal in goals:
        lock = PROJECT / goal.removeprefix(".venv/") if goal.endswith(".lock") else None
        assert "=" in goal or re.search(rf"^{re.escape(goal)}:", makefile, re.M) or (lock and lock.exists()), goal


def check_python(page: Path, *arguments: str) -> None:
    if arguments[0] == "-m" and arguments[1].split(".")[0] in ("bench", "deploy", "docs", "understudy"):
        file = PROJECT / arguments[1].replace(".", "/")
        file = file / "__main__.py" if file.is_dir() else file.with_suffix(".py")
        check_options(file, *arguments[2:])
    elif arguments[0].endswith(".py") and "$" not in arguments[0] and f"# {arguments[0]}\n" not in page.read_text():
        check_options(PROJECT / arguments[0], *arguments[1:])


def check_options(file: Path, *arguments: str) -> None:
    """Parsed where the script hands out its parser, else looked up in its text."""
    source = file.read_text()
    if arguments and "def options()" in source:  # a name alone may stand for any use of it
        module = ".".join(file.relative_to(PROJECT).with_suffix("").parts)
        parse(importlib.import_module(module).options(), *arguments)
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert f'"{option}"' in source or option == "--help" or "options()" in source, option


def parse(options: argparse.ArgumentParser, *arguments: str) -> None:
    try:
        options.parse_args([argument for argument in arguments if argument != "--help"])
    except SystemExit:
        pytest.fail(f"{options.prog} does not take {shlex.join(arguments)}")


def check_mlflow(*arguments: str) -> None:
    points = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]
    options = argparse.ArgumentParser()
    options.add_argument("address")
    options.add_argument("-e", default="main", choices=points)
    options.add_argument("-P", action="append", default=[])
    known, _ = options.parse_known_args(arguments)
    assert {given.split("=")[0] for given in known.P} <= points[known.e]["parameters"].keys()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "CHANGELOG.md"])  # which tells of the past
def test_every_command_exists_and_takes_its_options(name: str) -> None:
    checks: dict[str, Callable[..., None]] = {
        "make": check_make,
        "python": partial(check_python, PROJECT / name),
        "./serve.sh": partial(parse, serve.options()),
    }
    for program, *arguments in filter(None, commands(PROJECT / name)):
        if program in checks and arguments:
            checks[program](*arguments)
        elif [program, *arguments[:1]] == ["mlflow", "run"] and len(arguments) > 1:
            check_mlflow(*arguments[1:])
        elif [program, *arguments[:1]] == ["bash", ".ci/run"]:
            assert {*arguments[1:]} <= STEPS


def test_the_pages_have_the_commands_that_this_looks_for() -> None:
    found = [command for page in PAGES for command in commands(page) if command]
    assert len(found) > 150
    assert {"make", "python", "./serve.sh", "mlflow", "bash"} <= {command[0] for command in found}


def shown(name: str) -> dict[str, list[str]]:
    """The commands of a page that begin with "$", each with the lines that it prints."""
    printed: dict[str, list[str]] = {}
    for block in blocks(PROJECT / name):
        for line in block.rstrip().splitlines() if block.startswith("$ ") else []:
            if line.startswith("$ "):
                printed[line.removeprefix("$ ")] = []
            else:
                printed[[*printed][-1]].append(line)
    return printed


def test_every_printed_output_is_of_a_page_that_is_tested_below() -> None:
    assert [name for name in NAMES if shown(name)] == ["docs/batch.md", "docs/monitoring.md", "docs/promotion.md"]


def assert_printed(lines: list[str], output: str) -> None:
    """Three points stand for lines that are left out."""

    def masked(line: str) -> str:
        for pattern, instead in MASKS.items():
            line = re.sub(pattern, instead, line)
        return line.strip()

    wanted, got = ("\n".join(map(masked, text)) for text in (lines, output.splitlines()))
    pattern = re.escape(wanted).replace(re.escape("\n...\n"), r"\n(?:.*\n)*?")
    assert re.fullmatch(pattern, got), f"the page has\n{wanted}\n\nprinted is\n{output}"


@pytest.fixture
def story(in_production: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a store with the logistic regression in Production, and the forest as version 2."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_scoring_a_file_prints_what_its_page_shows(story: Path, call: Callable[..., Ended]) -> None:
    [(command, lines)] = shown("docs/batch.md").items()
    assert_printed(lines, call(score, *words(command)[2:]).out)


def test_a_promotion_prints_what_its_page_shows(
    story: Path, call: Callable[..., Ended], prepared: Callable[..., None]
) -> None:
    prepared((promote, "staging", "--version", "2"))
    [(command, lines)] = shown("docs/promotion.md").items()
    assert_printed(lines, call(promote, *words(command)[2:]).out)


def test_the_monitor_prints_what_its_page_shows(story: Path, call: Callable[..., Ended]) -> None:
    """500 rows as those of the training, whose labels come after a run of the monitor, and 500 with higher incomes."""
    client = mlflow.MlflowClient()
    model = window.reference(client, client.get_model_version(TABLE.name, "1")).model
    log, before = WrittenLog(story / "kept"), drawn(500, 1)
    after = drawn(500, 2, ApplicantIncome=lambda incomes: (incomes * 1.3).round())
    for days, rows in ((2, before), (1, after)):
        columns = {column.name: listed(rows[column.name]) for column in TABLE.columns}
        log.answer(rows, model.predict(columns, PROBABILITY), days=days)
        if rows is before:
            assert call(monitor, "--log", "kept").code == 0
    log.refuse(["Gender: unknown category"])
    before[[TABLE.row_id, TABLE.target.name]].to_csv(story / "labels.csv", index=False)
    [(command, lines)] = shown("docs/monitoring.md").items()
    ended = call(monitor, *words(command)[2:])
    assert ended.code == 5
    assert_printed(lines, ended.out)


def test_pictures_are_younger_than_what_they_show() -> None:
    drawn_exactly = {f"{flow}-{scheme}.svg" for flow in flows.FLOWS for scheme in flows.SCHEMES}
    files = [path for path in (PROJECT / "docs").rglob("*") if path.suffix in (".png", ".svg", ".gif", ".jpg")]
    assert {path.name for path in files} == drawn_exactly | {*pictures.PICTURES}
    # In a fork with another table or other families nobody can draw them anew, and .ci/run allows no skipped test.
    if pictures.can_be_told():
        written, now = json.loads(pictures.DIGESTS.read_text()), pictures.digests()
        changed = sorted({path for path, _ in written.items() ^ now.items()})
        assert not changed, "look at docs/img after: python -m docs.pictures"


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_are_light_or_dark_as_they_are_named(name: str) -> None:
    colours = matplotlib.image.imread(pictures.FOLDER / name)[..., :3]  # each from 0 to 1
    assert name.endswith(f"-{'dark' if np.median(colours) < 0.5 else 'light'}.png")
