"""`python -m understudy.declare` on generated tables: what it makes of each column, and that its module holds."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import PROJECT, Ended, environment, is_refusal
from understudy.declare import __main__ as declare
from understudy.declare import kinds
from understudy.reading import table_rows
from understudy.schema.columns import Category, Date, Number
from understudy.schema.declaration import Table

ROWS = 400
RUFF = Path(sys.executable).with_name("ruff")
STATES = ["Ohio", "Iowa", "Utah", *(f"State {number}" for number in range(30))]
TEXTS = ["one and the same", "never the same"]


def everything() -> pd.DataFrame:
    """A table with one column of each kind, whose names and values are hard to write as Python."""
    rng = np.random.default_rng(0)
    is_yes = rng.random(ROWS) < 0.4
    days = pd.Series(pd.date_range("2019-03-01", periods=ROWS).strftime("%Y-%m-%d"))
    rows = {
        "row": range(1, ROWS + 1),
        "ledger": 10**17 + np.arange(ROWS) // 2,
        "customerID": [f"C-{number:04}" for number in rng.permutation(ROWS)],
        "signed": days.where(rng.random(ROWS) < 0.9),
        "amount": pd.Series(rng.normal(0, 100, ROWS).round(2).astype(str)).where(rng.random(ROWS) < 0.95, "NA"),
        "score": pd.Series(rng.integers(1, 100, ROWS).astype(str)).where(rng.random(ROWS) < 0.95, "-"),
        "visits": np.where(rng.random(ROWS) < 0.1, -999, rng.integers(0, 30, ROWS)),
        "grade": rng.integers(1, 5, ROWS),
        "flag": rng.integers(0, 2, ROWS),
        "ok": rng.random(ROWS) < 0.5,
        "state": [STATES[place] for place in np.minimum(rng.geometric(0.12, ROWS) - 1, len(STATES) - 1)],
        "Gender": rng.choice(["F", "M"], ROWS),
        "race": rng.integers(1, 4, ROWS),
        "Marital status": rng.choice(["married", "single", "unknown"], ROWS),
        "postal code": [f"0{number}" for number in rng.integers(1000, 9999, ROWS)],
        "comment": [f"customer number {number} said hello" for number in range(ROWS)],
        "branch": "Main Street",
        "accountNo": rng.integers(10_000, 10_150, ROWS),
        "price": [f"{number},{number}" if number < 300 else number for number in range(100, 100 + ROWS)],
        "seen": [f"{number % 28 + 1}/3/2020" for number in range(ROWS)],
        "outcome_days": np.where(is_yes, rng.integers(50, 90, ROWS), rng.integers(0, 40, ROWS)),
        "class": rng.choice(["b", "B", "c"], ROWS),
        'a "quoted" name': rng.choice(['say "no"', "it's", "back\\slash"], ROWS),
        "größe \u2013 \u0441m": rng.choice(["groß", "klein", "tab\there"], ROWS),
        "a name of many words that goes on and on, as those of questionnaires do, " * 2 + "or worse": rng.random(ROWS),
        "outcome": np.where(is_yes, "yes", "no"),
    }
    return pd.DataFrame(rows)


@pytest.fixture
def declared(call: Callable[..., Ended], tmp_path: Path) -> Callable[..., tuple[str, Table]]:
    """The module that is printed for rows, or for an address, and its table."""

    def declared(rows: pd.DataFrame | str, *options: str, target: str = "outcome") -> tuple[str, Table]:
        address = rows if isinstance(rows, str) else str(tmp_path / "some rows.csv")
        if isinstance(rows, pd.DataFrame):
            rows.to_csv(address, index=False)
        ended = call(declare, address, "--target", target, *options)
        assert ended.code == 0, ended.err
        names: dict[str, Any] = {}
        exec(ended.out, names)  # noqa: S102 - it is what the test is about
        return ended.out, names["TABLE"]

    return declared


def above(module: str, line: str) -> str:
    """The comments right above the line of a module that begins so, without their marks."""
    lines = module.splitlines()
    end = next(place for place, text in enumerate(lines) if text.strip().startswith(line))
    start = end
    while lines[start - 1].strip().startswith("#"):
        start -= 1
    return " ".join(text.strip().removeprefix("# ") for text in lines[start:end])


def test_each_column_becomes_what_it_is(declared: Callable[..., tuple[str, Table]]) -> None:
    module, table = declared(everything())
    assert "names the rows as well" in above(module, '"row"')
    columns = {column.name: column for column in table.columns}
    assert (table.name, table.identifier, table.select_by) == ("some_rows", "customerID", "accuracy")
    assert table.target == Category("outcome", ("no", "yes"))
    assert table.missing == ("-", "NA")
    assert columns["signed"] == Date("signed", missing=True)
    assert columns["amount"] == Number("amount", "units", -600, 600, missing=True)
    assert columns["score"] == Number("score", "units", 0, 150, missing=True)
    assert columns["grade"] == Number("grade", "units", 0, 6)
    assert columns["flag"] == Category("flag", (0, 1))
    assert columns["ok"] == Category("ok", ("False", "True"))
    assert columns["Gender"] == Category("Gender", ("F", "M"), sensitive=True)
    assert columns["race"] == Category("race", (1, 2, 3), sensitive=True)
    assert isinstance(columns["state"], Category)
    assert columns["state"].other
    assert {"Ohio", "Iowa", "Utah"} < {*columns["state"].values} < {*STATES}
    assert table.ignore == ("row", "ledger", "postal code", "comment", "branch", "accountNo", "price", "seen")
    assert list(columns) == [name for name in everything() if name not in {*table.ignore, "customerID", "outcome"}]


def test_what_only_people_can_answer_is_asked_where_it_belongs(declared: Callable[..., tuple[str, Table]]) -> None:
    rows = everything().drop(columns="row")
    module, _ = declared(pd.concat([rows, rows.tail(3).assign(customerID=["X", "Y", "Z"])]))
    questions = {
        "identifier=": "3 rows are like an earlier one",
        "target=": "yes is the positive answer, by its name",
        "columns=": "A number's unit",
        "missing=": "stand for a missing cell",
        'Number("visits"': "-999",
        'Number("grade"': "Codes and no amounts? Then it is Category(..., (1, 2, 3, 4))",
        'Category("Gender"': "Sensitive by its name",
        'Category("Marital status"': "With sensitive=True",
        'Number("outcome_days"': "Is it known before the outcome is? It is called like the target",
        'Category("class"': "'B' and 'b' may be meant as one value",
        '"comment"': "free text",
        '"branch"': "says nothing",
        '"accountNo"': "cases by its name",
        '"price"': "thousands separator",
        '"seen"': "Dates are read as 2026-11-01 only",
    }
    assert {line: text for line, text in questions.items() if text not in above(module, line)} == {}
    assert "AUC of 1.000" in above(module, 'Number("outcome_days"')
    assert "missing=" in above(module, 'Category("Marital status"')
    assert "AUC" not in above(module, 'Category("flag"')
    assert above(module, 'Category("flag"') == above(module, 'Number("score"') == ""


@pytest.mark.parametrize("names", [[*everything()], ["customerID", "flag", "outcome"], ["flag", "branch", "outcome"]])
@pytest.mark.parametrize("command", [["format", "--diff"], ["check"]])
def test_the_module_is_as_ruff_leaves_it(
    declared: Callable[..., tuple[str, Table]], command: list[str], names: list[str]
) -> None:
    module, _ = declared(everything()[names])
    ended = subprocess.run(
        [RUFF, *command, "--stdin-filename", "understudy/table.py", "-"],
        cwd=PROJECT,
        input=module,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_table_reads_its_file_and_splits_it(declared: Callable[..., tuple[str, Table]]) -> None:
    module, table = declared(everything())
    rows = table_rows.read(table, table.path)
    assert len(rows) == ROWS
    assert table.faults(rows[[column.name for column in table.columns]]) == []
    assert rows["amount"].isna().sum() == (everything()["amount"] == "NA").sum() > 0
    assert [len(side) > 80 for side in table.split(rows, folds=5)] == [True, True]
    assert "Date, Number" in module


def test_a_marker_of_one_column_may_be_a_rare_value_of_another(declared: Callable[..., tuple[str, Table]]) -> None:
    rows = everything()[["customerID", "score", "state", "outcome"]]
    rows.loc[7, ["score", "state"]] = "none"
    _, table = declared(rows)
    assert table.missing == ("-", "none")
    assert [column.missing for column in table.columns] == [True, True]
    assert len(table_rows.read(table, table.path)) == ROWS


def test_a_column_with_a_marker_names_no_row(declared: Callable[..., tuple[str, Table]]) -> None:
    rows = everything().drop(columns="row")
    rows.loc[3, "customerID"] = "NA"
    _, table = declared(rows)
    assert table.identifier == ()
    assert len(table_rows.read(table, table.path)) == ROWS


def test_only_what_is_used_is_imported(declared: Callable[..., tuple[str, Table]]) -> None:
    module, _ = declared(everything()[["customerID", "flag", "outcome"]])
    assert "import Category\n" in module
    assert not any(text in module for text in ("A number's unit", "select_by", "ignore", "missing"))


def test_what_the_reader_says_is_no_part_of_the_module(call: Callable[..., Ended], tmp_path: Path) -> None:
    everything().assign(**{"": ""}).to_csv(tmp_path / "rows.csv", index=False)
    ended = call(declare, str(tmp_path / "rows.csv"), "--target", "outcome")
    assert "1 columns without a name" in ended.err
    assert ended.out.startswith('"""The table')


