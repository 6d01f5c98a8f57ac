import json
import math
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import log_loss, roc_auc_score

from understudy.figures import metrics, plots
from understudy.figures.metrics import Floats, Labels
from understudy.gate import checks, decision
from understudy.gate.checks import Check, Rule
from understudy.gate.decision import Answers, Challenger, Decision, Evidence, Terms
from understudy.schema.declaration import Limits, Table
from understudy.table import TABLE

LIMITS = Limits()
ONES = np.ones(5, dtype=int)


def drawn(rows: int, areas: tuple[float, ...], seed: int = 0) -> tuple[Labels, list[Floats]]:
    """Labels, and probabilities of models with these areas under the ROC curve; their scores have much in common."""
    rng = np.random.default_rng(seed)
    labels, shared = (rng.random(rows) < 0.69).astype(int), rng.normal(size=rows)
    distances = [np.sqrt(2) * stats.norm.ppf(area) for area in areas]
    scores = [0.9 * shared + 0.44 * rng.normal(size=rows) + distance * labels for distance in distances]
    return labels, [1 / (1 + np.exp(-score)) for score in scores]


def answers(probabilities: Floats) -> Answers:
    return Answers(probabilities, (probabilities > 0.5).astype(int))


def challenger(probabilities: Floats, **changed: Any) -> Challenger:
    scored = answers(probabilities)
    return Challenger(
        **{"answers": scored, "served": scored, "breaks": (), "milliseconds": 30.0, "megabytes": 2.0, **changed}
    )


def decided(labels: Labels, mine: Floats, champion: Floats | None, **options: Any) -> Decision:
    groups, seed = options.pop("groups", pd.DataFrame(index=range(len(labels)))), options.pop("seed", 0)
    others = [answers(each) for each in (champion, *options.pop("earlier", ())) if each is not None]
    asked, live = challenger(mine), options.pop("live", None)
    held_out = Evidence(labels, asked.answers, others, groups)
    return decision.production(asked, held_out, Terms(LIMITS, **options), live, seed)


def why(outcome: Check | Decision) -> str:
    """Why a check failed, or a decision is a refusal."""
    text = outcome.note if isinstance(outcome, Check) else outcome.why
    assert text is not None
    return text


def compared(value: float, half: float, rule: Rule, attempt: int = 1) -> Check:
    """By draws after which the bounds of a first attempt on 184 rows, half of them positive, lie `half` away."""
    draws = value + half / stats.t.ppf(0.975, 91) * np.array([-1, 1]) / np.sqrt(2)
    return checks.difference(value, draws, rule, 0.05, np.arange(184) % 2, attempt)


def test_the_areas_are_scikit_learns_also_in_resamples_and_with_ties() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, 60), rng.random(60).round(1)
    weights = rng.integers(0, 3, (20, 60)).astype(float)
    for weight, area in zip(weights, metrics.area(labels, scores, weights), strict=True):
        assert area == pytest.approx(roc_auc_score(labels, scores, sample_weight=weight), abs=1e-12)
    [value], draws = metrics.areas(labels, [scores], 50)
    assert value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert draws.shape == (1, 50)


def test_two_models_are_measured_on_the_same_resamples() -> None:
    labels, [probabilities] = drawn(100, (0.7,))
    _, (mine, same, reversed_) = metrics.areas(labels, [probabilities, probabilities**3, -probabilities], 50)
    assert np.array_equal(mine, same)
    assert mine == pytest.approx(1 - reversed_, abs=1e-12)
    assert mine.std() > 0


def test_equal_areas_differ_by_nothing_at_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        labels = np.append(rng.integers(0, 2, 31), [0, 1])
        scores = rng.random(33).round(1)
        # Another order of the same pairs: labels and ranks both reversed.
        values = [metrics.area(labels, scores, np.ones((1, 33))), metrics.area(1 - labels, -scores, np.ones((1, 33)))]
        assert values[0] == values[1]


def test_2000_resamples_of_1000_rows_take_less_than_a_second_of_a_core() -> None:
    labels, scores = drawn(1_000, (0.7, 0.7))
    took = []
    for _ in range(3):
        started = time.process_time()
        metrics.areas(labels, scores, decision.RESAMPLES)
        took.append(time.process_time() - started)
    assert min(took) < 1


def test_the_floor_is_passed_by_a_model_and_not_by_a_constant() -> None:
    labels, [good] = drawn(184, (0.75,))
    assert decided(labels, good, None).allowed
    refused = decided(labels, np.full(184, 0.7), None)
    assert refused.why == "ROC AUC is 0.500, not above 0.500, and more rows like these would not help"
    assert (refused.checks[0].value, refused.checks[0].low, refused.checks[0].high) == (0.5, 0.5, 0.5)


