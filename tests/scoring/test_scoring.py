import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model
from mlflow.pyfunc import scoring_server

from tests.conftest import PROJECT, REAL, SAMPLE, environment, needs_real_table
from understudy.errors import UserError
from understudy.families import FAMILIES
from understudy.reading import table_rows
from understudy.reading.table_rows import typed
from understudy.schema.columns import Date, listed
from understudy.schema.declaration import Feature, Table
from understudy.schema.faults import tidied
from understudy.scoring import forms, model_files, pipelines, scorer
from understudy.scoring.flavor import MlflowRowsRefused
from understudy.scoring.scorer import Scorer
from understudy.serving import request
from understudy.table import TABLE
from understudy.tracking import family_runs

RAW = [column.name for column in TABLE.columns]
ENCODED = [column.name for column in TABLE.encoded]
APPLICANT: dict[str, Any] = {
    "Gender": "Male",
    "Married": "Yes",
    "Dependents": "0",
    "Education": "Graduate",
    "Self_Employed": None,
    "ApplicantIncome": 5000,
    "CoapplicantIncome": 0,
    "LoanAmount": 120,
    "Loan_Amount_Term": 360,
    "Credit_History": 1,
    "Property_Area": "Urban",
}
PROBABILITY = {"output": "probability"}


@pytest.fixture(scope="module")
def uris(trained: Path) -> dict[str, str]:
    """Where each family's model is, in a store that tests only read."""
    client = mlflow.MlflowClient(f"sqlite:///{trained / 'mlflow.db'}")
    runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
    return {family_runs.family_name(run): f"runs:/{run.info.run_id}/{family_runs.family_name(run)}" for run in runs}


@pytest.fixture
def model(uris: dict[str, str], batch_store: str) -> Any:
    return mlflow.pyfunc.load_model(uris["RandomForestClassifier"])


