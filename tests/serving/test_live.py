"""The live server: what it answers and refuses, and that a new version takes over while it answers."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from deploy.mysql import free_port
from tests.conftest import PROJECT, Ended, connected, environment, is_refusal
from tests.scoring.test_scoring import APPLICANT
from tests.serving.test_supervise import group, is_left
from understudy.registry import registration
from understudy.serving import current, rowlog, server
from understudy.serving.counters import SLOTS, Counters, exposition
from understudy.serving.current import NAMED, Current, Version, named
from understudy.serving.follow import Keeper
from understudy.serving.kept import Kept
from understudy.serving.live import Settings
from understudy.serving.protocol import CONNECTIONS
from understudy.table import TABLE
from understudy.tracking import connection as store_connection
from understudy.tracking import family_runs
from understudy.verification import manifest

NAME = TABLE.name
ENCODED = [1, 1, 0, 0, 0, 4.8, 360, 1, 2, 8.5]
JSON = "application/json"
NAMES, CELLS = list(APPLICANT), list(APPLICANT.values())
CSV = ",".join(NAMES) + "\n" + ",".join("" if cell is None else str(cell) for cell in CELLS) + "\n"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Live:
    """A running live server."""

    port: int
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def ask(self, body: Any = None, path: str = "/invocations", method: str = "", **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        content = body if isinstance(body, str | bytes | None) else json.dumps(body)
        kind = {"Content-Type": "application/json"} if body is not None else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in {**kind, **named}.items() if value}
        content = content.encode() if isinstance(content, str) else content
        connection.request(method or ("GET" if body is None else "POST"), path, content, given)
        answer = connection.getresponse()
        reply = Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return reply

    def raw(self, *parts: bytes, pause: float = 0) -> tuple[bytes, float]:
        """What comes back for bytes sent one after another until the server closes, and after how many seconds."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            started, answer = time.monotonic(), b""
            with suppress(ConnectionError):
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
            with suppress(ConnectionError):
                while more := connection.recv(65536):
                    answer += more
            return answer, time.monotonic() - started

    def metric(self, sample: str) -> float:
        lines = self.ask(path="/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"understudy_{sample}"))

    def version(self) -> str:
        reply = self.ask(path="/version")
        return str(reply.json["version"]) if reply.status == 200 else ""


def until(holds: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def served(folder: Path, uri: str, *options: str) -> Iterator[Live]:
    """`serve.sh --live` with a cache in the folder and a temporary folder of its own, until the block ends."""
    live = Live(free_port(), folder / f"log-{time.time_ns()}")
    (folder / "tmp").mkdir(exist_ok=True)
    options = ("--live", "--port", str(live.port), "--poll", "0.2", "--cache", str(folder / "cache"), *options)
    settings = environment(MLFLOW_TRACKING_URI=uri, TMPDIR=str(folder / "tmp"))
    with live.log.open("w") as log:
        live.process = subprocess.Popen([str(PROJECT / "serve.sh"), *options], env=settings, stdout=log, stderr=log)
    try:
        until(lambda: "live on" in live.log.read_text())
        yield live
    finally:
        live.process.terminate()
        live.process.wait(20)


@pytest.fixture(scope="module")
def store(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store with two versions of a model, of which the first is in Production; only its alias says so."""
    folder = tmp_path_factory.mktemp("live")
    shutil.copy(trained / "mlflow.db", folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for uri in connected(folder, monkeypatch):
            client = store_connection.connect()
            runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
            for run in sorted(runs, key=family_runs.family_name)[-2:]:
                registration.register(client, run, TABLE, NAME)
            client.set_registered_model_alias(NAME, "production", "1")
            yield uri


@pytest.fixture(scope="module")
def live(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server of two workers, which answer with version 1 when a test begins."""
    with served(tmp_path_factory.mktemp("server"), store, "--workers", "2") as live:
        until(lambda: live.log.read_text().count("version 1 answers") == 2)
        yield live


def promote(store: str, version: str) -> None:
    MlflowClient(store).set_registered_model_alias(NAME, "production", version)


GOOD: dict[str, tuple[Any, dict[str, str]]] = {
    "split": ({"dataframe_split": {"columns": NAMES, "data": [CELLS]}}, {}),
    "split with an index": ({"dataframe_split": {"columns": NAMES, "index": [7], "data": [CELLS]}}, {}),
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
    "CSV of a spreadsheet": (CSV.replace("\n", "\r\n"), {"Content_Type": "text/csv; charset=utf-8"}),
}


@pytest.mark.parametrize("name", GOOD)
def test_rows_of_every_form_are_answered(live: Live, name: str) -> None:
    body, headers = GOOD[name]
    reply = live.ask(body, **headers)
    assert (reply.status, reply.json) == (200, {"predictions": ["Y"]})
    assert reply.headers["x-model-version"] == "1"
    assert reply.headers["content-type"] == "application/json"


def test_an_applicant_gets_the_models_own_answers(live: Live) -> None:
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    for output in ("label", "probability", "detail"):
        body = {"dataframe_records": [APPLICANT], "params": {"output": output}}
        [answer] = live.ask(body).json["predictions"]
        [wanted] = model.predict(pd.DataFrame([APPLICANT]), params={"output": output})
        assert answer == (wanted | {"version": "1"} if output == "detail" else wanted)
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
    "a column twice in a record": (400, json.dumps([APPLICANT]).replace("{", '{"Gender": "Male", '), {}),
    "a column twice": (400, {"dataframe_split": {"columns": [*NAMES, "Gender"], "data": [[*CELLS, "secret"]]}}, {}),
    "a number of 5,000 digits": (400, f'{{"inputs": [[{"9" * 5000}]]}}', {}),
    "a number too great for a float": (400, json.dumps({"inputs": [ENCODED]}).replace("360", "9" * 400), {}),
    "NaN": (400, {"inputs": [[float("nan")] * 10]}, {}),
    "Infinity": (400, json.dumps({"inputs": [ENCODED]}).replace("4.8", "-1e999"), {}),
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


def test_the_pages_say_what_answers(live: Live, store: str) -> None:
    version = MlflowClient(store).get_model_version(NAME, "1")
    said = live.ask(path="/version").json
    assert (said["name"], said["stage"], said["version"]) == (NAME, "Production", "1")
    assert said["manifest"] == version.tags[manifest.DIGEST]
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
    assert list(schema["$defs"]["encoded"]["properties"])[-1] == "TotalIncome"


def test_metrics_count_what_both_workers_do(live: Live) -> None:
    samples = {
        'requests_total{status="200"}': 10,
        'requests_total{status="400"}': 10,
        "rows_total": 20,
        "request_seconds_count": 20,
        'rejected_rows_total{column="Gender",fault="unknown category"}': 30,
        'rejected_rows_total{column="other"': 10,
    }
    before = {sample: live.metric(sample) for sample in samples}
    wrong = [{**APPLICANT, "Gender": "male", "Age": 30}] * 3
    for _ in range(10):
        assert live.ask({"inputs": [ENCODED] * 2}).status == 200
        assert live.ask({"dataframe_records": wrong}).status == 400
    assert {sample: live.metric(sample) - before[sample] for sample in samples} == samples
    assert live.metric(f'model_version{{name="{NAME}",version="1"}}') == 1
    assert b"Age" not in live.ask(path="/metrics").body


def test_clients_cannot_make_metrics_grow(live: Live, tmp_path: Path) -> None:
    for number in (30, 40):
        live.ask({"inputs": {f"secret{column}": [1] for column in range(number)}})
    shown = live.ask(path="/metrics").body
    assert b"column is not known" in shown
    assert b"more" not in shown
    assert b"secret" not in shown
    counters = Counters(tmp_path / "some.counters")
    for number in range(SLOTS):
        counters.add(1, "requests", str(number))
    samples = exposition(tmp_path, NAME, "").decode().splitlines()
    kept = [sample for sample in samples if sample.startswith("understudy_requests_total{")]
    assert {sample.split()[-1] for sample in kept} == {"1.0"}
    assert f"understudy_other_total {SLOTS - len(kept):.1f}" in samples


def request(body: Any, *lines: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = ["POST /invocations HTTP/1.1", "Host: a", *lines, f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(head).encode() + content


ONE = request({"inputs": [ENCODED]})
LAST = request({"inputs": [ENCODED]}, "Connection: close")
LONG = request(json.dumps({"inputs": [ENCODED]}).encode().ljust(server.SHORT + 1))


def test_requests_one_behind_the_other_are_answered_in_their_order(live: Live) -> None:
    long = request({"inputs": [ENCODED] * 2_000})
    refused = request({"inputs": [[1]]})
    answer, _ = live.raw(long + refused + ONE + long + LAST)
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"400", b"200", b"200", b"200"]
    assert answer.count(b'"Y"') == 4_002


def test_short_requests_for_reasons_are_answered_in_their_order(live: Live) -> None:
    asked = json.dumps({"inputs": [ENCODED], "params": {"output": "detail"}})
    plain, hidden = (request(body.encode()) for body in (asked, asked.replace("detail", "detai\\u006c")))
    answer, _ = live.raw(ONE + plain + ONE + hidden + LAST)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 5
    assert [b"threshold" in part for part in answer.split(b"HTTP/1.1 ")[1:]] == [False, True, False, True, False]


def test_bodies_in_chunks_and_in_parts_are_answered(live: Live) -> None:
    content = json.dumps({"inputs": [ENCODED]}).encode()
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:9], content[9:])]
    assert live.raw(head, *chunks, b"0\r\n\r\n", pause=0.1)[0].startswith(b"HTTP/1.1 200")
    assert live.raw(LAST[:50], LAST[50:-9], LAST[-9:], pause=0.1)[0].startswith(b"HTTP/1.1 200")
    expects = LAST.replace(b"Host: a", b"Host: a\r\nExpect: 100-continue")
    assert live.raw(expects[:-9], expects[-9:], pause=0.1)[0].startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


def test_slow_clients_are_told_so_and_closed_and_the_others_answered(live: Live) -> None:
    cases = {
        "half a line": ([ONE[:9]], b"HTTP/1.1 408"),
        "a header now and then": ([ONE[:28], *[b"A: b\r\n"] * 20], b"HTTP/1.1 408"),
        "half a body": ([ONE[:-9]], b"HTTP/1.1 408"),
        "a long body now and then": ([request({"inputs": [ENCODED] * 2_000})[:-99], *[b" "] * 20], b"HTTP/1.1 408"),
        "half a body behind another": ([ONE + ONE[:-9]], b"HTTP/1.1 200"),
        "nothing": ([], b""),
        "ends of lines and no line": ([b"\r\n", b"\r\n"], b""),
        "half of 50 MB": (
            [b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n["],
            b"HTTP/1.1 413",
        ),
    }
    found: dict[str, tuple[bytes, float]] = {}

    def ask(name: str) -> None:
        found[name] = live.raw(*cases[name][0], pause=0.5 if len(cases[name][0]) > 1 else 0)

    def read_nothing() -> None:
        with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
            started = time.monotonic()
            with suppress(ConnectionError):
                while True:
                    connection.sendall(b"GET /schema HTTP/1.1\r\nHost: a\r\n\r\n" * 1_000)
            found["answers that nobody reads"] = b"", time.monotonic() - started

    threads = [threading.Thread(target=ask, args=(name,)) for name in cases]
    threads.append(threading.Thread(target=read_nothing))
    for thread in threads:
        thread.start()
    time.sleep(1)
    assert live.ask({"inputs": [ENCODED]}).status == 200
    for thread in threads:
        thread.join()
    assert len(found) == len(cases) + 1
    for name, (_, wanted) in cases.items():
        assert found[name][0].startswith(wanted) if wanted else found[name][0] == b"", name
    assert b"HTTP/1.1 408" in found["half a body behind another"][0]
    # A client that goes on sending sees the end only when it has sent all.
    assert max(seconds for name, (_, seconds) in found.items() if "now and then" not in name) < 10


def test_a_refusal_waits_for_the_answers_before_it(live: Live) -> None:
    slow = request({"inputs": [ENCODED] * 200, "params": {"output": "detail"}})
    chunked = ONE[: ONE.index(b"Content-Length")] + b"Transfer-Encoding: chunked\r\n\r\nno length"
    for wrong in (b"secret\r\n\r\n", chunked, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n"):
        answers = live.raw(slow + ONE + wrong)[0].split(b"HTTP/1.1 ")[1:]
        assert [answer[:1] for answer in answers] == [b"2", b"2", b"4"]
    half, _ = live.raw(slow + ONE + ONE[:-9])
    assert [answer[:3] for answer in half.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"408"]


def test_a_client_that_hangs_up_leaves_no_word(live: Live) -> None:
    slow = request({"inputs": [ENCODED] * 200, "params": {"output": "detail"}})
    said = live.log.read_text()
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", live.port)) as connection:
            connection.sendall(slow * 2)
    assert live.ask({"inputs": [ENCODED], "params": {"output": "detail"}}).status == 200
    assert live.log.read_text() == said


def test_clients_that_break_off_take_no_room_with_them(live: Live) -> None:
    for _ in range(300):
        with socket.create_connection(("127.0.0.1", live.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # ends with a reset
            connection.sendall(LONG * 3)
    content = json.dumps({"inputs": [ENCODED]}).ljust(server.SHORT + 1)
    until(lambda: {live.ask(content).status for _ in range(20)} == {200}, 20)
    opened = connections(live, 500)  # 250 for each worker
    for connection in opened:
        connection.sendall(LONG)
    for connection in opened:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.close()


def test_very_many_requests_behind_each_other_are_refused_and_hold_up_nobody(live: Live) -> None:
    page = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
    answer, _ = live.raw(page * 5_000)
    assert b"too many requests behind each other" in answer
    assert live.raw(page * 100 + LAST)[0].count(b"HTTP/1.1 200") == 101


def test_what_comes_behind_a_body_in_chunks_has_an_end(live: Live) -> None:
    head = ONE[: ONE.index(b"Content-Length")] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    answer, _ = live.raw(head, *[b"a:b\r\n" * 200_000] * 20)
    assert answer.startswith(b"HTTP/1.1 413")


def test_what_is_no_http_is_refused(live: Live) -> None:
    for sent in (b"secret\r\n\r\n", LAST.replace(b"Host: a", b"Host: a\r\nTransfer-Encoding: chunked")):
        answer, _ = live.raw(sent)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"secret" not in answer
    for more in (b"x" * 100_000, b"x" * 66_000 + b"\r\n\r\n"):
        assert live.raw(b"GET /ping HTTP/1.1\r\nA: " + more)[0].startswith(b"HTTP/1.1 431")


def framed(*lines: str, version: str = "1.1") -> bytes:
    """A request in chunks with these headers, and a whole one behind it."""
    content = json.dumps({"inputs": [ENCODED]}).encode()
    head = "\r\n".join([f"POST /invocations HTTP/{version}", *lines, "", ""])
    return head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) + LAST


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (501, ["gzip, chunked"]),
        (501, ["gzip,chunked"]),
        (501, [", chunked"]),
        (501, ["gzip", "chunked"]),
        (400, ["gzip"]),
        (400, ["identity"]),
        (400, ["xchunked"]),
        (400, ["chunked;q=1"]),
        (400, [""]),
        (400, ["chunked, gzip"]),
        (400, ["chunked, chunked"]),
        (400, ["chunked", "gzip"]),
        (400, ["chunked", "identity"]),
        (400, ["chunked", "chunked"]),
        (400, ["gzip\r\nConnection: upgrade\r\nUpgrade: h2c"]),
        (400, ["chunked\r\nContent-Length: 9"]),
        (400, ["gzip\r\nContent-Length: 9"]),
    ],
)
def test_a_transfer_encoding_that_is_not_chunked_alone_is_refused_with_all_behind_it(
    live: Live, status: int, lines: list[str]
) -> None:
    [answer] = live.raw(framed("Host: a", *(f"Transfer-Encoding: {line}" for line in lines)))[0].split(b"HTTP/1.1 ")[1:]
    assert answer.startswith(b"%d " % status)
    assert b"gzip" not in answer


def test_chunks_are_of_http_1_1_and_by_whatever_case(live: Live) -> None:
    assert live.raw(framed("Host: a", "Transfer-Encoding: Chunked"))[0].count(b"HTTP/1.1 200") == 2
    [answer] = live.raw(framed("Host: a", "Transfer-Encoding: chunked", version="1.0"))[0].split(b"HTTP/1.1 ")[1:]
    assert answer.startswith(b"400")


@pytest.mark.parametrize(
    "hosts",
    [[], [""], ["a", "b"], ["a", "a"], ["a", ""], ["a b"], ["a/b"], ["a@b"], ["a:b"], ["a, b"], ["[::1"], ["%zz"]],
)
def test_a_request_without_one_valid_host_is_refused_with_all_behind_it(live: Live, hosts: list[str]) -> None:
    lines = "".join(f"Host: {host}\r\n" for host in hosts).encode()
    for whole in (ONE, b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n", ONE.replace(b"/invocations", b"http://a/invocations")):
        [answer] = live.raw(whole.replace(b"Host: a\r\n", lines) + LAST)[0].split(b"HTTP/1.1 ")[1:]
        assert answer.startswith(b"400")


def test_hosts_of_every_form_are_taken_and_http_1_0_needs_none(live: Live) -> None:
    for host in (b"a.example:80", b"a_b", b"127.0.0.1:1234", b"[::1]:1234", b"a:", b"xn--a%C3%A4"):
        assert live.raw(LAST.replace(b"Host: a", b"Host: " + host))[0].startswith(b"HTTP/1.1 200")
    old = LAST.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert live.raw(old.replace(b"Host: a\r\n", b""))[0].startswith(b"HTTP/1.1 200")
    assert live.raw(old.replace(b"Host: a\r\n", b"Host: a\r\nHost: a\r\n"))[0].startswith(b"HTTP/1.1 400")


def test_what_a_body_is_may_be_said_once(live: Live) -> None:
    for lines in (["Content-Encoding: gzip", "Content-Encoding: identity"], ["Content-Type: text/csv"] * 2):
        assert live.raw(request({"inputs": [ENCODED]}, "Connection: close", *lines))[0].startswith(b"HTTP/1.1 415")


def test_targets_of_every_form_are_understood(live: Live) -> None:
    for target in (b"/invocations?a=b", b"http://a/invocations", b"http://a:1/invocations?a"):
        assert live.raw(LAST.replace(b"/invocations", target))[0].startswith(b"HTTP/1.1 200")
    for line in (b"OPTIONS *", b"GET http://a", b"GET /%70ing", b"CONNECT a:1"):
        answer, _ = live.raw(line + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 404")


def connections(live: Live, number: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", live.port), timeout=20) for _ in range(number)]


def test_two_hundred_connections_at_once_are_answered(live: Live) -> None:
    opened = connections(live, 200)
    for _ in range(3):
        for connection in opened:
            connection.sendall(ONE)
        for connection in opened:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    for connection in opened:
        connection.close()


def test_more_than_can_be_answered_is_told_to_come_again(live: Live) -> None:
    opened = connections(live, 600)
    for connection in opened:
        connection.sendall(LONG[:-1])
    time.sleep(1)
    assert live.ask(path="/ping").status == live.ask({"inputs": [ENCODED]}).status == 200
    told = []
    for connection in opened:
        connection.setblocking(False)
        try:
            told.append(connection.recv(1000))
        except BlockingIOError:
            connection.setblocking(True)
            connection.sendall(LONG[-1:])
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.close()
    assert 0 < len(told) < 200
    assert all(answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1\r\n" in answer for answer in told)


def test_with_too_many_connections_the_next_are_told_so(live: Live) -> None:
    opened = connections(live, 2 * CONNECTIONS)
    try:
        for body in ("", "x" * 20_000, "x" * 2_000_000):
            assert [live.ask(body).status for _ in range(5)] == [503] * 5
    finally:
        for connection in opened:
            connection.close()
    until(lambda: live.ask({"inputs": [ENCODED]}).status == 200)


def probability(reply: Reply) -> tuple[str, float]:
    return reply.headers["x-model-version"], reply.json["predictions"][0]


@contextmanager
def hammered(live: Live, number: int) -> Iterator[list[Reply]]:
    """Ask for a probability over and over on connections of their own; yields the replies."""
    replies: list[Reply] = []
    is_over = threading.Event()

    def ask() -> None:
        body = json.dumps({"inputs": [ENCODED], "params": {"output": "probability"}})
        with closing(http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)) as connection:
            while not is_over.is_set():
                connection.request("POST", "/invocations", body)
                answer = connection.getresponse()
                replies.append(Reply(answer.status, dict(answer.getheaders()), answer.read()))
                if answer.getheader("connection") == "close":
                    return

    threads = [threading.Thread(target=ask) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield replies
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def answering(live: Live, version: str) -> None:
    """Wait until both workers answer with a version."""
    until(lambda: {live.version() for _ in range(4)} == {version})


def test_another_version_takes_over_between_two_answers(live: Live, store: str) -> None:
    swaps = live.metric("swaps_total")
    with hammered(live, 4) as replies:
        for version in ("2", "1"):
            promote(store, version)
            answering(live, version)
    assert {reply.status for reply in replies} == {200}
    assert {version for version, _ in map(probability, replies)} == {"1", "2"}
    assert len(set(map(probability, replies))) == 2  # an answer of each version, and none that mixes them
    assert live.metric("swaps_total") == swaps + 2


def made(store: str, folder: Path, change: Callable[[Path], object]) -> tuple[str, Path]:
    """A new version with the files of version 1, changed before they are recorded; its number and its folder."""
    client = MlflowClient(store)
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", dst_path=str(folder)))
    (files / manifest.LEFT_OUT).unlink(missing_ok=True)
    change(files)
    run_id = client.get_model_version(NAME, "1").run_id or ""
    version = client.create_model_version(NAME, str(files), run_id)
    for tag, value in manifest.record(client, run_id, files).items():
        client.set_model_version_tag(NAME, version.version, tag, value)
    return str(version.version), files


def lie(folder: Path) -> None:
    written = json.loads((folder / "scorer.json").read_text())
    written["stored"]["probabilities"][0] = 0.123
    (folder / "scorer.json").write_text(json.dumps(written))


def refused(live: Live, store: str, version: str) -> str:
    """What is said of a version that is promoted and refused, while version 1 goes on."""
    before = live.metric("refused_versions_total")
    promote(store, version)
    try:
        until(lambda: live.metric("refused_versions_total") == before + 1)
        assert {live.version() for _ in range(4)} == {"1"}
    finally:
        promote(store, "1")
    [line] = [line for line in live.log.read_text().splitlines() if f"version {version} is refused" in line]
    assert "version 1 goes on" in line
    return line


def test_a_version_whose_files_changed_is_refused(live: Live, store: str, tmp_path: Path) -> None:
    version, files = made(store, tmp_path, lambda files: (files / "conda.yaml").write_text("as registered"))
    (files / "conda.yaml").write_text("changed")
    assert "conda.yaml changed" in refused(live, store, version)


def test_a_version_that_does_not_give_its_stored_answers_is_refused(live: Live, store: str, tmp_path: Path) -> None:
    version, _ = made(store, tmp_path, lie)
    assert "the stored rows do not get the stored answers" in refused(live, store, version)


def test_a_version_that_cannot_be_loaded_is_refused(live: Live, store: str, tmp_path: Path) -> None:
    version, _ = made(store, tmp_path, lambda files: (files / "scorer.json").unlink())
    assert "scorer.json" in refused(live, store, version)


def test_what_has_ended_is_started_again(live: Live) -> None:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.split(maxsplit=2) for line in listed.splitlines()]
    ours = group(live.process.pid)
    [worker, *_] = [int(pid) for pid, pgid, args in found if int(pgid) == ours and "understudy.serving.worker" in args]
    rows = live.metric("rows_total")
    os.kill(worker, signal.SIGKILL)
    until(lambda: live.log.read_text().count("version 1 answers") >= 3)
    assert {live.ask({"inputs": [ENCODED]}).status for _ in range(8)} == {200}
    assert live.metric("rows_total") == rows + 8


def test_a_server_waits_for_a_first_version_keeps_rows_and_drains(store: str, tmp_path: Path) -> None:
    with served(tmp_path, store, "--stage", "Staging", "--log", str(tmp_path / "rows")) as live:
        until(lambda: live.ask(path="/health").json["status"] == "waiting")
        waiting = live.ask({"inputs": [ENCODED]})
        assert (waiting.status, waiting.headers["retry-after"]) == (503, "5")
        assert live.ask(path="/schema").status == live.ask(path="/version").status == 503
        MlflowClient(store).set_registered_model_alias(NAME, "staging", "2")
        until(lambda: live.version() == "2")
        raw = [{**APPLICANT, "ApplicantIncome": 4711 + number} for number in range(3)]
        detail = {"dataframe_records": raw, "params": {"output": "detail"}}
        answers = live.ask(detail).json["predictions"]
        live.ask({"dataframe_records": [{**APPLICANT, "Gender": "secret"}]})
        processes = group(live.process.pid)
        half = connections(live, 20)
        for connection in half:
            connection.sendall(ONE[:-9])
        with hammered(live, 4) as replies:
            until(lambda: len(replies) > 100)
            live.process.terminate()
            time.sleep(0.2)
            for connection in half:
                connection.sendall(ONE[-9:])
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
                connection.close()
            assert live.process.wait(10) == 143
        assert {reply.status for reply in replies} == {200}
        assert not is_left(processes)
        assert list((tmp_path / "tmp").iterdir()) == []
    parts = [pd.read_parquet(path) for path in (tmp_path / "rows").glob("*-raw.parquet")]
    kept = pd.concat(parts)
    assert list(kept) == ["time", "version", "label", "probability", *NAMES]
    assert kept["ApplicantIncome"].tolist() == [4711, 4712, 4713]
    assert kept["probability"].tolist() == [answer["probability"] for answer in answers]
    assert kept["version"].tolist() == ["2"] * 3
    assert (pd.Timestamp.now("UTC") - kept["time"].max()).total_seconds() < 60
    encoded = pd.concat([pd.read_parquet(path) for path in (tmp_path / "rows").glob("*-encoded.parquet")])
    assert len(encoded) == len(replies) + 20


def test_what_cannot_be_answered_before_the_end_is_told_to_come_again(store: str, tmp_path: Path) -> None:
    slow = request({"inputs": [ENCODED] * 1_000, "params": {"output": "detail"}})
    MlflowClient(store).set_registered_model_alias(NAME, "staging", "2")
    with served(tmp_path, store, "--stage", "Staging") as live:
        until(lambda: live.version() == "2")
        opened = connections(live, 100)
        for connection in opened:
            connection.sendall(slow)
        time.sleep(0.5)
        live.process.terminate()
        answers = [connection.makefile("rb").read() for connection in opened]
        assert live.process.wait(10) == 143
        for connection in opened:
            connection.close()
    assert {answer.partition(b" ")[2][:3] for answer in answers} == {b"200", b"503"}
    assert all(b"\r\ncontent-type: application/json\r\n" in answer for answer in answers)
    assert "Traceback" not in live.log.read_text()


def logged(version: str, rows: Any) -> rowlog.Answer:
    """An accepted row of a table whose encoded columns are called as its raw ones."""
    types = {"raw": {"Area": True}, "encoded": {"Area": False}}
    return rowlog.Answer(time.time(), version, types, rows, "label", ["Y"])


def test_rows_are_kept_by_form_and_version_and_what_cannot_be_written_is_counted(tmp_path: Path) -> None:
    counters = Counters(tmp_path / "some.counters")
    parts = rowlog.Parts(tmp_path, counters)
    for answer in (logged("1", {"Area": ["Urban"]}), logged("1", [[2]]), logged("2", {"Area": [4]})):
        parts.add(answer)
    parts.write()
    [raw], [encoded] = (list(tmp_path.glob(f"*-{form}.parquet")) for form in ("raw", "encoded"))
    assert pd.read_parquet(raw)["Area"].tolist() == ["Urban"]
    assert pd.read_parquet(encoded)["Area"].tolist() == [2]
    assert counters.values[counters.slot("logged_rows")] == 2
    assert counters.values[counters.slot("dropped_rows")] == 1


def test_rows_are_written_in_time_though_none_come_after_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = rowlog.Parts(tmp_path, Counters(tmp_path / "some.counters"))
    parts.add(logged("1", [[2]]))
    parts.tick()
    assert not list(tmp_path.glob("*.parquet"))
    monkeypatch.setattr(rowlog, "PART", 0)
    parts.tick()
    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_rows_are_kept_again_when_what_writes_them_was_killed(
    kept: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rowlog, "PAUSE", 0)
    counters = Counters(tmp_path / "some.counters")
    [files] = [path.parent for path in Path(kept.cache).rglob("MLmodel")]
    answering = current.load(Version("1", "", str(files)))
    log = rowlog.RowLog(tmp_path, counters, tmp_path / "log.counters")
    os.kill(log._process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not counters.values[counters.slot("dropped_rows")] and time.monotonic() < deadline:
        log.put(answering, [ENCODED], "label", ["Y"])
        time.sleep(0.05)
    log.put(answering, [[*ENCODED[:9], 9]], "label", ["Y"])
    log.close()
    [part] = tmp_path.glob("*-encoded.parquet")
    assert pd.read_parquet(part)["TotalIncome"].tolist()[-1] == 9
    assert part.stat().st_mode & 0o077 == 0
    assert "is started again" in capfd.readouterr().err


class Relay:
    """A way to a server, which can be shut and opened again."""

    def __init__(self, port: int) -> None:
        self.to, self.port = port, free_port()
        self.connections: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def shut(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.connections = []

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self.listening.accept()
                theirs = socket.create_connection(("127.0.0.1", self.to))
                self.connections += [ours, theirs]
                for ends in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self.pass_on, args=ends, daemon=True).start()

    def pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while part := one.recv(65536):
                other.sendall(part)
            other.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay(store: str, tmp_path: Path) -> Iterator[Relay]:
    """The way to a tracking server on the store."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(port)]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--workers", "1"], cwd=tmp_path, env=environment(), stdout=log, stderr=log, process_group=0
        )
    try:
        until(lambda: "startup complete" in (tmp_path / "server.log").read_text(), 60)
        yield Relay(port)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_the_tracking_server_may_go_away_and_come_back(store: str, relay: Relay, tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{relay.port}"
    with served(tmp_path, uri) as live:
        until(lambda: live.version() == "1")
        with hammered(live, 2) as replies:
            relay.shut()
            until(lambda: live.metric("tracking_away") == 1)
            seen = len(replies)
            until(lambda: len(replies) > seen + 50)
        assert {reply.status for reply in replies} == {200}
    with served(tmp_path, uri) as live:
        until(lambda: live.version() == "1")
        assert live.ask({"dataframe_records": [APPLICANT]}).json == {"predictions": ["Y"]}
        until(lambda: live.metric("tracking_away") == 1)
        relay.open()
        until(lambda: live.metric("tracking_away") == 0)
        promote(store, "2")
        until(lambda: live.version() == "2")
    promote(store, "1")


def test_what_was_kept_and_changed_is_not_used(tmp_path: Path) -> None:
    files, copy = tmp_path / "files", tmp_path / "copy"
    files.mkdir()
    (files / "MLmodel").write_text("as it was")
    kept = Kept(tmp_path / "cache", "sqlite:///", NAME, "Production")
    assert kept.last() is None
    kept.keep(Version("7", manifest.digest(files), str(files)))
    assert kept.last() == Version("7", manifest.digest(files), "")
    assert kept.copy(Version("7", manifest.digest(files), str(copy)))
    assert (copy / "MLmodel").read_text() == "as it was"
    [stored] = (tmp_path / "cache").rglob("MLmodel")
    there, left = stored.stat().st_ino, stored.parents[1] / "last.json.4711"
    left.write_text("half of i")
    kept.keep(Version("8", manifest.digest(files), str(files)))
    assert kept.last() == Version("8", manifest.digest(files), "")
    assert stored.stat().st_ino == there
    assert not left.exists()
    stored.write_text("changed")
    shutil.rmtree(copy)
    assert not kept.copy(Version("7", manifest.digest(files), str(copy)))
    assert not copy.exists()
    kept.keep(Version("8", manifest.digest(files), str(files)))
    assert kept.copy(Version("8", manifest.digest(files), str(copy)))


def test_a_worker_tries_again_to_load_what_it_could_not(store: str, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", dst_path=str(tmp_path / "copy")))
    away = files.rename(tmp_path / "away")
    worker = Current(tmp_path, Counters(tmp_path / "some.counters"), NAME)
    (tmp_path / NAMED).write_text("{")
    worker.look()
    current.name(tmp_path, Version("1", "", str(files)))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("understudy.serving.current.AGAIN", 0)
        worker.look()
    assert worker.served is None
    away.rename(files)
    worker.look()
    assert worker.served is not None


@pytest.fixture
def kept(store: str, tmp_path: Path) -> Settings:
    """The settings of a live server that has kept version 1, for a stage that nothing is in."""
    (tmp_path / "files").mkdir()
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", dst_path=str(tmp_path / "files")))
    (files / manifest.LEFT_OUT).unlink()
    MlflowClient(store).delete_registered_model_alias(NAME, "staging")
    version = Version("1", manifest.digest(files), str(files))
    Kept(tmp_path / "cache", store_connection.uri(), NAME, "Staging").keep(version)
    return Settings(str(tmp_path), NAME, "Staging", "127.0.0.1", 0, 1, 5, str(tmp_path / "cache"), "")


def test_a_keeper_that_is_started_again_leaves_what_the_workers_were_told_of(kept: Settings) -> None:
    Keeper(kept).fall_back()
    told = named(Path(kept.folder))
    assert told.number == "1"
    assert (Path(told.folder) / "MLmodel").exists()
    Keeper(kept).fall_back()
    assert named(Path(kept.folder)).folder == told.folder
    assert Path(told.folder).is_dir()


def test_what_was_kept_is_not_for_a_stage_that_is_known_to_be_empty(kept: Settings) -> None:
    keeper = Keeper(kept)
    keeper.look()
    keeper.fall_back()
    assert not Path(kept.folder, NAMED).exists()


def test_what_was_kept_and_does_not_work_any_more_is_not_used(
    kept: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    [files] = [path.parent for path in Path(kept.cache).rglob("MLmodel")]
    lie(files)
    Kept(Path(kept.cache), store_connection.uri(), NAME, "Staging").keep(
        Version("1", manifest.digest(files), str(files))
    )
    Keeper(kept).fall_back()
    assert not Path(kept.folder, NAMED).exists()
    assert "version 1, which was kept here, is not used" in capfd.readouterr().err


def test_an_address_that_is_taken_is_said_in_two_lines(live: Live, store: str, tmp_path: Path) -> None:
    command = [str(PROJECT / "serve.sh"), "--live", "--port", str(live.port), "--cache", str(tmp_path)]
    settings = environment(MLFLOW_TRACKING_URI=store)
    ended = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=20, check=False)
    assert is_refusal(Ended(ended.returncode, ended.stdout, ended.stderr))


def test_a_worker_waits_for_no_heavy_package() -> None:
    program = "import sys, understudy.serving.worker; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, env=environment(), capture_output=True, text=True
    )
    assert not {"mlflow", "pandas", "sklearn", "scipy", "pyarrow", "fastapi", "starlette"} & {*ran.stdout.split()}
    assert "uvloop" in ran.stdout
