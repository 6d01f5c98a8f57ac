"""One table, wherever `--data` finds it, and what is said when it cannot."""

import bz2
import functools
import gzip
import http.server
import io
import json
import lzma
import os
import sqlite3
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from decimal import Decimal
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
from understudy.reading import reader, table_rows
from understudy.schema.columns import Number
from understudy.table import TABLE
from understudy.tracking import family_runs

Call = Callable[..., Ended]
NUMBERS = [column.name for column in TABLE.columns if isinstance(column, Number)] + ["Credit_History"]


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    return table_rows.read(TABLE, SAMPLE)


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
    rows = table_rows.read(TABLE, address)
    pd.testing.assert_frame_equal(rows, expected)
    return TABLE.digest(rows) == TABLE.digest(expected)


def refusal(address: str | Path) -> str:
    with pytest.raises(UserError) as refused:
        table_rows.read(TABLE, address)
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
            csv.replace(b",", b"\t"),
            csv.replace(b",", b";"),
            csv.replace(b"\n", b"\r\n"),
            csv.replace(b"\n", b",,\n"),
            csv.replace(b"\n", b", ,\n") + b"," * 14 + b"\n",
            b"\n \t\n" + csv.replace(b"\n", b"\n\n") + b"   \n",
            csv.decode().encode("utf-16"),
            b"\xfe\xff" + csv.decode().replace(",", "\t").encode("utf-16-be"),
            parquet(text),
            parquet(text.fillna("")),
            parquet(numbers),
            parquet(nullable),
            parquet(categorical),
            parquet(numbers.astype({"ApplicantIncome": float, "LoanAmount": "float32"}), compression="gzip"),
            parquet(numbers.set_index("Loan_ID")),
            parquet(numbers.sample(frac=1, random_state=1)),
            gzip.compress(parquet(numbers)),
            parquet(numbers.assign(**{"": None, "14": None}).rename(columns={"14": " "})),
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
        text.to_sql("loans.2024", connection, index=False)
        connection.execute("create view selected as select * from loans")
    connection.close()
    assert same(f"{database}#loans", expected)
    assert same(f"{database}#loans.2024", expected)
    assert same(f"{database}#main.loans.2024", expected)
    assert same(f"{database}#selected", expected)
    assert same(f"{database}#main.loans", expected)
    assert same(f"{database}#as text", expected)
    query = "select * from loans where Loan_ID like 'LP%' and ':x' <> 'a@b'"
    assert same(f"{database}#{query}", expected)
    assert same(f"{database}#with l as ({query}) select * from l", expected)
    for other in [
        "({})",
        " ( ( {} ) ) ;",
        "-- all of them\n{}",
        "/* all (of) them */ -- and\n\t({} -- each\n)",
        "{};",
    ]:
        assert same(f"{database}#{other.format(query)}", expected), other
    assert same(f"{database}#select*from[loans]", expected)


def test_identifiers_are_exact_however_large(tmp_path: Path, numbers: pd.DataFrame) -> None:
    names = [2**53 + number for number in range(len(numbers))]
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute(f"create table loans (Loan_ID decimal(20,0), {', '.join(map(str, list(numbers)[1:]))})")
        numbers.assign(Loan_ID=names).to_sql("loans", connection, index=False, if_exists="append")
    connection.close()
    for kind in (Decimal, int):
        stored = numbers.assign(Loan_ID=pd.Series(list(map(kind, names))))
        (tmp_path / kind.__name__).write_bytes(parquet(stored))
    database = f"sqlite:///{tmp_path / 'x.db'}"
    tables = [f"{database}#loans", f"{database}#select * from loans"]
    for address in [*tables, str(tmp_path / "Decimal"), str(tmp_path / "int")]:
        assert table_rows.read(TABLE, address)["Loan_ID"].tolist() == list(map(str, names)), address
    doubled = [2.0**60 + number * 256 for number in range(len(numbers))]
    (tmp_path / "floats").write_bytes(parquet(numbers.assign(Loan_ID=doubled)))
    assert table_rows.read(TABLE, tmp_path / "floats")["Loan_ID"].tolist() == [f"{name:.0f}" for name in doubled]
    parts = [Decimal(name) / 100 for name in names]
    (tmp_path / "parts").write_bytes(parquet(numbers.assign(Loan_ID=pd.Series(parts))))
    assert {*table_rows.read(TABLE, tmp_path / "parts")["Loan_ID"]} == {f"{name:f}" for name in parts}


def test_booleans_of_sqlite_are_read_as_its_queries_give_them(tmp_path: Path, numbers: pd.DataFrame) -> None:
    with sqlite3.connect(tmp_path / "x.db") as connection:
        columns = ", ".join(f"{name} {'boolean' if name == 'Credit_History' else ''}" for name in numbers)
        connection.execute(f"create table loans ({columns})")
        numbers.to_sql("loans", connection, index=False, if_exists="append")
        connection.execute(f"create table texts ({columns})")
        numbers.assign(Credit_History="yes").to_sql("texts", connection, index=False, if_exists="append")
    connection.close()
    assert same(f"sqlite:///{tmp_path / 'x.db'}#loans", table_rows.read(TABLE, SAMPLE))
    assert "Credit_History: not a number" in refusal(f"sqlite:///{tmp_path / 'x.db'}#texts")


def test_empty_columns_without_a_name_are_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(SAMPLE.read_bytes().replace(b"\n", b",,\n"))
    table_rows.read(TABLE, path)
    assert capsys.readouterr().out == f"{path}: 2 columns without a name and without content are left out\n"