@pytest.fixture(scope="module")
def served(uris: dict[str, str], trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """What both servers ask."""
    client = mlflow.MlflowClient(f"sqlite:///{trained / 'mlflow.db'}")
    runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
    [run] = [run for run in runs if family_runs.family_name(run) == "LogisticRegression"]
    return scorer.load(Path(client.get_logged_model(family_runs.model_id(run)).artifact_location))


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("path", [SAMPLE, pytest.param(REAL, marks=needs_real_table)])
def test_raw_encoded_and_unnamed_rows_of_an_applicant_get_one_answer(
    name: str, path: Path, uris: dict[str, str], batch_store: str
) -> None:
    model = mlflow.pyfunc.load_model(uris[name])
    raw = table_rows.read(TABLE, path)[RAW]
    encoded = pd.DataFrame(TABLE.encode(raw), columns=ENCODED)
    for params in ({}, PROBABILITY):
        answers = model.predict(raw, params=params)
        assert model.predict(encoded[ENCODED[::-1]], params=params) == answers
        assert model.predict(encoded.to_numpy(), params=params) == answers
        assert model.predict(encoded.to_numpy().tolist(), params=params) == answers
        assert model.predict(raw.to_dict("records"), params=params) == answers
    fitted = mlflow.sklearn.load_model(uris[name])
    assert model.predict(raw) == fitted.predict(raw).tolist()
    expected = fitted.predict_proba(raw)[:, 1].tolist()
    assert model.predict(raw, params=PROBABILITY) == pytest.approx(expected, rel=0, abs=1e-12)


def test_the_example_is_an_allowed_row_that_nobody_has(served: Scorer) -> None:
    example = served.example()
    assert list(example) == RAW
    assert {type(example[name]) for name in ("ApplicantIncome", "Credit_History")} == {int}
    assert served.predict([example]) == ["Y"]
    assert example not in table_rows.read(TABLE, SAMPLE)[RAW].to_dict("records")


def test_a_model_answers_labels_and_on_request_probabilities(model: Any) -> None:
    assert model.predict([APPLICANT]) == ["Y"]
    [probability] = model.predict([APPLICANT], params=PROBABILITY)
    assert 0.5 < probability < 1


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"Gender": "male"}, "Gender: unknown category (differs in case only) in row 2 (allowed: Female, Male)"),
        ({"Dependents": 0}, "Dependents: not text in row 2"),
        ({"Education": None}, "Education: missing in row 2"),
        ({"ApplicantIncome": "5000"}, "ApplicantIncome: not a number (is text that says a number) in row 2"),
        ({"ApplicantIncome": True}, "ApplicantIncome: not a number in row 2"),
        ({"ApplicantIncome": -1}, "ApplicantIncome: out of range in row 2 (allowed: 0 to 1000000"),
        ({"ApplicantIncome": float("inf")}, "ApplicantIncome: out of range in row 2"),
        ({"ApplicantIncome": [1]}, "ApplicantIncome: not a number in row 2"),
        ({"Gender": {"a": 1}}, "Gender: not text in row 2"),
        ({"Credit_History": 0.5}, "Credit_History: unknown category in row 2 (allowed: 0, 1)"),
        ({"Credit_History": True}, "Credit_History: not a number in row 2"),
        ({"ApplicantIncome": 0}, "ApplicantIncome + CoapplicantIncome: out of range in row 2 (allowed: above 0)"),
    ],
)
def test_a_faulty_row_is_refused_by_row_column_and_what_is_allowed(
    model: Any, change: dict[str, Any], fault: str
) -> None:
    rows = [APPLICANT, {**APPLICANT, **change}]
    for form in (rows, pd.DataFrame(rows)):
        with pytest.raises(MlflowRowsRefused) as refused:
            model.predict(form)
        assert fault in str(refused.value)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        {},
        pd.DataFrame(columns=RAW),
        [1],
        [[1, 2]],
        [[1, 2], [1]],
        [[1, 0, 0, 0, 0, 4.8, 360, 1, 2, 8.5], [1, 0, 0, 0, 0, 4.8, 360, 1, 2]],
        [APPLICANT, [1, 0, 0, 0, 0, 4.8, 360, 1, 2, 8.5]],
        [[1, 0, 0, 0, 0, 4.8, 360, 1, 2, 8.5], APPLICANT],
        np.zeros((2, 3, 4)),
        np.zeros((2, 10, 4)),
        np.array(["Male", "Yes"]),
        "rows",
        5,
        None,
        {"Gender": ["Male", "Male"], "Married": ["Yes"]},
        [{**APPLICANT, "Age": 30}],
        [{name: value for name, value in APPLICANT.items() if name != "Education"}],
        pd.DataFrame([[*APPLICANT.values(), "Male"]], columns=[*RAW, "Gender"]),
        [[1, 0, 0, 0, 0, 4.8, 360, 1, 3, 8.5]],
        [[1, 0, 0, 0, 0, 4.8, 360, 1, 0.5, 8.5]],
        [[1, 0, 0, 0, 0, 4.8, 360, 1, 2, float("-inf")]],
        [["Male", 0, 0, 0, 0, 4.8, 360, 1, 2, 8.5]],
    ],
    ids=str,
)
def test_what_is_not_rows_of_an_accepted_form_is_refused(model: Any, rows: Any) -> None:
    with pytest.raises(MlflowRowsRefused):
        model.predict(rows)


@pytest.mark.parametrize("column", RAW)
@pytest.mark.parametrize("cell", [float("nan"), float("inf"), -float("inf"), True, [], {}, "secret", 10**400])
def test_json_that_the_table_does_not_allow_is_refused_in_every_column(served: Scorer, column: str, cell: Any) -> None:
    rows = [APPLICANT, {**APPLICANT, column: cell}, {**APPLICANT, column: cell}]
    with pytest.raises(forms.RowsRefused) as refused:
        served.predict(rows)
    [fault] = refused.value.body()["faults"]
    assert (fault["column"], fault["rows"], fault["count"]) == (column, [2, 3], 2)
    assert fault["allowed"]
    assert "secret" not in json.dumps(refused.value.body())


