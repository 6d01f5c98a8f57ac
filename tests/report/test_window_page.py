"""The page of a window: each column beside the rows of the training, and what the labels say, as report.json has it."""

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

import monitor
from tests.conftest import SAMPLE, Ended
from tests.report.conftest import stands_alone
from understudy.figures import cards, windows
from understudy.figures.windows import DrawnColumn
from understudy.monitoring import record
from understudy.report import page, window_page
from understudy.table import TABLE

OUTCOME = {"rows": 90, "positive": 60, "metrics": {"AUC": (0.6, 0.5, 0.7)}, "before": {"AUC": (0.7, 0.6, 0.8)}}
OUTCOME |= {"change": {"AUC": (-0.1, -0.15, -0.05)}, "worse": ["AUC"]}


def test_a_window_has_a_page_that_says_what_has_drifted(
    in_production: str, call: Callable[..., Ended], tmp_path: Path, looked_at: Callable[[str], None]
) -> None:
    rows = pd.read_csv(SAMPLE).assign(ApplicantIncome=lambda rows: rows["ApplicantIncome"] * 2)
    rows.to_csv(tmp_path / "new.csv", index=False)
    assert call(monitor, "--data", str(tmp_path / "new.csv")).code == 5
    [experiment] = mlflow.search_experiments(filter_string=f"name = '{record.experiment(TABLE.name)}'")
    [run] = mlflow.search_runs(
        [experiment.experiment_id], "tags.`understudy.kind` = 'monitoring'", output_format="list"
    )
    html, kept = (mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{name}") for name in (page.FILE, "report.json"))
    found = json.loads(kept)
    assert f"{found['verdict'][1:]}.</p>" in html
    assert "The rows have drifted: ApplicantIncome" in html
    assert html.count("✗ alarm") == sum(column["alarm"] for column in found["columns"])
    for column in found["columns"]:
        assert f'<th scope="row">{column["column"]}</th>' in html
        assert f'<td class="number">{cards.number(column["psi"])}</td>' in html
    assert stands_alone(html)
    looked_at(html)
    labelled = window_page.html("A", {**found, "outcome": OUTCOME}, [])
    for text in ("90 answered rows have a label, 60 of them positive", "-0.100 (-0.150 to -0.050)", "✗ worse"):
        assert text in labelled
    shadows = [{"version": "2", "rows": 100, "refused": 10, "agreeing": 80, "apart": 0.25}]
    seen = window_page.html("A", {**found, "shadows": shadows, "faults": {"Gender: unknown category": 4}}, [])
    for text in ("Version 2: 80 of 90 labels agree, 10 rows refused", "Gender: unknown category"):
        assert text in seen
    nothing = {"expected": {"AUC": None}, "expected_before": {"AUC": None}, "true_before": {"AUC": 0.7}}
    assert "0.700" in window_page.html("A", {**found, "estimate": nothing}, [])
    untested = DrawnColumn("Age", np.zeros(3), np.zeros(3), (), None, None, alarm=False)
    assert "not tested" in window_page.html("A", found, [untested])
    few = {**OUTCOME, "metrics": {}, "worse": []}
    assert "too few labels to tell" in window_page.html("A", {**found, "outcome": few}, [])


def test_the_shares_of_a_column_are_named_by_value_range_and_lack() -> None:
    cells = np.array([0.0, 1.0, 1.0, np.nan])
    names, before, now = windows.shares(DrawnColumn("a", cells, cells[:2], ("no", "yes"), None, None, alarm=False))
    assert (names, before.tolist(), now.tolist()) == (["no", "yes", "missing"], [0.25, 0.5, 0.25], [0.5, 0.5, 0.0])
    numbers = np.linspace(0, 24, 1_000)
    names, before, _ = windows.shares(DrawnColumn("a", numbers, numbers, (), None, None, alarm=False))
    assert len(names) == len(before) == windows.BINS
    assert before.sum() == 1
    assert (names[0], names[-1]) == ("up to 1.22", "from 22.8 on")
