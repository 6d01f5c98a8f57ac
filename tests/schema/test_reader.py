"""One table, wherever `--data` finds it, and what is said when it cannot."""

import functools
import gzip
import http.server
import io
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from mlflow import MlflowClient

import evaluate
import train
from deploy.mysql import free_port
from tests.conftest import SAMPLE, Ended, is_refusal
from understudy.errors import UserError
from understudy.schema import reader
from understudy.schema.columns import Number
from understudy.table import TABLE
from understudy.tracking import family_runs

Call = Callable[..., Ended]
NUMBERS = [column.name for column in TABLE.columns if isinstance(column, Number)] + ["Credit_History"]


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    return TABLE.read(SAMPLE)


@pytest.fixture(scope="module")
def text() -> pd.DataFrame:
    return pd.read_csv(SAMPLE, dtype=str, keep_default_na=False, na_values=[""])


@pytest.fixture(scope="module")
def numbers(text: pd.DataFrame) -> pd.DataFrame:
    return text.assign(**{name: pd.to_numeric(text[name]) for name in NUMBERS})


@pytest.fixture
def database(tmp_path: Path, numbers: pd.DataFrame) -> str:
    with sqlite3.connect(tmp_path / "x.db") as connection:
        numbers.to_sql("loans", connection, index=False)
    connection.close()
    return f"sqlite:///{tmp_path / 'x.db'}"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A file server on the test's folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def same(address: str | Path, expected: pd.DataFrame) -> bool:
    rows = TABLE.read(address)
    pd.testing.assert_frame_equal(rows, expected)
    return TABLE.digest(rows) == TABLE.digest(expected)


def refusal(address: str | Path) -> str:
    with pytest.raises(UserError) as refused:
        TABLE.read(address)
    return refused.value.problem


def parquet(rows: pd.DataFrame, **options: object) -> bytes:
    written = io.BytesIO()
    rows.to_parquet(written, **options)  # type: ignore[call-overload]
    return written.getvalue()


def test_a_table_is_the_same_in_every_kind_of_file(
    tmp_path: Path, served: str, expected: pd.DataFrame, text: pd.DataFrame, numbers: pd.DataFrame
) -> None:
    nullable = numbers.convert_dtypes()
    assert str(nullable["LoanAmount"].dtype) == "Int64"
    categorical = text.astype({"Gender": "category", "Dependents": "category", "LoanAmount": "category"})
    csv = SAMPLE.read_bytes()
    for number, content in enumerate(
        [
            csv,
            b"\xef\xbb\xbf" + csv,
            gzip.compress(csv),
            parquet(text),
            parquet(text.fillna("")),
            parquet(numbers),
            parquet(nullable),
            parquet(categorical),
            parquet(numbers.astype({"ApplicantIncome": float, "LoanAmount": "float32"}), compression="gzip"),
            parquet(numbers.set_index("Loan_ID")),
            parquet(numbers.sample(frac=1, random_state=1)),
            gzip.compress(parquet(numbers)),
        ]
    ):
        path = tmp_path / f"table {number}"  # its name says nothing
        path.write_bytes(content)
        for address in [str(path), path.as_uri(), f"{served}/table%20{number}?x=1"]:
            assert same(address, expected), address


def test_a_table_is_the_same_in_a_database_and_from_a_query(
    database: str, expected: pd.DataFrame, text: pd.DataFrame
) -> None:
    with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
        text.to_sql("as text", connection, index=False)
    connection.close()
    assert same(f"{database}#loans", expected)
    assert same(f"{database}#main.loans", expected)
    assert same(f"{database}#as text", expected)
    query = "select * from loans where Loan_ID like 'LP%' and ':x' <> 'a@b'"
    assert same(f"{database}#{query}", expected)
    assert same(f"{database}#with l as ({query}) select * from l", expected)


def test_identifiers_and_categories_end_as_text(tmp_path: Path, numbers: pd.DataFrame) -> None:
    few = numbers.assign(
        Loan_ID=range(1000, 1000 + len(numbers)),
        Dependents=pd.to_numeric(numbers["Dependents"].replace("3+", None)),
    )
    (tmp_path / "typed").write_bytes(parquet(few))
    few.astype({"Dependents": "Int64"}).to_csv(tmp_path / "text.csv", index=False)
    rows = TABLE.read(tmp_path / "typed")
    assert rows["Loan_ID"][0] == "1000"
    assert set(rows["Dependents"].dropna()) == {"0", "1", "2"}
    assert same(tmp_path / "text.csv", rows)