def test_missing_cells_are_taken_where_the_table_says_so(served: Scorer) -> None:
    for column in TABLE.columns:
        rows = [{**APPLICANT, column.name: None}]
        if column.missing:
            assert served.predict(rows) in (["N"], ["Y"])
        else:
            with pytest.raises(forms.RowsRefused, match=f"{column.name}: missing in row 1"):
                served.predict(rows)


def test_every_fault_of_every_row_is_named_and_columns_that_are_not_known_in_part(served: Scorer) -> None:
    rows = [{**APPLICANT, "Gender": "secret", "LoanAmount": value} for value in (None, 0, "1", 2)]
    with pytest.raises(forms.RowsRefused) as refused:
        served.predict(rows)
    rows_of_faults = {(fault.column, fault.problem): fault.rows for fault in refused.value.faults}
    assert rows_of_faults == {
        ("Gender", "unknown category"): (1, 2, 3, 4),
        ("LoanAmount", "out of range"): (2,),
        ("LoanAmount", "not a number"): (3,),
    }
    with pytest.raises(forms.RowsRefused) as refused:
        served.predict([{**APPLICANT, **{f"{number}{'x' * 10_000}": 1 for number in range(100)}}])
    faults = refused.value.body()["faults"]
    assert len(faults) == 21
    assert faults[-1]["problem"] == "column is not known, for 80 more"
    assert len(json.dumps(refused.value.body())) < 20_000


@pytest.mark.parametrize(
    "rows",
    [
        [],
        {},
        None,
        "rows",
        5,
        [[]],
        [1],
        [None],
        [APPLICANT, [1] * 10],
        [APPLICANT, {**APPLICANT, "Age": 3}],
        [APPLICANT, {**{name: APPLICANT[name] for name in RAW[1:]}, "Age": 3}],
        [{name: APPLICANT[name] for name in RAW[1:]}],
        {**{name: [APPLICANT[name]] for name in RAW}, "Gender": "Male"},
        {**{name: [APPLICANT[name]] for name in RAW}, "Gender": ["Male", "Male"]},
        {name: [] for name in RAW},
    ],
    ids=str,
)
def test_json_of_another_form_is_refused(served: Scorer, rows: Any) -> None:
    with pytest.raises(forms.RowsRefused) as refused:
        served.predict(rows)
    assert refused.value.body()["faults"]


def test_the_text_of_a_csv_file_becomes_what_json_would_say(served: Scorer) -> None:
    text = {name: ["" if APPLICANT[name] is None else str(APPLICANT[name])] for name in RAW}
    assert served.from_text(text) == {name: [APPLICANT[name]] for name in RAW}
    encoded = dict(
        zip(ENCODED, [["1"], [""], ["0"], ["0"], ["0"], ["4.8"], ["360"], ["1"], ["2"], ["8.5"]], strict=True)
    )
    assert served.predict(served.from_text(encoded)) == ["Y"]
    for cell in ("1_000", "five", "nan", "1e999"):
        with pytest.raises(forms.RowsRefused):
            served.predict(served.from_text({**text, "LoanAmount": [cell]}))
    assert served.from_text({"Age": ["", "3"]}) == {"Age": [None, "3"]}


@pytest.fixture(scope="module")
def declaring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, Scorer, Any]:
    """A table that declares markers, and its model on the live server and on MLflow's."""
    table, folder = replace(TABLE, missing=("-", "n.a.")), tmp_path_factory.mktemp("declaring") / "model"
    rows = table_rows.read(table, SAMPLE)
    decided = pipelines.decided(table, FAMILIES["LogisticRegression"].classifier, None, 0.5)
    pipeline = pipelines.build(table, decided).fit(rows, rows[table.target.name])
    model_files.save_model(str(folder), Model(), pipeline, rows)
    return table, scorer.load(folder), mlflow.pyfunc.load_model(str(folder))


