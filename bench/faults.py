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
        lines: Its lines on standard error, with the seconds after the fault.
        lost: What it should have left and has not, if it ended well.
        left_open: How many runs the next start has not closed.
        versions: How many of its runs could be registered.
        torn: How many of these versions lack a file.
    """

    code: int
    seconds: float
    lines: list[tuple[float, str]]
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
    with tempfile.TemporaryDirectory() as folder, stack.running(Path(folder)) as team:
        whole = reference(team)
        print(f"undisturbed: {sum(map(len, whole.values()))} params, metrics, tags and files in {len(whole)} runs")
        for name, (fault, mend, arguments) in faults(team, args.seconds).items():
            for _ in range(args.repeats):
                outcome = disturb(team, whole, fault, mend, *arguments)
                print(f"{name}: exit {outcome.code} after {outcome.seconds:.1f} s, lost {len(outcome.lost)}, ", end="")
                print(f"left open {outcome.left_open}, versions {outcome.versions}, torn {outcome.torn}")
                for seconds, line in outcome.lines:
                    print(f"    after {seconds:.1f} s: {line}")
                for line in outcome.lost:
                    print(f"    lost: {line}", flush=True)


def faults(team: Stack, seconds: float) -> dict[str, tuple[Fault, Fault, tuple[str, ...]]]:
    """What goes wrong, how it is mended once the command has ended, and the command's arguments."""

    def away() -> None:
        team.stop_database()
        time.sleep(seconds)
        team.start_database()

    def restart() -> None:
        team.kill_server()
        team.start_server()

    def nothing() -> None:
        pass

    disk = team.folder / "artifacts"
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)]
    return {
        f"database stopped for {seconds:.0f} s": (away, nothing, ()),
        "database stopped, --fail-fast": (team.stop_database, team.start_database, ("--fail-fast",)),
        "server killed, started again": (restart, nothing, ()),
        "server killed, --fail-fast": (team.kill_server, team.start_server, ("--fail-fast",)),
        "disk of the artifacts full, --fail-fast": (
            lambda: _run(*mount),
            lambda: _run("umount", "--lazy", str(disk)),
            ("--fail-fast",),
        ),
    }


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def reference(team: Stack, *arguments: str) -> Left:
    """What a training leaves that nothing disturbs."""
    team.finish("train.py", *arguments)
    return left(team, team.runs())


def disturb(team: Stack, whole: Left, fault: Fault, mend: Fault, *arguments: str) -> Outcome:
    """Train, let something go wrong as soon as the first file of a model is there, and see what came of it."""
    before = {run.info.run_id for run in team.runs()}
    uploaded = _uploaded(team)
    lines: list[tuple[float, str]] = []
    with team.script("train.py", *arguments) as process:
        while _uploaded(team) == uploaded and process.poll() is None:
            time.sleep(0.002)
        started = time.monotonic()

        def listen() -> None:
            lines.extend((time.monotonic() - started, line.strip()) for line in process.stderr or [])

        listener = threading.Thread(target=listen)
        listener.start()
        fault()
        outcome = Outcome(process.wait(), time.monotonic() - started, lines)
        listener.join()
    mend()
    runs.close_killed(team.client)
    return look(team, whole, before, outcome)


def _uploaded(team: Stack) -> int:
    return sum(1 for _ in (team.folder / "artifacts").glob("*/models/*/artifacts/*"))


def look(team: Stack, whole: Left, before: Collection[str], outcome: Outcome) -> Outcome:
    """What is there of the runs since: how much was lost, and what can be registered."""
    new = [run for run in team.runs() if run.info.run_id not in before]
    outcome.left_open = sum(run.info.status not in ("FINISHED", "FAILED", "KILLED") for run in new)
    if outcome.code == 0:
        recorded = left(team, [run for run in new if run.info.status == "FINISHED"])
        outcome.lost = [f"{name}: {what}" for name in whole for what in whole[name] - recorded.get(name, set())]
    name = f"{TABLE.name} {time.time_ns()}"
    mlflow.set_tracking_uri(team.uri)
    for run in new:
        try:
            family = runs.get_run(team.client, run.info.run_id, runs.FAMILY)
            registration.register(team.client, family, TABLE, name)
        except UserError:
            continue
        outcome.versions += 1
        of_the_model = {what for what in whole[str(family.info.run_name)] if what.startswith("file model/")}
        outcome.torn += not of_the_model <= _left(team, family)
    return outcome


def left(team: Stack, runs: list[Run]) -> Left:
    """What runs have, by their names: each param and metric with its value, each tag and file by its name."""
    return {str(run.info.run_name): _left(team, run) for run in runs}


def _left(team: Stack, run: Run) -> set[str]:
    entries = {f"param {key} {value}" for key, value in run.data.params.items()}
    entries |= {
        f"metric {key}" + ("" if key == DURATION else f" {value:.6f}") for key, value in run.data.metrics.items()
    }
    return entries | {f"tag {key}" for key in run.data.tags} | {f"file {path}" for path in files(team, run)}


def files(team: Stack, run: Run) -> set[str]:
    """The files of a run and of its model."""
    store = team.folder / "artifacts" / run.info.experiment_id
    paths = names(store / run.info.run_id / "artifacts")
    for model in run.outputs.model_outputs if run.outputs else []:
        paths |= {f"model/{name}" for name in names(store / "models" / model.model_id / "artifacts")}
    return paths


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main()