def test_other_sources_give_what_csv_gives(declared: Callable[..., tuple[str, Table]], tmp_path: Path) -> None:
    rows = everything()[["customerID", "signed", "grade", "flag", "ok", "state", "outcome"]].assign(share=0.25)
    rows.loc[::2, "share"] = np.nan
    rows.loc[::3, "share"] = 1.5
    _, from_csv = declared(rows)
    rows.assign(signed=pd.to_datetime(rows["signed"])).to_parquet(tmp_path / "some rows.parquet")
    with closing(sqlite3.connect(tmp_path / "some.db")) as store:
        rows.assign(ok=rows["ok"].astype(str)).to_sql("some_rows", store, index=False)
    _, from_parquet = declared(str(tmp_path / "some rows.parquet"))
    assert from_parquet.columns == from_csv.columns
    assert len(table_rows.read(from_parquet, from_parquet.path)) == ROWS
    address = f"sqlite:///{tmp_path}/some.db#some_rows"
    _, from_database = declared(address)
    assert from_database.columns == from_csv.columns
    assert from_database.path == address


def test_cells_that_are_neither_text_nor_numbers_are_ignored(
    declared: Callable[..., tuple[str, Table]], tmp_path: Path
) -> None:
    rows = everything()[["customerID", "flag", "outcome"]]
    rows.assign(picture=[b"\x00\xff"] * ROWS).to_parquet(tmp_path / "rows.parquet")
    module, table = declared(str(tmp_path / "rows.parquet"))
    assert table.ignore == ("picture",)
    assert "neither text nor numbers: bytes" in above(module, '"picture"')