def answers(declaring: tuple[Table, Scorer, Any], csv: str, folder: Path) -> list[str]:
    """What training, the live server and MLflow's say of a CSV file: how many rows it has, or what is wrong."""
    table, live, stock = declaring
    header, *rows = csv.splitlines()
    labelled = [f"L{number},{row},{'YN'['3+' in row]}" if row.strip() else row for number, row in enumerate(rows)]
    (folder / "x.csv").write_text("\n".join([f"Loan_ID,{header},Loan_Status", *labelled]) + "\n")

    def served() -> Any:
        reply = scoring_server.invocations(csv, "text/csv", stock, None)  # type: ignore[no-untyped-call]
        return json.loads(reply.response)["predictions"]

    asked: list[Callable[[], Any]] = [
        lambda: table_rows.read(table, folder / "x.csv"),
        lambda: live.predict(request.asked(csv.encode(), "text/csv", live).rows),
        served,
    ]
    outcomes = []
    for ask in asked:
        try:
            outcomes.append(f"{len(ask())} rows")
        except (UserError, forms.RowsRefused, MlflowRowsRefused) as refused:
            text = str(refused.body["message"]) if isinstance(refused, MlflowRowsRefused) else str(refused)
            outcomes.append(re.sub(r" \(allowed: [^()]+\)", "", text.partition("first")[2].partition("): ")[2]))
    return outcomes


WIDE = "LoanAmount: not a number (has digits of another script or width) in row 1"
OFTEN_MISSING = "(looks like a missing marker) in row 1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ["2 rows"] * 3),
        ({"Gender": "n.a."}, ["2 rows"] * 3),
        ({"LoanAmount": " - "}, ["2 rows"] * 3),
        ({"Gender": " Male\t"}, ["2 rows"] * 3),
        ({"LoanAmount": " 120 "}, ["2 rows"] * 3),
        ({"LoanAmount": "120\u3000"}, ["2 rows"] * 3),
        ({"Gender": "  "}, ["2 rows"] * 3),
        ({"LoanAmount": "  "}, ["2 rows"] * 3),
        ({"Gender,": " Gender ,"}, ["2 rows"] * 3),
        ({"\nMale": "\n\n \nMale"}, ["2 rows"] * 3),
        ({"Urban\n": "Urban\n   \n"}, ["2 rows"] * 3),
        ({"LoanAmount": "\uff11\uff12\uff10"}, [WIDE] * 3),
        ({"Gender": "male"}, ["Gender: unknown category (differs in case only) in row 1"] * 3),
        ({"LoanAmount": "$120"}, ["LoanAmount: not a number (has a currency sign) in row 1"] * 3),
        ({"LoanAmount": "many"}, ["LoanAmount: not a number in row 1"] * 3),
        ({"LoanAmount": "inf"}, ["LoanAmount: out of range in row 1"] * 3),
        # pandas knows such markers by itself, and MLflow's server asks it before the model.
        ({"Gender": "NA"}, [f"Gender: unknown category {OFTEN_MISSING}"] * 2 + ["2 rows"]),
        ({"LoanAmount": "NaN"}, [f"LoanAmount: not a number {OFTEN_MISSING}"] * 2 + ["2 rows"]),
    ],
    ids=str,
)
def test_csv_is_understood_as_in_training_and_as_the_page_says(
    declaring: tuple[Table, Scorer, Any], change: dict[str, str], said: list[str], tmp_path: Path
) -> None:
    first = {name: str(cell) for name, cell in APPLICANT.items()} | {"Self_Employed": "No"}
    rows = [{**first, **{name: cell for name, cell in change.items() if name in first}}, {**first, "Dependents": "3+"}]
    csv = "\n".join([",".join(first), *(",".join(row.values()) for row in rows)]) + "\n"
    for old in change.keys() - first.keys():
        csv = csv.replace(old, change[old], 1)
    assert answers(declaring, csv, tmp_path) == said


