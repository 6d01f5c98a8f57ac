"""What the live server answers and refuses, whatever version it is that answers."""

import json
import time
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from prometheus_client import REGISTRY

from tests.scoring.test_scoring import APPLICANT
from tests.serving.conftest import CELLS, ENCODED, NAME, NAMES, Live, until
from understudy.schema.columns import Category
from understudy.schema.declaration import Table
from understudy.scoring.predictors import Predictor
from understudy.scoring.scorer import Scorer
from understudy.serving import app
from understudy.serving.app import FLUSH
from understudy.serving.following import ServedVersion
from understudy.table import TABLE
from understudy.verification import digests
from understudy.verification.version_cache import VersionKey

ENCODED_NAMES = [column.name for column in TABLE.encoded]
CSV = ",".join(NAMES) + "\n" + ",".join("" if cell is None else str(cell) for cell in CELLS) + "\n"

GOOD: dict[str, tuple[Any, dict[str, str]]] = {
    "split": ({"dataframe_split": {"columns": NAMES, "data": [CELLS]}}, {}),
    "split with an index": ({"dataframe_split": {"columns": NAMES, "index": [7], "data": [CELLS]}}, {}),
    "split with an index that has a colon": (
        {"dataframe_split": {"columns": NAMES, "index": ["a: b"], "data": [CELLS]}},
        {},
    ),
    "split with no index": ({"dataframe_split": {"columns": NAMES, "index": None, "data": [CELLS]}}, {}),
    "records": ({"dataframe_records": [APPLICANT]}, {}),
    "instances": ({"instances": [APPLICANT]}, {}),
    "unnamed instances": ({"instances": [ENCODED]}, {}),
    "inputs": ({"inputs": [ENCODED]}, {}),
    "inputs as columns": ({"inputs": {name: [cell] for name, cell in APPLICANT.items()}}, {}),
    "MLflow 1.x split": (
        {"columns": NAMES, "data": [CELLS]},
        {"Content_Type": "application/json; format=pandas-split"},
    ),
    "MLflow 1.x records": ([APPLICANT], {"Content_Type": "application/json; format=pandas-records"}),
    "MLflow 1.x without a format": ([APPLICANT], {}),
    "no Content-Type": ({"dataframe_records": [APPLICANT]}, {"Content_Type": ""}),
    "a charset": ({"inputs": [ENCODED]}, {"Content_Type": "application/json; charset=UTF-8"}),
    "a byte order mark": (b"\xef\xbb\xbf" + json.dumps({"inputs": [ENCODED]}).encode(), {}),
    "CSV, whose Dependents are digits only": (CSV, {"Content_Type": "text/csv"}),
    "CSV with a last line of spaces": (CSV + "  \t\n", {"Content_Type": "text/csv"}),
    "CSV with spaces around names and cells": (
        CSV.replace(",", " , ").replace("Male", "Male\u3000"),
        {"Content_Type": "text/csv"},
    ),
    "records with spaces around names and cells": (
        {
            "dataframe_records": [
                {f"{name} ": f" {cell}" if cell == "Male" else cell for name, cell in APPLICANT.items()}
            ]
        },
        {},
    ),
    "CSV of a spreadsheet": (CSV.replace("\n", "\r\n"), {"Content_Type": "text/csv; charset=utf-8"}),
}


@pytest.mark.parametrize("name", GOOD)
def test_rows_of_every_form_are_answered(live: Live, name: str) -> None:
    body, headers = GOOD[name]
    reply = live.ask(body, **headers)
    assert (reply.status, reply.json) == (200, {"predictions": ["Y"]})
    assert reply.headers["x-model-version"] == "1"
    assert reply.headers["content-type"] == "application/json"