def test_without_a_champion_only_what_needs_none_is_asked() -> None:
    labels, [good] = drawn(184, (0.75,))
    outcome = decided(labels, good, None, groups=pd.DataFrame({"g": ["a"] * 184}))
    assert [check.name for check in outcome.checks] == [
        "ROC AUC",
        "breaks of the contract",
        "probabilities apart when served",
        "labels apart when served",
        "milliseconds for one row",
        "megabytes of files",
    ]
    assert (outcome.slices, outcome.draws) == ((), ())


@pytest.mark.parametrize(
    ("rule", "value", "half", "passed"),
    [
        ("better", 0.05, 0.04, True),
        ("better", 0.05, 0.06, False),
        ("better", 0.0, 0.0, False),
        ("not-worse", 0.0, 0.04, True),
        ("not-worse", 0.0, 0.06, False),
        ("not-worse", -0.02, 0.021, True),
        ("not-worse", -0.05, 0.0, False),
        ("not-worse", 0.0, 0.0, True),
        ("point", 0.0, 0.2, True),
        ("point", -0.001, 0.0, False),
    ],
)
def test_each_rule_passes_and_fails(rule: Rule, value: float, half: float, passed: bool) -> None:
    check = compared(value, half, rule)
    assert check.passed == passed
    assert (check.low, check.high) == pytest.approx((value - half, value + half))
    assert bool(check.note) != passed


def test_too_few_rows_are_told_from_a_challenger_that_is_worse() -> None:
    unsure = compared(0.01, 0.12, "not-worse").note
    # The half-width is 0.12 on 184 rows and has to be 0.06: four times the rows.
    assert unsure == (
        "too few rows to tell whether ROC AUC less champion's is above -0.050: 184 were held out, "
        "about 740 would do if it stays at 0.010"
    )
    worse = compared(-0.06, 0.12, "not-worse").note
    assert worse == "ROC AUC less champion's is -0.060, not above -0.050, and more rows like these would not help"
    assert compared(-0.06, 0.12, "point").note == "ROC AUC less champion's is -0.060"
    assert "about 1,000,000,000 would do" in why(compared(1e-12, 0.12, "better"))


def test_a_challenger_that_is_worse_within_the_margin_passes_and_this_is_said() -> None:
    worse, unsure = compared(-0.022, 0.021, "not-worse"), compared(-0.02, 0.022, "not-worse")
    assert (worse.passed, unsure.passed, unsure.note) == (True, True, None)
    decided = Decision((worse, unsure))
    assert (decided.allowed, decided.why) == (True, None)
    *table, note = str(decided).splitlines()
    assert table == [line.rstrip() for line in decided.table().to_string(index=False).splitlines()]
    assert note == "note: the challenger is worse than the champion, though within the margin of 0.050"


def test_as_many_rows_as_it_says_would_do() -> None:
    labels, scores = drawn(150, (0.76, 0.70), seed=9)
    check = decided(labels, *scores, rule="better").checks[1]
    times = math.ceil(int(why(check).split("about ")[1].split()[0].replace(",", "")) / 150)
    for copies, passed in ((times, True), (times - 1, False)):
        more = [np.tile(array, copies) for array in (labels, *scores)]
        assert decided(*more, rule="better").checks[1].passed == passed


def test_a_champion_that_asks_again_is_not_worse_and_not_better() -> None:
    labels, [good] = drawn(184, (0.75,))
    assert decided(labels, good, good).allowed
    assert decided(labels, good, good, rule="point").allowed
    assert why(decided(labels, good, good, rule="better")).startswith(
        "ROC AUC less champion's is 0.000, not above 0.000"
    )


def test_a_clearly_better_one_takes_over_and_a_clearly_worse_one_does_not() -> None:
    labels, [bad, good] = drawn(300, (0.60, 0.85))
    for rule in ("better", "not-worse", "point"):
        assert decided(labels, good, bad, rule=rule).allowed
        assert not decided(labels, bad, good, rule=rule).allowed


def test_all_attempts_together_spend_no_more_than_there_is() -> None:
    spent = [checks.share(attempt) for attempt in range(1, 1_000)]
    assert spent[0] == 0.025
    assert sum(spent) < checks.SPENT
    for attempt in (1, 2, 20):
        assert sum(spent[:attempt]) + checks.SPENT / (attempt + 1) == pytest.approx(checks.SPENT)


