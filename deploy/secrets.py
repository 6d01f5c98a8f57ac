# PYTHON_ARGCOMPLETE_OK
"""Random passwords for the database and the server, as files that git ignores; what is there stays as it is.

python -m deploy.secrets           (make secrets) in deploy/secrets
python -m deploy.secrets FOLDER    in another folder
"""

import argparse
import base64
import os
import re
import secrets
from configparser import ConfigParser
from pathlib import Path

from understudy import errors, terminal
from understudy.errors import UserError

FOLDER = Path(__file__).parent / "secrets"
DATABASES = ("tracking", "auth")
MIGRATOR, RUNTIME = "migrator.cnf", "runtime.cnf"
ACCOUNTS = ("trainer", "promoter", "reader")
WEBHOOK = "webhook_key"  # by which the server encrypts the secrets of its webhooks
# Of the server's: MLflow's first account, and what it signs its forms with; and of the database's owner.
SINGLE = ("root_password", "admin_password", "flask_key", WEBHOOK, *(f"{name}_password" for name in ACCOUNTS))
USERS = "users.sql"
SHORTEST = 12  # characters, which is also what MLflow asks of a password
# A secret of no other words than these is an example, whatever stands between them.
EXAMPLES = {"admin", "change", "changeme", "example", "it", "me", "my", "password", "root", "secret", "this", "your"}
# What stands for itself in MySQL's option files and in a statement.
PLAIN = re.compile("[A-Za-z0-9_-]*")
# Those that a volume keeps as well, where a new file changes nothing.
KEPT = {"admin_password": "MLflow's admin", "root_password": "the database's root"}
READ_WRITE = "SELECT, INSERT, UPDATE, DELETE"
GRANTS = {
    MIGRATOR: f"{READ_WRITE}, CREATE, ALTER, DROP, INDEX, REFERENCES, TRIGGER",
    RUNTIME: READ_WRITE,
}


def make(folder: Path) -> None:
    """Write what is missing, then check all of it.

    The folder is for its owner alone. The files in it can be read by all, since a container's users have other numbers.

    Raises:
        UserError: A secret is not fit for use, see `check`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    _write(folder / WEBHOOK, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())  # as Fernet takes it
    for name in SINGLE:
        _write(folder / name, secrets.token_urlsafe(24))
    for name in (MIGRATOR, RUNTIME):
        _write(folder / name, "".join(_section(name, database) for database in DATABASES))
    check(folder)
    (folder / USERS).unlink(missing_ok=True)
    _write(folder / USERS, "".join(_statements(folder)))


def _write(path: Path, text: str) -> None:
    if not path.exists():
        path.touch(0o600)
        path.write_text(text)
    path.chmod(0o444)


def _section(name: str, database: str) -> str:
    user = f"{database}_{name.removesuffix('.cnf')}"
    return f"[{database}]\nuser={user}\npassword={secrets.token_urlsafe(24)}\n"


def _accounts(path: Path) -> ConfigParser:
    read = ConfigParser(interpolation=None)
    read.read(path)
    return read


def _statements(folder: Path) -> list[str]:
    """What makes the databases and their users, one statement a line; running it again changes the passwords."""
    lines = [f"CREATE DATABASE IF NOT EXISTS {database} CHARACTER SET utf8mb4;\n" for database in DATABASES]
    for name, rights in GRANTS.items():
        for database, account in _accounts(folder / name).items():
            if database in DATABASES:
                user, password = f"'{account['user']}'@'%'", account["password"]
                lines += [
                    f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{password}';\n",
                    f"ALTER USER {user} IDENTIFIED BY '{password}';\n",
                    f"GRANT {rights} ON {database}.* TO {user};\n",
                ]
    return lines


def check(folder: Path) -> None:
    """Refuse secrets that anybody could guess, and passwords that a database could take for something else.

    Raises:
        UserError: One is missing, empty, short or an example, or is the database's and not `PLAIN`.
    """
    values = {name: read(folder / name) for name in SINGLE}
    databases = {"root_password": values["root_password"]}
    for name in (MIGRATOR, RUNTIME):
        accounts = _accounts(folder / name)
        databases |= {f"{name} [{database}]": accounts.get(database, "password", fallback="") for database in DATABASES}
    for name, value in (values | databases).items():
        fault = _fault(value)
        if not fault and name in databases and not PLAIN.fullmatch(value):
            fault = "has other characters than A-Z, a-z, 0-9, _ and -"
        if fault:
            fix = "delete that file, then: make secrets"
            if name in KEPT:
                fix = f"before the first start {fix}; later give {KEPT[name]} another one, and write it into that file"
            raise UserError(f"the secret {name} in {folder} {fault}", fix)


def _fault(value: str) -> str:
    if not value:
        return "is missing or empty"
    if len(value) < SHORTEST:
        return f"is shorter than {SHORTEST} characters"
    return "" if set(re.findall("[a-z]+", value.lower())) - EXAMPLES else "looks like an example"


def read(path: Path) -> str:
    """The secret in a file; empty if there is none."""
    return path.read_text().strip() if path.exists() else ""


def address(host: str, database: str, accounts: Path) -> str:
    """A database's address as SQLAlchemy takes it, whose user and password stay in the file `accounts`."""
    return f"mysql://{host}/{database}?read_default_file={accounts}&read_default_group={database}"


def options() -> argparse.ArgumentParser:
    """Where the secrets go."""
    parser = argparse.ArgumentParser(prog="python -m deploy.secrets", **terminal.explained(__doc__))
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="(default: %(default)s)")
    return parser


def main() -> None:
    """Make the secrets of a folder."""
    folder = terminal.parse(options()).folder
    os.umask(0o077)
    make(folder)
    print(f"secrets: {folder}")


if __name__ == "__main__":
    errors.run(main)