NAMED: dict[str, tuple[Any, dict[str, str]]] = {
    "records": ({"dataframe_records": [{**APPLICANT, "Loan_ID": " LP1 "}, {**APPLICANT, "Loan_ID": None}]}, {}),
    "split": ({"dataframe_split": {"columns": ["Loan_ID", *NAMES], "data": [["LP1", *CELLS], ["", *CELLS]]}}, {}),
    "columns": ({"inputs": {"Loan_ID": ["LP1", None], **{name: [cell] * 2 for name, cell in APPLICANT.items()}}}, {}),
    "encoded by name": (
        {"instances": [{"Loan_ID": name, **dict(zip(ENCODED_NAMES, ENCODED, strict=True))} for name in ("LP1", None)]},
        {},
    ),
    "ids beside unnamed rows": ({"inputs": [ENCODED] * 2, "ids": ["LP1", None]}, {}),
    "ids beside records": ({"dataframe_records": [APPLICANT] * 2, "ids": ["LP1", ""]}, {}),
}


@pytest.mark.parametrize("name", NAMED)
def test_rows_have_the_ids_that_they_bring_and_others_the_requests(live: Live, name: str) -> None:
    body, headers = NAMED[name]
    reply = live.ask({**body, "params": {"output": "detail"}}, X_Request_Id="asked-7", **headers)
    assert [detail["id"] for detail in reply.json["predictions"]] == ["LP1", "asked-7:2"]
    assert reply.headers["x-request-id"] == "asked-7"


def test_a_request_without_an_id_gets_one_of_its_own(live: Live) -> None:
    replies = [live.ask({"inputs": [ENCODED]}, X_Request_Id=given) for given in ("", "two words", "x" * 129)]
    replies.append(live.ask({"inputs": [[]]}))
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert len({*ids}) == len(ids)
    assert not {"two words", "x" * 129} & {*ids}
    assert replies[-1].status == 400


WRONG_IDS = [["LP1"], ["a", "b", "c"], [True, "a"], [1.5, "a"], ["x" * 201, "a"], ["a\u0007b", "a"], [10**30, "a"]]


@pytest.mark.parametrize("ids", [*WRONG_IDS, ["\ud800", "a"], [["a"], "b"], "LP1", {"a": 1}])
def test_ids_that_name_no_rows_are_refused(live: Live, ids: Any) -> None:
    reply = live.ask({"inputs": [ENCODED] * 2, "ids": ids})
    assert reply.status == 400
    assert "ids" in reply.json["message"]


def test_ids_may_be_whole_numbers_and_come_once(live: Live) -> None:
    body = {"inputs": [ENCODED] * 3, "ids": [12, 7.0, None], "params": {"output": "detail"}}
    details = live.ask(body, X_Request_Id="r").json["predictions"]
    assert [detail["id"] for detail in details] == ["12", "7", "r:3"]
    twice = {"dataframe_records": [{**APPLICANT, "Loan_ID": "LP1"}], "ids": ["LP1"]}
    assert live.ask(twice).status == 400


def test_mlflows_own_server_takes_the_identifier_too_and_says_it_in_a_detail() -> None:
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    rows = pd.DataFrame([{**APPLICANT, "Loan_ID": "LP1"}, {**APPLICANT, "Loan_ID": None}])
    details = model.predict(rows, params={"output": "detail"})
    assert [detail["id"] for detail in details] == ["LP1", None]
    assert "id" not in model.predict(rows[NAMES], params={"output": "detail"})[0]


def test_an_applicant_gets_the_models_own_answers(live: Live) -> None:
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    for output in ("label", "probability", "detail"):
        body = {"dataframe_records": [APPLICANT], "params": {"output": output}}
        [answer] = live.ask(body).json["predictions"]
        [wanted] = model.predict(pd.DataFrame([APPLICANT]), params={"output": output})
        assert answer == (wanted | {"version": "1", "id": answer["id"]} if output == "detail" else wanted)
    assert (answer["label"], len(answer["moved"])) == ("Y", 3)


def bad(change: dict[str, Any]) -> dict[str, Any]:
    return {"dataframe_records": [APPLICANT, {**APPLICANT, **change}]}


