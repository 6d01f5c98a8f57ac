"""What many runs in the store cost the scripts: each command on a store of few and on one of many, in turn.

python -m bench.runs                            100 and 100,000 runs, on SQLite and on MariaDB behind a server
python -m bench.runs --runs 100 1000 10000 --stores sqlite --rounds 5

The runs are copies of a real batch, of other people's runs, of scorings and of promotions, see `bench.fill`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import sqlalchemy
from sqlalchemy import Engine

from bench import fill, stack
from bench.stack import Stack
from deploy import secrets

COMMANDS = {
    "train.py": "train.py --models LogisticRegression",
    "evaluate.py": "evaluate.py",
    "register.py": "register.py",
    "staging": "promote.py staging",
    "production": "promote.py production",
    "show": "promote.py show",
    "check": "promote.py check",
    "rollback": "promote.py rollback --reason bench",
}
BEFORE = [
    "train.py",
    "register.py --model LogisticRegression",
    "promote.py staging",
    "promote.py production",
    "score.py data/loans.csv scores.csv",
    "register.py --model RandomForestClassifier",
    "promote.py staging",
    "promote.py production --force --reason bench",
    "promote.py rollback --reason bench",
]


class Embedded(Stack):
    """The project's own SQLite file, without a server."""

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'project' / 'mlflow.db'}"


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 100_000], help="(default: 100 100000)")
    parser.add_argument("--stores", nargs="+", default=["sqlite", "mariadb"], help="(default: both)")
    parser.add_argument("--rounds", type=int, default=3, help="of all commands (default: %(default)s)")
    return parser


def main() -> None:
    args = options().parse_args()
    for kind in args.stores:
        with ExitStack() as opened:
            with ThreadPoolExecutor() as pool:
                made = pool.map(opened.enter_context, [filled(kind, count) for count in args.runs])
                stores = dict(zip(args.runs, made, strict=True))
            seconds = measure(stores, args.rounds)
        report(kind, seconds)


@contextmanager
def filled(kind: str, count: int) -> Iterator[Stack]:
    """A store of that kind with some `count` runs, after two versions have been promoted in it."""
    with tempfile.TemporaryDirectory(prefix="understudy-runs-") as name, ExitStack() as opened:
        folder = Path(name)
        if kind == "sqlite":
            store: Stack = Embedded(folder)
            stack.copy_project(folder / "project")
        else:
            store = opened.enter_context(stack.running(folder, "--workers", "2"))
        for command in BEFORE:
            store.finish(*command.split())
        started = time.perf_counter()
        engine = _engine(store)
        fill.fill(store, engine, count)
        engine.dispose()
        print(f"{kind}: {count:,} runs made in {time.perf_counter() - started:.0f} s", flush=True)
        yield store


def _engine(store: Stack) -> Engine:
    if isinstance(store, Embedded):
        return sqlalchemy.create_engine(store.uri)
    accounts = store.folder / "secrets" / secrets.MIGRATOR
    return sqlalchemy.create_engine(secrets.address(store.host, "tracking", accounts))


def measure(stores: dict[int, Stack], rounds: int) -> dict[int, dict[str, list[float]]]:
    """Seconds of each command on each store, the stores in turn."""
    seconds: dict[int, dict[str, list[float]]] = {count: {name: [] for name in COMMANDS} for count in stores}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            for count, store in stores.items():
                started = time.perf_counter()
                store.finish(*command.split())
                seconds[count][name].append(time.perf_counter() - started)
    return seconds


def report(kind: str, seconds: dict[int, dict[str, list[float]]]) -> None:
    """A row of the table for each number of runs: medians, and how many times the first row's."""
    first = next(iter(seconds.values()))
    print(f"| {kind} | {' | '.join(COMMANDS)} |")
    for count, each in seconds.items():
        medians = {name: statistics.median(values) for name, values in each.items()}
        shown = [f"{value:.1f} ({value / statistics.median(first[name]):.2f})" for name, value in medians.items()]
        print(f"| {count:,} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
