"""The wheel answers with a saved model where neither the project, scikit-learn nor plots are installed."""

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from tests.conftest import PROJECT, SAMPLE, environment
from understudy.reading import table_rows
from understudy.schema.columns import listed
from understudy.scoring import scorer
from understudy.table import TABLE
from understudy.tracking import family_runs

PROGRAM = """
import json, sys
from importlib.util import find_spec
from pathlib import Path
from understudy.scoring import scorer

rows = json.load(sys.stdin)
answers = [scorer.load(Path(folder)).predict(rows, "probability") for folder in sys.argv[1:]]
import mlflow
answers += [mlflow.pyfunc.load_model(folder).predict(rows, params={"output": "probability"}) for folder in sys.argv[1:]]
found = [name for name in ("sklearn", "skops", "scipy", "matplotlib", "train") if find_spec(name)]
json.dump({"from": scorer.__file__, "found": found, "answers": answers}, sys.stdout)
"""


def _run(*command: str | Path) -> None:
    ended = subprocess.run(command, cwd=PROJECT, env=environment(), capture_output=True, text=True)
    if "Failed to fetch" in ended.stderr:
        pytest.skip("no package index can be reached")
    assert ended.returncode == 0, ended.stderr


def test_the_wheel_answers_as_the_project_does_without_scikit_learn_and_plots(trained: Path, tmp_path: Path) -> None:
    _run("uv", "build", "-q", "--wheel", "--out-dir", tmp_path, PROJECT)
    [wheel], python = tmp_path.glob("*.whl"), tmp_path / "venv" / "bin" / "python"
    _run("uv", "venv", "-q", "--python", sys.executable, tmp_path / "venv")
    _run("uv", "pip", "install", "-q", "--python", python, "-c", "requirements.lock", f"{wheel}[score]")

    client = mlflow.MlflowClient(f"sqlite:///{trained / 'mlflow.db'}")
    runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
    converted = [run for run in runs if family_runs.family_name(run) != "DummyClassifier"]  # that takes scikit-learn
    folders = [Path(client.get_logged_model(family_runs.model_id(run)).artifact_location) for run in converted]
    read = table_rows.read(TABLE, SAMPLE)
    rows = {column.name: listed(read[column.name]) for column in TABLE.columns}
    ended = subprocess.run(
        [python, "-c", PROGRAM, *folders],
        cwd=tmp_path,
        env=environment(PYTHONPATH=""),
        input=json.dumps(rows),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert Path(printed["from"]).is_relative_to(tmp_path / "venv")
    assert printed["found"] == []
    expected = [scorer.load(folder).predict(rows, scorer.PROBABILITY) for folder in folders]
    assert len(expected) == 3
    assert printed["answers"] == expected * 2
