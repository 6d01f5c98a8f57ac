"""What the project's files promise about each other."""

import argparse
import ast
import hashlib
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import evaluate
import promote
import register
import train
from tests.conftest import PROJECT, environment
from understudy import registry, serve

LAYERS = [
    {"errors", "processes", "supervise"},
    {"columns", "compiled", "reader", "repository", "skeleton", "retry", "live", "refusal", "counters"},
    {"cells"},
    {"schema"},
    {"table", "contract", "forms", "rowschema"},
    {"metrics"},
    {"threshold", "plots", "report", "checks"},
    {"models", "gate", "convert"},
    {"fallback"},
    {"scorer"},
    {"packing", "current", "body"},
    {"scoring", "outage", "pages", "rowlog"},
    {"tracking", "server", "inspection"},
    {"manifest", "protocol"},
    {"admission"},
    {"registry", "evaluation", "kept", "worker"},
    {"records", "follow"},
    {"promotion", "trial", "lineage"},
    {"audit"},
    {"reproduction", "serve"},
]
FREE_OF_MLFLOW = set.union(*LAYERS[: LAYERS.index({"fallback"})]) - {"retry"} | {"scorer", "worker"}


def imports(path: Path) -> set[str]:
    """The names of all modules that a file imports, `understudy.x` for one of ours."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "understudy":
            found |= {f"understudy.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_imports_point_one_way() -> None:
    modules = {path.stem for path in (PROJECT / "understudy").glob("*.py")} - {"__init__"}
    assert modules == set.union(*LAYERS)
    for number, layer in enumerate(LAYERS):
        below = set().union(*LAYERS[:number])
        for module in layer:
            ours = {name for name in imports(PROJECT / "understudy" / f"{module}.py") if name.startswith("understudy")}
            assert {name.split(".")[1] for name in ours} <= below, module


def test_what_is_pure_never_loads_mlflow() -> None:
    program = (
        "import importlib, sys\n"
        "for module in sys.argv[1:]:\n"
        "    importlib.import_module(f'understudy.{module}')\n"
        "    assert 'mlflow' not in sys.modules, module\n"
    )
    subprocess.run([sys.executable, "-c", program, *FREE_OF_MLFLOW], cwd=PROJECT, env=environment(), check=True)


@pytest.mark.parametrize(("entry_point", "script"), [("main", train), ("evaluate", evaluate), ("register", register)])
def test_entry_points_have_the_scripts_options_and_defaults(entry_point: str, script: ModuleType) -> None:
    point = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"][entry_point]
    # `mlflow run` has an option of its own for the experiment.
    valued = [action for action in script.options()._actions if action.nargs != 0]
    options = {action.dest: action.default for action in valued if action.dest != "experiment_name"}
    parameters = point["parameters"]
    assert {name: parameter["default"] for name, parameter in parameters.items()} == options
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
        said = point["command"].format(action=verb, name="A", version="''", reason="''").replace("python", "echo")
        words = subprocess.run(["bash", "-c", said], capture_output=True, text=True, check=True).stdout.split()
        assert promote.options().parse_args(words[1:]).action == verb
    given = point["command"].format(action="rollback", name="A", version="3", reason="'so it was'")
    said = given.replace("python", "printf '%s\\n'")
    words = subprocess.run(["bash", "-c", said], capture_output=True, text=True, check=True).stdout.splitlines()
    asked = promote.options().parse_args(words[1:])
    assert (asked.action, asked.name, asked.version, asked.reason) == ("rollback", "A", "3", "so it was")


@pytest.mark.parametrize("verb", ["staging", "production", "rollback", "archive", "adopt", "check", "show"])
def test_every_verb_says_what_it_takes(verb: str) -> None:
    assert verb in promote.options().format_help()
    assert "--name" in verbs()[verb].format_help()


@pytest.mark.parametrize("script", [train, evaluate, register, promote, serve])
def test_help_waits_for_no_heavy_package(script: ModuleType) -> None:
    command = [sys.executable, "-X", "importtime", str(script.__file__), "--help"]
    said = subprocess.run(command, env=environment(PYTHONPATH=str(PROJECT)), capture_output=True, text=True, check=True)
    loaded = {line.rsplit("|", 1)[1].strip() for line in said.stderr.splitlines()}
    assert "understudy.table" in loaded
    assert not loaded & {"mlflow", "sklearn", "matplotlib", "scipy", "sqlalchemy", "requests"}


def test_the_stages_to_choose_from_are_the_registrys() -> None:
    [stage] = [a.choices for a in serve.options()._actions if a.dest == "stage"]
    assert set(registry.STAGES) <= set(verbs())
    assert list(stage or []) == list(registry.STAGES.values())


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (PROJECT / lock).read_text(), re.MULTILINE))


def test_conda_pins_what_the_locks_pin() -> None:
    dependencies = yaml.safe_load((PROJECT / "conda.yaml").read_text())["dependencies"]
    *conda, pip = dependencies
    wanted = dict(pin.split("==") for pin in pip["pip"])
    training = {"mlflow", "scikit-learn", "pandas", "matplotlib", "joblib", "onnx", "onnxruntime"}
    assert set(wanted) == training | {"uvloop", "httptools", "prometheus-client"}
    assert {name: pins("requirements.lock")[name] for name in wanted} == wanted
    assert f"mysqlclient={pins('requirements-server.lock')['mysqlclient']}" in conda


def test_the_locks_agree_and_have_hashes_and_no_addresses() -> None:
    for lock in ["requirements.lock", "requirements-test.lock", "requirements-server.lock"]:
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


def test_the_readmes_picture_is_what_its_script_draws() -> None:
    script = runpy.run_path(str(PROJECT / "docs" / "loop.py"))
    for name, scheme in script["SCHEMES"].items():
        assert (PROJECT / "docs" / f"loop-{name}.svg").read_text() == script["draw"](scheme)
        assert f"docs/loop-{name}.svg" in (PROJECT / "README.md").read_text()


def test_serve_sh_says_what_it_takes() -> None:
    said = subprocess.run(
        [PROJECT / "serve.sh", "--help"], env=environment(), capture_output=True, text=True, check=True
    )
    for action in serve.options()._actions:
        assert action.option_strings[-1] in said.stdout


def test_pages_keep_their_length() -> None:
    readme = (PROJECT / "README.md").read_text().splitlines()
    assert len(readme) <= 120
    assert "binary classification" in "\n".join(readme).split(".")[0]
    assert any(line.startswith("    make train") for line in readme[:15])
    assert any(line.startswith("    make test") for line in readme[:15])
    assert len((PROJECT / "CONTRIBUTING.md").read_text().splitlines()) <= 40
    assert len((PROJECT / "docs" / "operations.md").read_text().splitlines()) <= 150
    for page in (PROJECT / "docs" / "decisions").glob("*.md"):
        assert len(page.read_text().splitlines()) <= 30, page
