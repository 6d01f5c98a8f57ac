"""A table in a real MariaDB, where the server and the driver are installed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pytest
import sqlalchemy
from mlflow import MlflowClient

import evaluate
import train
from deploy.mysql import free_port
from tests.conftest import SAMPLE, Ended, is_refusal
from tests.stories.test_story import TEXTBOOK, blocks, served
from understudy.reading import reader, table_rows
from understudy.table import TABLE
from understudy.tracking import family_runs, provenance

Call = Callable[..., Ended]
SECRET = "p@s/s#w:%?rd"  # noqa: S105 - the password of this test's own server


@pytest.fixture(scope="module")
def server(database: tuple[Path, str], owner: sqlalchemy.Engine) -> Iterator[str]:
    """Host, port and database with the sample as `loans`, which ann may read."""
    exact = {name: sqlalchemy.Numeric(12, 2) for name in ("ApplicantIncome", "LoanAmount")}
    with owner.begin() as connection:
        connection.exec_driver_sql("create database shop character set utf8mb4")
        connection.execute(sqlalchemy.text("create user ann@'%' identified by :p"), {"p": SECRET})
        connection.execute(sqlalchemy.text("grant select on shop.* to ann@'%'"))
        rows = pd.read_csv(SAMPLE, dtype={"Dependents": str})
        rows.to_sql("loans", connection, schema="shop", index=False, dtype=exact)
        large = rows.assign(Loan_ID=[2**53 + number for number in range(len(rows))])
        large.to_sql("large.ones", connection, schema="shop", index=False, dtype={"Loan_ID": sqlalchemy.Numeric(20, 0)})
    yield f"{database[1]}/shop"
    with owner.begin() as connection:
        connection.exec_driver_sql("drop database shop")
        connection.execute(sqlalchemy.text("drop user ann@'%'"))


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(reader.USER, "ann")
    monkeypatch.setenv(reader.PASSWORD, SECRET)


@pytest.mark.parametrize(
    "what", ["loans", "shop.loans", "select * from loans where Loan_ID like 'LP%'", "-- a\n(select*from`loans`);"]
)
def test_a_table_is_the_same_there(server: str, credentials: None, what: str) -> None:
    rows = table_rows.read(TABLE, f"mysql://{server}#{what}")
    pd.testing.assert_frame_equal(rows, table_rows.read(TABLE, SAMPLE))
    assert TABLE.digest(rows) == TABLE.digest(table_rows.read(TABLE, SAMPLE))


def test_large_identifiers_are_exact_there(server: str, credentials: None) -> None:
    for what in ("large.ones", "shop.large.ones", "select * from `large.ones`"):
        names = table_rows.read(TABLE, f"mysql://{server}#{what}")["Loan_ID"]
        assert names.tolist() == [str(2**53 + number) for number in range(len(names))]


def test_a_password_in_the_address_stays_there(
    server: str, store: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = call(train, "--models", "LogisticRegression", "--data", f"mysql://ann:{quote(SECRET, '')}@{server}#loans")
    assert ended.code == 0, ended.err
    batch = family_runs.get_batch(MlflowClient(store), TABLE)
    assert batch.data.params["data"] == batch.data.tags[provenance.DATA_PATH] == f"mysql://{server}#loans"
    named = ["--data", f"mysql://{server}#loans"]
    assert is_refusal(call(evaluate, *named))
    monkeypatch.setenv(reader.USER, "ann")
    monkeypatch.setenv(reader.PASSWORD, SECRET)
    assert call(evaluate, *named).code == 0
    written = (tmp_path / "mlflow.db").read_bytes()
    for form in (SECRET, quote(SECRET, "")):
        assert form.encode() not in written
        assert form not in ended.out + ended.err


def test_a_wrong_password_database_table_or_server_is_said(
    server: str, credentials: None, store: str, call: Call
) -> None:
    for address, words in [
        (f"mysql://ann:wrong-one@{server}#loans", "Access denied for user 'ann'"),
        (f"mysql://{server}s#loans", "'ann'@'%' to database 'shops'"),
        (f"mysql://{server}#nothing", "there is no such table"),
        (f"mysql://{server}#select * from nothing", "Table 'shop.nothing' doesn't exist"),
        (f"mysql://{server}#with l as (select 1) delete from loans", "cannot be read"),
        (f"mysql://127.0.0.1:{free_port()}/shop#loans", "Can't connect to server"),
    ]:
        ended = call(train, "--data", address)
        assert is_refusal(ended), ended.err
        assert words in ended.err
        assert "wrong-one" not in ended.err
        assert SECRET not in ended.err
    assert [experiment.name for experiment in MlflowClient(store).search_experiments()] == ["Default"]


def test_the_textbooks_way_to_mysql(
    database: tuple[Path, str],
    owner: sqlalchemy.Engine,
    store: str,
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, host = database
    [make], [show] = blocks(TEXTBOOK, "sql mysql"), blocks(TEXTBOOK, "sql mysql shows")
    [command] = blocks(TEXTBOOK, "bash mysql")
    with owner.begin() as connection:
        for statement in make.splitlines():
            connection.execute(sqlalchemy.text(statement))
    command = command.replace("127.0.0.1:3306", host).replace("\\\n", " ")
    with served(command.strip().removesuffix(" 5000"), tmp_path, sign="health") as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert call(train, "--models", "LogisticRegression").code == 0
    with owner.begin() as connection:
        use, tables, experiments = show.splitlines()
        connection.exec_driver_sql(use)
        assert ("experiments",) in connection.exec_driver_sql(tables).fetchall()
        assert TABLE.name in [row.name for row in connection.exec_driver_sql(experiments)]
