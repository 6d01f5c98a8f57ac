"""The project's folder is moved, copied or has an odd name: artifacts stay with the store, and nothing is lost."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

import evaluate
import promote
import register
import train
from deploy.mysql import free_port
from tests.conftest import Ended, connected, environment, is_refusal
from tests.stories.test_story import ask, served
from understudy.serving import __main__ as serve
from understudy.table import TABLE
from understudy.tracking import connection, experiments, naming

Call = Callable[..., Ended]
ONE_FAMILY = ("--models", "LogisticRegression")


def go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Let the scripts be those of a folder; a client of its store."""
    [uri] = connected(folder, monkeypatch)
    return MlflowClient(uri)


def places(folder: Path) -> list[str]:
    """All locations of artifacts that a store has."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        columns = [(column.class_.__tablename__, column.key) for column in experiments.locations()]
        found = [store.execute(f"select {column} from {table}").fetchall() for table, column in columns]
    return [place for rows in found for (place,) in rows if place and not place.startswith("models:/")]


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def moved(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> tuple[Path, Path]:
    """Where a project with a training was, and where it is now; there is no registered model."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(trained, old)
    go(old, monkeypatch)
    assert call(promote, "relocate").code == 0
    old.rename(new)
    go(new, monkeypatch)
    return old, new


def test_every_script_that_meets_a_moved_store_names_both_folders(moved: tuple[Path, Path], call: Call) -> None:
    old, new = moved
    before = content(new)
    for script, *arguments in [(train,), (evaluate,), (register,), (promote, "check"), (serve, "--port", free_port())]:
        ended = call(script, *map(str, arguments))
        assert is_refusal(ended), script
        assert ended.err.splitlines() == [
            f"error: the project was moved or copied to {new}, and its artifacts are still looked for in {old}",
            "fix: python promote.py relocate",
        ]
    assert not old.exists()
    assert content(new) == before


def test_a_moved_project_without_a_registered_model_can_be_mended(moved: tuple[Path, Path], call: Call) -> None:
    old, new = moved
    mended = call(promote, "relocate").out
    count = sum(Path(place).is_relative_to(new) for place in places(new))
    assert mended == f"{count} locations of artifacts are in {new} and not in {old}\nnext: python promote.py check\n"
    assert not any(Path(place).is_relative_to(old) for place in places(new))
    assert call(promote, "relocate").out == "the project is where it was\nnext: python promote.py check\n"


def test_files_that_lie_only_in_the_old_folder_are_left_there_and_found(moved: tuple[Path, Path], call: Call) -> None:
    old, new = moved
    client = MlflowClient(connection.uri())
    run = client.search_runs(["1"], "tags.`understudy.family` = 'LogisticRegression'")[0].info
    folder = Path("mlruns", TABLE.name, run.run_id)
    shutil.copytree(new / folder, old / folder)  # as a training with an earlier version of the project made it
    shutil.rmtree(new / folder)
    assert f"\n1 stay in {old}, since their files lie only there\n" in call(promote, "relocate").out
    assert client.get_run(run.run_id).info.artifact_uri == str(old / folder / "artifacts")
    assert client.get_experiment("1").artifact_location == str(new / folder.parent)


def test_a_moved_folder_that_a_link_stands_for_needs_nothing(moved: tuple[Path, Path], call: Call) -> None:
    old, new = moved
    old.symlink_to(new)
    assert call(promote, "relocate").out.startswith("the project is where it was\n")


def test_experiments_that_a_person_has_put_elsewhere_stay_there(store: str, tmp_path: Path, call: Call) -> None:
    client, elsewhere = MlflowClient(store), tmp_path / "elsewhere" / "mlruns" / "1"
    elsewhere.mkdir(parents=True)
    there = {"disk": str(elsewhere), "bucket": "s3://bucket/gone/mlruns/1"}
    for name, place in there.items():
        client.create_experiment(name, place)
    assert call(promote, "relocate").out.startswith("the project is where it was\n")
    assert {name: client.get_experiment_by_name(name).artifact_location for name in there} == there  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["../esc", "a/../../b", "..", ".", "Größe/ß" * 20, "100 %", "what?", "a b.c-d_1"])
