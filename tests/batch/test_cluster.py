"""Scoring on a Dask cluster: what comes of it is what comes of it here, also when a worker is killed."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pandas as pd
import psutil
import pytest

import score
from tests.batch.test_kills import rows_of
from tests.conftest import SAMPLE, Ended, is_refusal
from tests.test_cluster import address, local
from understudy import cluster
from understudy.batch import inputs, job
from understudy.batch.inputs import Slice
from understudy.errors import UserError

__all__ = ["address"]
Call = Callable[..., Ended]


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Two files of rows in the test's folder, each row group of which is a unit of work; returns those allowed."""
    monkeypatch.chdir(tmp_path)
    names = rows_of(tmp_path)
    monkeypatch.setattr(inputs, "UNIT", 1_000)
    pd.read_csv("rows/b.csv", dtype=str, on_bad_lines="skip").to_parquet("rows/b.parquet", row_group_size=500)
    Path("rows/b.csv").unlink()
    return names


def test_a_cluster_scores_as_this_machine_does(
    in_production: str, address: str, small_units: list[str], call: Call, tmp_path: Path
) -> None:
    assert call(score, "rows", "here.parquet").code == 0
    ended = call(score, "rows", "there.parquet", "--cluster", address)
    assert ended.code == 0, ended.err
    here, there = pd.read_parquet("here.parquet"), pd.read_parquet("there.parquet")
    assert there["Loan_ID"].tolist() == small_units
    assert there.drop(columns="scored_at").equals(here.drop(columns="scored_at"))
    assert Path("there.parquet.rejected").read_bytes() == Path("here.parquet.rejected").read_bytes()
    assert is_refusal(call(score, "rows", "strict.parquet", "--cluster", address, "--strict"))
    assert not [*tmp_path.glob("*strict*")]


def test_a_worker_that_is_killed_costs_time_only(
    in_production: str, small_units: list[str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = list[int]()

    def kill_one(address: str) -> None:
        with cluster.connect(address) as client:
            while not any(Path().glob(".scores.parquet.scoring/figures/*")):
                time.sleep(0.001)
            [pid, *_] = client.run(os.getpid).values()
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    with local() as address:
        thread = Thread(target=kill_one, args=[address])
        thread.start()
        ended = call(score, "rows", "scores.parquet", "--cluster", address)
        thread.join()
    assert ended.code == 0, ended.err
    assert not psutil.pid_exists(killed[0])
    assert pd.read_parquet("scores.parquet")["Loan_ID"].tolist() == small_units


def test_what_a_worker_does_not_see_is_named(in_production: str, tmp_path: Path) -> None:
    [file] = inputs.find(str(SAMPLE))
    with pytest.raises(UserError, match=r"does not see .*elsewhere"):
        job.on_worker(None, None, file.slices(), 0, tmp_path / "elsewhere", ".parquet")  # type: ignore[arg-type]
    shutil.copy(SAMPLE, tmp_path / "rows.csv")
    [file] = inputs.find(str(tmp_path / "rows.csv"))
    (tmp_path / "rows.csv").unlink()
    with pytest.raises(UserError, match=r"does not see .*rows\.csv"):
        job.on_worker(None, None, [Slice(file, 1)], 0, tmp_path, ".parquet")  # type: ignore[arg-type]