# How people get a file that is not read, and what the error says of it; the command in the fix makes it one that is.
UNREAD: dict[str, tuple[Callable[[pd.DataFrame, bytes], bytes], str]] = {
    "x.json": (lambda rows, csv: rows.to_json(orient="records").encode(), "is JSON"),
    "x.jsonl": (lambda rows, csv: rows.to_json(orient="records", lines=True).encode(), "is JSON"),
    "windows.csv": (
        lambda rows, csv: csv.decode().replace("LP00", "L\xf6w").encode("windows-1252"),
        "is not in UTF-8 from byte",
    ),
    "my loans.csv.gz": (
        lambda rows, csv: gzip.compress(csv.decode().replace("LP00", "L\xf6w").encode("windows-1252")),
        "perhaps in Windows-1252",
    ),
    "little.csv": (lambda rows, csv: csv.decode().encode("utf-16-le"), "is UTF-16 without a byte-order mark"),
    "big.csv": (lambda rows, csv: csv.decode().encode("utf-16-be"), "is UTF-16 without a byte-order mark"),
    "europe.csv": (
        lambda rows, csv: (
            rows.assign(LoanAmount=rows["LoanAmount"] + 0.5).to_csv(sep=";", decimal=",", index=False).encode()
        ),
        "has commas in numbers, and ';' between cells",
    ),
    "tabs.csv": (
        lambda rows, csv: (
            rows.assign(LoanAmount=rows["LoanAmount"] + 0.5).to_csv(sep="\t", decimal=",", index=False).encode()
        ),
        "has commas in numbers, and '\\t' between cells",
    ),
    "comment.csv": (lambda rows, csv: b"# made today\n" + csv, "has more cells than line 1"),
    "titled.csv": (lambda rows, csv: b"\nLoans, all\n" + csv, "has more cells than line 2"),
    "excel.csv": (lambda rows, csv: b"sep=;\n" + csv.replace(b",", b";"), "has more cells than line 1"),
    "x.bz2": (lambda rows, csv: bz2.compress(csv), "is packed by bzip2"),
    "x.xz": (lambda rows, csv: lzma.compress(csv), "is packed by xz"),
    "x.zip": (lambda rows, csv: zipped({"x.new.csv": csv}), "is a zip archive"),
}


def zipped(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return written.getvalue()


@pytest.mark.parametrize("name", UNREAD)
def test_the_fix_for_a_file_that_is_not_read_makes_it_one_that_is(
    name: str, tmp_path: Path, numbers: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, said = UNREAD[name]
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content(numbers, SAMPLE.read_bytes()))
    with pytest.raises(UserError) as refused:
        table_rows.read(TABLE, name)
    assert said in refused.value.problem
    command = refused.value.fix.removeprefix("correct it, or ")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-c", command], check=True, env={"PATH": path})
    [made] = tmp_path.glob("*.new.csv")
    rows = table_rows.read(TABLE, made).drop(columns="Loan_ID")
    expected = table_rows.read(TABLE, SAMPLE).drop(columns="Loan_ID")
    pd.testing.assert_frame_equal(rows.assign(LoanAmount=rows["LoanAmount"] // 1), expected)


def test_a_workbook_is_read_or_says_what_reads_it(tmp_path: Path, numbers: pd.DataFrame) -> None:
    path = tmp_path / "x.xlsx"
    try:
        numbers.to_excel(path, index=False)
    except ModuleNotFoundError:
        path.write_bytes(zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}))
        with pytest.raises(UserError, match="is an Excel workbook, and openpyxl is not installed") as refused:
            table_rows.read(TABLE, path)
        assert refused.value.fix == "pip install openpyxl"
        return
    assert same(path, table_rows.read(TABLE, SAMPLE))
    with pd.ExcelWriter(path) as book:
        numbers.assign(Gender="Herr", **{" ": None}).to_excel(book, index=False, startrow=3)
        numbers.to_excel(book, sheet_name="other")
    assert "Gender: unknown category in row 1 (line 5), 2 (line 6)," in refusal(path)


def test_identifiers_and_categories_end_as_text(tmp_path: Path, numbers: pd.DataFrame) -> None:
    few = numbers.assign(
        Loan_ID=range(1000, 1000 + len(numbers)),
        Dependents=pd.to_numeric(numbers["Dependents"].replace("3+", None)),
    )
    (tmp_path / "typed").write_bytes(parquet(few))
    few.astype({"Dependents": "Int64"}).to_csv(tmp_path / "text.csv", index=False)
    rows = table_rows.read(TABLE, tmp_path / "typed")
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
        (lambda csv: csv.replace(b"Urban", b"Urb\xe4n"), "is not in UTF-8 from byte "),
        (lambda csv: b"PK\x03\x04\x14\x00\xff\xfe", "is broken zip"),
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
        (lambda csv: csv.replace(b"\n", b",\n").replace(b"Y,\n", b"Y,x\n"), "column 14 has no name"),
        (lambda csv: csv.replace(b"\n", b"\n1,").replace(b"Loan_ID", b",Loan_ID")[:-2], "column 1 has no name"),
        (lambda csv: b"<!DOCTYPE html><html></html>", "is HTML or XML"),
        (lambda csv: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 500, "is an old Excel workbook"),
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
        (f"{database}#nothing.loans", "there is no such table"),
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