def test_neither_password_nor_signature_is_printed(call: Callable[..., Ended]) -> None:
    ended = call(declare, "mysql://me:secret@127.0.0.1:1/db#loans", "--target", "outcome")
    assert is_refusal(ended)
    assert "secret" not in ended.out + ended.err


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("yes", "no"), ("no", "yes")),
        (("good", "bad"), ("good", "bad")),
        ((1, 0), (0, 1)),
        (("True", "False"), ("False", "True")),
        (("left", "right"), ("right", "left")),
        (("cats", "dogs", "dogs"), ("dogs", "cats")),
        ((2, 1, 1), (1, 2)),
    ],
)
def test_the_positive_answer_is_guessed_by_its_name_or_else_is_the_rarer_one(
    declared: Callable[..., tuple[str, Table]], values: tuple[Any, ...], expected: tuple[Any, ...]
) -> None:
    rows = pd.DataFrame({"x": [*range(30)] * 2, "outcome": [*values] * (60 // len(values))})
    assert declared(rows)[1].target.values == expected
    swapped = declared(rows, "--positive", str(expected[0]), "--name", "Mine")[1]
    assert (swapped.name, swapped.target.values) == ("Mine", expected[::-1])


def test_several_columns_name_rows_together_and_else_a_digest_does(
    declared: Callable[..., tuple[str, Table]],
) -> None:
    rows = pd.DataFrame({"shopId": [1, 2] * 50, "saleNo": np.arange(100) // 2, "x": [1, 2, 3, 4, 9] * 20})
    rows["outcome"] = ["a", "b", "b", "b"] * 25
    module, table = declared(rows)
    assert (table.identifier, table.ignore) == (("shopId", "saleNo"), ())
    assert len(table_rows.read(table, table.path)) == 100
    module, table = declared(rows.drop(columns="saleNo").assign(day=pd.date_range("2020-01-01", periods=100)))
    assert table.identifier == ()
    assert isinstance(table.columns[-1], Date)
    assert "No column names a row" in above(module, "identifier=")
    assert len(table_rows.read(table, table.path)) == 100


def test_a_rare_answer_is_selected_by_auc(declared: Callable[..., tuple[str, Table]]) -> None:
    module, table = declared(everything().assign(outcome=["yes"] * 12 + ["no"] * (ROWS - 12)))
    assert table.select_by == "AUC"
    assert "3.0%" in above(module, "select_by=")
    assert "Only 12 rows" in above(module, "target=")


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (0, 3, (0, 5)),
        (18, 90, (0, 130)),
        (1990, 2010, (1980, 2020)),
        (-5, -1, (-7, 0)),
        (-1.0, 1.0, (-2, 2)),
        (0.05, 0.16, (0, 0.22)),
        (1_000, 81_000, (0, 130_000)),
        (-1e308, 1e308, (-sys.float_info.max, sys.float_info.max)),
        (5e-324, 1e-323, (0, 1.5e-323)),
    ],
)
def test_a_range_has_air_and_does_not_change_its_sign(least: float, most: float, expected: tuple[float, float]) -> None:
    middle = least / 3 + most / 3 * 2
    cells = pd.Series([least, middle, most] * 40, name="x").astype(str)
    column = kinds.judge(cells).column
    assert isinstance(column, Number)
    assert (column.low, column.high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda rows: rows.rename(columns={"outcome": "result"}),
            "has no column outcome fix: choose --target from row, ledger, customerID",
        ),
        (
            lambda rows: rows.assign(outcome=rows["outcome"].where(rows.index > 5, "maybe")),
            "outcome has 3 values (maybe, no, yes)",
        ),
        (lambda rows: rows.assign(outcome=rows["grade"]), 'rows["outcome"] = rows["outcome"] == "1"'),
        (lambda rows: rows.assign(outcome=rows["amount"].where(rows["amount"] != "NA", 0)), "> "),
        (lambda rows: rows.assign(outcome="yes"), "outcome has 1 values (yes), and a target has two"),
        (
            lambda rows: rows.assign(outcome=rows["outcome"].where(rows.index > 5)),
            "says neither no nor yes in 6 of 400 rows",
        ),
        (
            lambda rows: rows.assign(outcome=rows["outcome"].where(rows.index > 5, "?")),
            "says neither no nor yes in 6 of 400 rows",
        ),
        (lambda rows: rows[["outcome", "branch"]], "has no column beside outcome"),
        (lambda rows: rows.head(0), "has no rows"),
        (lambda rows: rows.rename(columns={"flag": "grade"}), "two columns grade"),
    ],
)
def test_what_cannot_be_declared_is_refused_and_prints_nothing(
    change: Callable[[pd.DataFrame], pd.DataFrame], said: str, call: Callable[..., Ended], tmp_path: Path
) -> None:
    change(everything()).to_csv(tmp_path / "rows.csv", index=False)
    ended = call(declare, str(tmp_path / "rows.csv"), "--target", "outcome")
    assert is_refusal(ended)
    assert said in " ".join(ended.err.split())
    assert ended.out == ""


def test_a_positive_answer_that_never_comes_is_refused(call: Callable[..., Ended], tmp_path: Path) -> None:
    everything().to_csv(tmp_path / "rows.csv", index=False)
    ended = call(declare, str(tmp_path / "rows.csv"), "--target", "outcome", "--positive", "Yes")
    assert is_refusal(ended)
    assert "choose --positive from no, yes" in ended.err


def test_it_fills_the_file_that_the_shell_has_emptied_and_the_table_trains(project: Path) -> None:
    everything().to_csv(project / "data" / "mine.csv", index=False)
    command = "python -m understudy.declare data/mine.csv --target outcome > understudy/table.py"
    train = "python train.py --models LogisticRegression"
    for line in (command, train):
        ended = subprocess.run(["bash", "-c", line], cwd=project, env=environment(), capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    assert 'path="data/mine.csv"' in (project / "understudy" / "table.py").read_text()
    assert "LogisticRegression: mean CV score 0.99" in ended.stdout  # by the leak that it asks about


def test_help_waits_for_no_heavy_package() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "understudy.declare", "--help"]
    ended = subprocess.run(command, cwd=PROJECT, env=environment(), capture_output=True, text=True, check=True)
    loaded = {line.rsplit("|", 1)[1].strip() for line in ended.stderr.splitlines()}
    assert "understudy.errors" in loaded
    assert not loaded & {"numpy", "pandas", "sklearn", "mlflow", "understudy.table"}
