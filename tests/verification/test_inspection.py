"""Nothing that a run's owner can put into its files runs as somebody else, before the model is registered or after."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.models import Model
from sklearn import discriminant_analysis, ensemble, naive_bayes, neighbors
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import Pipeline

import evaluate
import promote
import register
from bench.planted import PLANTED, canary
from tests.conftest import REAL, SAMPLE, Ended, environment, is_refusal, needs_real_table
from understudy.errors import UserError
from understudy.families import FAMILIES, Family, Grid
from understudy.reading import table_rows
from understudy.registry import stages
from understudy.scoring import model_files
from understudy.table import TABLE
from understudy.tracking import batch_rows, family_runs, provenance
from understudy.training import search
from understudy.verification import inspection, manifest, repository

NAME = TABLE.name
Call = Callable[..., Ended]


@pytest.fixture(scope="module")
def saved(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A copy of each family's model, without what MLflow leaves beside one that another test has loaded."""
    client, folder = MlflowClient(f"sqlite:///{trained / 'mlflow.db'}"), tmp_path_factory.mktemp("saved")
    models = {}
    for run in family_runs.families(client, family_runs.get_batch(client, TABLE)):
        name, model = family_runs.family_name(run), client.get_logged_model(family_runs.model_id(run))
        left_out = shutil.ignore_patterns(manifest.LEFT_OUT)
        models[name] = Path(shutil.copytree(model.artifact_location, folder / name, ignore=left_out))
    return models


