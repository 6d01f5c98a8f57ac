"""Scorings that are killed at random moments and started again: every row is there exactly once."""

import contextlib
import csv
import io
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import mlflow
import pandas as pd
import pytest

import score
from tests.batch.test_score import faulty
from tests.conftest import SAMPLE
from understudy import errors
from understudy.batch import csv_rows, inputs, parts
from understudy.tracking import connection

KILLS = 50
# What a scoring loads, which takes a process of its own longer than to score.
LOADED = [f"understudy.{name}" for name in ("batch.outputs", "batch.queries", "batch.record", "registry.stages")]
LOADED += ["mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store", "tqdm"]
COPIES = 8  # of the sample in an input
REJECTED = 2 * 6 * COPIES


def scored(folder: Path, uri: str, *arguments: str) -> None:
    """What a process of its own does: it scores in small parts."""
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    connection.PROJECT = folder
    parts.ROWS, csv_rows.BLOCK, inputs.ROWS, inputs.UNIT = 500, 10_000, 100, 100_000
    sys.argv = ["score.py", *arguments, "--json"]
    with contextlib.redirect_stdout(io.StringIO()):
        errors.run(score.main)


def written(output: str) -> tuple[list[str], int]:
    """The identifiers that an output has, and how many rows beside it were rejected for two reasons or for one."""
    if output.startswith("sqlite"):
        with closing(sqlite3.connect("scores.db")) as database:
            names = [name for (name,) in database.execute("select Loan_ID from scores")]
            return names, len({*database.execute("select file, row from scores_rejected")})
    with Path(f"{output}.rejected").open() as file:
        rows = len({(line["file"], line["row"]) for line in csv.DictReader(file)})
    scores = pd.read_csv(output) if output.endswith(".csv") else pd.read_parquet(output)
    return scores["Loan_ID"].tolist(), rows


def rows_of(folder: Path) -> list[str]:
    """Write the sample with faults several times into two files, under new names; returns those that are allowed."""
    faulty(folder / "faulty.csv")
    header, *rows = csv.reader((folder / "faulty.csv").read_text().splitlines())
    (folder / "faulty.csv").unlink()
    (folder / "rows").mkdir()
    for name in ("a", "b"):
        with (folder / "rows" / f"{name}.csv").open("w", newline="") as file:
            sheet = csv.writer(file)
            sheet.writerow(header)
            for copy in range(COPIES):
                sheet.writerows([f"{name}{copy} {row[0]}", *row[1:]] for row in rows)
    names = pd.read_csv(SAMPLE)["Loan_ID"].drop([1, 3, 4, 5, 613]).tolist()
    return [f"{file}{copy} {name}" for file in ("a", "b") for copy in range(COPIES) for name in names]


def test_a_scoring_that_is_killed_goes_on_and_has_each_row_once(
    in_production: str, client: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names, rng, kills, went_on, completed = rows_of(tmp_path), random.Random(0), 0, 0, 0  # noqa: S311
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *LOADED])
    outputs = itertools.cycle(["scores.parquet", "folder", "scores.csv", "sqlite:///scores.db#scores"])
    arguments = (tmp_path, in_production, "rows")
    longest, was_done, warm = 0.0, False, context.Process(target=os.getcwd)
    warm.start()
    warm.join()
    while kills < KILLS or completed < 5:
        output = next(outputs)
        while True:
            process, started = context.Process(target=scored, args=(*arguments, output)), time.monotonic()
            process.start()
            process.join(rng.uniform(0, longest) if longest else None)  # the first one is let through
            if process.exitcode is not None:
                break
            os.kill(int(process.pid or 0), signal.SIGKILL)
            process.join()
            kills += 1
            went_on += any(tmp_path.glob(".*.scoring/figures/*"))
            was_done = not [*tmp_path.glob(".*.scoring/job.json")]
        # One that is killed at its very end has done all, and the next one says that the output is there already.
        assert process.exitcode == 0 or (process.exitcode == 2 and was_done)
        longest, completed = longest or time.monotonic() - started, completed + 1
        assert written(output) == (names, REJECTED)
        assert not [*tmp_path.glob(".*.scoring")]
        for path in ("scores.parquet", "scores.csv", "scores.db", "folder"):
            for left in tmp_path.glob(f"{path}*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    assert went_on
    known = client.get_experiment_by_name("Loan_prediction batches")
    runs = client.search_runs([known.experiment_id])  # type: ignore[union-attr]
    finished = [run.data.metrics["rows"] for run in runs if run.info.status == "FINISHED"]
    assert finished == [len(names) + REJECTED] * completed