def test_codes_booleans_dates_and_bytes_are_faults(tmp_path: Path, numbers: pd.DataFrame) -> None:
    broken = numbers.assign(
        Gender=(numbers["Gender"] == "Male").astype(int),
        Married=numbers["Married"] == "Yes",
        Education=b"Graduate",
        LoanAmount=numbers["LoanAmount"] > 100,
        Credit_History=(numbers["Credit_History"] == 1).astype(object).where(numbers["Credit_History"].notna(), None),
        Loan_Amount_Term=pd.Timestamp("2020-01-01"),
    )
    (tmp_path / "typed").write_bytes(parquet(broken))
    problem = refusal(tmp_path / "typed")
    for said in [
        "Gender: unknown category",
        "Married: unknown category",
        "Education: not text",
        "LoanAmount: not a number",
        "Credit_History: not a number",
        "Loan_Amount_Term: not a number",
    ]:
        assert said in problem


@pytest.mark.parametrize(
    ("address", "shown", "name"),
    [
        ("data/my.loans.csv", "data/my.loans.csv", "my.loans"),
        ("a@b/x.csv.gz", "a@b/x.csv.gz", "x"),
        ("file:///a/my%20x.parquet", "file:///a/my%20x.parquet", "my x"),
        ("https://me:pw@host:80/x.csv.gz?a=1", "https://host:80/x.csv.gz?a=1", "x"),
        ("https://token@host/x.csv", "https://host/x.csv", "x"),
        ("https://host/x.csv?a=1&X-Amz-Signature=abc", "https://host/x.csv?a=1&X-Amz-Signature=***", "x"),
        ("mysql://me:p%40w@host/db#loans", "mysql://host/db#loans", "loans"),
        ("mysql://host:3306/db?passwd=pw#loans", "mysql://host:3306/db?passwd=***#loans", "loans"),
        ("mysql://me:pw@[::1]:3306/db#select 'a@b'", "mysql://[::1]:3306/db#select 'a@b'", "db"),
        ("sqlite:////a@b/x.db#loans", "sqlite:////a@b/x.db#loans", "loans"),
        ("s3://bucket/folder/x.parquet", "s3://bucket/folder/x.parquet", "x"),
    ],
)
def test_an_address_is_shown_without_credentials(address: str, shown: str, name: str) -> None:
    assert reader.shown(address) == shown
    assert reader.shown(shown) == shown
    assert reader.name(address) == name


@pytest.mark.parametrize(
    "password", ["alpha/omega", "alpha#omega", "alpha@omega", "14/15", "14#15", "alpha:b/omega", "alpha?omega", "14?15"]
)
def test_a_password_that_is_not_escaped_is_not_shown_in_part(call: Call, password: str) -> None:
    ended = call(train, "--data", f"mysql://me:{password}@host.invalid/db#loans")
    assert is_refusal(ended)
    assert not [part for part in ("alpha", "omega", "14", "15") if part in ended.err]


@pytest.mark.parametrize("where", ["sqlite:///x.db#loans", "http://me:sesame@127.0.0.1:{port}/x.csv?token=sesame"])
def test_a_batch_can_be_evaluated_where_a_person_says_its_table_is_and_holds_no_password(
    store: str, tmp_path: Path, call: Call, database: str, served: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_bytes(SAMPLE.read_bytes())
    address = where.replace("{port}", served.rpartition(":")[2])
    ended = call(train, "--data", address, "--models", "LogisticRegression")
    assert ended.code == 0, ended.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    refused = call(evaluate)
    assert is_refusal(refused)
    assert "which the table does not name" in refused.err
    again = call(evaluate, "--data", address.replace("///x.db", f"///{tmp_path}/x.db"))
    assert again.code == 0, again.err
    client = MlflowClient(store)
    batch = family_runs.get_batch(client, TABLE)
    assert batch.info.run_name in ("loans quick", "x quick")
    assert batch.inputs.dataset_inputs[0].dataset.source_type in ("sql", "http")  # type: ignore[union-attr]
    assert batch.data.params["data"] == reader.shown(address)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        everything = "\n".join(connection.iterdump())
    connection.close()
    assert "sesame" not in everything + ended.out + ended.err + refused.err + again.out + again.err


def test_a_password_that_mlflow_run_has_logged_is_said(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    ended = call(train, "--data", "mysql://me:secret@host/db#loans")
    assert is_refusal(ended)
    assert f"mlflow runs delete --run-id {'0' * 32}" in ended.err
    assert "secret" not in ended.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda csv: b"", "is empty"),
        (lambda csv: gzip.compress(b""), "is empty"),
        (lambda csv: b"\n\n", "is empty"),
        (lambda csv: csv.split(b"\n")[0] + b"\n", "the table: no rows"),
        (lambda csv: csv.replace(b"Urban", b"Urb\xe4n"), "is not a CSV file in UTF-8"),
        (lambda csv: b"PK\x03\x04\x14\x00\xff\xfe", "is not a CSV file in UTF-8"),
        (lambda csv: csv + csv.split(b"\n", 1)[1], "Loan_ID: repeated"),
        (lambda csv: b"\n".join(csv.split(b"\n")[:8]), "too few rows"),
        (lambda csv: b"\n".join(csv.split(b"\n")[:2]), "one class only"),
        (lambda csv: gzip.compress(csv)[:500], "is broken gzip"),
        (lambda csv: gzip.compress(csv)[:-8] + b"12345678", "is broken gzip"),
        (lambda csv: gzip.compress(csv)[:2] + csv, "is broken gzip"),
        (lambda csv: b"PAR1", "is broken Parquet"),
        (lambda csv: b"PAR1" + csv, "is broken Parquet"),
        (lambda csv: parquet(pd.read_csv(io.BytesIO(csv)))[:-500], "is broken Parquet"),
        (lambda csv: damaged(parquet(pd.read_csv(io.BytesIO(csv)))), "is broken Parquet"),
        (lambda csv: csv.replace(b"Gender", b'"Gen\nder"', 1), "Gen der: column is not known"),
    ],
)
def test_broken_files_end_in_two_lines(
    store: str, tmp_path: Path, call: Call, content: Callable[[bytes], bytes], said: str
) -> None:
    (tmp_path / "table").write_bytes(content(SAMPLE.read_bytes()))
    refused(call, store, str(tmp_path / "table"), said)


