"""Rows of a database scored, and scores written to one: SQLite and MariaDB, or MySQL where that is installed."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import fsspec
import mlflow
import pandas as pd
import pytest
import sqlalchemy

import score
from deploy import secrets
from tests.batch.test_score import faulty, left
from tests.conftest import MARIADB, SAMPLE, Ended, is_refusal

Call = Callable[..., Ended]
TABLES = ("applicants", "scores", "scores_parts", "scores_rejected")


@pytest.fixture(params=["sqlite", MARIADB])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a database that has the sample as the table applicants, its rows in the order of the file."""
    monkeypatch.chdir(tmp_path)
    address = f"sqlite:///{tmp_path / 'rows.db'}"
    if request.param == MARIADB:
        folder, host = request.getfixturevalue("database")
        address = secrets.address(host, "tracking", folder / "secrets" / secrets.MIGRATOR)
    engine = sqlalchemy.create_engine(address)
    pd.read_csv(SAMPLE).to_sql("applicants", engine, index=False)
    yield address
    with engine.begin() as connection:
        for name in TABLES:
            connection.execute(sqlalchemy.text(f"drop table if exists {name}"))
    engine.dispose()


def rows(address: str, name: str) -> pd.DataFrame:
    """Of a table, in the order of the identifiers if it has scores."""
    engine = sqlalchemy.create_engine(address)
    try:
        return pd.read_sql_table(name, engine)
    finally:
        engine.dispose()


def test_a_table_scored_into_a_table_is_the_file_scored_into_a_file(
    in_production: str, address: str, call: Call, tmp_path: Path
) -> None:
    assert call(score, str(SAMPLE), "expected.parquet", "--keep", "ApplicantIncome").code == 0
    expected = pd.read_parquet("expected.parquet").sort_values("Loan_ID", ignore_index=True)
    before = left(tmp_path)
    ended = call(score, f"{address}#applicants", f"{address}#scores", "--keep", "ApplicantIncome")
    assert ended.code == 0, ended.err
    written = rows(address, "scores").sort_values("Loan_ID", ignore_index=True)
    assert [*written] == ["Loan_ID", "ApplicantIncome", "label", "probability", "version", "scored_at"]
    for name in ("Loan_ID", "label", "probability", "version"):
        assert written[name].tolist() == expected[name].tolist()
    assert written["ApplicantIncome"].tolist() == expected["ApplicantIncome"].astype(float).tolist()
    assert abs(written["scored_at"][0] - expected["scored_at"][0].tz_localize(None)) < pd.Timedelta(minutes=5)
    assert left(tmp_path) - {"rows.db"} == before - {"rows.db"}


def test_scores_are_appended_once(in_production: str, address: str, call: Call) -> None:
    query = f"{address}#select * from applicants where Gender = "
    assert call(score, f"{query}'Male'", f"{address}#scores").code == 0
    first = len(rows(address, "scores"))
    again = call(score, f"{query}'Male'", f"{address}#scores")
    assert is_refusal(again)
    assert "has the scores of this input by this version already" in again.err
    assert len(rows(address, "scores")) == first
    assert call(score, f"{query}'Female'", f"{address}#scores").code == 0
    assert rows(address, "scores")["Loan_ID"].nunique() == len(rows(address, "scores")) > first


def test_rows_that_are_not_allowed_go_to_a_table_beside_it(
    in_production: str, address: str, call: Call, tmp_path: Path, client: mlflow.MlflowClient
) -> None:
    faulty(tmp_path / "faulty.csv")
    strict = call(score, "faulty.csv", f"{address}#scores", "--strict")
    assert is_refusal(strict)
    assert not sqlalchemy.inspect(sqlalchemy.create_engine(address)).has_table("scores")
    ended = call(score, "faulty.csv", f"{address}#scores")
    assert ended.code == 0, ended.err
    rejected = rows(address, "scores_rejected")
    assert {*zip(rejected["row"], rejected["column"], strict=True)} >= {(2, "Gender"), (4, "the row"), (5, "Education")}
    assert len(rows(address, "scores")) == 609
    [run] = client.search_runs(
        [client.get_experiment_by_name("Loan_prediction batches").experiment_id],  # type: ignore[union-attr]
        "attributes.status = 'FINISHED'",
    )
    assert run.data.tags["scoring.output"].endswith("#scores")


