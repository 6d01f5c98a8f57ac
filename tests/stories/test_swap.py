"""Another table and another model: docs/use-your-own.md followed to the letter, then the whole story."""

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT, environment
from tests.stories.test_story import ask, blocks, run, served

PAGE = (PROJECT / "docs" / "use-your-own.md").read_text()
ROWS = """
import json
from understudy.reading import table_rows
from understudy.table import TABLE
rows = TABLE.split(table_rows.read(TABLE, TABLE.path))[1][:100]
raw = rows[[column.name for column in TABLE.columns]].astype(object)
raw = raw.where(raw.notna(), None).to_dict("records")
encoded = [[None if cell != cell else cell for cell in row] for row in TABLE.encode(rows).tolist()]
print(json.dumps({"raw": raw, "encoded": encoded}))
"""
VOTING = '''
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer


class Squares(BaseEstimator):
    """A transformer of one's own."""

    def __init__(self, power=2):
        self.power = power

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X**self.power


def voting(transformer):
    squared = make_pipeline(transformer, linear_model.LogisticRegression(solver="liblinear"))
    voters = [("squared", squared), ("tree", tree.DecisionTreeClassifier(max_depth=4))]
    return Family(ensemble.VotingClassifier(voters, voting="soft"), quick={}, book={})


FAMILIES["Voting"] = voting(Squares())
FAMILIES["Lambda"] = voting(FunctionTransformer(lambda X: X**2))
'''
BOOSTERS = """
from lightgbm import LGBMClassifier
from xgboost import XGBClassifier

boosters = {"LightGBM": LGBMClassifier(verbose=-1), "XGBoost": XGBClassifier()}
FAMILIES |= {name: Family(booster, quick={"n_estimators": [20, 30]}, book={}) for name, booster in boosters.items()}
"""


@pytest.fixture
def swapped(project: Path) -> Path:
    """A copy of the project with the page's two diffs applied."""
    diffs = blocks(PAGE, "diff")
    subprocess.run(["git", "apply", "-"], cwd=project, input="".join(diffs), text=True, check=True)
    return project


def answers(folder: Path, version: str) -> Any:
    """What the version in Production says of held-out rows, the same in every form."""
    rows = json.loads(run(f"python -c '{ROWS}'", folder))
    with served("./serve.sh --port", folder) as address:
        assert f"version {version} " in (folder / "serve.log").read_text()
        ways = [{"dataframe_records": rows["raw"]}, {"inputs": rows["encoded"]}]
        given = [ask(address, {**way, "params": {"output": "probability"}}) for way in ways]
        refused = ask(address, {"dataframe_records": [{**rows["raw"][0], "extra": 1}]})
    assert given[0] == given[1]
    assert given[0][0] == 200
    assert refused[0] == 400
    assert refused[1]["faults"][0]["column"] == f"column {len(rows['raw'][0]) + 1}"
    return given[0][1]["predictions"]


def recorded(folder: Path) -> set[tuple[str, str]]:
    """The digests and, but for the time, the metrics of all models trained there, each by its run's name."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        digests = "select name, value from tags join runs using (run_uuid) where key = 'model.digest'"
        metrics = "select name, key || value from metrics join runs using (run_uuid) where key != 'training/seconds'"
        return {*store.execute(digests), *store.execute(metrics)}


def test_the_page_changes_a_line_for_each_column_in_two_files() -> None:
    diffs = blocks(PAGE, "diff")
    assert len(diffs) == 2
    added = [line for diff in diffs for line in diff.splitlines() if line.startswith("+") and line[:3] != "+++"]
    columns = (PROJECT / "data" / "hmda.csv").read_text().partition("\n")[0].split(",")
    assert len(added) <= len(columns) + 4  # the table's name and file, the family, and no line too long to read
    assert max(map(len, added)) <= 121


def test_another_table_and_family_go_the_whole_way(swapped: Path) -> None:
    train, register, staging, production, _ = blocks(PAGE, "bash")[0].splitlines()
    trained = run(train, swapped)
    assert "HistGradientBoosting: mean CV score 0.9" in trained or "HistGradientBoosting: mean CV score 0.8" in trained
    assert "Hmda_denial version 1 registered" in run(register, swapped)
    figures = recorded(swapped)
    run("python train.py --jobs 1", swapped)
    assert recorded(swapped) == figures
    run(f"{staging} && {production} && python register.py --model HistGradientBoosting", swapped)
    first = answers(swapped, "1")
    assert "Hmda_denial version 2 is in Production, version 1 is archived" in run(
        "python promote.py staging && python promote.py production", swapped
    )
    assert answers(swapped, "2") != first
    run("python promote.py rollback --reason complaints && python evaluate.py", swapped)
    assert "Production: version 1" in run("python promote.py", swapped)


def test_a_model_of_classes_of_ones_own_is_served_and_one_with_a_lambda_refused(swapped: Path) -> None:
    with (swapped / "understudy" / "families.py").open("a") as models:
        models.write(VOTING)
    run("python train.py --models Voting && python register.py", swapped)
    run("python promote.py staging && python promote.py production", swapped)
    fitted = run(
        "python -c 'import mlflow; from understudy.reading import table_rows; from understudy.table import TABLE; "
        "rows = TABLE.split(table_rows.read(TABLE, TABLE.path))[1][:100]; "
        'mlflow.set_tracking_uri("sqlite:///mlflow.db"); '
        'model = mlflow.sklearn.load_model("models:/Hmda_denial@production"); '
        "print(model.predict_proba(rows)[:, 1].tolist())'",
        swapped,
    )
    assert answers(swapped, "1") == json.loads(fitted)  # to the last bit: it is served in its own form
    refused = subprocess.run(
        ["python", "train.py", "--models", "Lambda"],
        cwd=swapped,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    error, fix = refused.stderr.splitlines()
    assert error.startswith("error: VotingClassifier cannot be saved without pickle")
    assert fix.startswith("fix: ")


def test_lightgbm_and_xgboost_go_the_whole_way(swapped: Path) -> None:
    with (swapped / "understudy" / "families.py").open("a") as families:
        families.write(BOOSTERS)
    run("git init -q && git add -A && git -c user.name=test -c user.email=test@example.org commit -qm All", swapped)
    trained = run("python train.py --models LightGBM,XGBoost", swapped)
    assert "served by its own library" not in trained
    for version, name in enumerate(["LightGBM", "XGBoost"], start=1):
        run(f"python register.py --model {name} && python promote.py staging && python promote.py production", swapped)
        by_stock = answers(swapped, str(version))
        rows = json.loads(run(f"python -c '{ROWS}'", swapped))["raw"]
        with served("./serve.sh --live --port", swapped, "version") as address:
            live = ask(address, {"dataframe_records": rows, "params": {"output": "probability"}})
        assert live == (200, {"predictions": by_stock})
        assert "same: yes" in run(f"python register.py reproduce {version}", swapped)
