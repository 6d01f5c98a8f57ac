"""The page of a batch: it needs nothing else, anyone can read it, and its figures are those on record."""

import re
from collections.abc import Callable
from html import unescape
from importlib import resources
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

import evaluate
from tests.conftest import Ended
from tests.report.conftest import stands_alone
from understudy.figures import cards, metrics, plots
from understudy.figures.metrics import Floats, Labels, Scored
from understudy.report import batch_page, findings, page
from understudy.report.findings import Evaluated
from understudy.table import TABLE
from understudy.tracking import connection, family_runs
from understudy.training import selection, threshold


@pytest.fixture(scope="module")
def html(trained: Path) -> str:
    return (trained / "plots" / page.FILE).read_text()


def row(html: str, name: str) -> list[str]:
    """The cells of the first row of that name, figures with their intervals in brackets."""
    found = re.search(f'<th scope="row">{name}</th>(.*?)</tr>', html, re.DOTALL)
    assert found
    cells = re.findall("<td[^>]*>(.*?)</td>", found[1])
    return [unescape(re.sub("<small> (.*)</small>", r" (\1)", cell)) for cell in cells]


def test_the_page_stands_alone(html: str) -> None:
    assert stands_alone(html)


def test_anyone_can_read_it_on_anything(html: str, looked_at: Callable[[str], None]) -> None:
    looked_at(html)


def test_its_figures_are_those_that_are_logged(client: mlflow.MlflowClient, html: str) -> None:
    for run in family_runs.families(client, family_runs.get_batch(client, TABLE)):
        logged, name = run.data.metrics, family_runs.family_name(run)
        shown = cards.headline({key: value for key, value in logged.items() if key != "Mean CV score"})
        wanted = [f"{logged['Mean CV score']:.3f}"]
        wanted += [shown[metric] for metric in ("Accuracy", "f1-score", "AUC", "PR AUC", "Log loss", "Brier score")]
        assert row(html, name) == wanted


def test_the_best_in_cross_validation_is_the_first(client: mlflow.MlflowClient, html: str) -> None:
    runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
    best = family_runs.family_name(selection.best_family(runs))
    assert f"<strong>{best}</strong>" in html
    assert re.findall('<th scope="row">(.*?)</th>', html)[0] == best


def test_it_says_how_to_make_the_batch_again(client: mlflow.MlflowClient, html: str) -> None:
    batch = family_runs.get_batch(client, TABLE)
    for text in (batch.info.run_id, *(batch.data.tags[name] for name in ("data.digest", "data.path", "packages"))):
        assert text in html
    assert "python train.py --models all --grid quick --seed 0 --jobs -1" in html


def test_it_lies_on_the_run_and_in_plots_and_its_path_is_printed(
    client: mlflow.MlflowClient, call: Callable[..., Ended], html: str
) -> None:
    batch = family_runs.get_batch(client, TABLE)
    assert "report: plots/report.html" in call(evaluate).out.splitlines()
    again = (connection.PROJECT / "plots" / page.FILE).read_text()
    assert mlflow.artifacts.load_text(f"{batch.info.artifact_uri}/{page.FILE}") == again == html


def test_the_pages_have_the_colours_of_the_plots() -> None:
    css = resources.files("understudy.report").joinpath("templates", "base.css").read_text()
    assert re.findall(r"--family-\d: (#\w+);", css) == plots.COLOURS


LABELS = np.arange(400) % 2
NOISE = np.random.default_rng(0).random(400)


def family(name: str, probabilities: Floats, labels: Labels = LABELS) -> Evaluated:
    scored = Scored(probabilities, 0.5)
    groups = [metrics.slices(labels, scored.called, pd.Series(np.arange(len(labels)) // 100, name="quarter"))]
    costs = {"held out": threshold.curve(TABLE, labels, probabilities)}
    return Evaluated(name, "run", scored, metrics.evaluate(labels, scored), 0.5, {"C": "1"}, costs, pd.concat(groups))


def test_families_that_differ_are_told_apart_and_others_are_not() -> None:
    good, equal = family("good", 0.6 * LABELS + 0.4 * NOISE), family("equal", 0.6 * LABELS + 0.39 * NOISE)
    compared = findings.differences(LABELS, [good, family("noise", NOISE), equal])
    said = findings.told_apart(compared, 400)
    assert said.startswith("On these 400 held-out rows, by AUC, good is better than noise; equal is better than noise")
    assert said.endswith("no other two can be told apart.")
    assert "cannot be told apart" in findings.told_apart({("good", "equal"): compared["good", "equal"]}, 400)
    assert "nothing to tell apart" in findings.told_apart(findings.differences(LABELS, [good]), 400)


def test_differences_are_those_of_the_areas_and_as_uncertain_as_resamples_say() -> None:
    families = [family("good", np.round(0.3 * LABELS + 0.7 * NOISE, 1)), family("noise", NOISE)]
    value, low, high = findings.differences(LABELS, families)["good", "noise"]
    values, draws = metrics.areas(LABELS, [each.scored.probabilities for each in families], 1_000)
    assert value == pytest.approx(values[0] - values[1])
    assert (high - low) / 2 / 1.96 == pytest.approx((draws[0] - draws[1]).std(), rel=0.1)


def test_the_gaps_are_those_of_the_groups_with_enough_rows() -> None:
    slices = pd.DataFrame(
        [("a", "x", 100, 0.9), ("a", "y", 50, 0.7), ("a", "z", 29, 0.0), ("b", 0.0, 30, 0.5), ("b", 1.0, 30, 0.6)],
        columns=["column", "value", "rows", "accuracy"],
    )
    smallest, largest = findings.gaps(slices, "accuracy")
    assert str(smallest) == "b: 0.500 for 0, 0.600 for 1, a gap of 0.100"
    assert str(largest) == "a: 0.700 for y, 0.900 for x, a gap of 0.200"


def test_disputed_rows_are_those_that_only_some_answer_rightly() -> None:
    labels = np.array([1, 1, 0, 0])
    one, other = (
        family(name, np.array(scores), labels)
        for name, scores in (("one", [0.9, 0.6, 0.1, 0.7]), ("other", [0.8, 0.2, 0.9, 0.8]))
    )
    counts, rows = findings.disputed(["a", "b", "c", "d"], labels, [one, other])
    assert counts.tolist() == [[0, 2], [0, 0]]
    assert [(row.row, row.label, row.answers[0][0]) for row in rows] == [("c", 0, True), ("b", 1, True)]


def test_names_are_never_taken_for_html() -> None:
    odd = '<img src=x onerror="alert(1)"> & $1'
    rows = pd.DataFrame({TABLE.row_id: [odd] * 400, TABLE.target.name: np.array(["N", "Y"])[LABELS]})
    families = [family(odd, 0.6 * LABELS + 0.4 * NOISE), family("LogisticRegression", NOISE)]
    html = batch_page.html(TABLE, rows, families, batch_page.Origin({odd: odd}, [odd]))
    assert "<img" not in html
    assert html.count("&lt;img src=x onerror=") > 20
