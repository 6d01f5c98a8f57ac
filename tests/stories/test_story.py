"""From the table to a served model and back, with the commands of the README, in a copy of the project."""

import importlib
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from deploy.mysql import free_port
from tests.conftest import MARIADB, PROJECT, REAL, SAMPLE, Ended, environment, needs_real_table
from understudy.reading import table_rows
from understudy.table import TABLE

README = (PROJECT / "README.md").read_text()
TEXTBOOK = (PROJECT / "docs" / "from-the-textbook.md").read_text()
MLFLOW_SAYS = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d INFO mlflow\S*: ")


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of a kind, such as "bash" or "sql"."""
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run(command: str, folder: Path, **settings: str) -> str:
    """A command's output; it must succeed and print nothing but MLflow's own notes as errors."""
    ran = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(**settings), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stderr.splitlines() if not MLFLOW_SAYS.match(line)] == []
    return ran.stdout


@contextmanager
def served(command: str, folder: Path, sign: str = "ping", **settings: str) -> Iterator[str]:
    """A server started with a command that ends in a port; yields its address, then stops it as Ctrl-C would."""
    port = free_port()
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command} {port}"],
            cwd=folder,
            env=environment(**settings),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert process.poll() is None, (folder / "serve.log").read_text()
            try:
                urllib.request.urlopen(f"{address}/{sign}")  # noqa: S310
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=60)


def ask(address: str, body: Any) -> tuple[int, Any]:
    """Status and answer of a POST to /invocations."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310
        f"{address}/invocations", data, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def tell(curl: str, address: str, folder: Path) -> Any:
    return json.loads(run(curl.replace("http://127.0.0.1:1234", address), folder))


def test_the_readmes_story(clone: Path, backend: str, store: str, call: Callable[..., Ended]) -> None:
    settings = {"MLFLOW_TRACKING_URI": store} if backend == MARIADB else {}

    def type_in(command: str) -> str:
        """What a command prints; only once, on SQLite, do the scripts run in processes of their own."""
        if backend != MARIADB or not command.startswith("python "):
            return run(command, clone, **settings)
        _, script, *arguments = shlex.split(command, comments=True)
        ended = call(importlib.import_module(script.removesuffix(".py")), *arguments)
        assert (ended.code, ended.err) == (0, "")
        return ended.out

    trained = type_in("mlflow run . --env-manager local --experiment-name Loan_prediction")
    table = README.split("ends with:\n\n", 1)[1].split("\n\n", 1)[0]
    shown = [line.removeprefix("    ") for line in table.splitlines()]
    printed = re.sub("(?<=runs/)[0-9a-f]{32}", "0e22...", trained)
    if backend == MARIADB:
        shown[-2] = next(line for line in printed.splitlines() if line.startswith(f"compare: {store}/#/exp"))
    assert "\n".join(shown) in printed
    first, ask_command = blocks(README, "bash")[:2]
    _, register, staging, production, serve = first.splitlines()
    assert "version 1 registered" in type_in(register)
    assert "version 1 is in Staging" in type_in(staging)
    assert "version 1 is in Production" in type_in(production)
    assert type_in("python evaluate.py").partition("plots: ")[0] in trained
    with served(f"{serve.split()[0]} --port", clone, **settings) as address:
        assert f"    {json.dumps(tell(ask_command, address, clone))}\n" in README
        raw = table_rows.read(TABLE, SAMPLE)[[column.name for column in TABLE.columns]]
        records = json.loads(raw.to_json(orient="records"))
        by_name = ask(address, {"dataframe_records": records, "params": {"output": "probability"}})
        encoded = [[None if cell != cell else cell for cell in row] for row in TABLE.encode(raw).tolist()]
        unnamed = ask(address, {"inputs": encoded, "params": {"output": "probability"}})
        split = json.loads(raw.to_json(orient="split"))
        assert by_name == unnamed == ask(address, {"dataframe_split": split, "params": {"output": "probability"}})
        assert by_name[0] == 200
        assert len(by_name[1]["predictions"]) == 614
        status, refusal = ask(address, {"dataframe_records": [records[0], {**records[1], "Gender": "Herr Meier"}]})
        assert status == 400
        assert refusal["faults"] == [
            {"column": "Gender", "problem": "unknown category", "allowed": "Female, Male", "rows": [2], "count": 1}
        ]
        assert "Meier" not in json.dumps(refusal)
        assert "stack_trace" not in refusal
    another, staging, production, back, show, checked = blocks(README, "bash")[2].splitlines()
    assert "version 2 registered" in type_in(another)
    assert "version 2 is in Staging" in type_in(staging)
    assert "version 2 is in Production, version 1 is archived" in type_in(production)
    assert "version 1 is in Production again, version 2 is archived" in type_in(back)
    assert "Production: version 1" in type_in(show)
    assert "all is well" in type_in(checked)


def test_the_textbooks_flow(clone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    subprocess.run(["cp", "-r", clone, folder], check=True)
    [flow] = blocks(TEXTBOOK, "bash")
    assert "Production: version 1" in run("set -e\npython promote.py relocate\n" + flow, folder)
    [curl] = blocks(TEXTBOOK, "bash ask")
    for serve in blocks(TEXTBOOK, "bash serve"):
        with served(serve.strip().removesuffix(" 1234"), folder) as address:
            assert tell(curl, address, folder) == {"predictions": ["Y"]}
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        experiments, metrics, versions, aliases = (store.execute(sql).fetchall() for sql in blocks(TEXTBOOK, "sql"))
    assert "Loan_prediction" in [row[1] for row in experiments]
    assert {row[1] for row in metrics} == {"Mean CV score", "Accuracy", "AUC"}
    assert ("Prediction_model_LR", 1, "Production") in [row[:3] for row in versions]
    assert ("Prediction_model_LR", "production", 1) in aliases


@needs_real_table
def test_the_story_on_the_real_table_from_a_git_address(clone: Path, tmp_path: Path, migrated: Path) -> None:
    folder = tmp_path / "origin"
    subprocess.run(["cp", "-r", clone, folder], check=True)
    git = "git -c user.name=test -c user.email=test@example.org"
    run(f"git init -q && git add -A && {git} commit -qm All", folder)
    (tmp_path / "mlflow.db").write_bytes(migrated.read_bytes())
    done = run(f"mlflow run file://{folder} --env-manager local -P data={REAL} -P models=LogisticRegression", tmp_path)
    assert "LogisticRegression" in done
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        commits = store.execute("select distinct value from tags where key = 'mlflow.source.git.commit'").fetchall()
        dirty = store.execute("select distinct value from tags where key = 'git.dirty'").fetchall()
    assert commits == [(run("git rev-parse HEAD", folder).strip(),)]
    assert dirty == [("false",)]
    out = run(
        f"export MLFLOW_TRACKING_URI=sqlite:///{tmp_path}/mlflow.db\n"
        f"mlflow run file://{folder} --env-manager local -e register -P name=Real\n"
        f"mlflow run file://{folder} --env-manager local -e promote -P action=staging -P name=Real\n"
        f"mlflow run file://{folder} --env-manager local -e evaluate -P data={REAL}",
        tmp_path,
    )
    assert "Real version 1 is in Staging" in out


def test_make_alone_lists_the_commands() -> None:
    listed = subprocess.run(["make"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for command in ["train", "test", "lint", "ui", "serve", "lock"]:
        assert f"make {command} " in listed
