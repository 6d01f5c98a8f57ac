"""Back up a server with a thousand runs while more are logged, and restore it onto an empty one: is it the same?

python -m bench.backup   needs MariaDB or MySQL
"""

import argparse
import hashlib
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from bench import clients, stack
from bench.stack import Stack
from deploy import mysql, secrets
from understudy.tracking.connection import PROJECT


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="(default: %(default)s)")
    return parser


def main() -> None:
    runs = options().parse_args().runs
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        original = opened.enter_context(stack.running(Path(folder, "one")))
        clients.storm(original, 10, runs // 10)
        for name in ("train.py", "register.py", "promote.py staging", "promote.py production"):
            original.finish(*name.split())
        for number, during in enumerate([False, True]):
            archive, other = Path(folder, f"{number}.tar"), Path(folder, f"other-{number}")
            training = original.script("train.py") if during else None
            time.sleep(8 if during else 0)
            started = time.monotonic()
            back_up(original, archive)
            backed_up = time.monotonic()
            if training:
                print(f"training went on: {training.poll() is None}")
                training.communicate()
            with mysql.database(other, mysql.free_port()) as host:
                before = time.monotonic()
                restore(host, other, archive)
                took = f"{backed_up - started:.1f} s to back up, {time.monotonic() - before:.1f} s to restore"
                print(f"{len(original.runs())} runs, {archive.stat().st_size / 1e6:.0f} MB: {took}")
                print(f"    not in the archive: {incomplete(original, host, other) or 'nothing'}")
                if not during:
                    print(f"    differs: {differences(original, host, other) or 'nothing'}", flush=True)


def back_up(original: Stack, archive: Path) -> None:
    _script("backup.sh", archive, original.host, original.folder)


def restore(host: str, folder: Path, archive: Path) -> None:
    """Onto the empty databases at a host, whose secrets are in the folder, and the folder's artifacts."""
    _script("restore.sh", archive, host, folder)


def _script(name: str, archive: Path, host: str, folder: Path) -> None:
    accounts = folder / "secrets" / secrets.MIGRATOR
    ended = subprocess.run(
        [PROJECT / "deploy" / name, archive, host, accounts, folder / "artifacts"], capture_output=True, text=True
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr)


def differences(original: Stack, host: str, folder: Path) -> list[str]:
    """The tables of both databases whose rows differ, and the files whose bytes do."""
    here, restored = tables(original.host, original.folder), tables(host, folder)
    wrong = [name for name in here.keys() | restored.keys() if here.get(name) != restored.get(name)]
    ours, theirs = digests(original.folder / "artifacts"), digests(folder / "artifacts")
    return wrong + [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]


def tables(host: str, folder: Path) -> dict[str, Counter[str]]:
    """All rows of all tables of both databases."""
    rows = {}
    for database in secrets.DATABASES:
        engine = sqlalchemy.create_engine(secrets.address(host, database, folder / "secrets" / secrets.MIGRATOR))
        schema = sqlalchemy.MetaData()
        schema.reflect(engine)
        with engine.connect() as connection:
            for name, table in schema.tables.items():
                rows[f"{database}.{name}"] = Counter(map(str, connection.execute(sqlalchemy.select(table))))
        engine.dispose()
    return rows


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def incomplete(original: Stack, host: str, folder: Path) -> list[str]:
    """The files that runs and models have which had ended in a restored database, and that are not there or differ."""
    client = MlflowClient(secrets.address(host, "tracking", folder / "secrets" / secrets.RUNTIME))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "attributes.status = 'FINISHED'", max_results=50_000)
    ended = {run.info.run_id for run in runs}
    # An evaluation adds to a family's run before the batch that it is part of has ended.
    whole = {
        f"{run.info.experiment_id}/{run.info.run_id}"
        for run in runs
        if run.data.tags.get(MLFLOW_PARENT_RUN_ID, run.info.run_id) in ended
    }
    whole |= {
        f"{model.experiment_id}/models/{model.model_id}"
        for model in client.search_logged_models(experiments)
        if model.status == LoggedModelStatus.READY
    }
    ours, theirs = digests(original.folder / "artifacts"), digests(folder / "artifacts")
    return [name for name in ours if name.split("/artifacts/")[0] in whole and ours[name] != theirs.get(name)]


if __name__ == "__main__":
    main()
