# PYTHON_ARGCOMPLETE_OK
"""The server's accounts, and what each may do; doing it again brings them back to this.

python -m deploy.accounts http://HOST:5000           the passwords are in deploy/secrets
python -m deploy.accounts http://HOST:5000 FOLDER    or in another folder

A trainer logs runs, scorings and windows in the table's experiments and reads models. Only a promoter registers and
moves versions. A reader reads. MLflow asks for the same right, to update the registered model, wherever a version is
made or moved, and whoever creates a model or an experiment may do anything to it; so the admin creates those of the
table, before anybody else. Nobody else can create any, which takes a server with workspaces (MLFLOW_ENABLE_WORKSPACES).
"""

import argparse
import os
import warnings
from pathlib import Path

from mlflow import MlflowClient, MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

from deploy import secrets
from understudy import errors, terminal
from understudy.batch import record
from understudy.monitoring import record as monitoring
from understudy.registry import records, registration
from understudy.table import TABLE
from understudy.tracking import connection, experiments

with warnings.catch_warnings(action="ignore"):  # MLflow's own, on what it imports
    from mlflow.server import get_app_client
    from mlflow.server.auth.client import AuthServiceClient

WORKSPACE = "default"  # all is in this one
OWN = "__user_"  # begins the role in which MLflow keeps what is granted to one user, or was created by it
Grants = set[tuple[str, str, str]]


def prepare(client: MlflowClient) -> dict[str, Grants]:
    """Make the table's experiments and its registered model; returns what each role may do: type, which, permission."""
    runs, scorings, windows, decisions = (
        experiments.make(client, name, about).experiment_id
        for name, about in [
            (TABLE.name, experiments.TRAINING),
            (record.experiment(TABLE.name), experiments.SCORINGS),
            (monitoring.experiment(TABLE.name), experiments.MONITORING),
            (records.experiment(TABLE.name), experiments.RECORDS),
        ]
    )
    registration.create(client, TABLE, TABLE.name)
    logs = {("experiment", experiment, "EDIT") for experiment in (runs, scorings, windows)}
    decides = ("experiment", decisions, "EDIT")
    moves = ("registered_model", TABLE.name, "MANAGE")  # to take an alias away is to delete it
    return {"trainer": logs, "promoter": {*logs, decides, moves}, "reader": set()}


def set_role(accounts: AuthServiceClient, name: str, grants: Grants) -> int:
    """Make a role have exactly these grants; returns its id."""
    known = {role.name: role for role in accounts.list_roles(WORKSPACE)}
    role = known.get(name) or accounts.create_role(WORKSPACE, name)
    granted = {
        (grant.resource_type, grant.resource_pattern, grant.permission): grant.id
        for grant in accounts.list_role_permissions(role.id)
    }
    for grant in granted.keys() - grants:
        accounts.remove_role_permission(granted[grant])
    for grant in grants - granted.keys():
        accounts.add_role_permission(role.id, *grant)
    return int(role.id)


def set_user(accounts: AuthServiceClient, name: str, password: str, role_id: int) -> None:
    """Make a user have this password and this role, and nothing besides."""
    try:
        accounts.create_user(name, password)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        accounts.update_user_password(name, password)
    accounts.update_user_admin(name, False)
    roles = {role.id: role.name for role in accounts.list_user_roles(name)}
    if role_id not in roles:
        accounts.assign_role(name, role_id)
    for other in roles.keys() - {role_id}:
        if roles[other].startswith(OWN):
            accounts.delete_role(other)
        else:
            accounts.unassign_role(name, other)


def options() -> argparse.ArgumentParser:
    """The server's address and where the passwords are."""
    parser = argparse.ArgumentParser(prog="python -m deploy.accounts", **terminal.explained(__doc__))
    parser.add_argument("uri", metavar="URI", help="of the tracking server")
    parser.add_argument("folder", nargs="?", type=Path, default=secrets.FOLDER, help="of passwords")
    return parser


def main() -> None:
    """Make the roles, and one account for each."""
    args = terminal.parse(options())
    os.environ |= {
        "MLFLOW_TRACKING_URI": args.uri,
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": secrets.read(args.folder / "admin_password"),
    }
    client, accounts = connection.connect(), get_app_client("basic-auth", args.uri)
    for name, grants in prepare(client).items():
        password = secrets.read(args.folder / f"{name}_password")
        set_user(accounts, name, password, set_role(accounts, name, grants))
        print(f"account {name}: its password is in {name}_password")


if __name__ == "__main__":
    errors.run(main)
