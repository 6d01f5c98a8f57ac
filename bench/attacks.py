"""What a trainer, a promoter's slip and a clumsy admin can try against a team's server, and what comes of it.

python -m bench.attacks URI SECRETS [NUMBER...]   after make up, with deploy/secrets; all, or those of these numbers
"""

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run

from bench.planted import PLANTED, canary
from bench.stack import SCRIPTS
from deploy import secrets
from understudy.registry import stages
from understudy.table import TABLE
from understudy.tracking import batch_rows, family_runs, provenance
from understudy.tracking.connection import PROJECT

NAME = TABLE.name
REASON = ["--reason", "attack"]
FORCED = ["--force", *REASON]


class Team:
    """A team's server, and the project's scripts as people with accounts call them."""

    def __init__(self, uri: str, passwords: Path, folder: Path) -> None:
        self.uri, self._passwords, self.project, self.mark = uri, passwords, folder / "project", folder / "ran"
        for part in ("understudy", "data", "deploy"):
            shutil.copytree(
                PROJECT / part, self.project / part, ignore=shutil.ignore_patterns("secrets", "__pycache__")
            )
        for script in SCRIPTS:
            shutil.copy(PROJECT / script, self.project)

    def environment(self, account: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        password = secrets.read(self._passwords / f"{account}_password")
        named = {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_TRACKING_USERNAME": account}
        return {**kept, **named, "MLFLOW_TRACKING_PASSWORD": password, "MLFLOW_DISABLE_TELEMETRY": "true"}

    @contextmanager
    def hand(self, account: str) -> Iterator[MlflowClient]:
        """MLflow's own client, as an account."""
        before = dict(os.environ)
        os.environ |= self.environment(account)
        mlflow.set_tracking_uri(self.uri)
        try:
            yield MlflowClient(self.uri)
        finally:
            os.environ.clear()
            os.environ |= before

    def script(self, account: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.project,
            env=self.environment(account),
            capture_output=True,
            text=True,
            check=False,
        )

    def does(self, account: str, *arguments: str) -> str:
        """Something that is allowed."""
        ended = self.script(account, *arguments)
        if ended.returncode:
            raise RuntimeError(f"{arguments}: {ended.stderr}")
        return ended.stdout

    def family(self, name: str) -> Run:
        with self.hand("reader") as client:
            runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
        return next(run for run in runs if family_runs.family_name(run) == name)

    def in_production(self) -> str | None:
        with self.hand("reader") as client:
            return stages.aliases(client, NAME).get("production")


Attack = Callable[[Team], Iterator[tuple[str, bool, str]]]


def planted(names: list[str]) -> Attack:
    """A trainer changes the files of a run that is not registered; a promoter registers and evaluates it."""

    def attack(team: Team) -> Iterator[tuple[str, bool, str]]:
        run = team.family("DecisionTreeClassifier")
        for what in names:
            with tempfile.TemporaryDirectory() as name, team.hand("trainer") as client:
                kept = Path(mlflow.artifacts.download_artifacts(family_runs.model_uri(run), dst_path=f"{name}/kept"))
                changed = shutil.copytree(kept, f"{name}/changed")
                PLANTED[what].plant(Path(changed), canary(team.mark))
                client.log_model_artifacts(family_runs.model_id(run), str(changed))
                for command in [["register.py", "--model", "DecisionTreeClassifier"], ["evaluate.py"]]:
                    ended = team.script("promoter", *command)
                    refused = ended.returncode == 2 and "could run anything" in ended.stderr
                    yield f"{what}, {command[0]}", refused and not team.mark.exists(), ended.stderr
                client.log_model_artifacts(family_runs.model_id(run), str(kept))
                extra = {path.relative_to(changed) for path in Path(changed).rglob("*") if path.is_file()}
                extra -= {path.relative_to(kept) for path in kept.rglob("*") if path.is_file()}
                if extra:  # nobody but the server's disk can take a file away again
                    team.does("trainer", "train.py", "--models", "LogisticRegression,DecisionTreeClassifier")
                    run = team.family("DecisionTreeClassifier")

    return attack


def addresses(team: Team) -> Iterator[tuple[str, bool, str]]:
    """A trainer names another place for the data; the promoter's environment holds a database's password."""
    run = team.family("LogisticRegression")
    batch_id = run.data.tags["mlflow.parentRunId"]
    with socket.create_server(("127.0.0.1", 0)) as listening, team.hand("trainer") as client:
        listening.settimeout(0.5)
        where = f"127.0.0.1:{listening.getsockname()[1]}"
        kept = run.data.tags[provenance.DATA_PATH]
        registered = str(client.get_model_version(NAME, "1").run_id)
        for tag, value in [("git.dirty", "false"), ("mlflow.source.git.commit", "0" * 40)]:
            client.set_tag(registered, tag, value)
        for address in [f"http://{where}/rows.csv", f"mysql://{where}/loans#loans", "/etc/passwd"]:
            for run_id in (run.info.run_id, batch_id, registered):
                client.set_tag(run_id, provenance.DATA_PATH, address)
            for command in [["evaluate.py"], ["register.py", "reproduce", "1"]]:
                ended = team.script("promoter", *command)
                called = False
                with contextlib.suppress(TimeoutError):
                    listening.accept()[0].close()
                    called = True
                refused = ended.returncode == 2 and "which the table does not name" in ended.stderr
                yield f"{address}, {command[0]}", refused and not called, ended.stderr
        for run_id in (run.info.run_id, batch_id, registered):
            client.set_tag(run_id, provenance.DATA_PATH, kept)


def misspelt(team: Team) -> Iterator[tuple[str, bool, str]]:
    """The gate refuses a version; somebody types the alias of the champion otherwise; it is asked again."""
    team.does("promoter", "register.py", "--model", "DummyClassifier")
    team.does("promoter", "promote.py", "staging")
    for alias in ("Production", "pr\u00f6duction", "PRODUCTION "):
        with team.hand("promoter") as client, contextlib.suppress(mlflow.MlflowException):
            client.set_registered_model_alias(NAME, alias, "1")
        checked = team.script("promoter", "promote.py", "check")
        ended = team.script("promoter", "promote.py", "production", "--rule", "better")
        yield f"alias {alias!r}", ended.returncode == 3 and "champion" in ended.stdout, checked.stdout + ended.stderr
        team.does("promoter", "promote.py", "check", "--repair")


def deleted(team: Team) -> Iterator[tuple[str, bool, str]]:
    """The alias is deleted by hand, then the version in Production."""
    with team.hand("promoter") as client:
        client.delete_registered_model_alias(NAME, "production")
    ended = team.script("promoter", "promote.py", "production", "--rule", "better")
    yield "the alias", ended.returncode == 3 and "less champion's" in ended.stdout, ended.stdout + ended.stderr
    team.does("promoter", "promote.py", "rollback", *REASON)


def made_again(team: Team) -> Iterator[tuple[str, bool, str]]:
    """The registered model is deleted and made again, and its numbers start at 1."""
    with team.hand("admin") as client:
        client.delete_registered_model(NAME)
    team.does("admin", "-m", "deploy.accounts", team.uri, str(team._passwords))
    team.does("promoter", "register.py", "--model", "DummyClassifier")
    for command in [
        ["promote.py", "production", "--version", "1"],
        ["promote.py", "rollback", "--to", "1", *REASON],
    ]:
        ended = team.script("promoter", *command)
        yield " ".join(command[1:4]), ended.returncode == 2 and team.in_production() is None, ended.stderr
    team.does("promoter", "promote.py", "staging")
    ended = team.script("promoter", "promote.py", "production")
    yield "production after staging", ended.returncode == 3 and team.in_production() is None, ended.stderr


def forged(team: Team) -> Iterator[tuple[str, bool, str]]:
    """A trainer writes other labels into the held-out rows, and their digest."""
    run = team.family("DecisionTreeClassifier")
    batch_id = run.data.tags["mlflow.parentRunId"]
    with tempfile.TemporaryDirectory() as folder, team.hand("trainer") as client:
        file = Path(client.download_artifacts(batch_id, f"{batch_rows.ROWS}/{batch_rows.HELD_OUT}", folder))
        tree = mlflow.sklearn.load_model(family_runs.model_uri(run))
        rows = pd.read_parquet(file)

        def forge(forgery: pd.DataFrame) -> None:
            forgery.to_parquet(file, index=False)
            client.log_artifact(batch_id, str(file), batch_rows.ROWS)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            client.set_tag(batch_id, batch_rows.digest_tag(batch_rows.HELD_OUT), digest)

        repeated = pd.concat([rows, rows[:1]])
        forge(repeated)
        ended = team.script("promoter", "register.py", "--model", "DecisionTreeClassifier")
        yield "a row repeated", ended.returncode == 2 and "repeat" in ended.stderr, ended.stderr
        forge(rows.assign(Loan_Status=tree.predict(rows)))
        team.does("promoter", "register.py", "--model", "DecisionTreeClassifier")
        team.does("promoter", "promote.py", "staging")
        ended = team.script("promoter", "promote.py", "production", "--rule", "better", "--data", TABLE.path)
        named = "rows that differ (Loan_Status" in ended.stdout
        yield "labels, --data", ended.returncode == 3 and named, ended.stdout.partition("\n")[0] + " " + ended.stderr
        forge(repeated)
        ended = team.script("promoter", "promote.py", "production", "--rule", "better")
        yield (
            "changed after registering",
            ended.returncode == 3 and "not what training kept" in ended.stderr,
            ended.stderr,
        )


def lying_history(team: Team) -> Iterator[tuple[str, bool, str]]:
    """1 and 2 are promoted, the alias is moved back to 1 by hand, 3 is promoted: what was good is 1."""
    team.does("trainer", "train.py", "--models", "LogisticRegression,DecisionTreeClassifier")
    numbers = []
    for family in ("LogisticRegression", "DecisionTreeClassifier", "DummyClassifier"):
        told = team.does("promoter", "register.py", "--model", family)
        numbers.append(told.split(" version ")[1].split()[0])
    for number in numbers[:2]:
        team.does("promoter", "promote.py", "production", "--version", number, *FORCED)
    with team.hand("promoter") as client:
        client.set_registered_model_alias(NAME, "production", numbers[0])
    team.does("promoter", "promote.py", "production", "--version", numbers[2], *FORCED)
    ended = team.script("promoter", "promote.py", "rollback", *REASON)
    yield "rollback", team.in_production() == numbers[0], ended.stdout + ended.stderr


# In an order in which each finds what it needs; the last one deletes the model.
ATTACKS: dict[str, Attack] = {
    "1, code": planted([name for name, each in PLANTED.items() if each.runs and "pickle" not in name]),
    "2, functions": planted(["functions of numpy's", "a method of a text", "another method of the table"]),
    "3, pickles": planted(["pickle", "pickle under skops's name"]),
    "3, addresses": addresses,
    "4, an alias of another spelling": misspelt,
    "5, the champion is gone": deleted,
    "7, rows": forged,
    "8, a history that lies": lying_history,
    "6, a model made again": made_again,
}


def main() -> None:
    uri, passwords = sys.argv[1], Path(sys.argv[2])
    passed = 0
    with tempfile.TemporaryDirectory() as folder:
        team = Team(uri, passwords, Path(folder))
        team.does("trainer", "train.py", "--models", "LogisticRegression,DecisionTreeClassifier")
        team.does("promoter", "register.py", "--model", "LogisticRegression")
        team.does("promoter", "promote.py", "staging")
        team.does("promoter", "promote.py", "production")
        wanted = {name: attack for name, attack in ATTACKS.items() if name[0] in (sys.argv[3:] or name[0])}
        for number, attack in wanted.items():
            for what, is_refused, answer in attack(team):
                passed += not is_refused
                print(f"{number}: {what}: {'refused' if is_refused else 'PASSED'}", flush=True)
                print(f"    {' '.join(answer.split())[:300]}", flush=True)
    sys.exit(passed > 0)


if __name__ == "__main__":
    main()
