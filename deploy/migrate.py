# PYTHON_ARGCOMPLETE_OK
"""Bring MLflow's two databases to this MLflow's schema; doing it again changes nothing.

python -m deploy.migrate db:3306 deploy/secrets/migrator.cnf   with accounts of deploy/secrets.py

`mlflow db upgrade` alone knows one of the two, is given its address with the password in it on a command line, and
leaves half a schema where MySQL refuses something on the way.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.db
import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from deploy import secrets
from understudy import errors, terminal
from understudy.errors import UserError

# MySQL's codes for what exists already, or is gone already: an earlier migration was cut off, whose steps stay.
HALF_DONE = {1050, 1060, 1061, 1091, 1146, 1826}
SET = "set log_bin_trust_function_creators=1 on the database server, as docs/operations.md says"


def upgrade(host: str, database: str, accounts: Path) -> None:
    """Migrate one database: "tracking" or "auth".

    Raises:
        UserError: The server does not let it in, or would stop it half-way; it is half migrated.
    """
    engine = sqlalchemy.create_engine(secrets.address(host, database, accounts))
    try:
        with engine.connect() as connection:
            check(connection, database)
        STEPS[database](engine)
    except DBAPIError as error:
        code, problem = error.orig.args[:2] if error.orig and len(error.orig.args) > 1 else (0, error.orig)
        if code in HALF_DONE:
            raise UserError(
                f"{database} at {host} is half migrated, an earlier migration was cut off: {problem}",
                "restore its backup, or if it holds nothing yet drop and create it; then migrate again",
            ) from None
        raise UserError(
            f"cannot migrate {database} at {host}: {problem}", "see docs/operations.md, then again"
        ) from None
    finally:
        engine.dispose()


def check(connection: Connection, database: str) -> None:
    """Find what MySQL would refuse in the middle of a migration.

    Raises:
        UserError: The database is not utf8mb4, or the account could not create a trigger.
    """
    charset = connection.exec_driver_sql("select @@character_set_database").scalar()
    if charset != "utf8mb4":
        fix = f"alter database {database} character set utf8mb4"
        raise UserError(f"the character set of {database} is {charset}, MLflow needs utf8mb4", fix)
    binary_log, trusted = connection.exec_driver_sql("select @@log_bin, @@log_bin_trust_function_creators").one()
    if binary_log and not trusted:
        raise UserError(f"MLflow's trigger in {database} would be refused: the server keeps a binary log", SET)


def _tracking(engine: Engine) -> None:
    # Called in this process, the command has its password in no command line.
    mlflow.db.upgrade.main([engine.url.render_as_string(hide_password=False)], standalone_mode=False)


def _auth(engine: Engine) -> None:
    with warnings.catch_warnings(action="ignore"):  # MLflow's own, on what it imports
        from mlflow.server.auth.db import utils as auth  # loads the whole server
    event.listen(Engine, "before_cursor_execute", _without_name, retval=True)
    try:
        auth.migrate(engine, "head")
    finally:
        event.remove(Engine, "before_cursor_execute", _without_name)


def _without_name(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
    # Two tables of MLflow's have a foreign key of one name, which MySQL refuses (mlflow/mlflow#9642, #10964).
    return statement.replace("CONSTRAINT fk_user_id FOREIGN KEY", "FOREIGN KEY"), parameters


STEPS: dict[str, Callable[[Engine], None]] = {"tracking": _tracking, "auth": _auth}


def options() -> argparse.ArgumentParser:
    """The databases' server, and who migrates."""
    parser = argparse.ArgumentParser(prog="python -m deploy.migrate", **terminal.explained(__doc__))
    parser.add_argument("host", help="HOST or HOST:PORT")
    parser.add_argument("accounts", type=Path, metavar="FILE", help="holds the migrating accounts")
    return parser


def main() -> None:
    """Migrate both databases."""
    args = terminal.parse(options())
    for database in secrets.DATABASES:
        upgrade(args.host, database, args.accounts)
        print(f"{database}: migrated")


if __name__ == "__main__":
    errors.run(main)
