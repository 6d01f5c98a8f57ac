"""Seconds of a search on one core, on processes of joblib's, and on a Dask cluster of this machine, in turn.

python -m bench.cluster                            the sample, the book grid of the forest
python -m bench.cluster --rows 20000 --grid quick
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from deploy import cluster as deployed
from deploy.mysql import free_port
from understudy import cluster
from understudy.families import FAMILIES
from understudy.reading import table_rows
from understudy.scoring import pipelines
from understudy.table import TABLE
from understudy.training import search

PROJECT = Path(__file__).resolve().parents[1]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=614, help="of the table that is made (default: %(default)s)")
    parser.add_argument("--grid", default="book", choices=["quick", "book"], help="(default: book)")
    parser.add_argument("--model", default="RandomForestClassifier", choices=list(FAMILIES), help="(default: forest)")
    parser.add_argument("--rounds", default=3, type=int, help="(default: %(default)s)")
    return parser


def training_rows(rows: int) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loans.csv"
        maker = [sys.executable, str(PROJECT / "data" / "make_loans.py"), "--rows", str(rows), "--to", str(path)]
        subprocess.run(maker, check=True)
        training, _ = TABLE.split(table_rows.read(TABLE, path))
    return training


def main() -> None:
    args = options().parse_args()
    training, family = training_rows(args.rows), FAMILIES[args.model]
    seconds: dict[str, list[float]] = {}
    digests = set()
    with deployed.local(free_port()) as address:
        started = time.perf_counter()
        with cluster.connect(address) as client:
            print(f"to connect, and to compare versions: {time.perf_counter() - started:.2f} s")
            ways = {"one core": (1, None), "joblib's processes": (-1, None), "cluster": (-1, client)}
            for number in range(args.rounds):
                for name, (jobs, workers) in ways.items():
                    started = time.perf_counter()
                    result = search.search(TABLE, training, family, getattr(family, args.grid), 0, jobs, workers)
                    seconds.setdefault(name, []).append(time.perf_counter() - started)
                    digests.add(pipelines.digest(result.pipeline))
                    print(f"round {number + 1}: {name} {seconds[name][-1]:.1f} s", flush=True)
    print("medians:", ", ".join(f"{name} {statistics.median(taken):.1f} s" for name, taken in seconds.items()))
    print(f"digests: {len(digests)}")


if __name__ == "__main__":
    main()
