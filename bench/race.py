"""Eight processes put eight versions into Production at once, on SQLite behind a server: ours, and MLflow's own call.

Then promotions and rollbacks in turn with moves by hand, after each of which `check`, the history and a plain reading
of the store have to agree.

python -m bench.race --rounds 50
"""

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import mlflow
from mlflow import MlflowClient, MlflowException
from sklearn.dummy import DummyClassifier

from deploy.mysql import free_port
from understudy.errors import Refused, UserError
from understudy.registry import audit, history, promotion, records, registered, stages
from understudy.registry.records import Move, Verdict

PROCESSES = 8
STEPS = 12  # of a round with moves by hand
FORK = multiprocessing.get_context("fork")  # importing MLflow takes each process seconds
Race = Callable[[str, str], list[str]]


@dataclass
class Outcome:
    """What a round came to: how each call ended, and what does not fit together afterwards."""

    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    in_production: int = 0


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="of each kind (default: %(default)s)")
    return parser


def main() -> None:
    rounds = options().parse_args().rounds
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    head = ["rounds with one version in Production", "versions in Production", "how the calls ended", "seconds a round"]
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as uri, racers(uri) as race:
        client = MlflowClient(uri)
        for way in ("ours", "stock"):
            for occupied in (False, True):
                started = time.perf_counter()
                outcomes = [one_round(client, race, way, occupied) for _ in range(rounds)]
                seconds = (time.perf_counter() - started) / rounds
                print(f"{way}, Production {'occupied' if occupied else 'empty'} before:")
                champions = Counter(outcome.in_production for outcome in outcomes)
                ended = sum((outcome.ended for outcome in outcomes), Counter[str]())
                wrong = [what for outcome in outcomes for what in outcome.wrong]
                shown = [f"{champions[1]} of {rounds}", spread(champions), spread(ended), f"{seconds:.1f}"]
                for label, value in zip(head, shown, strict=True):
                    print(f"    {label}: {value}")
                print(f"    what does not fit together: {'; '.join(sorted(set(wrong))) or 'nothing'}", flush=True)
        misread = [by_hand_round(client, seed) for seed in range(rounds)]
        print(f"with moves by hand: {misread.count([])} of {rounds} rounds are told as they were")
        print(f"    what is not: {'; '.join(sorted({what for each in misread for what in each})) or 'nothing'}")


def spread(counted: Counter[str] | Counter[int]) -> str:
    return ", ".join(f"{number} x {what}" for what, number in sorted(counted.items(), key=str))


def one_round(client: MlflowClient, race: Race, way: str, occupied: bool) -> Outcome:
    """One race over a registered model of its own."""
    name = new_model(client, PROCESSES + occupied)
    if occupied:
        call(way, client, name, str(PROCESSES + 1))
    with polled(name, occupied and way == "ours") as failures:
        outcome = Outcome(Counter(race(way, name)))
    outcome.wrong += failures
    counts = Counter(str(version.current_stage) for version in registered.versions(client, name))
    outcome.in_production = counts["Production"]
    if way == "ours":
        outcome.wrong += misfits(client, name, outcome.ended, occupied)
    return outcome


def new_model(client: MlflowClient, count: int) -> str:
    """The name of a new registered model with so many versions."""
    name = f"race-{time.time_ns()}"
    client.create_registered_model(name)
    source = a_model(client.tracking_uri)
    for _ in range(count):
        client.create_model_version(name, source, model_id=source.removeprefix("models:/"), await_creation_for=0)
    return name


def by_hand_round(client: MlflowClient, seed: int) -> list[str]:
    """What is told wrongly of promotions, rollbacks and moves by hand, by chance, on a registered model of its own."""
    name, wrong = new_model(client, PROCESSES), []
    chance = random.Random(seed)  # noqa: S311 - to be the same again
    stack: list[str] = []  # kept beside the records: where rollbacks should lead, Production last
    recorded: str | None = None  # the version of the last move that was ours
    for number in range(STEPS):
        action = chance.choice(["promote", "rollback", "move", "remove", "misspell", "stage"])
        current = in_production(client, name)
        version = chance.choice([str(other) for other in range(1, PROCESSES + 1) if str(other) != current])
        if action == "promote":
            call("ours", client, name, version)
            stack = back_to(stack, current)
            stack += [version] * (stack[-1:] != [version])  # taken out by hand, and back
        elif action == "rollback":
            earlier = [champion for champion in back_to(stack, current) if champion != current]
            with suppress(UserError):  # there is nothing to go back to
                promotion.rollback(client, name, None, "by chance", lambda planned: Verdict())
            stack = back_to(back_to(stack, current), earlier[-1]) if earlier else stack
        elif action == "move":
            client.set_registered_model_alias(name, "production", version)
        elif action == "remove":
            client.delete_registered_model_alias(name, "production")
        elif action == "misspell":
            client.set_registered_model_alias(name, "Production", version)
        else:
            with warnings.catch_warnings(action="ignore"):
                client.transition_model_version_stage(name, version, chance.choice(["Production", "Archived"]))
        is_ours = action == "promote" or (action == "rollback" and bool(earlier))
        recorded = stack[-1] if is_ours else recorded
        told = misread(client, name, stack, recorded, is_ours)
        wrong += [f"{what} (round {seed}, step {number}: {action})" for what in told]
    return wrong