def test_whatever_an_experiment_is_called_its_artifacts_lie_in_mlruns(store: str, tmp_path: Path, name: str) -> None:
    client, before = MlflowClient(store), {*tmp_path.iterdir()}
    run = client.create_run(experiments.make(client, name, experiments.TRAINING).experiment_id)
    client.log_text(run.info.run_id, "text", "note.txt")
    [note] = tmp_path.rglob("note.txt")
    assert note.relative_to(tmp_path).parts[::2] == ("mlruns", run.info.run_id, "note.txt")
    assert {*tmp_path.iterdir()} - before == {tmp_path / "mlruns"}
    assert connection.moved_from(client) == []


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 201])
def test_a_name_that_is_none_is_refused(store: str, call: Call, name: str) -> None:
    ended = call(train, "--experiment-name", name)
    assert is_refusal(ended)
    assert "cannot name an experiment" in ended.err
    assert [experiment.name for experiment in MlflowClient(store).search_experiments()] == ["Default"]


def test_the_address_of_the_embedded_store_has_one_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert naming.uri() == naming.EMBEDDED == f"sqlite:///{naming.PROJECT}/mlflow.db"
    assert naming.sqlite(Path("/a%25b/what?/x.db")) == "sqlite+pysqlite:////a%2525b/what%3F/x.db"


def run(folder: Path, *command: str, **settings: str) -> Ended:
    """Run a script of a project's folder, from the folder around it."""
    script = [sys.executable, str(folder / command[0]), *command[1:]]
    env = environment(XDG_CACHE_HOME=str(folder.parents[1]), **settings)
    ended = subprocess.run(script, cwd=folder.parents[1], env=env, capture_output=True, text=True, check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def relocated(old: Path, new: Path) -> None:
    """Refused where it stands, mended, and whole."""
    refused = run(new, "train.py", *ONE_FAMILY)
    assert is_refusal(refused)
    assert f"copied to {new}, and its artifacts are still looked for in {old}\n" in refused.err
    assert run(new, "promote.py", "relocate").code == 0
    checked = run(new, "promote.py", "check")
    assert (checked.code, checked.out.splitlines()[0]) == (0, f"{TABLE.name}: all is well")


def test_a_project_in_an_odd_folder_is_moved_and_copied_and_goes_on(clone: Path, tmp_path: Path) -> None:
    odd, moved, copy = (tmp_path / "projects" / name for name in ["a%25b what?#x", "%3f & more", "copy"])
    shutil.copytree(clone, odd, ignore=shutil.ignore_patterns("mlflow.db", "mlruns"))
    assert run(odd, "train.py", *ONE_FAMILY, MLFLOW_EXPERIMENT_NAME="../Mine").code == 0
    for script, *verb in [("register.py",), ("promote.py", "staging"), ("promote.py", "production")]:
        assert run(odd, script, *verb).code == 0, verb
    odd.rename(moved)
    relocated(odd, moved)
    for command, sign in [("./serve.sh --port", "ping"), ("./serve.sh --live --port", "version")]:
        with served(command, moved, sign, XDG_CACHE_HOME=str(tmp_path)) as address:
            assert ask(address, {"inputs": [[1, 1, 0, 0, 0, 4.79, 360, 1, 2, 8.78]]}) == (200, {"predictions": ["Y"]})
    shutil.copytree(moved, copy)
    before = content(moved)
    relocated(moved, copy)
    assert run(copy, "train.py", *ONE_FAMILY, MLFLOW_EXPERIMENT_NAME="../Mine").code == 0
    assert len(content(copy / "mlruns")) > len(content(moved / "mlruns"))
    assert content(moved) == before
    assert {*moved.parent.iterdir()} == {moved, copy}
    with closing(sqlite3.connect(copy / "mlflow.db")) as store:
        names = {name for (name,) in store.execute("select name from experiments")}
    assert names == {"Default", "../Mine", f"{TABLE.name} promotions"}
