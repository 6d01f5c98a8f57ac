"""A table in a real MariaDB, where the server and the driver are installed."""

import getpass
import importlib.util
import shutil
import subprocess
import time
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
from understudy import reader, tracking
from understudy.table import TABLE

Call = Callable[..., Ended]
SECRET = "p@s/s#w:%?rd"  # noqa: S105 - the password of this test's own server
pytestmark = pytest.mark.skipif(
    not shutil.which("mariadbd") or not importlib.util.find_spec("MySQLdb"),
    reason="needs Debian's mariadb-server, and mysqlclient",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host, port and database with the sample as `loans`, which ann may read."""
    folder, port, me = tmp_path_factory.mktemp("mariadb"), free_port(), getpass.getuser()
    common = ["--no-defaults", f"--datadir={folder}/data", f"--user={me}"]
    install = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal"]
    subprocess.run(install, check=True, capture_output=True)
    listening = [f"--port={port}", f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
    with (folder / "log").open("w") as log:
        command = ["mariadbd", *common, *listening, "--bind-address=127.0.0.1"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        fill(folder / "socket")
        yield f"127.0.0.1:{port}/shop"
    finally:
        process.terminate()
        process.wait()


def fill(socket: Path) -> None:
    deadline = time.monotonic() + 60
    while not socket.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    engine = sqlalchemy.create_engine(f"mysql://root@localhost/mysql?unix_socket={socket}")
    exact = {name: sqlalchemy.Numeric(12, 2) for name in ("ApplicantIncome", "LoanAmount")}
    with engine.begin() as connection:
        connection.exec_driver_sql("create database shop character set utf8mb4")
        for host in ("127.0.0.1", "localhost"):
            connection.execute(sqlalchemy.text(f"create user ann@'{host}' identified by :p"), {"p": SECRET})
            connection.exec_driver_sql(f"grant select on shop.* to ann@'{host}'")
        # Without a user the driver takes the name of whoever runs the tests, which may be root.
        connection.exec_driver_sql("delete from mysql.global_priv where user in ('', 'root')")
        rows = pd.read_csv(SAMPLE, dtype={"Dependents": str})
        rows.to_sql("loans", connection, schema="shop", index=False, dtype=exact)
        connection.exec_driver_sql("flush privileges")
    engine.dispose()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(reader.USER, "ann")
    monkeypatch.setenv(reader.PASSWORD, SECRET)


@pytest.mark.parametrize("what", ["loans", "shop.loans", "select * from loans where Loan_ID like 'LP%'"])
def test_a_table_is_the_same_there(server: str, credentials: None, what: str) -> None:
    rows = TABLE.read(f"mysql://{server}#{what}")
    pd.testing.assert_frame_equal(rows, TABLE.read(SAMPLE))
    assert TABLE.digest(rows) == TABLE.digest(TABLE.read(SAMPLE))


def test_a_password_in_the_address_stays_there(
    server: str, store: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = call(train, "--models", "LogisticRegression", "--data", f"mysql://ann:{quote(SECRET, '')}@{server}#loans")
    assert ended.code == 0, ended.err
    batch = tracking.get_batch(MlflowClient(store), TABLE)
    assert batch.data.params["data"] == batch.data.tags[tracking.DATA_PATH] == f"mysql://{server}#loans"
    assert is_refusal(call(evaluate))
    monkeypatch.setenv(reader.USER, "ann")
    monkeypatch.setenv(reader.PASSWORD, SECRET)
    assert call(evaluate).code == 0
    written = (tmp_path / "mlflow.db").read_bytes()
    for form in (SECRET, quote(SECRET, "")):
        assert form.encode() not in written
        assert form not in ended.out + ended.err


def test_a_wrong_password_database_table_or_server_is_said(
    server: str, credentials: None, store: str, call: Call
) -> None:
    for address, said in [
        (f"mysql://ann:wrong-one@{server}#loans", "Access denied for user 'ann'"),
        (f"mysql://{server}s#loans", "'ann'@'localhost' to database 'shops'"),
        (f"mysql://{server}#nothing", "there is no such table"),
        (f"mysql://{server}#select * from nothing", "Table 'shop.nothing' doesn't exist"),
        (f"mysql://{server}#with l as (select 1) delete from loans", "cannot be read"),
        (f"mysql://127.0.0.1:{free_port()}/shop#loans", "Can't connect to server"),
    ]:
        ended = call(train, "--data", address)
        assert is_refusal(ended), ended.err
        assert said in ended.err
        assert "wrong-one" not in ended.err
        assert SECRET not in ended.err
    assert [experiment.name for experiment in MlflowClient(store).search_experiments()] == ["Default"]
