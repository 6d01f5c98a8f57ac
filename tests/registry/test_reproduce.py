"""Training a version again from what was recorded of it, in a git clone of the project."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

import register
from tests.conftest import Ended, environment, is_refusal
from understudy.registry import reproduction
from understudy.table import TABLE
from understudy.tracking import family_runs, provenance

Call = Callable[..., Ended]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def committed(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the project without uncommitted changes, with a version registered from it; to be copied."""
    folder = tmp_path_factory.mktemp("committed") / "project"
    shutil.copytree(clone, folder, ignore=shutil.ignore_patterns("mlflow.db", "mlruns"))
    for command in [["init", "-q"], ["add", "-A"], ["commit", "-qm", "All"]]:
        run(folder, "git", "-c", "user.name=test", "-c", "user.email=test@example.org", *command).check_returncode()
    run(folder, sys.executable, "train.py", "--models", "DecisionTreeClassifier").check_returncode()
    run(folder, sys.executable, "register.py").check_returncode()
    return folder


def notes(folder: Path) -> dict[str, bytes]:
    """What git keeps, except its cache of the files' times."""
    files = [path for path in (folder / ".git").rglob("*") if path.is_file() and path.name != "index"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_same_comes_out_and_git_is_as_before(committed: Path) -> None:
    before = notes(committed)
    ended = run(committed, sys.executable, "register.py", "reproduce", "1")
    assert (ended.returncode, ended.stderr) == (0, "")
    first, data, model, *metrics = ended.stdout.splitlines()
    assert first.startswith("same: yes, trained again at commit ")
    assert (data.split()[0], model.split()[0]) == (provenance.DATA_DIGEST, family_runs.MODEL_DIGEST)
    assert {"Accuracy", "AUC", "Mean CV score"} <= {line.rpartition(" ")[0] for line in metrics}
    assert notes(committed) == before
    assert run(committed, "git", "status", "--porcelain").stdout == ""


def test_edited_data_is_named_with_what_it_changes(committed: Path, tmp_path: Path) -> None:
    data = committed / TABLE.path
    kept = data.read_text()
    lines = kept.splitlines()
    data.write_text("\n".join([lines[0], *(line.replace(",Urban,Y", ",Urban,N") for line in lines[1:])]) + "\n")
    ended = run(committed, sys.executable, "register.py", "reproduce", "1")
    data.write_text(kept)
    assert (ended.returncode, ended.stderr) == (4, "")
    first, *differences = ended.stdout.splitlines()
    assert first.startswith("same: no, ")
    named = {line.partition(" ->")[0].rpartition(" ")[0] for line in differences}
    assert {"data.digest", "model.digest", "Accuracy", "AUC", "Mean CV score"} <= named
    assert "training/seconds" not in named


def test_packages_and_metrics_that_differ_are_named_with_both_values() -> None:
    recorded, again = {"AUC": 0.72, "cv/AUC": float("nan")}, {"AUC": 0.73, "cv/AUC": float("nan"), "f1-score": 0.5}
    other = reproduction.Reproduction("abc", recorded, again, ["numpy 2.4.0 -> 2.4.1"])
    assert str(other).splitlines()[1:] == ["AUC 0.72 -> 0.73", "f1-score none -> 0.5", "numpy 2.4.0 -> 2.4.1"]
    assert str(reproduction.Reproduction("abc", again, again, ["numpy 2.4.0 -> 2.4.1"])).endswith("2.4.1")


@pytest.mark.parametrize(
    ("tag", "value", "problem"),
    [
        ("git.dirty", "true", "it was trained with changes that were not committed"),
        ("git.dirty", "unknown", "was trained outside of git"),
        ("mlflow.source.git.commit", "0" * 40, "commit 0000000000 is not known in "),
    ],
)
def test_what_cannot_be_reproduced_is_said(
    tag: str, value: str, problem: str, client: MlflowClient, call: Call
) -> None:
    call(register)
    run_id = client.get_model_version(TABLE.name, "1").run_id or ""
    client.set_tag(run_id, "git.dirty", "false")
    client.set_tag(run_id, tag, value)
    ended = call(register, "reproduce", "1")
    assert is_refusal(ended)
    assert problem in ended.err


def test_the_files_that_were_not_committed_are_named(committed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(committed, folder, ignore=shutil.ignore_patterns("mlflow.db", "mlruns"))
    with (folder / "evaluate.py").open("a") as script:
        script.write("# edited\n")
    for number in range(10):
        (folder / f"new_{number}.py").touch()
    run(folder, sys.executable, "train.py", "--models", "LogisticRegression").check_returncode()
    run(folder, sys.executable, "register.py").check_returncode()
    ended = run(folder, sys.executable, "register.py", "reproduce", "1")
    names = ", ".join(["evaluate.py", *(f"new_{number}.py" for number in range(9))])
    assert is_refusal(Ended(ended.returncode, ended.stdout, ended.stderr))
    assert ended.stderr.splitlines()[0].endswith(f"changes that were not committed, in {names} and 1 more")


def test_missing_git_is_said(client: MlflowClient, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    call(register)
    client.set_tag(client.get_model_version(TABLE.name, "1").run_id or "", "git.dirty", "false")
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = call(register, "reproduce", "1")
    assert is_refusal(ended)
    assert "git is not installed" in ended.err


def test_data_that_is_gone_is_said(committed: Path) -> None:
    (committed / TABLE.path).rename(committed / "elsewhere.csv")
    ended = run(committed, sys.executable, "register.py", "reproduce", "1")
    (committed / "elsewhere.csv").rename(committed / TABLE.path)
    assert is_refusal(Ended(ended.returncode, ended.stdout, ended.stderr))
    assert f"there is no file {committed / TABLE.path}" in ended.stderr


@pytest.mark.parametrize("arguments", [["reproduce"], ["register", "1"], ["reproduce", "7"]])
def test_a_version_is_named_to_be_reproduced_and_only_then(
    arguments: list[str], client: MlflowClient, call: Call
) -> None:
    assert is_refusal(call(register, *arguments))
