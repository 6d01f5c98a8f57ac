"""A hundred clients log a full run each at once, with uvloop and without: runs a second, and what was lost.

python -m bench.clients   needs MariaDB or MySQL
"""

import argparse
import itertools
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run

from bench import stack
from bench.stack import Stack
from understudy.tracking import connection

FORK = multiprocessing.get_context("fork")  # importing MLflow takes each process seconds
LOOPS = {"uvloop": (), "asyncio": ("--uvicorn-opts", "--loop asyncio")}
PARAMS = {f"param {number}": f"value {number}" for number in range(10)}
METRICS = {f"metric {number}": number / 7 for number in range(15)}
PLOTS = ("first", "second", "third")


@dataclass(frozen=True)
class Storm:
    """How many runs were logged without an error, what they lack, how many a second, and what one took in seconds."""

    logged: int
    lost: list[str]
    a_second: float
    median: float
    p99: float


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument(
        "--runs", type=int, default=10, help="of each client, one after the other (default: %(default)s)"
    )
    return parser


def main() -> None:
    args = options().parse_args()
    for name, more in LOOPS.items():
        with tempfile.TemporaryDirectory() as folder, stack.running(Path(folder), *more) as server:
            results = storm(server, args.clients, args.runs)
            print(f"{name}: {results.logged} of {args.clients * args.runs} runs, lost {len(results.lost)}; ", end="")
            print(
                f"{results.a_second:.1f} a second, median {results.median:.2f} s, p99 {results.p99:.2f} s", flush=True
            )


def storm(server: Stack, clients: int, runs: int) -> Storm:
    """Let clients log runs, all at once."""
    experiment = server.client.create_experiment(f"storm {time.time_ns()}")
    barrier, seconds = FORK.Barrier(clients + 1), FORK.SimpleQueue()
    arguments = (server.uri, experiment, runs, barrier, seconds, drawn(server.folder))
    processes = [FORK.Process(target=log_runs, args=arguments) for _ in range(clients)]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.monotonic()
    each = list(itertools.chain.from_iterable(seconds.get() for _ in processes))
    took = time.monotonic() - started
    for process in processes:
        process.join()
    logged = server.client.search_runs([experiment], max_results=50_000)
    lost = [what for run in logged for what in missing(server, run)]
    return Storm(len(each), lost, len(each) / took, float(np.median(each)), float(np.quantile(each, 0.99)))


def drawn(folder: Path) -> list[Path]:
    """Three plots of the usual size."""
    paths = [folder / f"{name}.png" for name in PLOTS]
    for path in paths:
        figure = Figure(figsize=(6.4, 4.8))
        figure.subplots().plot(np.sin(np.arange(1000)))
        figure.savefig(path)
    return paths


def log_runs(uri: str, experiment: str, runs: int, barrier: Barrier, seconds: object, plots: Sequence[Path]) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = uri
    client, took = connection.connect(), []
    barrier.wait()
    for _ in range(runs):
        started = time.monotonic()
        try:
            log_run(client, experiment, plots)
            took.append(time.monotonic() - started)
        except Exception:
            traceback.print_exc()
    seconds.put(took)  # type: ignore[attr-defined]


def log_run(client: MlflowClient, experiment: str, plots: Sequence[Path]) -> None:
    run_id = client.create_run(experiment).info.run_id
    now = int(time.time() * 1000)
    metrics = [Metric(key, value, now, 0) for key, value in METRICS.items()]
    client.log_batch(run_id, metrics, [Param(key, value) for key, value in PARAMS.items()])
    for plot in plots:
        client.log_artifact(run_id, str(plot))
    client.set_terminated(run_id)


def missing(server: Stack, run: Run) -> list[str]:
    """What a run lacks."""
    folder = server.folder / "artifacts" / run.info.experiment_id / run.info.run_id / "artifacts"
    lost = [key for key, value in PARAMS.items() if run.data.params.get(key) != value]
    lost += [key for key, value in METRICS.items() if run.data.metrics.get(key) != value]
    lost += [name for name in PLOTS if not (folder / f"{name}.png").exists()]
    return lost + ([] if run.info.status == "FINISHED" else [run.info.status])


if __name__ == "__main__":
    main()
