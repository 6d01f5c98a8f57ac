"""The threshold against what counting by hand says."""

from dataclasses import replace

import numpy as np
import pytest

from understudy.figures.metrics import Floats, Labels
from understudy.schema.declaration import Table
from understudy.table import TABLE
from understudy.training import threshold

DEAR_POSITIVES = replace(TABLE, false_positive_cost=3, false_negative_cost=1)


def drawn(n: int, seed: int = 0) -> tuple[Labels, Floats]:
    """Labels and the exact probabilities that they come from."""
    rng = np.random.default_rng(seed)
    probabilities = rng.uniform(size=n)
    return (rng.uniform(size=n) < probabilities).astype(int), probabilities


def test_the_curve_counts_and_weighs_wrong_answers() -> None:
    labels, probabilities = drawn(200)
    curve = threshold.curve(DEAR_POSITIVES, labels, probabilities)
    assert len(curve) == 99
    for _, row in curve.iterrows():
        called = probabilities >= row["threshold"]
        assert row["false positives"] == pytest.approx(np.mean(called & (labels == 0)))
        assert row["false negatives"] == pytest.approx(np.mean(~called & (labels == 1)))
        assert row["cost"] == pytest.approx(3 * row["false positives"] + row["false negatives"])


def test_the_break_even_is_on_the_curve_however_odd_the_costs() -> None:
    odd = replace(TABLE, false_positive_cost=1, false_negative_cost=700)
    curve = threshold.curve(odd, *drawn(50))
    assert odd.break_even in curve["threshold"].to_numpy()
    assert len(curve) == 100


def test_the_error_is_that_of_the_paired_difference_from_the_cheapest() -> None:
    labels, probabilities = drawn(200)
    curve = threshold.curve(TABLE, labels, probabilities)
    cheapest = curve.iloc[curve["cost"].argmin()]
    assert cheapest["error"] == 0
    wrong = [(probabilities >= at) != labels for at in (0.9, cheapest["threshold"])]
    difference = wrong[0].astype(int) - wrong[1]
    assert curve.loc[89, "error"] == pytest.approx(difference.std() / np.sqrt(200))


@pytest.mark.parametrize("table", [TABLE, DEAR_POSITIVES])
def test_exact_probabilities_keep_the_break_even(table: Table) -> None:
    chosen = [threshold.choose(table, threshold.curve(table, *drawn(400, seed))) for seed in range(40)]
    assert np.mean(np.abs(np.array(chosen) - table.break_even) <= 0.1) >= 0.9


def test_probabilities_that_are_all_too_high_move_it() -> None:
    labels, probabilities = drawn(2_000)
    assert threshold.choose(TABLE, threshold.curve(TABLE, labels, probabilities**0.25)) == pytest.approx(0.84, abs=0.04)


def test_a_constant_probability_is_called_for_every_row_or_for_none() -> None:
    labels = np.array([0, 1, 1])
    curve = threshold.curve(TABLE, labels, np.full(3, 0.7))
    assert threshold.choose(TABLE, curve) == 0.5
    assert set(curve["cost"].round(3)) == {0.333, 0.667}
