"""How time and memory of `train.py` grow with the table: each family alone, in a fresh process, on synthetic rows.

python -m bench.scale                                          up to 100,000 rows
python -m bench.scale --rows 1000000 --models LogisticRegression
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
FAMILIES = ["DecisionTreeClassifier", "LogisticRegression", "RandomForestClassifier"]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[1_000, 10_000, 100_000], help="(default: %(default)s)")
    parser.add_argument("--models", nargs="+", default=FAMILIES, help="families (default: all three)")
    return parser


def main() -> None:
    args = options().parse_args()
    print(f"{'family':>22} {'rows':>9} {'seconds':>8} {'MB':>6}")
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        train(uri, "--models", FAMILIES[0])  # makes the store
        for name in args.models:
            seconds = []
            for rows in args.rows:
                table = Path(folder) / f"{rows}.csv"
                if not table.exists():
                    maker = str(PROJECT / "data" / "make_loans.py")
                    subprocess.run([sys.executable, maker, "--rows", str(rows), "--to", str(table)], check=True)
                took, memory = train(uri, "--models", name, "--data", str(table))
                seconds.append(took)
                print(f"{name:>22} {rows:>9,} {took:>8.1f} {memory:>6.0f}", flush=True)
            print(f"{name:>22} seconds grow as {growth(args.rows, seconds)}")


def train(uri: str, *arguments: str) -> tuple[float, float]:
    """Seconds that `train.py` takes, and the peak of its memory with all its processes in MB."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    started, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(
        [sys.executable, PROJECT / "train.py", *arguments],
        cwd=Path(uri.removeprefix("sqlite:///")).parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(f"train.py {' '.join(arguments)} ended with {process.returncode}")
    return time.perf_counter() - started, peak


def memory(session: int) -> float:
    """MB of all processes of a session, what they share counted once (Linux)."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[3]) == session:
                total += int(status.with_name("smaps_rollup").read_text().split("Pss:")[1].split()[0])
        except (OSError, IndexError):  # it has just ended
            continue
    return total / 1024


def growth(rows: list[int], seconds: list[float]) -> str:
    """The exponents of rows: fitted over all sizes, and between the last two, where starting up weighs least."""
    if len(rows) < 2:
        return "unknown from one size"
    fitted = np.polyfit(np.log(rows), np.log(seconds), 1)[0]
    last = math.log(seconds[-1] / seconds[-2]) / math.log(rows[-1] / rows[-2])
    return f"rows^{fitted:.2f} over all, rows^{last:.2f} between the last two"


if __name__ == "__main__":
    main()
