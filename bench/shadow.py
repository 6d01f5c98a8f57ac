"""What the shadow costs the answers: the live server with `--log`, and with `--log --shadow staging`, in turn.

python -m bench.shadow              needs wrk; 10 rounds of 5 seconds each, 8 connections, one row a request
python -m bench.shadow --pause 0    as many requests as there can be: on two cores that measures who gets a core

Both servers run all the time, one worker each, a logistic regression in Production and a forest in Staging; only one of
them is asked at a time. The shadow may raise the 99th percentile by 10 % (aim).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TypeAlias

from bench.serve import WRK, Server, started
from bench.swap import NAME, PROJECT, prepared
from understudy.reading import table_rows
from understudy.table import TABLE

CONNECTIONS = 8
DELAY = "\nfunction delay() return {pause} end\n"
SETTLED = 2  # seconds until all rows are counted
P99 = "99th percentile, ms"
AIM = 1.10  # times the 99th percentile without a shadow
Figures: TypeAlias = dict[str, list[dict[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="of load in each round (default: %(default)s)")
    about = "milliseconds between an answer and the next request of a connection (default: %(default)s)"
    parser.add_argument("--pause", type=int, default=4, help=about)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri, body = prepared(folder).tracking_uri, one_row(folder, args.pause)
        without, shadow = server(folder, uri, "without"), server(folder, uri, "with", "--shadow", "staging")
        with started(without, body) as (first, *_), started(shadow, body) as (second, *_):
            while shadowed(second) == (0, 0):
                asked(second, folder, 1)
            before = shadowed(second)
            figures: Figures = {"without": [], "with": []}
            for number in range(args.rounds):
                ports = [("without", first), ("with", second)]
                for kind, port in ports if number % 2 == 0 else reversed(ports):
                    figures[kind].append(asked(port, folder, args.seconds))
                print(f"round {number + 1}", file=sys.stderr, flush=True)
            rows, missed = (after - start for after, start in zip(shadowed(second), before, strict=True))
    report(figures)
    print(f"rows that the shadow has scored: {rows:,.0f}, missed: {missed:,.0f}")


def one_row(folder: Path, pause: int) -> bytes:
    """A request with one row of the table, and the program that lets wrk send it."""
    rows = table_rows.read(TABLE, PROJECT / TABLE.path)[[column.name for column in TABLE.columns]]
    body = {"dataframe_split": json.loads(rows.dropna()[:1].to_json(orient="split", index=False))}
    (folder / "1.json").write_text(json.dumps(body))
    (folder / "1.lua").write_text(WRK.format(body=folder / "1.json") + DELAY.format(pause=pause))
    return (folder / "1.json").read_bytes()


def server(folder: Path, uri: str, name: str, *options: str) -> Server:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [str(PROJECT / "serve.sh"), "--name", NAME, "--live", "--cache", str(folder / "cache")]
    command += ["--log", str(folder / name), *options, "--port"]
    return Server(command, {"MLFLOW_TRACKING_URI": uri, "PATH": path, "VIRTUAL_ENV": sys.prefix})


def shadowed(port: int) -> tuple[float, float]:
    """The rows that the shadow of a server has scored, and those that it has missed."""
    time.sleep(SETTLED)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        counts = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines())
    return float(counts["understudy_shadow_rows_total"]), float(counts["understudy_shadow_missed_rows_total"])


def asked(port: int, folder: Path, seconds: int) -> dict[str, float]:
    """What wrk measures of a server."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(folder / "1.lua")]
    command += [f"http://127.0.0.1:{port}/invocations"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    requests, lasted, p50, p99, failed = json.loads(ran.stdout.splitlines()[-1])
    return {"requests a second": requests / lasted, "median, ms": p50, P99: p99, "failed": failed}


def report(figures: Figures) -> None:
    for what in figures["without"][0]:
        without, shadow = (statistics.median(each[what] for each in figures[kind]) for kind in ("without", "with"))
        ratio = f", {shadow / without:.3f} times" if without else ""
        print(f"{what}: {without:,.2f} without, {shadow:,.2f} with the shadow{ratio}")
    rounds = zip(figures["without"], figures["with"], strict=True)
    ratios = [shadow[P99] / without[P99] for without, shadow in rounds]
    print(f"{P99}, round by round: {' '.join(f'{ratio:.2f}' for ratio in ratios)} times")
    print(f"their median: {statistics.median(ratios):.3f} (aim: at most {AIM:.2f})")


if __name__ == "__main__":
    main()