def split(index: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": NAMES, "index": index, "data": [CELLS]}}


BAD: dict[str, tuple[int, Any, dict[str, str]]] = {
    "a wrong key": (400, {"rows": [ENCODED]}, {}),
    "two keys": (400, {"inputs": [ENCODED], "instances": [ENCODED]}, {}),
    "a key too many": (400, {"inputs": [ENCODED], "secret": 1}, {}),
    "a list of lists": (400, [ENCODED], {}),
    "an empty list": (400, [], {}),
    "null": (400, "null", {}),
    "a number": (400, "5", {}),
    "nothing": (400, "", {}),
    "an empty object": (400, {}, {}),
    "broken JSON": (400, '{"inputs": [["secret"', {}),
    "deep JSON": (400, "[" * 100_000 + "]" * 100_000, {}),
    "deep objects": (400, '{"inputs":' * 50_000, {}),
    "no UTF-8": (400, b'{"inputs": [["\xffsecret"]]}', {}),
    "a key twice": (400, json.dumps({"inputs": [ENCODED]})[:-1] + f', "inputs": {json.dumps([ENCODED])}}}', {}),
    "a key twice beside a colon": (400, '{"columns": ["a:b"], "data": [], "data": []}', {}),
    "a column twice in a record": (400, json.dumps([APPLICANT]).replace("{", '{"Gender": "Male", '), {}),
    "a column twice": (400, {"dataframe_split": {"columns": [*NAMES, "Gender"], "data": [[*CELLS, "secret"]]}}, {}),
    "a number of 5,000 digits": (400, f'{{"inputs": [[{"9" * 5000}]]}}', {}),
    "a number too great for a float": (400, json.dumps({"inputs": [ENCODED]}).replace("360", "9" * 400), {}),
    "NaN": (400, {"inputs": [[float("nan")] * 10]}, {}),
    "Infinity": (400, json.dumps({"inputs": [ENCODED]}).replace("4.8", "-1e999"), {}),
    "NaN in CSV's way": (400, '{"inputs": [[nan]]}', {}),
    "no rows": (400, {"inputs": []}, {}),
    "no rows of named columns": (400, {"dataframe_split": {"columns": NAMES, "data": []}}, {}),
    "an index of three for one row": (400, split([7, "secret", 9]), {}),
    "an index of none for one row": (400, split([]), {}),
    "an index that is no list": (400, split({"secret": 7}), {}),
    "an index of MLflow 1.x": (400, split("s")["dataframe_split"], {}),
    "an index for no rows": (400, {"dataframe_split": {"columns": NAMES, "index": [7], "data": []}}, {}),
    "an index for unnamed rows": (400, {"dataframe_split": {"index": [7, 8], "data": [ENCODED]}}, {}),
    "ragged rows": (400, {"dataframe_split": {"columns": NAMES, "data": [CELLS, CELLS[:5]]}}, {}),
    "ragged unnamed rows": (400, {"inputs": [ENCODED, ENCODED[:9]]}, {}),
    "ragged records": (400, {"dataframe_records": [APPLICANT, {"Gender": "Male"}]}, {}),
    "ragged columns": (400, {"inputs": {"Gender": ["Male"], "Married": []}}, {}),
    "columns that are cells": (400, {"inputs": {"Gender": "secret"}}, {}),
    "cells that are rows": (400, {"inputs": ENCODED}, {}),
    "rows of two forms": (400, {"instances": [APPLICANT, ENCODED]}, {}),
    "an unknown category": (400, bad({"Gender": "secret"}), {}),
    "text in a number": (400, bad({"LoanAmount": "secret"}), {}),
    "a boolean in a number": (400, bad({"LoanAmount": True}), {}),
    "a number in a category": (400, bad({"Gender": 4711}), {}),
    "a number out of range": (400, bad({"ApplicantIncome": -4711}), {}),
    "a missing cell": (400, bad({"Education": None}), {}),
    "a list in a cell": (400, bad({"Gender": ["secret"]}), {}),
    "half a character": (400, json.dumps(bad({"Gender": "#"})).replace("#", "\\ud800"), {}),
    "a missing column": (400, {"inputs": {name: [1] for name in NAMES[1:]}}, {}),
    "unknown params": (400, {"inputs": [ENCODED], "params": {"secret": 1}}, {}),
    "params of another kind": (400, {"inputs": [ENCODED], "params": ["secret"]}, {}),
    "an unknown output": (400, {"inputs": [ENCODED], "params": {"output": "secret"}}, {}),
    "detail of too many rows": (400, {"inputs": [ENCODED] * 1_001, "params": {"output": "detail"}}, {}),
    "detail of too many cells": (400, {"inputs": {"secret": [1] * 1_001}, "params": {"output": "detail"}}, {}),
    "CSV without a header": (400, "", {"Content_Type": "text/csv"}),
    "CSV of cells only": (400, "secret,4711\nsecret,4711\n", {"Content_Type": "text/csv"}),
    "an unknown column": (400, bad({}) | {"dataframe_records": [{**APPLICANT, "secret": 1}]}, {}),
    "CSV without rows": (400, CSV.splitlines()[0], {"Content_Type": "text/csv"}),
    "ragged CSV": (400, CSV + "secret,4711\n", {"Content_Type": "text/csv"}),
    "CSV with an open quote": (400, CSV + '"secret\n', {"Content_Type": "text/csv"}),
    "CSV with text in a number": (400, CSV.replace("5000", "secret"), {"Content_Type": "text/csv"}),
    "CSV with NaN": (400, CSV.replace("5000", "nan"), {"Content_Type": "text/csv"}),
    "CSV with Arabic-Indic digits": (400, CSV.replace("5", "\u0665"), {"Content_Type": "text/csv"}),
    "CSV with full-width digits": (400, CSV.replace("5", "\uff15"), {"Content_Type": "text/csv"}),
    "a wrong Content-Type": (415, {"inputs": [ENCODED]}, {"Content_Type": "text/plain"}),
    "a form": (415, {"inputs": [ENCODED]}, {"Content_Type": "application/x-www-form-urlencoded"}),
    "another charset": (415, {"inputs": [ENCODED]}, {"Content_Type": "application/json; charset=latin-1"}),
    "gzip": (415, {"inputs": [ENCODED]}, {"Content_Encoding": "gzip"}),
    "an upgrade": (400, {"inputs": [ENCODED]}, {"Connection": "Upgrade", "Upgrade": "h2c"}),
    "50 MB": (413, b" " * 50_000_000, {}),
    "GET": (405, None, {}),
    "another path": (404, {"inputs": [ENCODED]}, {"path": "/secret"}),
    "POST to a page": (405, {"inputs": [ENCODED]}, {"path": "/health"}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_allowed_gets_its_own_refusal_without_what_was_sent(live: Live, name: str) -> None:
    status, body, more = BAD[name]
    reply = live.ask(body, **more)
    assert reply.status == status, reply.body
    assert reply.json["error_code"]
    assert reply.json["message"]
    for sent in (b"secret", b"4711", b"Traceback", b".py"):
        assert sent not in reply.body
    assert live.ask({"inputs": [ENCODED]}).status == 200


def test_a_refusal_says_what_else_would_be_taken(live: Live) -> None:
    assert live.ask(method="DELETE").headers["allow"] == "POST"
    assert live.ask({}, path="/ping").headers["allow"] == "GET, HEAD"
    assert live.ask({}, Content_Encoding="gzip").headers["accept-encoding"] == "identity"


def test_faulty_rows_are_named_by_row_column_and_what_is_allowed(live: Live) -> None:
    reply = live.ask({"dataframe_records": [APPLICANT] + [{**APPLICANT, "Gender": "x", "LoanAmount": 0}] * 30}).json
    gender, amount = reply["faults"]
    assert (gender["column"], gender["problem"], gender["allowed"]) == ("Gender", "unknown category", "Female, Male")
    assert (gender["rows"], gender["count"]) == (list(range(2, 22)), 30)
    assert amount["column"] == "LoanAmount"


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (
            CSV.replace("360", "NaN"),
            "text/csv",
            "Loan_Amount_Term: not a number (looks like a missing marker) in row 1 (allowed: 1 to 600 months)",
        ),
        ({"inputs": []}, "application/json", "the table: no rows (allowed: at least one)"),
        ({"dataframe_records": []}, "application/json", "the table: no rows (allowed: at least one)"),
        (
            {"dataframe_records": [{**APPLICANT, "Gender": "male"}]},
            "application/json",
            "Gender: unknown category (differs in case only) in row 1 (allowed: Female, Male)",
        ),
    ],
    ids=str,
)
def test_a_refusal_says_why_as_far_as_the_cell_stays_unsaid(live: Live, body: Any, kind: str, message: str) -> None:
    reply = live.ask(body, Content_Type=kind)
    assert (reply.status, reply.json["message"]) == (400, f"rows refused (row 1 is the first): {message}")
    [fault] = reply.json["faults"]
    reason = f" ({fault['reason']})" if "reason" in fault else ""
    assert f"{fault['problem']}{reason}" in message


def test_the_pages_say_what_answers(live: Live, store: str) -> None:
    version = MlflowClient(store).get_model_version(NAME, "1")
    version_page = live.ask(path="/version").json
    assert (version_page["name"], version_page["stage"], version_page["version"]) == (NAME, "Production", "1")
    assert version_page["manifest"] == version.tags[digests.DIGEST]
    assert live.ask(path="/health").json == {"status": "serving", "version": "1"}
    head = live.ask(path="/ping", method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len('{"status": "alive"}')))


