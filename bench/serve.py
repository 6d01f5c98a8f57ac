"""How fast a model is served: ours behind both servers, and what people have, one after the other, round after round.

python -m bench.serve --rivals PYTHON   needs wrk; PYTHON has bentoml, litserve, scikit-learn and pandas installed

Each round starts every server anew with one worker, in another order, and asks it with 1, 8 and 32 connections.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import mlflow
import numpy as np
import pandas as pd
import psutil
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn import ensemble, linear_model
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import train
from deploy.mysql import free_port
from understudy import families
from understudy.reading import table_rows
from understudy.registry import promotion, registration
from understudy.registry.records import Move, Verdict
from understudy.table import TABLE
from understudy.tracking import connection, family_runs

PROJECT = Path(__file__).resolve().parents[1]
CONNECTIONS = (1, 8, 32)
ROWS = (1, 100, 10_000)
LONGER = 5  # times, for the most rows, of which a second sees a handful of answers
LONGEST = 300  # seconds to wait for a first answer
CLASSIFIERS: dict[str, BaseEstimator] = {
    "logistic": linear_model.LogisticRegression(solver="liblinear"),
    "forest": ensemble.RandomForestClassifier(n_estimators=300, min_samples_leaf=2, random_state=0),
}
AIMS = {"logistic": 100, "forest": 220}  # times stock's requests a second
WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = io.open("{body}", "rb"):read("*a")
done = function(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("\\n[%d, %f, %f, %f, %d]\\n", summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
"""
Load = tuple[int, int]


@dataclass
class Measurement:
    """What was measured of a server, a value a round."""

    start: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    loads: dict[Load, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))

    def median(self, load: Load, what: str) -> float:
        return statistics.median(figures[what] for figures in self.loads[load])


@dataclass(frozen=True)
class Server:
    """A command that serves a model on the port that is added to it."""

    command: list[str]
    settings: dict[str, str] = field(default_factory=dict)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=int,
        default=2,
        help="of load for each figure, five times as long for the most rows (default: %(default)s)",
    )
    parser.add_argument("--rivals", default="", metavar="PYTHON", help="measures BentoML and LitServe too")
    parser.add_argument("--only", default="", help="servers to measure, comma-separated (default: all)")
    return parser


def main() -> None:
    args = options().parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        servers = prepared(folder, args.rivals)
        chosen = [name for name in servers if not args.only or name in args.only.split(",")]
        measurements: dict[str, Measurement] = {name: Measurement() for name in chosen}
        order = random.Random(0)  # noqa: S311
        for number in range(args.rounds):
            order.shuffle(chosen)
            for name in chosen:
                measure(servers[name], measurements[name], folder, args.seconds)
                print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
    report(measurements)


def prepared(folder: Path, rivals: str) -> dict[str, Server]:
    """All servers by name, each model fitted on the same rows."""
    training, _ = TABLE.split(table_rows.read(TABLE, PROJECT / TABLE.path))
    columns = [column.name for column in TABLE.columns]
    rows = training.dropna().sample(ROWS[-1], replace=True, random_state=0, ignore_index=True)[columns]
    for count in ROWS:
        body = {"dataframe_split": json.loads(rows[:count].to_json(orient="split", index=False))}
        (folder / f"{count}.json").write_text(json.dumps(body))
        (folder / f"{count}.lua").write_text(WRK.format(body=folder / f"{count}.json"))
    client = published(folder)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours = {"MLFLOW_TRACKING_URI": client.tracking_uri, "PATH": path, "VIRTUAL_ENV": sys.prefix}
    uvicorn = [sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "warning"]
    stock = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--workers", "1"]
    nothing(folder / "nothing")
    servers = {
        "floor: constant app": Server([*uvicorn, "bench.rivals.constant:app", "--port"]),
        "floor: constant model": Server([*stock, "-m", str(folder / "nothing"), "--port"]),
    }
    for name, classifier in CLASSIFIERS.items():
        plain(folder, name, classifier, training)
        model = {"MODEL": str(folder / f"{name}.joblib")}
        script = [str(PROJECT / "serve.sh"), "--name", name]
        live = [*script, "--live", "--cache", str(folder / f"cache {name}"), "--port"]
        servers |= {
            f"{name}: live": Server(live, ours),
            f"{name}: two workers": Server([*live[:-1], "--workers", "2", "--port"], ours),
            f"{name}: serve.sh": Server([*script, "--port"], ours),
            f"{name}: stock": Server([*stock, "-m", f"models:/plain_{name}/1", "--port"]),
            f"{name}: FastAPI": Server([*uvicorn, "bench.rivals.tutorial:app", "--port"], model),
        }
        if rivals:
            bento = [rivals, "-m", "bentoml", "serve", "bench.rivals.bento:Loans", "--host", "127.0.0.1", "--port"]
            servers |= {
                f"{name}: BentoML": Server(bento, {**model, "BENTOML_DO_NOT_TRACK": "True"}),
                f"{name}: LitServe": Server([rivals, "-m", "bench.rivals.lit"], model),
            }
    return servers


def published(folder: Path) -> MlflowClient:
    """A store in which both models are in Production, each under its own name."""
    os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    connection.PROJECT = folder
    (folder / "data").mkdir()
    shutil.copy(PROJECT / TABLE.path, folder / "data")
    ours = {name: families.Family(classifier, quick={}, book={}) for name, classifier in CLASSIFIERS.items()}
    ours[families.FLOOR] = families.FAMILIES[families.FLOOR]
    families.FAMILIES.clear()
    families.FAMILIES.update(ours)
    sys.argv = ["train.py"]
    train.main()
    client = connection.connect()
    for run in family_runs.families(client, family_runs.get_batch(client, TABLE)):
        if (name := family_runs.family_name(run)) in CLASSIFIERS:
            version, _ = registration.register(client, run, TABLE, name)
            for stage in ("staging", "production"):
                asked = Move(stage, str(version.version), stage, reason="to be measured", forced=True)
                promotion.promote(client, name, asked, lambda planned: Verdict())
    return client