def test_declared_markers_and_white_space_are_understood_in_json_too(declaring: tuple[Table, Scorer, Any]) -> None:
    _, live, stock = declaring
    plain = [{**APPLICANT, "Gender": None, "LoanAmount": None}, APPLICANT]
    marked = [{**APPLICANT, "Gender": " n.a.", "LoanAmount": "-"}, {**APPLICANT, "Property_Area": "Urban "}]
    padded = [{f" {name}\n": cell for name, cell in row.items()} for row in marked]
    probabilities = live.predict(plain, "probability")
    for rows in (marked, padded):
        assert live.predict(rows, "probability") == probabilities
        assert stock.predict(rows, PROBABILITY) == probabilities
        assert stock.predict(pd.DataFrame(rows), PROBABILITY) == probabilities
    encoded = TABLE.encode(pd.DataFrame(plain)).tolist()
    marked_codes = [["" if np.isnan(cell) else cell for cell in row] for row in encoded]
    assert live.predict(marked_codes, "probability") == probabilities
    with pytest.raises(forms.RowsRefused, match="column 12: column is repeated"):
        live.predict([{**APPLICANT, " Gender": "Male"}])
    for missing in ("Education", "ApplicantIncome"):
        with pytest.raises(forms.RowsRefused, match=f"{missing}: missing in row 1"):
            live.predict([{**APPLICANT, missing: "n.a."}])


def test_decimals_and_dates_that_spark_and_databases_bring_are_understood(tmp_path: Path) -> None:
    issued = Date("issued", "days since 2020-01-01", "2020-01-01", "2029-12-31", missing=True)
    table = replace(TABLE, columns=(*TABLE.columns, issued), features=(*TABLE.features, Feature("issued")))
    days = [None if place % 9 == 0 else date(2020 + place % 9, 1, 1 + place % 28) for place in range(614)]
    issues = pd.Series([day.isoformat() if day else None for day in days], dtype=object)
    rows = table_rows.read(TABLE, SAMPLE).assign(issued=issues)
    decided = pipelines.decided(table, FAMILIES["LogisticRegression"].classifier, None, 0.5)
    pipeline = pipelines.build(table, decided).fit(rows, rows[table.target.name])
    model_files.save_model(str(tmp_path / "model"), Model(), pipeline, rows)
    model, plain = mlflow.pyfunc.load_model(str(tmp_path / "model")), rows[[*RAW, "issued"]]
    exact = [None if np.isnan(cell) else Decimal(str(cell)) for cell in rows["LoanAmount"]]
    stored = plain.assign(issued=pd.Series(days, dtype=object), LoanAmount=pd.Series(exact, dtype=object))
    assert model.predict(stored, PROBABILITY) == model.predict(plain, PROBABILITY)
    with pytest.raises(MlflowRowsRefused, match="issued: not a date in range in row 1,"):
        model.predict(stored.assign(issued=date(1999, 1, 1)))


@pytest.mark.parametrize("rows", [[], {}, [{}], {"Gender": []}], ids=str)
def test_no_rows_are_called_so(served: Scorer, rows: Any) -> None:
    with pytest.raises(forms.RowsRefused, match=r"the table: no rows \(allowed: at least one\)"):
        served.predict(rows)


