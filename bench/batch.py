"""Rows per second and memory of `score.py` beside pandas chunks with the fitted Pipeline, in turn, on the loan table.

python -m bench.batch                       1,000,000 rows, 3 rounds, each family
python -m bench.batch --rows 10000000 --rounds 5 --models RandomForestClassifier

The rows are drawn from the ranges that the table declares, one in a hundred with a fault.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from understudy.schema.columns import Category, Number
from understudy.table import TABLE

PROJECT = Path(__file__).resolve().parents[1]
CHUNK = 100_000
FAMILIES = ["LogisticRegression", "RandomForestClassifier"]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=1_000_000, type=int, help="(default: %(default)s)")
    parser.add_argument("--rounds", default=3, type=int, help="of both in turn (default: %(default)s)")
    parser.add_argument("--models", nargs="+", default=FAMILIES, help="families (default: %(default)s)")
    parser.add_argument("--faults", default=0.01, type=float, help="share of rows with a fault (default: %(default)s)")
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
                "score.py, faults": ("score.py", str(rows), "OUTPUT", "--version", str(number)),
                "pandas chunks": ("-m", "bench.batch", "--pandas", str(clean), "OUTPUT", str(number)),
            }
            compare(folder, family, commands, args)


def compare(folder: Path, family: str, commands: dict[str, tuple[str, ...]], args: argparse.Namespace) -> None:
    seconds: dict[str, list[float]] = {called: [] for called in commands}
    cpu, memory = {called: list[float]() for called in commands}, dict.fromkeys(commands, 0.0)
    for number in range(args.rounds):
        for called, command in commands.items():
            target = str(folder / f"{family}{number}{len(called)}.parquet")
            took, used, peak = run(folder, *(target if word == "OUTPUT" else word for word in command))
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


def run(folder: Path, *command: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and the most MB of a Python process."""
    script = command if command[0] == "-m" else (str(PROJECT / command[0]), *command[1:])
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *script], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
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
    texts = {column.name: str for column in TABLE.categories if column.is_text}
    for chunk in pd.read_csv(rows, chunksize=CHUNK, dtype=texts):
        probabilities = pipeline.predict_proba(chunk)[:, place]
        labels = np.where(probabilities >= pipeline[-1].threshold, TABLE.positive, TABLE.negative)
        scores = pa.table({"Loan_ID": chunk["Loan_ID"], "label": labels, "probability": probabilities})
        writer = writer or parquet.ParquetWriter(output, scores.schema)
        writer.write(scores)
    if writer:
        writer.close()


def generate(path: Path, rows: int, faults: float) -> None:
    """Write rows of every value and the whole range of each column, some cells missing where they may be."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Loan_ID", *(column.name for column in TABLE.columns)])
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            cells = {"Loan_ID": np.char.add("G", np.arange(start, start + count).astype(str)).astype(object)}
            for column in TABLE.columns:
                if isinstance(column, Category):
                    drawn = np.array(column.values, dtype=object)[rng.integers(len(column.values), size=count)]
                elif isinstance(column, Number):
                    drawn = (
                        np.exp(rng.uniform(np.log(max(column.low, 1)), np.log(column.high), count))
                        .round()
                        .astype(object)
                    )
                if column.missing:
                    drawn[rng.random(count) < 0.03] = ""
                cells[column.name] = drawn
            faulty = np.flatnonzero(rng.random(count) < faults)
            names = [column.name for column in TABLE.columns]
            for row, name in zip(faulty, rng.choice(names, len(faulty)), strict=True):
                cells[name][row] = "x"
            pd.DataFrame(cells).to_csv(file, index=False, header=False)


if __name__ == "__main__":
    main()
