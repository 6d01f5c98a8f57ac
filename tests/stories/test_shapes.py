"""Generated tables of every shape that can be declared, each from training to a rollback."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from tests.conftest import environment

# All scripts in one process, since each would load MLflow for itself; then a row is scored by what is in Production.
WALK = """
import sys
from pathlib import Path
import evaluate, promote, register, score, train
import pandas as pd
from understudy import errors
from understudy.registry import stages
from understudy.scoring import scorer
from understudy.serving import request
from understudy.table import TABLE
from understudy.tracking import connection
from understudy.verification import manifest
for script, *arguments in [
    (train, "--models", "DecisionTreeClassifier,LogisticRegression"),
    (evaluate,),
    (register, "--model", "LogisticRegression"),
    (promote, "staging"),
    (promote, "production", "--force", "--reason", "the first"),
    (register, "--model", "DecisionTreeClassifier"),
    (promote, "staging"),
    (promote, "production", "--force", "--reason", "the second"),
    (promote, "rollback", "--reason", "complaints"),
    (promote, "check"),
]:
    sys.argv = [script.__file__, *arguments]
    errors.run(script.main)
client = connection.connect()
version = stages.aliases(client, TABLE.name)["production"]
with manifest.verified(client, client.get_model_version(TABLE.name, version)) as folder:
    model, row = scorer.load(folder), {column.name: column.example for column in TABLE.columns}
    print("answers", *model.predict([row, row]))
sys.argv = ["score.py", TABLE.path, "scores.parquet", "--strict"]
errors.run(score.main)
scores = pd.read_parquet("scores.parquet")
content = pd.read_csv(TABLE.path, dtype=str)[[column.name for column in TABLE.columns]].to_csv(index=False)
rows = request.asked(content.encode(), "text/csv", model).rows
assert scores["label"].tolist() == model.predict(rows)
assert scores["probability"].tolist() == model.predict(rows, scorer.PROBABILITY)
print("scores are the server's")
"""
RNG = np.random.default_rng(0)


def rows(count: int, positive: float, columns: int) -> pd.DataFrame:
    """Rows with an identifier, a target of yes and no, and columns of numbers that tell a little of it."""
    label = np.arange(count) < round(count * positive)
    numbers = RNG.normal(size=(count, columns)) + label[:, None] / 2
    named = pd.DataFrame(numbers.round(3), columns=[f"x{place}" for place in range(columns)])
    return named.assign(id=[f"r{number}" for number in range(count)], y=np.where(label, "yes", "no"))


def numbers(count: int) -> str:
    return f'*(Number(f"x{{place}}", "units", -10, 10) for place in range({count})),'


def cancer() -> pd.DataFrame:
    table: pd.DataFrame = load_breast_cancer(as_frame=True).frame
    return table


def categories() -> pd.DataFrame:
    table = rows(400, 0.4, 3)
    return table.assign(**{name: np.where(table[name] > 0, "a", "b") for name in ("x0", "x1", "x2")})


def every_kind() -> pd.DataFrame:
    table = rows(500, 0.4, 2)
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 900, 500), unit="D")
    table["issued"] = days.strftime("%Y-%m-%d")
    table["state"] = RNG.choice(["CA", "NY", "TX", "WY"], 500)
    table["comment"] = [f"free text {number}" for number in range(500)]
    table["branch"], table["number"] = np.arange(500) % 7, np.arange(500)
    return (
        table.mask(RNG.random(table.shape) < 0.05)
        .fillna({"y": "no", "branch": 9, "number": -1})
        .iloc[:, :-3]
        .assign(comment=table["comment"], branch=table["branch"], number=table["number"], y=table["y"])
    )


SHAPES: dict[str, tuple[Callable[[], pd.DataFrame], str]] = {
    "numbers alone, without an identifier": (
        cancer,
        'identifier=(), target=Category("target", (0, 1)), select_by="AUC", '
        f'columns=tuple(Number(name, "units", 0, 10_000) for name in {load_breast_cancer().feature_names.tolist()})',
    ),
    "categories alone": (
        categories,
        'identifier="id", target=Category("y", ("no", "yes")), '
        'columns=tuple(Category(f"x{place}", ("a", "b"), sensitive=True) for place in range(3))',
    ),
    "one column": (
        lambda: rows(300, 0.5, 1),
        f'identifier="id", target=Category("y", ("no", "yes")), columns=({numbers(1)})',
    ),
    "200 columns": (
        lambda: rows(600, 0.4, 200),
        f'identifier="id", target=Category("y", ("no", "yes")), select_by="log loss", columns=({numbers(200)})',
    ),
    "1.8 % positives": (
        lambda: rows(5_000, 0.018, 4),
        'identifier="id", target=Category("y", ("no", "yes")), false_negative_cost=20, select_by="cost", '
        f"columns=({numbers(4)})",
    ),
    "20 rows of the rarer class": (
        lambda: rows(400, 0.05, 3),
        f'identifier="id", target=Category("y", ("no", "yes")), columns=({numbers(3)})',
    ),
    "every kind of column": (
        every_kind,
        'identifier=("branch", "number"), target=Category("y", ("no", "yes")), ignore=("comm*", "id"), columns=('
        'Number("x0", "units", -10, 10, missing=True), Number("x1", "units", -10, 10, missing=True), '
        'Date("issued", unit="days since 2020-01-01", low="2020-01-01", high="2030-12-31", missing=True), '
        'Category("state", ("CA", "NY"), missing=True, other=True))',
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_of_any_shape_goes_from_training_to_a_rollback(shape: str, project: Path) -> None:
    generate, declared = SHAPES[shape]
    generate().to_csv(project / "data" / "shape.csv", index=False)
    (project / "understudy" / "table.py").write_text(
        "from understudy.schema.columns import Category, Date, Number\n"
        "from understudy.schema.declaration import Table\n"
        f'TABLE = Table(name="Shape", path="data/shape.csv", {declared})\n'
    )
    ended = subprocess.run(
        [sys.executable, "-c", WALK], cwd=project, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout[-3_000:] + ended.stderr[-3_000:]
    assert "Shape version 1 is in Production again" in ended.stdout
    assert "Shape: all is well" in ended.stdout
    assert "\nanswers " in ended.stdout
    assert ended.stdout.splitlines()[-1] == "scores are the server's"
