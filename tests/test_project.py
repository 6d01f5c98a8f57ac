"""What the project's files promise about each other."""

import argparse
import ast
import hashlib
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import evaluate
import monitor
import promote
import register
import score
import train
from tests.conftest import PROJECT, environment
from understudy.registry import stages
from understudy.serving import __main__ as serve

PACKAGE = PROJECT / "understudy"
# Each room imports only what stands before it; `errors`, `terminal`, `table` and `families` are modules in no room.
ORDER = ["errors", "terminal", "cluster", "schema", "reading", "declare", "table", "families", "figures", "scoring"]
ORDER += ["tracking", "report", "verification", "training", "registry", "approval", "gate", "batch", "monitoring"]
ORDER += ["probation", "replies", "pages", "serving"]
ROOMS = [room for room in ORDER if (PACKAGE / room).is_dir()]
MOST_MODULES = 8  # of a room
ENTRY_POINTS = [("main", train), ("evaluate", evaluate), ("register", register)]
ENTRY_POINTS += [("score", score), ("monitor", monitor)]
LOCKS = [f"requirements{of}.lock" for of in ("", "-boosting", "-cluster", "-server", "-spark", "-test")]


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """The names that a file imports, as module and name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((str(node.module), alias.name) for alias in node.names)


def test_rooms_import_only_what_stands_before_them() -> None:
    assert {path.stem for path in PACKAGE.iterdir() if path.name[0] != "_"} == {*ORDER}
    for number, room in enumerate(ORDER):
        modules = (PACKAGE / room).glob("*.py") if room in ROOMS else [PACKAGE / f"{room}.py"]
        for module in modules:
            named = [f"{name}.{part}".split(".") for name, part in imports(module)]
            ours = {words[1] for words in named if words[0] == "understudy"}
            assert ours <= {*ORDER[:number], *([room] if room in ROOMS else [])}, module


def test_modules_of_a_room_do_not_import_in_a_circle() -> None:
    for room in ROOMS:
        left = {path.stem: _own(path, room) for path in (PACKAGE / room).glob("*.py")}
        while free := [module for module, needed in left.items() if not needed & left.keys()]:
            for module in free:
                del left[module]
        assert not left, room


def _own(path: Path, room: str) -> set[str]:
    """The modules of its own room that a module imports."""
    named = [f"{name}.{part}".split(".") for name, part in imports(path)]
    return {words[2] for words in named if words[:2] == ["understudy", room] and len(words) > 2}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_few_modules_and_says_what_it_is_for(room: str) -> None:
    modules = [path for path in (PACKAGE / room).glob("*.py") if path.name[0] != "_"]
    assert len(modules) <= MOST_MODULES
    text = (PACKAGE / room / "__init__.py").read_text()
    assert 3 <= len(text.splitlines()) <= 12
    assert {"imports", "thers"} <= {*re.findall(r"imports|thers", text)} or "Nobody imports it" in text


def test_no_room_is_entered_by_a_private_name() -> None:
    scripts = [path for folder in (PROJECT, PROJECT / "bench", PROJECT / "deploy") for path in folder.glob("*.py")]
    for path in [*PACKAGE.rglob("*.py"), *scripts]:
        room = path.parent.name
        for module, name in imports(path):
            if module.startswith("understudy") and module.split(".")[1:2] != [room]:
                assert not any(part.startswith("_") for part in [*module.split("."), name]), path
        tree = ast.parse(path.read_text())
        imported = {name for module, name in imports(path) if module.startswith("understudy")}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
                assert not re.match("_[^_]", node.attr), f"{path}:{node.lineno}"


def test_what_goes_with_a_model_needs_no_other_room() -> None:
    assert ORDER.index("scoring") > ORDER.index("schema")
    for path in [*(PACKAGE / "scoring").glob("*.py"), *(PACKAGE / "schema").glob("*.py")]:
        named = [f"{module}.{name}".split(".") for module, name in imports(path)]
        assert {words[1] for words in named if words[0] == "understudy"} <= {"errors", "schema", "scoring"}, path


@pytest.mark.parametrize("room", ["schema", "figures", "report", "scoring.scorer"])
def test_what_is_pure_never_loads_mlflow(room: str) -> None:
    modules = [f"{room}.{path.stem}" for path in (PACKAGE / room).glob("*.py")] if room in ROOMS else [room]
    program = (
        "import importlib, sys\n"
        "for module in sys.argv[1:]:\n"
        "    importlib.import_module(f'understudy.{module}')\n"
        "    assert 'mlflow' not in sys.modules, module\n"
    )
    subprocess.run([sys.executable, "-c", program, *modules], cwd=PROJECT, env=environment(), check=True)


@pytest.mark.parametrize(("entry_point", "script"), ENTRY_POINTS)
def test_entry_points_have_the_scripts_options_and_defaults(entry_point: str, script: ModuleType) -> None:
    point = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"][entry_point]
    # `mlflow run` has an option of its own for the experiment.
    valued = [action for action in script.options()._actions if action.nargs != 0]
    options = {action.dest: action.default for action in valued if action.dest != "experiment_name"}
    parameters = point["parameters"]
    assert {name: parameter.get("default") for name, parameter in parameters.items()} == options
    for name, parameter in parameters.items():
        assert parameter["type"] == ("float" if isinstance(options[name], int) else "string")
        assert f"{{{name}}}" in point["command"]


def verbs() -> dict[str, argparse.ArgumentParser]:
    """The verbs of promote.py."""
    [action] = [action for action in promote.options()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(action.choices)


def test_the_entry_point_promote_can_say_every_verb() -> None:
    point = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]["promote"]
    defaults = {name: parameter["default"] for name, parameter in point["parameters"].items()}
    assert defaults == {"action": "show", "version": "", "name": "", "reason": ""}
    for verb in verbs():
        shell = point["command"].format(action=verb, name="A", version="''", reason="''").replace("python", "echo")
        words = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout.split()
        assert promote.options().parse_args(words[1:]).action == verb
    given = point["command"].format(action="rollback", name="A", version="3", reason="'so it was'")
    shell = given.replace("python", "printf '%s\\n'")
    words = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    asked = promote.options().parse_args(words[1:])
    assert (asked.action, asked.name, asked.version, asked.reason) == ("rollback", "A", "3", "so it was")


@pytest.mark.parametrize("verb", ["staging", "production", "rollback", "archive", "adopt", "check", "show"])
def test_every_verb_says_what_it_takes(verb: str) -> None:
    assert verb in promote.options().format_help()
    assert "--name" in verbs()[verb].format_help()


@pytest.mark.parametrize("script", [train, evaluate, register, promote, score, monitor, serve])
def test_help_waits_for_no_heavy_package(script: ModuleType) -> None:
    command = [sys.executable, "-X", "importtime", str(script.__file__), "--help"]
    ended = subprocess.run(
        command, env=environment(PYTHONPATH=str(PROJECT)), capture_output=True, text=True, check=True
    )
    loaded = {line.rsplit("|", 1)[1].strip() for line in ended.stderr.splitlines()}
    assert "understudy.table" in loaded
    assert not loaded & {"mlflow", "sklearn", "matplotlib", "scipy", "sqlalchemy", "requests"}


def test_the_stages_to_choose_from_are_the_registrys() -> None:
    assert set(stages.STAGES) <= set(verbs())
    for script in (serve, score):
        [stage] = [a.choices for a in script.options()._actions if a.dest == "stage"]
        assert list(stage or []) == list(stages.STAGES.values()), script


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (PROJECT / lock).read_text(), re.MULTILINE))


def test_conda_pins_what_the_locks_pin() -> None:
    dependencies = yaml.safe_load((PROJECT / "conda.yaml").read_text())["dependencies"]
    *conda, pip = dependencies
    wanted = dict(pin.split("==") for pin in pip["pip"])
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {Requirement(requirement).name for requirement in [*extras["score"], *extras["project"]]}
    assert {*wanted} == named - {"understudy", "mlflow-skinny", "numpy"}  # MLflow and pandas bring these two
    assert {name: pins("requirements.lock")[name] for name in wanted} == wanted
    assert f"mysqlclient={pins('requirements-server.lock')['mysqlclient']}" in conda


def test_the_locks_have_what_is_asked_for() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    for extra, requirements in project["project"]["optional-dependencies"].items():
        pinned = pins(f"requirements-{extra}.lock" if f"requirements-{extra}.lock" in LOCKS else "requirements.lock")
        for requirement in map(Requirement, requirements):
            assert (
                requirement.name == "understudy" or pinned[canonicalize_name(requirement.name)] in requirement.specifier
            )
    tests = {canonicalize_name(name) for name in project["dependency-groups"]["test"]}
    assert tests <= pins("requirements-test.lock").keys()


def test_the_tests_have_the_boosting_libraries_that_people_get_and_training_needs_none() -> None:
    boosting = {"lightgbm", "xgboost", "xgboost-cpu"}
    assert not boosting & pins("requirements.lock").keys()
    people, tests = pins("requirements-boosting.lock"), pins("requirements-test.lock")
    assert {name: people[name] for name in boosting} == {name: tests[name] for name in boosting}


def test_the_locks_agree_and_have_hashes_and_no_addresses() -> None:
    for lock in LOCKS:
        text = (PROJECT / lock).read_text()
        assert text.count("--hash=sha256:") > text.count("==") > 50
        assert "http" not in re.sub(r"^[a-z0-9-]+==", "", text, flags=re.MULTILINE).replace("httpx", "")
        shared = pins("requirements.lock").items() & pins(lock).items()
        assert len(shared) == len(pins("requirements.lock"))


def test_the_data_is_what_its_page_and_its_generator_say(tmp_path: Path) -> None:
    committed = (PROJECT / "data" / "loans.csv").read_bytes()
    assert hashlib.sha256(committed).hexdigest() in (PROJECT / "data" / "README.md").read_text()
    (tmp_path / "make_loans.py").write_bytes((PROJECT / "data" / "make_loans.py").read_bytes())
    subprocess.run([sys.executable, tmp_path / "make_loans.py"], check=True)
    assert (tmp_path / "loans.csv").read_bytes() == committed


def test_the_flows_are_what_their_script_draws() -> None:
    script = runpy.run_path(str(PROJECT / "docs" / "flows.py"))
    for page, name in (("README.md", "docs/loop"), ("docs/promotion.md", "promotion")):
        for scheme, colours in script["SCHEMES"].items():
            picture = (PROJECT / page).parent / f"{name}-{scheme}.svg"
            assert picture.read_text() == script["draw"](script["FLOWS"][Path(name).name], colours)
            assert f"{name}-{scheme}.svg" in (PROJECT / page).read_text()


def test_serve_sh_says_what_it_takes() -> None:
    ended = subprocess.run(
        [PROJECT / "serve.sh", "--help"], env=environment(), capture_output=True, text=True, check=True
    )
    for action in serve.options()._actions:
        assert action.option_strings[-1] in ended.stdout


def test_pages_keep_their_length() -> None:
    readme = (PROJECT / "README.md").read_text().splitlines()
    assert len(readme) <= 120
    assert "binary classification" in "\n".join(readme).split(".")[0]
    assert any(line.startswith("    make train") for line in readme[:15])
    assert any(line.startswith("    make test") for line in readme[:15])
    assert len((PROJECT / "CONTRIBUTING.md").read_text().splitlines()) <= 40
    assert len((PROJECT / "docs" / "operations.md").read_text().splitlines()) <= 150
    assert len((PROJECT / "docs" / "promotion.md").read_text().splitlines()) <= 180
    for page in (PROJECT / "docs" / "decisions").glob("*.md"):
        assert len(page.read_text().splitlines()) <= 30, page


def test_no_two_classes_have_one_name() -> None:
    nodes = [node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = [node.name for node in nodes if isinstance(node, ast.ClassDef)]
    assert sorted(names) == sorted(set(names))


def test_modules_and_functions_are_short() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 45, f"{path}: {node.name}"
