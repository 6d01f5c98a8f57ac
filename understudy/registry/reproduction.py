"""A registered version trained again from what was recorded of it, and whether the same comes out."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils import mlflow_tags

from understudy.errors import UserError, visible
from understudy.table import TABLE
from understudy.tracking import connection, family_runs, naming, provenance, runs
from understudy.verification.repository import SHOWN, git

OPTIONS = {"models": r"\w+", "seed": "[0-9]{1,9}", "grid": "quick|book"}  # what a run may say
TIMES = {"training/seconds"}  # what may differ from one training to the next
REGISTER_ANOTHER = "train and register another one"


@dataclass(frozen=True)
class Reproduction:
    """What came of training a version again.

    Args:
        commit: The commit of the code, shortened.
        recorded: The version's digests and metrics, by name.
        again: The same of the new training.
        packages: The packages that are other ones now, as "numpy 2.4.0 -> 2.4.1".
    """

    commit: str
    recorded: Mapping[str, str | float]
    again: Mapping[str, str | float]
    packages: list[str]

    @property
    def differences(self) -> list[str]:
        """What of data, model and metrics is not equal to the last bit, as "AUC 0.72 -> 0.73"."""
        return changes(self.recorded, self.again)

    def __str__(self) -> str:
        headline = [f"{name} {value}" for name, value in self.recorded.items() if "/" not in name]
        first = f"same: {'no' if self.differences else 'yes'}, trained again at commit {self.commit}"
        return "\n".join(map(visible, [first, *(self.differences or headline), *self.packages]))


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """The names whose values differ, with both values."""
    pairs = {name: (before.get(name, "none"), after.get(name, "none")) for name in {**before, **after}}
    return [f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if str(old) != str(new)]


def reproduce(client: MlflowClient, version: ModelVersion, data: str | None) -> Reproduction:
    """Train a version's family again, at its commit and on its data, and compare.

    The data are at the address that a person gives, or else at the one that the project's table names.

    Raises:
        UserError: What is needed was not recorded or is gone, it was trained on changes that were not committed, or
            only the run names the commit or the address of the data.
    """
    called = f"{version.name} version {version.version}"
    run = runs.run_or_none(client, version.run_id or "")
    if run is None or family_runs.FAMILY_NAME not in run.data.tags:
        raise UserError(f"{called} was not trained by train.py", REGISTER_ANOTHER)
    commit = run.data.tags.get(mlflow_tags.MLFLOW_GIT_COMMIT)
    if commit is None or runs.tag(run, "git.dirty") == "unknown":
        raise UserError(f"{called} was trained outside of git", f"{REGISTER_ANOTHER} in a git clone")
    if runs.tag(run, "git.dirty") == "true":
        fix = "commit, then train and register again"
        problem = f"{called} cannot be reproduced: it was trained with changes that were not committed"
        files = run.data.tags.get(provenance.CHANGES)  # a run of 0.2 does not name them
        raise UserError(f"{problem}, in {files}" if files else problem, fix)
    batch = runs.run_or_none(client, runs.tag(run, mlflow_tags.MLFLOW_PARENT_RUN_ID))
    if batch is None:
        raise UserError(f"the batch of {called} is gone", REGISTER_ANOTHER)
    verb = f"python register.py reproduce {version.version}{naming.option(version.name)}"
    address = provenance.recorded_address(run, TABLE.path, data or "", verb)
    again = _train(commit, [*_options(run, batch), f"--data={address}"])
    packages = changes(_packages(run), _packages(again))
    return Reproduction(commit[:SHOWN], _compared(run), _compared(again), packages)


def _options(run: Run, batch: Run) -> list[str]:
    """The options of `train.py` that a batch was trained with; the first one names the run's family.

    Raises:
        UserError: The run names an option that train.py does not give a run.
    """
    params = batch.data.params
    named = {"models": family_runs.family_name(run), "seed": runs.tag(run, "seed"), "grid": params.get("grid", "none")}
    for name, value in named.items():
        if not re.fullmatch(OPTIONS[name], value):
            raise UserError(f"run {run.info.run_id} was not trained by train.py: {name} {value!r}", REGISTER_ANOTHER)
    options = [f"--{name}={value}" for name, value in named.items()]
    hidden = params.get("without_sensitive") == "True"  # `mlflow run` has no such parameter
    return [*options, "--without-sensitive"] if hidden else options


def _train(commit: str, options: list[str]) -> Run:
    """Run `train.py` at a commit, in a store that is gone afterwards; returns the run of the family."""
    # Nothing of this process's MLflow, `mlflow run` included, may lead to its store.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with _checked_out(commit) as project:
        command = [sys.executable, "train.py", *options]
        ended = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        refusal = re.search(r"^error: (.*)\nfix: .*\n\Z", ended.stderr, re.MULTILINE)
        if ended.returncode == 2 and refusal:
            fix = "put back what is missing, as it was when the version was trained"
            raise UserError(f"training again: {refusal[1]}", fix)
        if ended.returncode:
            raise RuntimeError(f"train.py failed at commit {commit}:\n{ended.stderr}")
        store = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
        experiments = [experiment.experiment_id for experiment in store.search_experiments()]
        family = options[0].partition("=")[2]
        [trained] = store.search_runs(experiments, f"tags.`{family_runs.FAMILY_NAME}` = '{family}'")
        return trained


@contextmanager
def _checked_out(commit: str) -> Iterator[Path]:
    """The project's files at a commit, in a folder that is gone afterwards; the repository itself is only read.

    Raises:
        UserError: The repository does not have the commit, or it is not one that the person at hand has checked out.
    """
    shown = commit[:SHOWN]
    if not re.fullmatch("[0-9a-f]{40,64}", commit) or git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        fix = "git fetch, or start this in the clone that has it"
        raise UserError(f"commit {shown} is not known in {connection.PROJECT}", fix)
    if git("merge-base", "--is-ancestor", commit, "HEAD").returncode:  # a fetched branch may hold anything
        problem = f"commit {shown} is not the one that is checked out, nor one before it"
        raise UserError(problem, f"look at it, and start again from it: git checkout {shown}")
    with TemporaryDirectory(prefix="understudy-") as name:
        folder = Path(name)
        git("archive", f"--output={folder / 'project.zip'}", commit).check_returncode()
        shutil.unpack_archive(folder / "project.zip", folder)
        yield folder


def _packages(run: Run) -> dict[str, str]:
    return dict(re.findall("([^ ,]+) ([^,]+)", runs.tag(run, "packages")))


def _compared(run: Run) -> dict[str, str | float]:
    digests = {name: runs.tag(run, name) for name in (provenance.DATA_DIGEST, family_runs.MODEL_DIGEST)}
    return {**digests, **{name: run.data.metrics[name] for name in sorted(run.data.metrics.keys() - TIMES)}}
