"""Rows per second and memory of `score.py` beside pandas chunks with the fitted Pipeline, in turn, on the loan table.

python -m bench.batch                       1,000,000 rows, 3 rounds, each family
python -m bench.batch --rows 10000000 --rounds 1 --models LogisticRegression
python -m bench.batch --check               compares each score with the live server's and scikit-learn's too

The rows are drawn from the ranges that the table declares, one in a hundred with a fault.
"""

import argparse
import io
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import requests
from pyarrow import csv as arrow_csv

from deploy.mysql import free_port
from understudy.schema.columns import Category, Declared
from understudy.table import TABLE

CORES = os.sched_getaffinity(0)
PROJECT = Path(__file__).resolve().parents[1]
CHUNK, AT_ONCE = 100_000, 10_000  # rows that pandas reads, and that the server is asked for
REFUSED = 5  # rows of those that were rejected that it is asked for besides, one by one
TEXTS = {column.name: str for column in TABLE.categories if column.is_text}
FAMILIES = ["LogisticRegression", "RandomForestClassifier"]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=1_000_000, type=int, help="(default: %(default)s)")
    parser.add_argument("--rounds", default=3, type=int, help="of both in turn (default: %(default)s)")
    parser.add_argument("--models", nargs="+", default=FAMILIES, help="families (default: %(default)s)")
    parser.add_argument("--faults", default=0.01, type=float, help="share of rows with a fault (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="compare each score with the live server's too")
    parser.add_argument("--pandas", nargs=3, help=argparse.SUPPRESS)  # what a process of its own runs
    return parser


def main() -> None:
    args = options().parse_args()
    if args.pandas:
        score_with_pandas(*args.pandas)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, clean = folder / "rows.csv", folder / "clean.csv"
        generate(rows, args.rows, args.faults)
        generate(clean, args.rows, 0)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
        run(folder, "train.py", "--models", ",".join(args.models))
        for number, family in enumerate(args.models, start=1):
            run(folder, "register.py", "--model", family)
            commands = {
                "score.py": ("score.py", str(clean), "OUTPUT", "--version", str(number)),
                "with faults": ("score.py", str(rows), "OUTPUT", "--version", str(number)),
                "on one core": ("score.py", str(clean), "OUTPUT", "--version", str(number)),
                "pandas chunks": ("-m", "bench.batch", "--pandas", str(clean), "OUTPUT", str(number)),
            }
            compare(folder, family, commands, args)
            if args.check:
                scores = folder / f"{family} faults.parquet"
                run(folder, "score.py", str(rows), str(scores), "--version", str(number))
                print(f"{family:>22}: {check(folder, rows, scores, str(number))}", flush=True)


def compare(folder: Path, family: str, commands: dict[str, tuple[str, ...]], args: argparse.Namespace) -> None:
    seconds: dict[str, list[float]] = {called: [] for called in commands}
    cpu, memory = {called: list[float]() for called in commands}, dict.fromkeys(commands, 0.0)
    for _ in range(args.rounds):
        for called, command in commands.items():
            target, cores = folder / "scores.parquet", {0} if called == "on one core" else CORES
            took, used, peak = run(
                folder, *(str(target) if word == "OUTPUT" else word for word in command), cores=cores
            )
            for path in folder.glob("scores.parquet*"):
                path.unlink()
            seconds[called].append(took)
            cpu[called].append(used)
            memory[called] = max(memory[called], peak)
    for called, times in seconds.items():
        ratio = statistics.median(seconds["pandas chunks"]) / statistics.median(times)
        used = statistics.median(cpu["pandas chunks"]) / statistics.median(cpu[called])
        print(
            f"{family:>22} {called:>16}: {statistics.median(times):6.1f} s ({min(times):.1f} to {max(times):.1f}), "
            f"{args.rows / statistics.median(times):>9,.0f} rows/s, {statistics.median(cpu[called]):5.1f} CPU s, "
            f"{memory[called]:5.0f} MB, {ratio:.1f} times pandas by the clock, {used:.1f} by CPU",
            flush=True,
        )


def run(folder: Path, *command: str, cores: set[int] = CORES) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and the most MB of a Python process."""
    script = command if command[0] == "-m" else (str(PROJECT / command[0]), *command[1:])
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    started = time.perf_counter()
    os.sched_setaffinity(0, cores)
    process = subprocess.Popen([sys.executable, *script], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    os.sched_setaffinity(0, CORES)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def score_with_pandas(rows: str, output: str, version: str) -> None:
    """What people write: chunks of the file through the fitted Pipeline, its rules unchecked."""
    import mlflow
    import pyarrow as pa
    from pyarrow import parquet

    pipeline = mlflow.sklearn.load_model(f"models:/{TABLE.name}/{version}")
    place, writer = [*pipeline.classes_].index(TABLE.positive), None
    for chunk in pd.read_csv(rows, chunksize=CHUNK, dtype=TEXTS):
        probabilities = pipeline.predict_proba(chunk)[:, place]
        labels = np.where(probabilities >= pipeline[-1].threshold, TABLE.positive, TABLE.negative)
        scores = pa.table({"Loan_ID": chunk["Loan_ID"], "label": labels, "probability": probabilities})
        writer = writer or parquet.ParquetWriter(output, scores.schema)
        writer.write(scores)
    if writer:
        writer.close()


def check(folder: Path, rows: Path, scores: Path, version: str) -> str:
    """Compare scores with the answers of the live server by HTTP, to the last bit, and with the fitted Pipeline's."""
    import mlflow

    pipeline, farthest, wrong = mlflow.sklearn.load_model(f"models:/{TABLE.name}/{version}"), 0.0, 0
    place, written = [*pipeline.classes_].index(TABLE.positive), pd.read_parquet(scores).set_index("Loan_ID")
    names = [column.name for column in TABLE.columns]
    with serving(folder, version) as url, requests.Session() as session:
        for chunk in pd.read_csv(rows, chunksize=AT_ONCE, dtype=str, keep_default_na=False):
            places = written.index.get_indexer(pd.Index(chunk["Loan_ID"]))
            is_scored = places >= 0
            ours = written.iloc[places[is_scored]]
            frame = pd.read_csv(io.StringIO(chunk.loc[is_scored, names].to_csv(index=False)), dtype=TEXTS)
            cells = frame.astype(object).where(frame.notna(), None).to_dict("split", index=False)
            for output in ("label", "probability"):
                body = {"dataframe_split": cells, "params": {"output": output}}
                wrong += sum(ours[output] != session.post(url, json=body).json()["predictions"])
            theirs = pipeline.predict_proba(frame)[:, place]
            farthest = max(farthest, float(abs(ours["probability"] - theirs).max()))
            for number in chunk.index[~is_scored][:REFUSED]:
                text = chunk.loc[[number], names].to_csv(index=False)
                wrong += session.post(url, data=text, headers={"Content-Type": "text/csv"}).ok
    return f"{len(written):,} scores; {wrong} rows differ from the server's; at most {farthest:.0e} from scikit-learn's"


@contextmanager
def serving(folder: Path, version: str) -> Iterator[str]:
    """The live server with a version in Staging, as long as the block lasts; yields where it is asked."""
    run(folder, "promote.py", "staging", "--version", version)
    port = free_port()
    cache = str(folder / "served")
    command = [str(PROJECT / "serve.sh"), "--live", "--stage", "Staging", "--port", str(port), "--cache", cache]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        url = f"http://127.0.0.1:{port}"
        while process.poll() is None and not is_up(f"{url}/version"):
            time.sleep(0.2)
        try:
            yield f"{url}/invocations"
        finally:
            process.send_signal(signal.SIGINT)


def is_up(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).ok
    except requests.ConnectionError:
        return False


def generate(path: Path, rows: int, faults: float) -> None:
    """Write rows of every value and the whole range of each column, some cells missing where they may be."""
    rng, names = np.random.default_rng(0), ["Loan_ID", *(column.name for column in TABLE.columns)]
    with arrow_csv.CSVWriter(path, pa.schema([(name, pa.string()) for name in names])) as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            faulty, places = rng.random(count) < faults, rng.integers(len(TABLE.columns), size=count)
            cells = [pa.array([f"G{number}" for number in range(start, start + count)])]
            for place, column in enumerate(TABLE.columns):
                drawn = cells_of(column, count, rng)
                drawn = pc.if_else(pa.array(faulty & (places == place)), "x", drawn)
                missing = rng.random(count) < 0.03 if column.missing else np.zeros(count, dtype=bool)
                cells.append(pc.if_else(pa.array(missing & ~faulty), None, drawn))
            writer.write_table(pa.table(cells, names=names))


def cells_of(column: Declared, count: int, rng: np.random.Generator) -> pa.Array:
    if isinstance(column, Category):
        return pa.array([*map(str, column.values)]).take(pa.array(rng.integers(len(column.values), size=count)))
    low, high = np.log(max(column.low, 1)), np.log(column.high)
    return pa.array(np.exp(rng.uniform(low, high, count)).round().astype(int)).cast(pa.string())


if __name__ == "__main__":
    main()