def plain(folder: Path, name: str, classifier: BaseEstimator, training: pd.DataFrame) -> None:
    """What people have: a ColumnTransformer in a Pipeline, registered with a signature, and saved by joblib."""
    numbers = [column.name for column in TABLE.columns if column not in TABLE.categories]
    fill = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    features = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
            ("categories", fill, [column.name for column in TABLE.categories]),
        ]
    )
    rows = training[[column.name for column in TABLE.columns]].replace({None: np.nan})
    fitted = Pipeline([("features", features), ("classifier", classifier)]).fit(rows, training[TABLE.target.name])
    joblib.dump(fitted, folder / f"{name}.joblib")
    complete = rows.dropna()
    mlflow.sklearn.log_model(
        fitted,
        name=name,
        registered_model_name=f"plain_{name}",
        signature=infer_signature(complete, fitted.predict(complete)),
        serialization_format="cloudpickle",
        pip_requirements=[],
    )


def nothing(folder: Path) -> None:
    """A model that looks at nothing: under `mlflow models serve` it costs what MLflow costs."""

    class Nothing(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> list[str]:
            return ["Y"] * len(model_input)

    mlflow.pyfunc.save_model(str(folder), python_model=Nothing(), pip_requirements=[])


def measure(server: Server, measurement: Measurement, folder: Path, seconds: int) -> None:
    """Start a server, and ask it with every load."""
    with started(server, (folder / "1.json").read_bytes()) as (port, process, start):
        measurement.start.append(start)
        for rows in ROWS:
            for connections in CONNECTIONS:
                lasts = seconds * (LONGER if rows == ROWS[-1] else 1)
                command = ["wrk", "-t1", f"-c{connections}", f"-d{lasts}s", "--timeout", "30s"]
                command += ["-s", str(folder / f"{rows}.lua"), f"http://127.0.0.1:{port}/invocations"]
                ran = subprocess.run(command, capture_output=True, text=True, check=True)
                requests, lasted, p50, p99, failed = json.loads(ran.stdout.splitlines()[-1])
                figures = {"per second": requests / lasted, "p50": p50, "p99": p99, "failed": failed}
                measurement.loads[rows, connections].append(figures)
        measurement.megabytes.append(memory(process.pid))


@contextmanager
def started(server: Server, body: bytes) -> Iterator[tuple[int, subprocess.Popen[bytes], float]]:
    """A server; yields its port, its first process, and the seconds until it has answered."""
    port = free_port()
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*server.command, str(port)],
        cwd=PROJECT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **server.settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        while True:
            try:
                urllib.request.urlopen(request, timeout=LONGEST).read()
                break
            except OSError as error:
                if process.poll() is not None or time.perf_counter() - begun > LONGEST:
                    raise RuntimeError(f"{' '.join(server.command)} does not answer") from error
                time.sleep(0.01)
        yield port, process, time.perf_counter() - begun
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for left in session(process.pid):
            left.kill()


def session(leader: int) -> list[psutil.Process]:
    """The processes that a server consists of."""
    processes = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == leader:
                processes.append(process)
    return processes


def memory(leader: int) -> float:
    """What a server's processes take together, shared pages shared out, in millions of bytes."""
    total = 0
    for process in session(leader):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 1e6


def report(measurements: dict[str, Measurement]) -> None:
    head = [f"{rows} x {connections}" for rows in ROWS for connections in CONNECTIONS]
    for what, unit in [("per second", "requests a second"), ("p50", "median, ms"), ("p99", "99th percentile, ms")]:
        loads = [(rows, connections) for rows in ROWS for connections in CONNECTIONS]
        table = pd.DataFrame(
            {name: [measurement.median(load, what) for load in loads] for name, measurement in measurements.items()}
        ).T
        print(f"\n{unit}; rows x connections\n{table.set_axis(head, axis=1).sort_index().round(1).to_string()}")
    costs = {
        name: {
            "seconds to the first answer": statistics.median(measurement.start),
            "MB": statistics.median(measurement.megabytes),
            "failed": sum(load["failed"] for loads in measurement.loads.values() for load in loads),
        }
        for name, measurement in measurements.items()
    }
    print(f"\n{pd.DataFrame(costs).T.sort_index().round(1).to_string()}")
    for name, times in AIMS.items():
        names = [f"{name}: {kind}" for kind in ("live", "two workers", "stock")]
        if all(each in measurements for each in names):
            print(
                f"\n{name}, beside the aims:\n" + "\n".join(beside_aims([measurements[each] for each in names], times))
            )


def beside_aims(measured: list[Measurement], times: int) -> Iterator[str]:
    """What the live server is meant to reach, and what was measured of it, of two workers, and of stock."""
    live, two, stock = measured
    one_row = (1, 8)
    rate = live.median(one_row, "per second")
    yield f"1 row, 8 connections, live to stock: {rate / stock.median(one_row, 'per second'):.0f} times (aim: {times})"
    yield f"p99 there: {live.median(one_row, 'p99'):.1f} ms (aim: under 5)"
    yield f"two workers to one: {two.median(one_row, 'per second') / rate:.2f} times (aim: 1.6)"
    megabytes = statistics.median(live.megabytes) / statistics.median(stock.megabytes)
    yield f"memory to stock's: {megabytes:.0%} (aim: at most 25 %)"
    start = statistics.median(live.start) / statistics.median(stock.start)
    yield f"first answer to stock's: {start:.0%} (aim: at most 50 %)"


if __name__ == "__main__":
    main()