@pytest.fixture
def folder(saved: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the decision tree's model, to be changed."""
    return Path(shutil.copytree(saved["DecisionTreeClassifier"], tmp_path / "model"))


def inspect(folder: Path, family: str = "DecisionTreeClassifier") -> Pipeline:
    _, held_out = TABLE.split(table_rows.read(TABLE, SAMPLE))
    return inspection.load(folder, family, held_out, "the model")


@pytest.mark.parametrize("family", list(FAMILIES))
def test_what_training_writes_is_loaded(family: str, saved: dict[str, Path]) -> None:
    rows = table_rows.read(TABLE, SAMPLE)
    assert inspect(saved[family], family).predict_proba(rows).shape == (614, 2)


@pytest.mark.parametrize("name", list(PLANTED))
def test_what_training_does_not_write_is_named_and_never_runs(name: str, folder: Path, tmp_path: Path) -> None:
    path = list(sys.path)
    PLANTED[name].plant(folder, canary(tmp_path / "ran"))
    with pytest.raises(UserError) as refused:
        inspect(folder)
    assert refused.value.problem.startswith("the model is not what training writes, and could run anything: ")
    assert PLANTED[name].named in refused.value.problem
    assert not (tmp_path / "ran").exists()
    assert sys.path == path


def test_what_is_planted_runs_where_nothing_is_inspected(saved: dict[str, Path], tmp_path: Path) -> None:
    running = [name for name, planted in PLANTED.items() if planted.runs]
    for name in running:
        shutil.copytree(saved["DecisionTreeClassifier"], tmp_path / name)
        PLANTED[name].plant(tmp_path / name, canary(tmp_path / f"{name} ran"))
    program = (
        "import contextlib, os, sys, mlflow, mlflow.pyfunc, mlflow.sklearn\n"
        "for name in sys.argv[1:]:\n"
        "    if os.fork():\n"  # each model has a process of its own, and MLflow is imported once
        "        os.wait()\n"
        "        continue\n"
        "    with contextlib.suppress(Exception): mlflow.pyfunc.load_model(name).predict([])\n"
        "    with contextlib.suppress(Exception): import onnxruntime\n"
        "    with contextlib.suppress(Exception): mlflow.sklearn.load_model(name).predict([['x']])\n"
        "    os._exit(0)\n"
    )
    command = [sys.executable, "-c", program, *running]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    assert [name for name in running if not (tmp_path / f"{name} ran").exists()] == []


def test_links_and_pipes_are_not_files(folder: Path, tmp_path: Path) -> None:
    (folder / "code" / "linked.py").symlink_to(SAMPLE)
    with pytest.raises(UserError, match=r"code/linked\.py is none of its files"):
        inspect(folder)
    (folder / "code" / "linked.py").unlink()
    os.mkfifo(folder / "code" / "understudy" / "more.py")
    with pytest.raises(UserError, match=r"code/understudy/more\.py is none of its files"):
        inspect(folder)


def test_code_of_an_earlier_commit_is_code_of_the_project(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that was trained before the checkout went on can still be registered, from a branch it cannot."""
    project, code = tmp_path / "project" / "understudy", folder / "code" / "understudy" / "scoring"
    shutil.copytree(model_files.PACKAGE, project)
    monkeypatch.setattr(repository, "PACKAGE", project)

    def git(*arguments: str) -> None:
        name = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *name, *arguments], cwd=project.parent, env=environment(), check=True)

    git("init", "-q")
    (project / "scoring" / "moved.py").write_text("# Of a module that will move.\n")
    git("add", "-A")
    git("commit", "-qm", "One")
    git("checkout", "-qb", "branch")
    for text in ["# Of the branch.\n", "# Of the past.\n", "# Of now.\n"]:
        (project / "scoring" / "forms.py").write_text(text)
        git("commit", "-qam", text)
        if "branch" in text:
            git("checkout", "-q", "-")
    git("mv", "understudy/scoring/moved.py", "understudy/serving/moved.py")
    git("commit", "-qm", "Move a module as it is")
    (code / "forms.py").write_text("# Of the past.\n")
    (code / "moved.py").write_text("# Of a module that will move.\n")
    inspect(folder)
    for text in ["# Of the branch.\n", "# Of a module that will move.\n"]:
        (code / "forms.py").write_text(text)
        with pytest.raises(UserError, match=r"code/understudy/scoring/forms\.py is not the module of this checkout"):
            inspect(folder)


class Coin(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of somebody's own."""

    def __init__(self, side: float = 0.5, how: str = "fair") -> None:
        self.side, self.how = side, how

    def fit(self, x: Any, y: Any) -> "Coin":
        self.classes_, self.seen_ = np.unique(y), {"rows": len(x), "of": self.how}
        return self

    def predict_proba(self, x: Any) -> Any:
        return np.tile([1 - self.side, self.side], (len(x), 1))

    def predict(self, x: Any) -> Any:
        return self.classes_[self.predict_proba(x).argmax(axis=1)]


OTHERS = {
    "AdaBoost": ensemble.AdaBoostClassifier(n_estimators=5),
    "Coin": Coin(),
    "GaussianNB": naive_bayes.GaussianNB(),
    "HistGradientBoosting": ensemble.HistGradientBoostingClassifier(max_iter=5),
    "LinearDiscriminantAnalysis": discriminant_analysis.LinearDiscriminantAnalysis(),
    "NearestNeighbours": neighbors.KNeighborsClassifier(),
}


@pytest.mark.parametrize("name", list(OTHERS))
@pytest.mark.parametrize("path", [SAMPLE, pytest.param(REAL, marks=needs_real_table)])
def test_any_classifier_with_a_name_in_a_module_is_let_in_by_its_family(
    name: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid: Grid = {"side": [0.5, 0.7], "how": ["fair", "not fair"]} if name == "Coin" else {}
    monkeypatch.setitem(FAMILIES, name, Family(OTHERS[name], quick=grid, book={}))
    training, held_out = TABLE.split(table_rows.read(TABLE, path))
    searched = search.search(TABLE, training, FAMILIES[name], grid, seed=3, jobs=1)
    model_files.save_model(str(tmp_path / "model"), Model(), searched.pipeline, training)
    loaded = inspection.load(tmp_path / "model", name, held_out, "the model")
    assert (loaded.predict(held_out) == searched.pipeline.predict(held_out)).all()
    with pytest.raises(UserError, match="the model is not what training writes"):
        inspection.load(tmp_path / "model", "DummyClassifier", held_out, "the model")


def test_a_family_that_the_checkout_has_not_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="is of the family Oracle, which this project does not have"):
        inspect(folder, "Oracle")


def stored(client: MlflowClient, family: str) -> Path:
    runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
    [run] = [run for run in runs if family_runs.family_name(run) == family]
    return Path(client.get_logged_model(family_runs.model_id(run)).artifact_location)


@pytest.mark.parametrize("name", ["code from another folder", "functions of numpy's", "pickle"])
def test_no_script_loads_what_is_planted_in_a_run(
    name: str, client: MlflowClient, call: Call, tmp_path: Path, batch_store: str
) -> None:
    model = stored(client, "DecisionTreeClassifier")
    kept = shutil.copytree(model, tmp_path / "kept")
    try:
        PLANTED[name].plant(model, canary(tmp_path / "ran"))
        for script, arguments in [(register, ["--model", "DecisionTreeClassifier"]), (evaluate, [])]:
            ended = call(script, *arguments)
            assert is_refusal(ended)
            assert "is not what training writes, and could run anything: " in ended.err
        run = family_runs.families(client, family_runs.get_batch(client, TABLE))[0]
        client.create_registered_model(NAME)
        client.create_model_version(NAME, family_runs.model_uri(run), run.info.run_id)
        for arguments in [["staging"], ["adopt", "--version", "1", "--reason", "it looks fine"]]:
            assert is_refusal(call(promote, *arguments))
        assert stages.aliases(client, NAME) == {}
    finally:
        shutil.rmtree(model)
        shutil.copytree(kept, model)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("scheme", ["http", "mlflow-artifacts"])
def test_rows_are_not_fetched_from_wherever_an_experiment_is_said_to_be(
    scheme: str, client: MlflowClient, call: Call
) -> None:
    """Whoever makes an experiment says where its runs have their files, and a run says which batch it is part of."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        place = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/artifacts"
        elsewhere = client.create_run(client.create_experiment("Elsewhere", place))
        run = family_runs.families(client, family_runs.get_batch(client, TABLE))[0]
        for name in (batch_rows.HELD_OUT, batch_rows.TRAINED_ON):
            client.set_tag(elsewhere.info.run_id, batch_rows.digest_tag(name), "0" * 64)
        client.set_tag(run.info.run_id, "mlflow.parentRunId", elsewhere.info.run_id)
        ended = call(register, "--run", run.info.run_id)
        with pytest.raises(TimeoutError):
            listening.accept()
    assert is_refusal(ended)
    assert f"are at {place}/" in ended.err


@pytest.mark.parametrize(
    ("tag", "value", "problem"),
    [
        (family_runs.FAMILY_NAME, "\x1b]0;Oracle\x07", r"is of the family \x1b]0;Oracle\x07, which"),
        ("mlflow.parentRunId", "nobody", "run nobody, which kept rows/held_out.parquet, is gone"),
        (provenance.DATA_DIGEST, None, "has no tag data.digest, which training gives"),
    ],
)
def test_tags_that_training_does_not_give_end_in_two_lines(
    tag: str, value: str | None, problem: str, client: MlflowClient, call: Call
) -> None:
    run = family_runs.families(client, family_runs.get_batch(client, TABLE))[0]
    if value is None:
        client.delete_tag(run.info.run_id, tag)
    else:
        client.set_tag(run.info.run_id, tag, value)
    ended = call(register, "--run", run.info.run_id)
    assert is_refusal(ended)
    assert problem in ended.err


@pytest.mark.parametrize("column", ["Gender", "LoanAmount"])
def test_a_column_that_only_the_rows_of_training_have_is_no_reason_to_refuse(column: str, tmp_path: Path) -> None:
    training, held_out = TABLE.split(table_rows.read(TABLE, SAMPLE))
    family = FAMILIES["DecisionTreeClassifier"]
    searched = search.search(TABLE, training, family, {"max_depth": [3]}, seed=0, jobs=1)
    model_files.save_model(str(tmp_path / "model"), Model(), searched.pipeline, training)
    rows = held_out.assign(**{column: np.nan})
    assert inspection.load(tmp_path / "model", "DecisionTreeClassifier", rows, "the model") is not None


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/rows.csv", "/etc/passwd", "mysql://127.0.0.1:9/rows#loans"])
def test_an_address_is_followed_only_if_the_table_or_the_person_names_it(
    address: str, client: MlflowClient, call: Call
) -> None:
    batch = family_runs.get_batch(client, TABLE)
    client.set_tag(batch.info.run_id, provenance.DATA_PATH, address)
    refused = call(evaluate)
    assert is_refusal(refused)
    assert f"says that it was trained on {address}, which the table does not name" in refused.err
    named = call(evaluate, "--data", address)
    assert is_refusal(named)
    assert "which the table does not name" not in named.err
    call(register)
    run_id = client.get_model_version(NAME, "1").run_id or ""
    for tag, value in [("git.dirty", "false"), (provenance.DATA_PATH, address)]:
        client.set_tag(run_id, tag, value)
    refused = call(register, "reproduce", "1")
    assert is_refusal(refused)
    assert "which the table does not name" in refused.err