def damaged(content: bytes) -> bytes:
    """The same with bytes in the middle of the columns overwritten."""
    return content[:100] + b"\xff" * 2000 + content[2100:]


def refused(call: Call, store: str, address: str, said: str) -> None:
    """Two lines, and nothing in the store."""
    ended = call(train, "--data", address)
    assert is_refusal(ended), ended.err
    assert said in ended.err
    assert "sesame" not in ended.err
    assert ended.out == ""
    assert [experiment.name for experiment in MlflowClient(store).search_experiments()] == ["Default"]


def test_broken_addresses_of_databases_end_in_two_lines(store: str, tmp_path: Path, call: Call, database: str) -> None:
    (tmp_path / "no.db").write_bytes(SAMPLE.read_bytes())
    before = set(tmp_path.iterdir())
    for address, said in [
        (database, "names no table"),
        (f"{database}#nothing", "there is no such table"),
        (f"{database}#select * from absent", "no such table: absent"),
        (f"{database}#select", "there is no such table"),
        (f"{database}#select absent from loans", "no such column: absent"),
        (f"{database}#select * from loans limit 0", "the table: no rows"),
        (f"sqlite:///{tmp_path}/missing.db#loans", "there is no file"),
        (f"sqlite:///{tmp_path}/no.db#loans", "file is not a database"),
        (f"sqlite:///{tmp_path}#loans", "there is no file"),
        ("sqlite://#loans", "malformed"),
        ("sqlite:///#loans", "there is no file"),
        ("nothing://host/x#loans", "nothing here reads"),
        ("oracle://host/db#loans", "a driver that is not installed"),
        ("mysql://[host/db#loans", "malformed"),
    ]:
        refused(call, store, address, said)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_in_an_object_store_is_the_same(
    kind: str, store: str, call: Call, expected: pd.DataFrame, numbers: pd.DataFrame
) -> None:
    address = f"memory://bucket/folder/loans.{kind}"
    with fsspec.open(address, "wb") as file:
        file.write(SAMPLE.read_bytes() if kind == "csv" else parquet(numbers))
    assert same(address, expected)
    ended = call(train, "--data", address, "--models", "LogisticRegression")
    assert ended.code == 0, ended.err
    batch = family_runs.get_batch(MlflowClient(store), TABLE)
    [dataset, *_] = [each.dataset for each in batch.inputs.dataset_inputs]  # type: ignore[union-attr]
    assert (dataset.source_type, json.loads(dataset.source)) == ("memory", {"uri": address})
    assert batch.data.params["data"] == address


def test_objects_that_cannot_be_read_end_in_two_lines(store: str, call: Call) -> None:
    for address, said in [
        ("memory://bucket/none.csv", "there is no file memory://bucket/none.csv"),
        ("s3://bucket/x.csv", "fix: pip install s3fs"),
        ("gs://bucket/x.csv", "fix: pip install gcsfs"),
        ("abfs://container/x.csv", "fix: pip install adlfs"),
        (f"ftp://127.0.0.1:{free_port()}/x.csv", "cannot be read: [Errno 111] Connection refused"),
        (f"ftp://me:sesame@127.0.0.1:{free_port()}/x.csv", "cannot be read: ConnectionRefusedError"),
    ]:
        refused(call, store, address, said)


def test_urls_without_an_answer_end_in_two_lines(store: str, tmp_path: Path, call: Call, served: str) -> None:
    for address, said in [
        (f"{served}/x.csv", "answers 404 File not found"),
        (f"http://127.0.0.1:{free_port()}/x.csv?token=secret", "nothing can be fetched from"),
        ("http://nowhere.invalid/x.csv", "nothing can be fetched from"),
        ("http:///x.csv", "nothing can be fetched from"),
        (f"file://{tmp_path}/x.csv", "there is no file"),
        (f"file://{tmp_path}", "is a folder"),
        ("x" * 300, "File name too long"),
    ]:
        refused(call, store, address, said)