def back_to(stack: list[str], version: str | None) -> list[str]:
    """A stack after somebody has put a version there by hand."""
    while version in stack and stack[-1] != version:
        stack = stack[:-1]
    return [*stack, version] if version and stack[-1:] != [version] else stack


def in_production(client: MlflowClient, name: str) -> str | None:
    """The version that the store itself says the alias names; None for none."""
    try:
        return str(client.get_model_version_by_alias(name, "production").version)
    except MlflowException:
        return None


def misread(client: MlflowClient, name: str, stack: list[str], recorded: str | None, is_ours: bool) -> list[str]:
    """Where `check` and the records say something else than a plain reading of the store, and our own notes."""
    current, spelt = in_production(client, name), client.get_registered_model(name).aliases
    versions = client.search_model_versions(f"name = '{name}'")
    staged = [str(version.version) for version in versions if version.current_stage == "Production"]
    report = "\n".join(finding.what for finding in audit.findings(client, name))
    expected = {
        f"version {current} is in Production without a record": current not in (None, recorded),
        f"the records say version {recorded}, the alias names none": recorded is not None and current is None,
        "Production: the alias names": staged != [current] * (current is not None),
        "Production: the alias of": current is not None and "production" not in spelt,
        "Production: the alias Production": "Production" in spelt and (current is None or "production" in spelt),
    }
    wrong = [f"check on '{what}'" for what, is_so in expected.items() if (what in report) != is_so]
    if history.after_hand_move(history.champions(records.find(client, name)), current) != back_to(stack, current):
        wrong.append("the history")
    if is_ours and (current != recorded or staged != [current] or "production" not in spelt):
        wrong.append("what our own move has left")
    return wrong


def misfits(client: MlflowClient, name: str, ended: Counter[str], occupied: bool) -> list[str]:
    """What a race of ours has left that does not fit together."""
    alias = stages.aliases(client, name).get("production")
    staged = {str(version.version): version.current_stage for version in registered.versions(client, name)}
    decisions = records.find(client, name)
    moved = [record for record in decisions if record.outcome in (records.COMPLETED, records.SUPERSEDED)]
    was_there = {record.version for record in moved} - {alias}
    wrong = []
    if [version for version, stage in staged.items() if stage == "Production"] != [alias]:
        wrong.append("stage and alias")
    if {version for version, stage in staged.items() if stage == "Archived"} != was_there:
        wrong.append("who was there is not archived")
    if len(moved) != occupied + ended["done"] + ended["superseded"] or len(decisions) != occupied + PROCESSES:
        wrong.append("records")
    if any(not record.outcome for record in decisions) or history.champions(decisions)[-1:] != [alias]:
        wrong.append("history")
    return wrong


def call(way: str, client: MlflowClient, name: str, version: str) -> str:
    """Put a version into Production; returns how that ended."""
    try:
        if way == "stock":
            with warnings.catch_warnings(action="ignore"):
                client.transition_model_version_stage(name, version, "Production", archive_existing_versions=True)
        else:
            asked = Move("production", version, "production", reason="a race", forced=True)
            promotion.promote(client, name, asked, lambda planned: Verdict())
    except Refused as refused:
        return "superseded" if "at once" in refused.why else "refused"
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {str(error)[:100]}"
    return "done"


@cache
def a_model(uri: str) -> str:
    """The address of the smallest model there is, which every version is of."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("Race")
    fitted = DummyClassifier().fit([[0]], [0])
    types = ["numpy.dtype"]
    logged = mlflow.sklearn.log_model(fitted, name="dummy", pip_requirements=[], skops_trusted_types=types)
    return str(logged.model_uri)


@contextmanager
def polled(name: str, wanted: bool) -> Iterator[list[str]]:
    """Load `models:/<name>@production` all the while; yields the failures."""
    failures: list[str] = []
    over = threading.Event()

    def poll() -> None:
        while not over.is_set():
            try:
                mlflow.pyfunc.load_model(f"models:/{name}@production")
            except Exception as error:
                failures.append(f"poll: {error}")
            over.wait(0.02)

    thread = threading.Thread(target=poll)
    if wanted:
        thread.start()
    try:
        yield failures
    finally:
        over.set()
        if wanted:
            thread.join()


@contextmanager
def racers(uri: str) -> Iterator[Race]:
    """Processes that wait for a race; yields what runs one over the versions 1 to 8 of a model."""
    barrier = FORK.Barrier(PROCESSES)
    pipes = [FORK.Pipe() for _ in range(PROCESSES)]
    processes = [
        FORK.Process(target=racer, args=(uri, str(number + 1), pipe[1], barrier), daemon=True)
        for number, pipe in enumerate(pipes)
    ]
    for process in processes:
        process.start()

    def race(way: str, name: str) -> list[str]:
        for ours, _ in pipes:
            ours.send((way, name))
        return [ours.recv() for ours, _ in pipes]

    try:
        yield race
    finally:
        for process in processes:
            process.terminate()
            process.join()


def racer(uri: str, version: str, orders: Connection, barrier: Barrier) -> None:
    client = MlflowClient(uri)
    while True:
        way, name = orders.recv()
        barrier.wait()
        orders.send(call(way, client, name, version))


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """MLflow's server as it comes, on `mlflow.db` of a folder; yields its address."""
    port = str(free_port())
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", port], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        uri = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{uri}/health")
                    break
                except OSError:
                    time.sleep(0.2)
            yield uri
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its workers take 15 seconds to end by themselves
            process.wait()


if __name__ == "__main__":
    main()
