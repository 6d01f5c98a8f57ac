"""How time and memory of `train.py` grow with the table: each family alone, in a fresh process, on synthetic rows.

python -m bench.scale                                          up to 100,000 rows
python -m bench.scale --rows 30000 100000 300000               what 10,000,000 rows would take, extrapolated
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
FAR = 10_000_000  # rows that are extrapolated to
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
            seconds, peaks = [], []
            for rows in args.rows:
                table = Path(folder) / f"{rows}.csv"
                if not table.exists():
                    maker = str(PROJECT / "data" / "make_loans.py")
                    subprocess.run([sys.executable, maker, "--rows", str(rows), "--to", str(table)], check=True)
                took, memory = train(uri, "--models", name, "--data", str(table))
                seconds.append(took)
                peaks.append(memory)
                print(f"{name:>22} {rows:>9,} {took:>8.1f} {memory:>6.0f}", flush=True)
            if len(args.rows) > 1:
                print(f"{name:>22} seconds grow as {growth(args.rows, seconds)}, MB as {growth(args.rows, peaks)}")
            if len(args.rows) > 2:
                far = [extrapolated(args.rows, values) for values in (seconds, peaks)]
                print(f"{name:>22} {FAR:>9,} {far[0]:>8.0f} {far[1]:>6.0f} extrapolated by a line", flush=True)


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


def growth(rows: list[int], values: list[float]) -> str:
    """The exponents of rows: fitted over all sizes, and between the last two, where starting up weighs least."""
    fitted = np.polyfit(np.log(rows), np.log(values), 1)[0]
    last = math.log(values[-1] / values[-2]) / math.log(rows[-1] / rows[-2])
    return f"rows^{fitted:.2f} over all, rows^{last:.2f} between the last two"


def extrapolated(rows: list[int], values: list[float]) -> float:
    """What `FAR` rows would take by the line that fits all sizes best, which the largest decides."""
    slope, start = np.polyfit(rows, values, 1)
    return float(slope * FAR + start)


if __name__ == "__main__":
    main()