def test_a_later_attempt_has_to_show_more() -> None:
    first, second, twentieth = (compared(0.05, 0.045, "better", attempt) for attempt in (1, 2, 20))
    assert (first.passed, second.passed, twentieth.passed) == (True, False, False)
    assert (twentieth.low or 0) < (second.low or 0) < (first.low or 0)
    labels, [good, champion] = drawn(1_000, (0.78, 0.74), seed=1)
    assert decided(labels, good, champion, rule="better").allowed
    late = decided(labels, good, champion, rule="better", attempt=1_000_000)
    assert (late.allowed, late.checks[2].value) == (False, 1_000_000)


def test_the_margin_counts_from_every_champion_since_one_was_better() -> None:
    labels, [worse, champion, first] = drawn(3_000, (0.66, 0.69, 0.73))
    assert decided(labels, worse, champion).allowed
    refused = decided(labels, worse, champion, earlier=(champion, first))
    assert "ROC AUC less earlier champion's" in why(refused)
    assert decided(labels, worse, champion, earlier=(champion,)).allowed
    assert not decided(labels, champion, champion, earlier=(first,), losses=10**9).allowed


def test_mcnemar_is_the_value_worked_by_hand_and_decides_nothing() -> None:
    # Right alone: 1 row and 5 rows. Twice the chance of at most 1 of 6: 2 * (1 + 6) / 64.
    labels = np.ones(20, dtype=int)
    mine, champions = np.ones(20, dtype=int), np.ones(20, dtype=int)
    champions[0], mine[1:6] = 0, 0
    check = checks.mcnemar(labels, mine, champions)
    assert check.value == pytest.approx(14 / 64)
    assert (check.name, check.passed) == ("McNemar's p, 1 rows won, 5 lost", None)
    assert checks.mcnemar(labels, mine, mine).value == 1
    assert checks.mcnemar(labels, labels, 1 - labels).value < 1e-5
    assert Decision((checks.mcnemar(labels, 1 - labels, labels),)).allowed


