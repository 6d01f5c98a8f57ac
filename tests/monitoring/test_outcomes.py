"""How good answers were, less how good they were at promotion; and the estimate without labels."""

import numpy as np
import pytest

from understudy.figures import metrics
from understudy.figures.metrics import Floats, Labels, Scored
from understudy.monitoring import outcomes

RNG = np.random.default_rng(0)


def sample(rows: int, skill: float, seed: int) -> tuple[Labels, Scored]:
    """Labels and probabilities, calibrated for a skill of 1."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.5).astype(int)
    logits = 2 * skill * (2 * labels - 1) + 2 * rng.normal(size=rows)
    return labels, Scored(1 / (1 + np.exp(-logits)), 0.5)


def test_the_same_skill_is_not_worse_and_less_skill_is() -> None:
    before = sample(1_000, 1, 0)
    assert outcomes.measure(*sample(400, 1, 1), *before).worse == ()
    worse = outcomes.measure(*sample(400, 0.3, 2), *before)
    assert worse.worse == ("Accuracy", "AUC", "Log loss")
    assert outcomes.measure(*sample(400, 3, 3), *before).worse == ()  # better is not worse


def test_the_change_lies_in_its_interval() -> None:
    now, before = sample(400, 0.6, 1), sample(300, 1, 2)
    measured = outcomes.measure(*now, *before)
    for name, (value, low, high) in measured.change.items():
        assert value == pytest.approx(measured.metrics[name][0] - measured.before[name][0])
        assert low < value < high
    wide, narrow = (metrics.change(now, before, error)[2]["AUC"] for error in (0.01, 0.2))
    assert wide[1] < narrow[1] < narrow[2] < wide[2]


def test_intervals_of_the_change_hold_the_true_change_as_often_as_they_say() -> None:
    seen = [metrics.change(sample(150, 1, n), sample(150, 1, 1_000 + n), 0.1)[2]["Accuracy"] for n in range(200)]
    held = np.mean([low <= 0 <= high for _, low, high in seen])
    assert 0.83 < held < 0.97  # of 200 draws at 0.9


@pytest.mark.parametrize(("rows", "positive"), [(29, 15), (200, 9), (200, 191), (0, 0)])
def test_of_too_few_labels_nothing_is_said(rows: int, positive: int) -> None:
    labels = (np.arange(rows) < positive).astype(int)
    outcome = outcomes.measure(labels, Scored(1.0 - labels, 0.5), *sample(300, 1, 0))
    assert not outcome.is_decided
    assert (outcome.rows, outcome.positive, outcome.worse) == (rows, positive, ())


def drawn_metrics(probabilities: Floats, threshold: float) -> dict[str, float]:
    """The mean of each metric over labels that are drawn with these probabilities."""
    scored, draws = Scored(probabilities, threshold), 2_000
    ones = np.ones((1, len(probabilities)))
    every = []
    for _ in range(draws):
        labels = (RNG.random(len(probabilities)) < probabilities).astype(int)
        every.append({name: float(value[0]) for name, value in metrics.weighted(labels, scored, ones).items()})
    return {name: float(np.mean([each[name] for each in every])) for name in every[0]}


def test_expected_metrics_are_those_of_labels_drawn_with_the_probabilities() -> None:
    probabilities = np.random.default_rng(1).beta(2, 1, 300)
    expected, simulated = metrics.expected(Scored(probabilities, 0.6)), drawn_metrics(probabilities, 0.6)
    by_hand = np.where(probabilities >= 0.6, probabilities, 1 - probabilities).mean()
    assert expected["Accuracy"] == pytest.approx(by_hand)
    for name in outcomes.ESTIMATED:
        assert expected[name] == pytest.approx(simulated[name], abs=0.005)


def test_an_estimate_says_how_far_off_it_was_on_the_held_out_rows() -> None:
    labels, before = sample(2_000, 1, 0)
    estimate = outcomes.estimate(Scored(np.full(50, 0.9), 0.5), labels, before)
    assert estimate.expected == {"Accuracy": pytest.approx(0.9), "AUC": pytest.approx(0.5)}
    assert estimate.true_before["Accuracy"] == pytest.approx((before.called == labels).mean())
    assert estimate.expected_before["Accuracy"] == pytest.approx(estimate.true_before["Accuracy"], abs=0.06)
