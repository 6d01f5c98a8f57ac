"""What is lost when the database or the tracking server goes away, or the disk is full: five repeats of each.

python -m bench.faults   needs MariaDB or MySQL, and root for the full disk
"""

import argparse
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
from mlflow.entities import Run

from bench import stack
from bench.stack import Stack
from understudy.errors import UserError
from understudy.registry import registration
from understudy.table import TABLE
from understudy.tracking import runs

DURATION = "training/seconds"  # differs from one training to the next
Left = dict[str, set[str]]
Fault = Callable[[], None]


@dataclass
class Outcome:
    """What a fault came to.

    Args:
        code: The command's exit code.
        seconds: How long it went on after the fault.
        said: Its lines on standard error, with the seconds after the fault.
        lost: What it should have left and has not, if it ended well.
        left_open: How many runs the next start has not closed.
        versions: How many of its runs could be registered.
        torn: How many of these versions lack a file.
    """

    code: int
    seconds: float
    said: list[tuple[float, str]]
    lost: list[str] = field(default_factory=list)
    left_open: int = 0
    versions: int = 0
    torn: int = 0


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="without a database (default: %(default)s)")
    return parser


def main() -> None:
    args = options().parse_args()
    with tempfile.TemporaryDirectory() as folder, stack.running(Path(folder)) as one:
        whole = reference(one)
        print(f"undisturbed: {sum(map(len, whole.values()))} params, metrics, tags and files in {len(whole)} runs")
        for name, (fault, mend, arguments) in faults(one, args.seconds).items():
            for _ in range(args.repeats):
                found = disturb(one, whole, fault, mend, *arguments)
                print(f"{name}: exit {found.code} after {found.seconds:.1f} s, lost {len(found.lost)}, ", end="")
                print(f"left open {found.left_open}, versions {found.versions}, torn {found.torn}")
                for seconds, line in found.said:
                    print(f"    after {seconds:.1f} s: {line}")
                for line in found.lost:
                    print(f"    lost: {line}", flush=True)


def faults(one: Stack, seconds: float) -> dict[str, tuple[Fault, Fault, tuple[str, ...]]]:
    """What goes wrong, how it is mended once the command has ended, and the command's arguments."""

    def away() -> None:
        one.stop_database()
        time.sleep(seconds)
        one.start_database()

    def restart() -> None:
        one.kill_server()
        one.start_server()

    def nothing() -> None:
        pass

    disk = one.folder / "artifacts"
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)]
    return {
        f"database stopped for {seconds:.0f} s": (away, nothing, ()),
        "database stopped, --fail-fast": (one.stop_database, one.start_database, ("--fail-fast",)),
        "server killed, started again": (restart, nothing, ()),
        "server killed, --fail-fast": (one.kill_server, one.start_server, ("--fail-fast",)),
        "disk of the artifacts full, --fail-fast": (
            lambda: _run(*mount),
            lambda: _run("umount", "--lazy", str(disk)),
            ("--fail-fast",),
        ),
    }


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def reference(one: Stack, *arguments: str) -> Left:
    """What a training leaves that nothing disturbs."""
    one.finish("train.py", *arguments)
    return left(one, one.runs())


def disturb(one: Stack, whole: Left, fault: Fault, mend: Fault, *arguments: str) -> Outcome:
    """Train, let something go wrong as soon as the first file of a model is there, and see what came of it."""
    before = {run.info.run_id for run in one.runs()}
    uploaded = _uploaded(one)
    said: list[tuple[float, str]] = []
    with one.script("train.py", *arguments) as process:
        while _uploaded(one) == uploaded and process.poll() is None:
            time.sleep(0.002)
        started = time.monotonic()

        def listen() -> None:
            said.extend((time.monotonic() - started, line.strip()) for line in process.stderr or [])

        listener = threading.Thread(target=listen)
        listener.start()
        fault()
        outcome = Outcome(process.wait(), time.monotonic() - started, said)
        listener.join()
    mend()
    runs.close_killed(one.client)
    return look(one, whole, before, outcome)


def _uploaded(one: Stack) -> int:
    return sum(1 for _ in (one.folder / "artifacts").glob("*/models/*/artifacts/*"))


def look(one: Stack, whole: Left, before: Collection[str], outcome: Outcome) -> Outcome:
    """What is there of the runs since: how much was lost, and what can be registered."""
    new = [run for run in one.runs() if run.info.run_id not in before]
    outcome.left_open = sum(run.info.status not in ("FINISHED", "FAILED", "KILLED") for run in new)
    if outcome.code == 0:
        there = left(one, [run for run in new if run.info.status == "FINISHED"])
        outcome.lost = [f"{name}: {what}" for name in whole for what in whole[name] - there.get(name, set())]
    name = f"{TABLE.name} {time.time_ns()}"
    mlflow.set_tracking_uri(one.uri)
    for run in new:
        try:
            found = runs.get_run(one.client, run.info.run_id, runs.FAMILY)
            registration.register(one.client, found, TABLE, name)
        except UserError:
            continue
        outcome.versions += 1
        of_the_model = {what for what in whole[str(found.info.run_name)] if what.startswith("file model/")}
        outcome.torn += not of_the_model <= _left(one, found)
    return outcome


def left(one: Stack, runs: list[Run]) -> Left:
    """What runs have, by their names: each param and metric with its value, each tag and file by its name."""
    return {str(run.info.run_name): _left(one, run) for run in runs}


def _left(one: Stack, run: Run) -> set[str]:
    said = {f"param {key} {value}" for key, value in run.data.params.items()}
    said |= {f"metric {key}" + ("" if key == DURATION else f" {value:.6f}") for key, value in run.data.metrics.items()}
    return said | {f"tag {key}" for key in run.data.tags} | {f"file {path}" for path in files(one, run)}


def files(one: Stack, run: Run) -> set[str]:
    """The files of a run and of its model."""
    store = one.folder / "artifacts" / run.info.experiment_id
    found = names(store / run.info.run_id / "artifacts")
    for model in run.outputs.model_outputs if run.outputs else []:
        found |= {f"model/{name}" for name in names(store / "models" / model.model_id / "artifacts")}
    return found


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main()