def test_cells_of_several_kinds_and_none_are_read_as_training_reads_them(
    in_production: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("understudy.batch.inputs.ROWS", 100)
    sample = pd.read_csv(SAMPLE, dtype=str)
    amounts = [None if row < 150 or pd.isna(cell) else cell for row, cell in enumerate(sample["LoanAmount"])]
    sample["LoanAmount"] = [float(cell) if cell and row % 3 else cell for row, cell in enumerate(amounts)]
    with closing(sqlite3.connect("mixed.db")) as database, database:
        database.execute(f"create table mixed ({', '.join(map(str, sample))})")  # whose columns take cells of any kind
        cells = sample.astype(object).where(sample.notna(), None).itertuples(index=False, name=None)
        database.executemany(f"insert into mixed values ({', '.join('?' * len(sample.columns))})", cells)
    sample.to_csv("mixed.csv", index=False)
    assert call(score, "mixed.csv", "expected.parquet").code == 0
    ended = call(score, f"sqlite:///{tmp_path / 'mixed.db'}#mixed", "mixed.parquet")
    assert ended.code == 0, ended.err
    expected = pd.read_parquet("expected.parquet")
    assert pd.read_parquet("mixed.parquet")["probability"].tolist() == expected["probability"].tolist()


@pytest.mark.parametrize(
    ("address", "output", "said"),
    [
        ("sqlite:///rows.db", "x.csv", "names no table"),
        ("sqlite:///none.db#applicants", "x.csv", "there is no file none.db"),
        (str(SAMPLE), "sqlite:///x.db#select 1", "names no table"),
        (str(SAMPLE), "nothing://host/db#scores", "nothing here reads or writes"),
        (str(SAMPLE), "s3://bucket/scores.parquet", "nothing here writes to s3://bucket/scores.parquet"),
        (str(SAMPLE), "sqlite:///taken.db#scores", "has no column Loan_ID, label"),
    ],
)
def test_what_is_no_table_is_refused(
    address: str,
    output: str,
    said: str,
    in_production: str,
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"a": [1]}).to_sql("scores", f"sqlite:///{tmp_path / 'taken.db'}")
    before = left(tmp_path)
    ended = call(score, address, output)
    assert is_refusal(ended)
    assert said in ended.err
    assert left(tmp_path) == before


def test_files_of_an_object_store_are_scored(in_production: str, call: Call, tmp_path: Path) -> None:
    sample = SAMPLE.read_bytes()
    with fsspec.open("memory://bucket/new/a.csv", "wb") as file:
        file.write(sample)
    pd.read_csv(SAMPLE).to_parquet("memory://bucket/new/b.parquet")
    with fsspec.open("memory://bucket/new/c.csv.gz", "wb", compression="gzip") as file:
        file.write(sample)
    assert call(score, str(SAMPLE), str(tmp_path / "expected.parquet")).code == 0
    expected = pd.read_parquet(tmp_path / "expected.parquet")["probability"].tolist()
    for number, (address, times) in enumerate([("new/b.parquet", 1), ("new/*.csv*", 2), ("new", 3)]):
        ended = call(score, f"memory://bucket/{address}", str(tmp_path / f"{number}.parquet"))
        assert ended.code == 0, ended.err
        assert pd.read_parquet(tmp_path / f"{number}.parquet")["probability"].tolist() == expected * times
    assert is_refusal(none := call(score, "memory://bucket/none*", str(tmp_path / "x.csv")))
    assert "there is no file memory://bucket/none*" in none.err


def test_a_file_that_changes_while_it_is_scored_is_refused(
    in_production: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "grows.csv"
    path.write_bytes(SAMPLE.read_bytes())
    before = left(tmp_path)

    def grown(files: object) -> str:
        path.write_bytes(SAMPLE.read_bytes() * 2)
        return "digest"

    monkeypatch.setattr("understudy.batch.inputs.digest", grown)
    ended = call(score, str(path), str(tmp_path / "x.csv"))
    assert is_refusal(ended)
    assert "has changed while it was read" in ended.err
    assert left(tmp_path) == before
