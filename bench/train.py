"""Wall time of `train.py` beside the textbook's script and a bare import-and-fit, to one local tracking server.

python -m bench.train                      the quick grid, 3 rounds
python -m bench.train --grid book --rounds 1
"""

import argparse
import compileall
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.mysql import free_port

PROJECT = Path(__file__).resolve().parents[1]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", default="quick", choices=["quick", "book"], help="(default: quick)")
    parser.add_argument("--rounds", default=3, type=int, help="of all commands in turn (default: 3)")
    return parser


def main() -> None:
    args = options().parse_args()
    compileall.compile_dir(PROJECT, maxlevels=0, quiet=1)
    for folder in ("understudy", "bench"):
        compileall.compile_dir(PROJECT / folder, quiet=1)
    commands = {
        "textbook": ["bench/textbook.py", "--grid", args.grid],
        "train.py": ["train.py", "--grid", args.grid],
        "bare": ["-m", "bench.bare"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    extras = []
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as uri:
        for number in range(args.rounds):
            for name, command in commands.items():
                took, printed = run(command, uri)
                seconds[name].append(took)
                print(f"round {number + 1}: {name} {took:.1f} s", flush=True)
                if name == "textbook":
                    extras.append(phases(printed))
    report(seconds, extras)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of an `mlflow server` of its own on a new SQLite store, which ends with the block."""
    port = str(free_port())
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        wait(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers.

    Raises:
        RuntimeError: It ended instead.
    """
    while process.poll() is None:
        try:
            urllib.request.urlopen(url)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"mlflow server ended with {process.returncode}")


def run(command: list[str], uri: str) -> tuple[float, str]:
    """Seconds that a command of the project takes, and what it prints."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return time.perf_counter() - started, done.stdout


def phases(printed: str) -> dict[str, float]:
    """The phases that the textbook's script prints last, in seconds."""
    names = ("search", "log_model", "intervals", "importance", "plots")
    words = [line.split() for line in printed.splitlines()]
    return {pair[0]: float(pair[1]) for pair in words if len(pair) == 2 and pair[0] in names}


def report(seconds: dict[str, list[float]], extras: list[dict[str, float]]) -> None:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    parts = {name: statistics.median(extra[name] for extra in extras) for name in extras[0]}
    print("\nmedians:", ", ".join(f"{name} {value:.1f} s" for name, value in medians.items()))
    print("of the textbook's:", ", ".join(f"{name} {value:.1f} s" for name, value in parts.items()))
    lean = medians["textbook"] - parts["intervals"] - parts["importance"]
    ours = medians["train.py"]
    print(f"train.py / textbook: {ours / medians['textbook']:.0%}")
    print(f"train.py / textbook without its intervals and importance: {ours / lean:.0%}")
    print(f"train.py / bare: {ours / medians['bare']:.1f}")


if __name__ == "__main__":
    main()
