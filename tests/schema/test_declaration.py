"""Mistakes in a declaration, and the columns, values and names of rows that only some tables have."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import svm, tree

from tests.conftest import PROJECT, environment
from understudy.errors import UserError
from understudy.families import Family
from understudy.reading import table_rows
from understudy.schema.columns import Category, Date, Number
from understudy.schema.compatibility import breaking_changes, row_schema
from understudy.schema.declaration import Feature, Table
from understudy.scoring.forms import RowsRefused
from understudy.scoring.predictors import Predictor
from understudy.scoring.scorer import PROBABILITY, Scorer
from understudy.table import TABLE

LABEL = Category("y", ("no", "yes"))
AGE, STATE = Number("age", "years", 0, 120, missing=True), Category("state", ("CA", "NY"), missing=True, other=True)
ISSUED = Date("issued", unit="days since 2020-01-01", low="2020-01-01", high="2029-12-31", missing=True)
LOANS = Table("loans", "loans.csv", ("branch", "number"), LABEL, (AGE, STATE, ISSUED), ignore=("comment", "free*"))
ROWS = {
    "branch": ["a", "a", "b", "b"],
    "number": ["1", "2", "1", "2"],
    "age": ["30", "", "50", "60"],
    "state": ["CA", " NY ", "WY", ""],
    "issued": ["2020-01-01", "2020-02-01", "", "2021-01-01"],
    "comment": ["x", "y", "z", ""],
    "free text": ["x", "y", "z", ""],
    "y": ["no", "yes", "no", "yes"],
}
FAULTY: dict[str, Callable[[], Any]] = {
    "lists 'CA' twice": lambda: Category("state", ("CA", "NY", "CA")),
    "its values in a tuple": lambda: Category("state", "CA"),  # type: ignore[arg-type]
    "neither all text nor all numbers": lambda: Category("state", ("CA", 1)),  # type: ignore[arg-type]
    "neither all text nor all numbers ": lambda: Category("state", (False, True)),
    "an empty text": lambda: Category("state", ("CA", "")),
    "lists 'other'": lambda: Category("state", ("CA", "other"), other=True),
    "needs a name": lambda: Number(" age", "years", 0, 1),
    "no range": lambda: Number("age", "years", 5, 1),
    "is no text": lambda: Number("age", 0, 1, 5),  # type: ignore[arg-type]
    "days since a date": lambda: Date("issued", unit="weeks since 2020-01-01"),
    "no range of dates": lambda: Date("issued", low="2020-02-30"),
    "no range: from 2021": lambda: Date("issued", low="2021-01-01", high="2020-01-01"),
    "its columns in a tuple": lambda: Feature("total", of="age"),  # type: ignore[arg-type]
    "made from agee, which is no column; did you mean age?": lambda: replace(LOANS, features=(Feature("agee"),)),
    "only columns of numbers": lambda: replace(LOANS, features=(Feature("t", of=("age", "state")),)),
    "only columns of numbers ": lambda: replace(LOANS, features=(Feature("issued", log=True),)),
    "never above 0": lambda: Table("t", "t", "id", LABEL, (Number("x", "m", -5, 0),), (Feature("x", log=True),)),
    "feature age is declared twice": lambda: replace(LOANS, features=(Feature("age"), Feature("age"))),
    "age is declared twice": lambda: replace(LOANS, columns=(AGE, AGE)),
    "y is declared twice": lambda: replace(LOANS, columns=(Number("y", "m", 0, 1),)),
    "id is declared twice": lambda: Table("t", "t", "id", LABEL, (Number("id", "m", 0, 1),)),
    "no identifier": lambda: Table(name="t", path="t", target=LABEL, columns=(AGE,)),
    "a Category of two values": lambda: replace(LOANS, target=Category("y", ("a", "b", "c"))),
    "a Category of two values ": lambda: replace(LOANS, target=Number("y", "m", 0, 1)),  # type: ignore[arg-type]
    "at least one of them": lambda: replace(LOANS, columns=()),
    "age is a column, and may not be ignored": lambda: replace(LOANS, ignore=("age",)),
    "ignore has to be a tuple": lambda: replace(LOANS, ignore="comment"),  # type: ignore[arg-type]
    "allowed: accuracy, AUC, log loss, cost": lambda: replace(LOANS, select_by="auc"),
    "not a share": lambda: replace(LOANS, held_out=30),
    "have to be above 0": lambda: replace(LOANS, false_positive_cost=0),
    "has max_deepth, which it does not take": lambda: Family(tree.DecisionTreeClassifier(), {"max_deepth": [1]}, {}),
    "has no list of values for max_depth": lambda: Family(tree.DecisionTreeClassifier(), {}, {"max_depth": 3}),  # type: ignore[dict-item]
    "the types of DecisionTreeClassifier are a text": lambda: Family(
        tree.DecisionTreeClassifier(), {}, {}, types="a.B"
    ),
    "has no predict_proba": lambda: Family(svm.LinearSVC(), {}, {}),
}


@pytest.mark.parametrize("said", FAULTY)
def test_a_mistake_in_a_declaration_is_said_when_it_is_made(said: str) -> None:
    with pytest.raises(UserError) as refused:
        FAULTY[said]()
    assert said.strip() in refused.value.problem
    assert refused.value.fix


@pytest.mark.parametrize("script", ["train.py", "promote.py", "-m understudy.serving"])
def test_a_script_says_it_in_two_lines(script: str, tmp_path: Path) -> None:
    package = tmp_path / "understudy"
    package.mkdir()
    for path in (PROJECT / "understudy").iterdir():
        (package / path.name).symlink_to(path)
    (package / "table.py").unlink()
    declared = (
        (PROJECT / "understudy" / "table.py").read_text().replace('"CoapplicantIncome"),', '"CoaplicantIncome"),')
    )
    (package / "table.py").write_text(declared)
    for name in ("train.py", "promote.py"):
        (tmp_path / name).write_text((PROJECT / name).read_text())
    ended = subprocess.run(
        [sys.executable, *script.split()], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "error: Table Loan_prediction: feature TotalIncome is made from CoaplicantIncome, which is no column; "
        "did you mean CoapplicantIncome?\nfix: correct it in understudy/table.py\n"
    )


def written(folder: Path, rows: pd.DataFrame) -> Path:
    rows.to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def test_columns_name_rows_together_and_others_are_ignored(tmp_path: Path) -> None:
    rows = table_rows.read(LOANS, written(tmp_path, pd.DataFrame(ROWS)))
    assert list(rows) == ["branch + number", "age", "state", "issued", "y"]
    assert rows["branch + number"].tolist() == ['["a", "1"]', '["a", "2"]', '["b", "1"]', '["b", "2"]']
    twice = pd.DataFrame(ROWS).assign(number="1")
    with pytest.raises(UserError, match=r"branch \+ number: repeated in row 2, 4"):
        table_rows.read(LOANS, written(tmp_path, twice))
    with pytest.raises(UserError, match="number: column is missing"):
        table_rows.read(LOANS, written(tmp_path, twice.drop(columns="number")))
    with pytest.raises(UserError, match="unheard: column is not known"):
        table_rows.read(LOANS, written(tmp_path, twice.assign(unheard=1)))
    anything = replace(LOANS, ignore=("*",))
    assert len(table_rows.read(anything, written(tmp_path, pd.DataFrame(ROWS).assign(unheard=1)))) == 4


def test_a_column_may_name_rows_and_be_learned_from(tmp_path: Path) -> None:
    table = replace(LOANS, columns=(Category("branch", ("a", "b")), AGE), ignore=("*",))
    rows = table_rows.read(table, written(tmp_path, pd.DataFrame(ROWS)))
    assert list(rows) == ["branch + number", "branch", "age", "y"]


def test_a_digest_names_rows_and_equal_rows_are_on_one_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = replace(LOANS, identifier=(), ignore=("*",))
    twice = pd.concat([pd.DataFrame(ROWS)] * 20, ignore_index=True)
    ages = [str(number // 4) for number in range(80)]
    twice = pd.concat([twice.assign(age=ages), twice.assign(age=ages, y="no", branch="c")], ignore_index=True)
    rows = table_rows.read(table, written(tmp_path, twice))
    assert "a row that is corrected may change sides of the split" in capsys.readouterr().out
    names = rows["row digest"]
    assert names.is_unique
    assert len({name.partition(" ")[0] for name in names}) == 80
    training, held_out = ({name.partition(" ")[0] for name in side["row digest"]} for side in table.split(rows))
    assert training
    assert held_out
    assert not training & held_out
    # The form of a number in the file makes no other row of it.
    again = table_rows.read(table, written(tmp_path, twice.assign(age=[f"{age}.0" for age in twice["age"]])))
    assert again["row digest"].tolist() == names.tolist()


@pytest.mark.parametrize(
    "issued",
    [
        ["2020-01-01", "2020-02-01", None, "2021-01-01"],
        [date(2020, 1, 1), date(2020, 2, 1), None, date(2021, 1, 1)],
        [datetime(2020, 1, 1), datetime(2020, 2, 1), None, datetime(2021, 1, 1)],
        pd.Series(["2020-01-01", "2020-02-01", None, "2021-01-01"], dtype="datetime64[ns]"),
    ],
)
def test_dates_are_days_whatever_holds_them(issued: Sequence[Any], tmp_path: Path) -> None:
    pd.DataFrame(ROWS).assign(issued=issued).to_parquet(tmp_path / "rows.parquet")
    rows = table_rows.read(LOANS, tmp_path / "rows.parquet")
    assert rows["issued"].tolist()[:2] == ["2020-01-01", "2020-02-01"]
    np.testing.assert_array_equal(LOANS.encode(rows)[:, 2], [0, 31, np.nan, 366])


@pytest.mark.parametrize(
    "cell", ["2020-1-1", "20200101", "2020-02-30", "1.1.2020", "2019-12-31", "2020-01-01T12:00", 5]
)
def test_what_is_no_date_in_range_is_a_fault(cell: Any) -> None:
    [fault] = LOANS.faults({"age": [1.0], "state": ["CA"], "issued": [cell]})
    assert fault.problem in ("not a date in range", "not text")
    assert fault.allowed == "a date from 2020-01-01 to 2029-12-31, written as 2026-11-01"


def test_values_that_are_not_listed_are_said_and_are_one_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = table_rows.read(LOANS, written(tmp_path, pd.DataFrame(ROWS)))
    assert "1 rows have a value of state that is not listed; they count as other" in capsys.readouterr().out
    assert rows["state"].tolist()[:3] == ["CA", "NY", "WY"]
    np.testing.assert_array_equal(LOANS.encode(rows)[:, 1], [0, 1, 2, np.nan])
    assert LOANS.groups(rows)["state"].tolist()[:3] == ["CA", "NY", "other"]
    assert LOANS.encoded[1] == Category("state", (0, 1, 2), missing=True)


class Sum(Predictor):
    """Adds up the features, so that a test sees them."""

    def probabilities(self, features: Any) -> Any:
        return np.nansum(features, axis=1)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(LOANS, Sum([]), 0.5, {})


def test_requests_may_bring_ignored_columns_and_unlisted_values(scorer: Scorer) -> None:
    row = {"age": 0, "state": "WY", "issued": "2020-01-11"}
    assert scorer.predict([row], PROBABILITY) == [12]
    assert scorer.predict([{**row, "comment": "x", "free text": 1}], PROBABILITY) == [12]
    assert scorer.predict({name: [cell] for name, cell in {**row, "state": " NY "}.items()}, PROBABILITY) == [11]
    assert scorer.predict([{**row, "state": ""}], PROBABILITY) == [10]  # empty text is a missing cell, no other value
    answered = scorer.answer([row, {**row, "state": "CA"}, {**row, "state": None}], PROBABILITY, "")
    assert scorer.unlisted(answered.form, answered.columns) == {"state": 1}
    assert scorer.predict([[0, 2, 10]], PROBABILITY) == [12]
    for faulty in ({**row, "state": 5}, {**row, "remark": "x"}, {**row, "issued": "2020"}):
        with pytest.raises(RowsRefused):
            scorer.predict([faulty])


def test_the_record_that_differs_from_the_table_is_blamed(scorer: Scorer) -> None:
    row = {"age": 0, "state": "WY", "issued": "2020-01-11"}
    with pytest.raises(RowsRefused) as refused:
        scorer.predict([{**row, "remark": "x"}, row, row])
    [fault] = refused.value.faults
    assert (fault.rows, fault.problem) == ((1,), "other columns than the table")


def test_a_declaration_survives_json_and_a_schema_describes_it() -> None:
    assert Table.of(json.loads(json.dumps(LOANS.as_dict()))) == LOANS
    digest = replace(LOANS, identifier=())
    assert Table.of(json.loads(json.dumps(digest.as_dict()))) == digest
    schema = row_schema(LOANS)
    assert schema["properties"]["state"] == {"type": ["string", "null"], "examples": ["CA", "NY"]}
    assert schema["properties"]["issued"]["format"] == "date"
    assert schema["properties"]["comment"] == {}
    assert schema["additionalProperties"] is True
    assert schema["$defs"]["label"] == {"title": "y", "enum": ["no", "yes"]}
    assert row_schema(replace(LOANS, ignore=()))["additionalProperties"] is False
    assert row_schema(TABLE)["additionalProperties"] is False
    for named in (row_schema(TABLE), row_schema(TABLE)["$defs"]["encoded"]):
        assert named["properties"]["Loan_ID"]["type"] == ["string", "integer", "null"]
        assert "Loan_ID" not in named["required"]


def test_what_is_not_ignored_any_more_breaks_the_contract() -> None:
    assert breaking_changes(LOANS, replace(LOANS, ignore=("free*",))) == ["comment: is not ignored any more"]
    assert breaking_changes(LOANS, replace(LOANS, ignore=("*",))) == []
    listed = replace(LOANS, columns=(AGE, replace(STATE, other=False), ISSUED))
    assert "state: takes CA, NY instead of CA, NY, or another value" in breaking_changes(LOANS, listed)
    longer = replace(LOANS, columns=(AGE, replace(STATE, values=("CA", "NY", "TX")), ISSUED))
    assert any("encoded rows: state: its codes stand for" in text for text in breaking_changes(LOANS, longer))
