"""The numbers against scikit-learn's, and the intervals against what is known of them."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.inspection import permutation_importance

from tests.conftest import SAMPLE
from understudy.families import FAMILIES
from understudy.figures import metrics
from understudy.figures.metrics import Scored
from understudy.reading import table_rows
from understudy.scoring import pipelines
from understudy.table import TABLE
from understudy.training import search

TRAINING, HELD_OUT = TABLE.split(table_rows.read(TABLE, SAMPLE))


@pytest.mark.parametrize("digits", [0, 1, 2, 9])
def test_metrics_are_scikit_learns_also_with_ties(digits: int) -> None:
    rng = np.random.default_rng(digits)
    labels = rng.integers(0, 2, 200)
    probabilities = np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0, 1).round(digits)
    expected = {
        "Accuracy": sklearn_metrics.accuracy_score(labels, probabilities >= 0.5),
        "f1-score": sklearn_metrics.f1_score(labels, probabilities >= 0.5),
        "AUC": sklearn_metrics.roc_auc_score(labels, probabilities),
        "PR AUC": sklearn_metrics.average_precision_score(labels, probabilities),
        "Log loss": sklearn_metrics.log_loss(labels, probabilities),
        "Brier score": sklearn_metrics.brier_score_loss(labels, probabilities),
    }
    intervals = metrics.evaluate(labels, Scored(probabilities, 0.5))
    assert {name: value for name, (value, _, _) in intervals.items()} == pytest.approx(expected, abs=1e-12)
    assert all(low <= value <= high for value, low, high in intervals.values())


def test_resampling_in_parts_gives_the_same_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 2, 100), rng.random(100)
    whole = metrics.evaluate(labels, Scored(probabilities, 0.5))
    monkeypatch.setattr(metrics, "CELLS", 100 * 30)  # 1,000 resamples are no multiple of 30
    in_parts = metrics.evaluate(labels, Scored(probabilities, 0.5))
    for name, interval in whole.items():
        assert in_parts[name] == pytest.approx(interval, abs=1e-12)


def test_the_interval_holds_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    truth = 0.7602  # area under the ROC curve of two normal distributions one standard deviation apart
    hits = 0
    for draw in range(200):
        labels = rng.integers(0, 2, 200)
        scores = 1 / (1 + np.exp(-rng.normal(labels, 1)))
        _, low, high = metrics.evaluate(labels, Scored(scores, 0.5), seed=draw)["AUC"]
        hits += low <= truth <= high
    assert 180 <= hits <= 198


def test_resamples_with_one_class_only_do_not_count() -> None:
    _, low, high = metrics.evaluate(np.array([0, 1, 1]), Scored(np.array([0.1, 0.9, 0.8]), 0.5))["AUC"]
    assert (low, high) == (1, 1)


def test_slices_count_missing_cells_and_leave_empty_rates_open() -> None:
    values = pd.Series([0, 0, 1, None], name="Credit_History")
    slices = metrics.slices(np.array([1, 1, 0, 1]), np.array([True, False, True, True]), values).set_index("value")
    assert slices["rows"].to_dict() == {0.0: 2, 1.0: 1, "missing": 1}
    assert slices["positive rate"].to_dict() == {0.0: 0.5, 1.0: 1.0, "missing": 1.0}
    assert slices["ratio"].to_dict() == {0.0: 1.0, 1.0: 2.0, "missing": 2.0}
    first = slices.iloc[0]
    assert np.isnan(first["false positive rate"])
    low, high = first["positive rate low"], first["positive rate high"]
    assert (low, high) == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_importance_is_what_scikit_learn_finds() -> None:
    searched = search.search(TABLE, TRAINING, FAMILIES["LogisticRegression"], {}, seed=0, jobs=1)
    rows = HELD_OUT[[column.name for column in TABLE.columns]]

    def score(rows: pd.DataFrame) -> metrics.Floats:
        return pipelines.positive(searched.pipeline, rows, TABLE)

    losses = metrics.importance(score, rows, TABLE.labels(HELD_OUT), repeats=30)
    expected = permutation_importance(
        searched.pipeline, rows, HELD_OUT[TABLE.target.name], scoring="roc_auc", n_repeats=30, random_state=0
    )
    assert losses.shape == (30, len(rows.columns))
    assert losses.mean().to_numpy() == pytest.approx(expected.importances_mean, abs=0.01)
    assert losses.std(ddof=0).to_numpy() == pytest.approx(expected.importances_std, abs=0.01)