def test_the_schema_of_a_row_is_the_tables(live: Live) -> None:
    schema = live.ask(path="/schema").json
    assert schema["required"] == NAMES
    assert schema["additionalProperties"] is False
    assert schema["properties"]["Gender"] == {"enum": ["Female", "Male", None]}
    assert schema["properties"]["Property_Area"] == {"enum": ["Rural", "Semiurban", "Urban"]}
    income = schema["properties"]["ApplicantIncome"]
    assert (income["type"], income["minimum"], income["maximum"]) == ("number", 0, 1_000_000)
    assert schema["properties"]["LoanAmount"]["type"] == ["number", "null"]
    assert list(schema["$defs"]["encoded"]["properties"])[-2:] == ["TotalIncome", "Loan_ID"]


def test_metrics_count_what_both_workers_do(live: Live) -> None:
    samples = {
        'requests_total{status="200",version="1"}': 10,
        'requests_total{status="400",version="1"}': 10,
        'requests_total{status="415",version=""}': 10,
        'rows_total{version="1"}': 20,
        'request_seconds_count{version="1"}': 20,
        'request_seconds_bucket{le="+Inf",version=""}': 10,
        'rejected_rows_total{column="Gender",fault="unknown category",version="1"}': 30,
        'rejected_rows_total{column="other"': 10,
    }
    time.sleep(2 * FLUSH)  # until what was counted before is there
    before = {sample: live.metric(sample) for sample in samples}
    wrong = [{**APPLICANT, "Gender": "male", "Age": 30}] * 3
    for _ in range(10):
        assert live.ask({"inputs": [ENCODED] * 2}).status == 200
        assert live.ask({"dataframe_records": wrong}).status == 400
        assert live.ask({}, Content_Encoding="gzip").status == 415
    until(lambda: {sample: live.metric(sample) - before[sample] for sample in samples} == samples)  # in a second or so
    assert live.metric(f'model_version{{name="{NAME}",version="1"}}') == 1
    assert b"Age" not in live.ask(path="/metrics").body


class Half(Predictor):
    """Gives every row a probability of 0.5."""

    def probabilities(self, features: Any) -> Any:
        return np.full(len(features), 0.5)


def test_values_that_are_not_listed_are_counted() -> None:
    table = Table("t", "t", "id", Category("y", ("no", "yes")), (Category("state", ("CA",), other=True),))
    version = ServedVersion(VersionKey("1", ""), Scorer(table, Half([]), 0.5, {}), {}, 0.0)
    app.score(version, b'{"inputs": {"state": ["CA", "WY", "TX"]}}', "application/json", "r")
    assert REGISTRY.get_sample_value("understudy_unlisted_values_total", {"column": "state"}) == 2


def test_clients_cannot_make_metrics_grow(live: Live) -> None:
    for number in (30, 40):
        live.ask({"inputs": {f"secret{column}": [1] for column in range(number)}})
    shown = live.ask(path="/metrics").body
    assert b"column is not known" in shown
    assert b"more" not in shown
    assert b"secret" not in shown