@pytest.mark.parametrize("key", ["dataframe_records", "dataframe_split", "inputs", "instances"])
def test_stock_serve_answers_a_request_of_very_many_columns(
    key: str, uris: dict[str, str], batch_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(scorer.VERSION, "1")
    names = [f"c{number}" for number in range(20_000)] + ["Gender"]
    row: Any = dict.fromkeys(names, 1)
    body = {
        "dataframe_records": [row],
        "dataframe_split": {"columns": names, "data": [[1] * len(names)]},
        "inputs": {name: [1] for name in names},
        "instances": [row],
    }[key]
    with np.printoptions():
        model = mlflow.pyfunc.load_model(uris["LogisticRegression"])
        with pytest.raises(MlflowRowsRefused) as refused:
            scoring_server.invocations(  # type: ignore[no-untyped-call]
                json.dumps({key: body}), "application/json", model, None
            )
    faults = refused.value.body["faults"]
    assert "column is not known, for 19980 more" in {fault["problem"] for fault in faults}
    assert ("Gender", "not text") in {(fault["column"], fault["problem"]) for fault in faults}
    # MLflow has put each array that was sent into words, which took most of the time, and nobody reads them.
    assert len(refused.value.message) < (2_000_000 if key in ("inputs", "instances") else 20_000)
    assert "array(" not in refused.value.message


def test_text_is_a_number_exactly_where_it_is_one_in_training() -> None:
    digits = [chr(code) for code in range(sys.maxunicode) if unicodedata.category(chr(code)) == "Nd"]
    written = ["1e2", "1E+2", "+120", "-120", "0120", "120.", ".5", "1e400", "inf", "-Infinity", "nan", "-NaN", "1_20"]
    written += ["1,200", "0x78", "1e", ".", "120L", "True", "\xb2", "\xbd", "\u2212120", "1\u06600", "- 1", " "]
    spaced = [f"{space}120{space}" for space in " \t\n\x0b\x0c\x1c\x85\xa0\u2003\u3000"]
    texts = [*digits, *written, *spaced]
    column = next(column for column in TABLE.columns if column.name == "LoanAmount")
    trained = listed(typed(pd.Series(texts, dtype="str"), column))
    assert tidied(column, forms.from_text(texts, column), TABLE.markers) == trained


def test_the_detail_names_three_columns_and_the_version(
    uris: dict[str, str], batch_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERSTUDY_VERSION", "3")
    for name, unit in [("LogisticRegression", "log_odds"), ("RandomForestClassifier", "probability")]:
        model = mlflow.pyfunc.load_model(uris[name])
        [detail] = model.predict([{**APPLICANT, "Credit_History": 0}], params={"output": "detail"})
        assert detail["version"] == "3"
        assert detail["label"] == ("Y" if detail["probability"] >= detail["threshold"] else "N")
        assert len(detail["moved"]) == 3
        assert detail["moved"][0]["column"] == "Credit_History"
        assert detail["moved"][0]["towards"] == "N"
        assert detail["moved"][0][unit] < 0
        json.dumps(detail)


def test_an_unknown_output_is_refused(model: Any) -> None:
    with pytest.raises(
        MlflowRowsRefused, match=r"params.output: unknown value \(allowed: label, probability, detail\)"
    ):
        model.predict([APPLICANT], params={"output": "everything"})


def test_a_refusal_as_json_lists_the_faults_and_nothing_that_was_sent(model: Any) -> None:
    with pytest.raises(MlflowRowsRefused) as refused:
        model.predict([{**APPLICANT, "Gender": "secret", "LoanAmount": -4711}] * 30)
    refused.value.message = f"what stock serve writes there: {APPLICANT}"
    body = refused.value.serialize_as_json()
    assert "secret" not in body
    assert "4711" not in body
    assert "stock serve" not in body
    faults = json.loads(body)["faults"]
    assert [fault["column"] for fault in faults] == ["Gender", "LoanAmount"]
    assert faults[0]["rows"] == list(range(1, 21))
    assert refused.value.get_http_status_code() == 400  # type: ignore[no-untyped-call]


def test_a_model_is_data_without_pickle_and_says_its_format(
    uris: dict[str, str], batch_store: str, tmp_path: Path
) -> None:
    info = mlflow.models.get_model_info(uris["LogisticRegression"])
    assert info.flavors["sklearn"]["serialization_format"] == "skops"
    folder = Path(mlflow.artifacts.download_artifacts(uris["LogisticRegression"], dst_path=str(tmp_path)))
    assert json.loads((folder / scorer.FILE).read_text())["format"] == scorer.FORMAT
    assert info.signature.inputs is None


def test_a_model_of_a_newer_format_is_refused(model: Any, tmp_path: Path, uris: dict[str, str]) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(uris["LogisticRegression"], dst_path=str(tmp_path)))
    written = folder / scorer.FILE
    written.write_text(written.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(ValueError, match="the model has format 3, this code reads 2"):
        mlflow.pyfunc.load_model(str(folder))


def test_a_model_brings_the_code_it_needs(tmp_path: Path, uris: dict[str, str], batch_store: str) -> None:
    folder = mlflow.artifacts.download_artifacts(uris["DecisionTreeClassifier"], dst_path=str(tmp_path))
    program = (
        "import json, sys, mlflow\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "import understudy\n"
        "print(understudy.__file__)\n"
        "print(model.predict([json.loads(sys.argv[2])]))\n"
        "print(mlflow.sklearn.load_model(sys.argv[1]).predict.__name__)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, folder, json.dumps(APPLICANT)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    where, answer, _ = ran.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert not Path(where).is_relative_to(PROJECT)
    assert answer == "['Y']"


def test_mlflow_models_predict_takes_every_form(tmp_path: Path, uris: dict[str, str], batch_store: str) -> None:
    bodies: list[tuple[dict[str, Any], Any]] = [
        ({"dataframe_records": [APPLICANT]}, ["Y"]),
        ({"inputs": [[1, 1, 0, 0, 0, 4.8, 360, 1, 2, 8.5]]}, ["Y"]),
    ]
    for body, answer in bodies:
        (tmp_path / "in.json").write_text(json.dumps(body))
        mlflow.models.predict(  # type: ignore[no-untyped-call]
            uris["LogisticRegression"],
            input_path=str(tmp_path / "in.json"),
            output_path=str(tmp_path / "out.json"),
            env_manager="local",
        )
        assert json.loads((tmp_path / "out.json").read_text())["predictions"] == answer


def test_stock_serve_reads_an_index_and_long_numbers_as_the_page_says(model: Any) -> None:
    sent = {"columns": RAW, "index": [1, 2, 3], "data": [list(APPLICANT.values())]}
    content = json.dumps({"dataframe_split": sent})
    reply = scoring_server.invocations(content, "application/json", model, None)  # type: ignore[no-untyped-call]
    assert (reply.status, json.loads(reply.response)) == (200, {"predictions": ["Y"] * 3})
    with pytest.raises(ValueError, match="4300 digits"):  # which nothing there catches, so that the answer is 500
        scoring_server.invocations(  # type: ignore[no-untyped-call]
            content.replace("5000", "9" * 5000), "application/json", model, None
        )


def test_a_model_brings_the_code_that_it_needs_and_no_more(
    uris: dict[str, str], batch_store: str, tmp_path: Path
) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(uris["RandomForestClassifier"], dst_path=str(tmp_path / "model")))
    assert {path.name for path in (folder / "code" / "understudy").iterdir()} - {"__pycache__"} == {
        "__init__.py",
        "errors.py",
        "families.py",
        "schema",
        "scoring",
    }
    row = [1, 1, 0, 0, 0, 4.8, 360, 1, 2, 8.8]
    without = "import sys; sys.modules['sklearn'] = sys.modules['skops'] = None"
    program = f"{without}; import mlflow; print(mlflow.pyfunc.load_model({str(folder)!r}).predict([{row}]))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(PYTHONPATH=""), capture_output=True, text=True
    )
    assert done.stdout == "['Y']\n", done.stderr


@pytest.mark.parametrize("name", list(FAMILIES))
def test_an_answer_is_the_same_to_the_last_bit_however_many_rows_are_asked_for(name: str, uris: dict[str, str]) -> None:
    model, rows = mlflow.pyfunc.load_model(uris[name]), table_rows.read(TABLE, SAMPLE)[RAW]
    together = model.predict(rows, params=PROBABILITY)
    for size in (1, 2, 7, 100):
        parts = [rows.iloc[start : start + size] for start in range(0, len(rows), size)]
        apart = [answer for part in parts for answer in model.predict(part.reset_index(drop=True), params=PROBABILITY)]
        assert apart == together, size