def sliced(worse: float, rows: int = 40, margin: float = 0.05, noise: float = 0.05) -> list[Check]:
    """Two slices, of which the first has a challenger whose log loss is higher by `worse`."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 2 * rows)
    group = np.repeat(["a", "b"], rows)
    sure = np.full(2 * rows, 0.3)
    losses = np.log(sure) - np.where(group == "a", worse, 0) + noise * rng.normal(size=2 * rows)
    mine, champions = (np.where(labels == 1, right, 1 - right) for right in (np.exp(losses), sure))
    return checks.slices(labels, mine, champions, pd.DataFrame({"group": group}), margin)


def test_a_slice_fails_if_it_is_worse_by_more_than_the_margin_and_not_by_chance() -> None:
    first, second = sliced(0.2)
    assert (first.passed, second.passed) == (False, True)
    assert first.name == "log loss less champion's, group a, 40 rows"
    assert why(first).startswith("log loss on group a is 0.185 above")
    assert all(check.passed for check in sliced(0.2, margin=0.3))
    assert all(check.passed for check in sliced(0.3, noise=0.5))
    assert all(check.passed for check in sliced(-0.2))


def test_slices_of_fewer_than_30_rows_are_not_looked_at() -> None:
    assert (len(sliced(0.2, rows=29)), len(sliced(0.2, rows=30))) == (0, 2)


def test_a_slices_figures_are_a_paired_means_and_hold_together() -> None:
    labels, (mine, champions) = drawn(100, (0.6, 0.7))
    groups = pd.DataFrame({"x": np.repeat(["a", "b"], 50), "y": [1.0] * 60 + [np.nan] * 40})
    slices = {check.name: check for check in checks.slices(labels, mine, champions, groups, 0.05)}
    assert {name.split(", ")[1] for name in slices} == {"x a", "x b", "y 1", "y missing"}
    check = slices["log loss less champion's, x a, 50 rows"]
    whole = [log_loss(labels[:50], probabilities[:50]) for probabilities in (mine, champions)]
    assert check.value == pytest.approx(whole[0] - whole[1])
    losses = metrics.log_losses(labels, mine)[:50] - metrics.log_losses(labels, champions)[:50]
    expected = stats.ttest_1samp(losses, 0).confidence_interval(1 - 0.05 / 4)
    assert (check.low, check.high) == pytest.approx((expected.low, expected.high))


def test_the_worst_slice_is_printed_and_all_that_fail() -> None:
    lows = (0.2, 0.1, -0.1)
    slices = tuple(Check(f"slice {low}", low, "", low <= 0, low, low, "worse") for low in lows)
    assert Decision((), slices).table()["check"].tolist() == ["slice 0.2", "slice 0.1"]
    assert Decision((), slices[2:] * 2).table()["check"].tolist() == ["slice -0.1"]
    first, second = sliced(-0.2)  # the second slice is the worse one here
    assert first.value > second.value


def test_a_broken_contract_is_refused_unless_it_is_waived() -> None:
    asks = challenger(np.full(5, 0.7), breaks=("Gender: may not be missing any more", "Age: is asked for"))
    refused, waived = decision.staging(asks, Terms(LIMITS)), decision.staging(asks, Terms(LIMITS, breaking=True))
    note = "it breaks what rows may be (Gender: may not be missing any more, Age: is asked for)"
    assert (refused.allowed, refused.why) == (False, note)
    assert (waived.allowed, waived.why, waived.checks[0].limit) == (True, None, "waived by --breaking")
    assert str(waived).endswith(f"\nnote: {note}")
    assert "note: " not in str(refused)
    assert decision.staging(challenger(np.full(5, 0.7)), Terms(LIMITS)).allowed


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"served": Answers(np.full(5, 0.7 + 2e-6), ONES)}, "probabilities apart when served: 2e-06, not at"),
        ({"served": Answers(np.full(5, 0.7), 0 * ONES)}, "labels apart when served: 5, not at most 0"),
        (
            {"served": Answers(np.full(5, np.nan), ONES)},
            "probabilities apart when served: nan, not at most 1e-06",
        ),
        ({"milliseconds": 301.0}, "milliseconds for one row: 301.000, not at most 300"),
        ({"milliseconds": float("nan")}, "milliseconds for one row: nan, not at most 300"),
        ({"megabytes": 200.1}, "megabytes of files: 200.100, not at most 200"),
    ],
)
def test_what_is_served_otherwise_or_costs_too_much_is_refused(changed: dict[str, Any], named: str) -> None:
    outcome = decision.staging(challenger(np.full(5, 0.7), **changed), Terms(LIMITS))
    assert why(outcome).startswith(named)
    assert len([check for check in outcome.checks if not check.passed]) == 1
    json.dumps(outcome.as_dict(), allow_nan=False)


def test_what_staging_refuses_production_refuses_too() -> None:
    labels, [good] = drawn(184, (0.75,))
    asks = challenger(good, milliseconds=301.0)
    outcome = decision.production(asks, Evidence(labels, asks.answers, [], {}), Terms(LIMITS))
    assert outcome.why == decision.staging(asks, Terms(LIMITS)).why
    near = challenger(good, served=Answers(good + 9e-7, answers(good).labels), milliseconds=300.0, megabytes=200.0)
    assert decision.staging(near, Terms(LIMITS)).allowed


@pytest.mark.parametrize("labels", [np.ones(40, dtype=int), np.zeros(0, dtype=int)])
def test_rows_that_say_nothing_of_one_class_refuse(labels: Labels) -> None:
    same = np.full(len(labels), 0.7)
    outcome = decided(labels, same, same)
    assert why(outcome).startswith(f"the {len(labels)} held-out rows do not have both labels")
    json.dumps(outcome.as_dict(), allow_nan=False)


def test_resamples_of_one_class_only_are_left_out() -> None:
    _, draws = metrics.areas(np.array([0, 1]), [np.array([0.1, 0.9])], 200)
    assert 50 < draws.shape[1] < 150
    assert (draws == 1).all()


def test_a_decision_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    labels, scores = drawn(184, (0.72, 0.70))
    groups = pd.DataFrame({"g": np.resize(["a", "b"], 184)})
    first, same, other = (decided(labels, *scores, groups=groups, seed=seed) for seed in (7, 7, 8))
    assert first == same
    assert first.as_dict() == same.as_dict()
    assert first.draws != other.draws
    assert first.checks[1].value == other.checks[1].value


def test_a_decision_reads_as_a_short_table_and_as_finite_json() -> None:
    labels, scores = drawn(184, (0.60, 0.75))
    outcome = decided(labels, *scores, groups=pd.DataFrame({"g": np.resize(["a", "b"], 184)}))
    table = outcome.table()
    assert list(table.columns) == ["check", "value", "interval", "limit", "result"]
    assert table["limit"].tolist()[:3] == [
        "interval above 0.500",
        "interval above -0.050",
        "2.50% of error spent, 2.50% left",
    ]
    assert table["result"].tolist()[1:5] == ["fail", "", "", "pass"]
    assert max(map(len, str(outcome).splitlines())) <= 140
    read = json.loads(json.dumps(outcome.as_dict(), allow_nan=False))
    assert (read["allowed"], read["why"]) == (False, outcome.why)
    assert len(read["checks"]) == len(outcome.checks) + 2
    assert len(outcome.draws) == decision.RESAMPLES


def test_what_the_draws_look_like_is_drawn() -> None:
    labels, scores = drawn(184, (0.72, 0.70))
    outcome = decided(labels, *scores)
    for rule in ("better", "not-worse"):
        check = compared(0.02, 0.05, rule)
        interval = (check.value, check.low or 0, check.high or 0)
        limit = checks.least_difference(rule, 0.05)
        figure = plots.differences(outcome.draws, interval, limit, "version 2 less version 1")
        figure.canvas.draw()
        labelled = figure.axes[0].get_legend_handles_labels()[1]
        starts = [np.ravel(line.get_xdata())[0] for line in figure.axes[0].lines]
        assert starts == pytest.approx([limit, 0, -0.03])
        assert labelled == [f"limit {limit:.3f}", "no difference", "0.020 (-0.030 to 0.070)"]


def test_a_table_saved_before_there_were_limits_has_the_defaults() -> None:
    old = object.__new__(Table)
    old.__dict__.update({name: value for name, value in vars(TABLE).items() if name != "limits"})
    assert old.limits == Limits()


def live(labels: Labels, *scores: Floats) -> Evidence:
    """Live rows that the challenger and the champion have answered with these scores."""
    mine, champion = map(answers, scores)
    return Evidence(labels, mine, [champion], {}, is_live=True)


def test_of_live_and_held_out_rows_one_kind_decides_and_the_other_is_shown() -> None:
    labels, [bad, good] = drawn(184, (0.55, 0.80), seed=1)
    true, scores = drawn(600, (0.80, 0.55), seed=2)
    traffic = live(true, *scores)
    refused, allowed = decided(labels, bad, good), decided(labels, bad, good, live=traffic)
    assert (refused.allowed, allowed.allowed) == (False, True)
    shown = {check.name: (check.limit, check.passed, check.note) for check in allowed.checks}
    assert shown["ROC AUC less champion's"] == ("none", None, None)
    assert shown["live ROC AUC less champion's"] == ("interval above -0.050", True, None)
    assert [check.name for check in allowed.checks].count(checks.ATTEMPT) == 1
    few = decided(labels, bad, good, live=live(true[:40], *(score[:40] for score in scores)))
    assert (few.why, few.draws) == (refused.why, refused.draws)
    assert [check.passed for check in few.checks if check.name.startswith("live ")] == [None, None, None]


@pytest.mark.parametrize(
    ("held_out", "rows", "enough"), [(57, 57, True), (57, 56, False), (900, 200, True), (0, 0, False)]
)
def test_live_rows_are_enough_by_the_count_of_the_rarer_label(held_out: int, rows: int, enough: bool) -> None:
    def counted(rarer: int) -> Evidence:
        labels = (np.arange(2_000) >= rarer).astype(int)
        return Evidence(labels, answers(labels * 0.5), [], {})

    assert decision.are_enough(counted(rows), counted(held_out)) == enough


def test_the_margin_from_earlier_champions_counts_on_held_out_rows_also_where_live_rows_decide() -> None:
    labels, [worse, champion, first] = drawn(3_000, (0.66, 0.69, 0.73))
    traffic = live(labels, champion, worse)
    assert decided(labels, worse, champion, live=traffic).allowed
    refused = decided(labels, worse, champion, earlier=(first,), live=traffic, losses=4)
    assert why(refused).startswith("ROC AUC less earlier champion's is")
    [price] = [check for check in refused.checks if check.name == checks.LOSSES]
    assert (price.value, price.limit) == (4, "0.25% of error spent, 1.00% left")


def test_a_slice_of_live_rows_refuses_only_where_they_decide() -> None:
    labels, [good] = drawn(400, (0.8,))
    spoilt = np.where(np.arange(400) < 100, 0.5, good)
    groups = pd.DataFrame({"g": ["a"] * 100 + ["b"] * 300})
    traffic = Evidence(labels, answers(spoilt), [answers(good)], groups, is_live=True)
    refused = decided(labels, good, good, live=traffic)
    assert "live log loss on g a is" in why(refused)
    more, scores = np.tile(labels, 5), np.tile(good, 5)
    assert decided(more, scores, scores, live=traffic).why is None
    assert [check.name[:4] for check in refused.slices] == ["live", "live"]
