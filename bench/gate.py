"""How often the gate errs, by simulations in which the truth is known, and how long it takes.

python -m bench.gate                half an hour and more on two cores; each line is printed as it is ready
python -m bench.gate --times 2000   for smaller standard errors

Scores are binormal: normal within each label, with variance 1 and the correlation below within each label (over all
rows it is about 0.73), and means so far apart that the true area under the ROC curve is the one wanted.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import special, stats

from understudy.figures import metrics
from understudy.figures.metrics import Floats, Labels
from understudy.gate import checks, decision, live
from understudy.gate.checks import Rule
from understudy.gate.decision import Answers
from understudy.gate.live import LiveRows
from understudy.schema.declaration import Limits

POSITIVE, AREA, CORRELATION = 0.69, 0.70, 0.7
ROWS = (184, 1_000)
IN_A_ROW = 20
ATTEMPTS = (1, 2, 5, 20)
FEWER = 400  # resamples, where one simulation takes many comparisons; the first table says what that changes
LABELLED, DRAWN = 1_000, 4_000  # live rows that count, and that both versions have answered
CHOSEN = 0.6  # the share of rows that the champion chooses, such as loans that it grants
COUNTING = {
    "all": "all, if all had one",
    "champion": "those that the champion chose",
    "both answers": "those that both would choose",
    "both": "the same, each as often (the gate)",
}
PASSES: tuple[Rule, Rule, Rule] = ("better", "not-worse", "better")
# Shares of the values of seven columns, as a table of loans has them.
COLUMNS = [
    (0.18, 0.80, 0.02),
    (0.35, 0.65),
    (0.56, 0.17, 0.16, 0.08, 0.03),
    (0.78, 0.22),
    (0.81, 0.14, 0.05),
    (0.77, 0.15, 0.08),
    (0.29, 0.38, 0.33),
]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", default=300, type=int, help="simulations of a line (default: 300)")
    return parser


def main() -> None:
    times = options().parse_args().times
    speed()
    families(times)
    one_holdout(times)
    later_attempts(times)
    small_losses(times)
    groups(times)
    selective_labels(times)
    growing_log(times)


def speed() -> None:
    labels, (champion, challenger) = drawn(np.random.default_rng(0), 1_000, 0.0)
    started = time.perf_counter()
    metrics.areas(labels, [challenger, champion], decision.RESAMPLES)
    print(f"{decision.RESAMPLES:,} resamples of 1,000 rows: {time.perf_counter() - started:.2f} s")


def families(times: int) -> None:
    print(f"\n1. How often a challenger passes, in per cent of {times} simulations, with its standard error")
    print("   (fewer: `better` by the first 400 resamples; unsure: too few rows)")
    verdicts = ["better", "fewer", "not-worse", "unsure", "point"]
    print(f"{'rows':>6} {'better by':>10}" + "".join(f"{name:>14}" for name in verdicts))
    for rows in ROWS:
        for better in (-0.10, -0.05, 0.0, 0.05):
            trials = simulated(times, one_challenger, rows, better)
            line = "".join(f"{shares(trials, name):>14}" for name in verdicts)
            print(f"{rows:>6} {better:>+10.2f}{line}", flush=True)


def one_holdout(times: int) -> None:
    print(f"\n2. {IN_A_ROW} challengers in a row on the same held-out rows, each no better, by `better`")
    for rows in ROWS:
        for priced in (True, False):
            chains = simulated(times, in_a_row, rows, "better", 0.0, priced)
            how = "each attempt has its price" if priced else "each is taken for the first"
            print(f"{rows:>6} rows, {how}: {summary(chains)}", flush=True)


def later_attempts(times: int) -> None:
    print("\n3. What the price costs: how often one that is better by 0.05 passes `better`, in per cent")
    for rows in ROWS:
        trials = simulated(times, one_challenger, rows, 0.05)
        by_attempt = ", ".join(f"attempt {attempt} {shares(trials, f'attempt {attempt}')}" for attempt in ATTEMPTS)
        print(f"{rows:>6} rows: {by_attempt}", flush=True)


def small_losses(times: int) -> None:
    print(f"\n4. {IN_A_ROW} on rows of their own, each worse by 0.02 than the champion then, by `not-worse`")
    for rows in ROWS:
        for counted in (True, False):
            chains = simulated(times, in_a_row, rows, "not-worse", -0.02, counted, True)
            held = shares(chains.assign(held=chains["area"] >= AREA - Limits().margin), "held")
            how = "from all champions since" if counted else "from the champion of the day"
            print(f"{rows:>6} rows, {how}: {summary(chains)}, at most the margin below {AREA} in {held} %", flush=True)


def groups(times: int) -> None:
    print("\n5. How often slices refuse a challenger, in per cent, and how often with an interval of its own for each")
    for rows in ROWS:
        for spoilt in (False, True):
            trials = simulated(times, sliced, rows, spoilt)
            kind = "one that says 0.5 to a slice of 38 % of rows" if spoilt else "one as good as the champion"
            refused = f"{shares(trials, 'refused')}, alone {shares(trials, 'alone')}"
            print(f"{rows:>6} rows, {trials['slices'].mean():.0f} slices, {kind}: {refused}", flush=True)


def selective_labels(times: int) -> None:
    print(
        f"\n6. {LABELLED:,} live rows with a label, of which the champion has chosen {CHOSEN:.0%}: how often one passes"
    )
    heads = f"{'it chooses':>11} {'equal: better':>14} {'worse: not-worse':>17} {'better: better':>15}"
    print(f"{'rows that count':>36} {heads}")
    for count, called in COUNTING.items():
        for chooses in (CHOSEN, 0.9) if count.startswith("both") else (CHOSEN,):
            trials = [simulated(times, chosen, better, chooses, count) for better in (0.0, -0.05, 0.05)]
            equal, worse, good = (shares(of, rule) for of, rule in zip(trials, PASSES, strict=True))
            print(f"{called:>36} {chooses:>11.0%} {equal:>14} {worse:>17} {good:>15}", flush=True)


def growing_log(times: int) -> None:
    print("\n7. One no better, asked by `better` again and again while the log grows from 200 rows, until it passes")
    for factor, looks in ((1.5, 8), (2.1, 6)):
        for priced in (True, False):
            passed = shares(simulated(times, asked_again, factor, looks, priced), "passed")
            how = "each question has its price" if priced else "each is taken for the first"
            print(f"{looks} times, {factor} times the rows each, {how}: {passed} % pass", flush=True)


def simulated(times: int, simulation: Callable[..., dict[str, float]], *arguments: Any) -> pd.DataFrame:
    """A row for each simulation; each has a seed of its own."""
    tasks = (delayed(simulation)(np.random.default_rng(seed), *arguments) for seed in range(times))
    return pd.DataFrame(Parallel(n_jobs=-1)(tasks))


def shares(trials: pd.DataFrame, name: str) -> str:
    share = trials[name].mean()
    return f"{100 * share:.1f} ({100 * math.sqrt(share * (1 - share) / len(trials)):.1f})"


def summary(chains: pd.DataFrame) -> str:
    return (
        f"{shares(chains.assign(any=chains['passed'] > 0), 'any')} % pass at least one, "
        f"{100 * chains['passed'].mean() / IN_A_ROW:.1f} % of all pass, the last champion's true area is "
        f"{chains['area'].mean():.3f}"
    )


def drawn(rng: np.random.Generator, rows: int, better: float) -> tuple[Labels, tuple[Floats, Floats]]:
    """Labels, and the scores of a champion and of a challenger."""
    labels = (rng.random(rows) < POSITIVE).astype(int)
    noise = rng.normal(size=rows)
    return labels, (noise + apart(AREA) * labels, like(rng, noise) + apart(AREA + better) * labels)


def apart(area: float) -> float:
    """The distance between the means of two normal distributions of variance 1 with this area."""
    return float(math.sqrt(2) * special.ndtri(area))


def like(rng: np.random.Generator, noise: Floats) -> Floats:
    return CORRELATION * noise + math.sqrt(1 - CORRELATION**2) * rng.normal(size=len(noise))


def one_challenger(rng: np.random.Generator, rows: int, better: float) -> dict[str, float]:
    """By each rule, whether a challenger passes."""
    labels, (champion, challenger) = drawn(rng, rows, better)
    value, draws = difference(rng, labels, challenger, champion, decision.RESAMPLES)
    compared = {rule: checks.difference(value, draws, rule, Limits().margin, labels) for rule in get_args(Rule)}
    later = {n: checks.difference(value, draws, "better", Limits().margin, labels, n) for n in ATTEMPTS}
    return {
        **{rule: bool(check.passed) for rule, check in compared.items()},
        **{f"attempt {n}": bool(check.passed) for n, check in later.items()},
        "fewer": bool(checks.difference(value, draws[:FEWER], "better", Limits().margin, labels).passed),
        "unsure": (compared["not-worse"].note or "").startswith("too few"),
    }


def difference(
    rng: np.random.Generator, labels: Labels, challenger: Floats, champion: Floats, resamples: int
) -> tuple[float, Floats]:
    # One seed for all would make its luck that of every simulation.
    areas, draws = metrics.areas(labels, [challenger, champion], resamples, int(rng.integers(2**32)))
    return areas[0] - areas[1], draws[0] - draws[1]


def in_a_row(
    rng: np.random.Generator, rows: int, rule: Rule, better: float, counted: bool, fresh: bool = False
) -> dict[str, float]:
    """How many challengers pass one after the other, and the true area of the champion after them.

    Args:
        rng: Of the rows and the scores.
        rows: How many are held out.
        rule: By which they are compared.
        better: How much better each challenger is than the champion that it meets.
        counted: Whether attempts are counted, and losses from all champions on; else each one is taken for the first.
        fresh: Whether each challenger meets rows of its own.
    """
    areas, passed = [AREA], 0  # of the champions, the first one first
    labels, noises = _rows(rng, rows, areas)
    for number in range(1, IN_A_ROW + 1):
        if fresh:
            labels, noises = _rows(rng, rows, areas)
        mine, worth = like(rng, noises[-1]), max(0.5, areas[-1] + better)
        scores = [noise + apart(area) * labels for noise, area in zip(noises, areas, strict=True)]
        attempt = number if counted and not fresh else 1  # new rows bring a new budget
        compared = [_checked(rng, labels, mine + apart(worth) * labels, scores[-1], rule, attempt)]
        if counted and rule == "not-worse":
            compared += [
                _checked(rng, labels, mine + apart(worth) * labels, earlier, rule, number) for earlier in scores[:-1]
            ]
        if all(compared):
            passed += 1
            areas, noises = [*areas, worth], [*noises, mine]
    return {"passed": passed, "area": areas[-1]}


def _rows(rng: np.random.Generator, rows: int, areas: Sequence[float]) -> tuple[Labels, list[Floats]]:
    """New rows, and what champions that came one from the other make of them."""
    noises = [rng.normal(size=rows)]
    for _ in areas[1:]:
        noises.append(like(rng, noises[-1]))
    return (rng.random(rows) < POSITIVE).astype(int), noises


def _checked(rng: np.random.Generator, labels: Labels, mine: Floats, other: Floats, rule: Rule, attempt: int) -> bool:
    value, draws = difference(rng, labels, mine, other, FEWER)
    return bool(checks.difference(value, draws, rule, Limits().margin, labels, attempt).passed)


def chosen(rng: np.random.Generator, better: float, chooses: float, count: str) -> dict[str, float]:
    """By each rule, whether a challenger passes on live rows of which labels come to light where the champion chose.

    Args:
        rng: Of the rows and the scores.
        better: How much better the challenger is.
        chooses: The share of rows that it would choose.
        count: Which rows count: see `COUNTING`.
    """
    labels, scores = drawn(rng, DRAWN, better)
    champion, challenger = (
        Answers(special.expit(score), (score >= np.quantile(score, 1 - share)).astype(int))
        for score, share in zip(scores, (CHOSEN, chooses), strict=True)
    )
    is_known = np.ones(DRAWN, dtype=bool) if count == "all" else champion.labels == 1
    is_known &= (challenger.labels == 1) | (count != "both answers")
    if count == "both":
        ids, known = pd.Series(np.arange(DRAWN).astype(str)), np.where(is_known, labels, np.nan)
        counted = live.counted(LiveRows(ids, known, champion.labels, challenger, champion, {}, {}), ()).evidence
        labels, challenger, [champion] = counted.labels, counted.challenger, counted.champions
    else:
        labels = labels[is_known]
        champion, challenger = (Answers(of.probabilities[is_known], labels) for of in (champion, challenger))
    mine, other = (of.probabilities[:LABELLED] for of in (challenger, champion))
    labels = labels[:LABELLED]
    value, draws = difference(rng, labels, mine, other, FEWER)
    return {rule: bool(checks.difference(value, draws, rule, Limits().margin, labels).passed) for rule in PASSES[:2]}


def asked_again(rng: np.random.Generator, factor: float, looks: int, priced: bool) -> dict[str, float]:
    """Whether an equal challenger passes at any of the looks at a log that grows by a factor between them."""
    sizes = [int(200 * factor**look) for look in range(looks)]
    labels, (champion, challenger) = drawn(rng, sizes[-1], 0.0)
    passed = (
        _checked(rng, labels[:n], challenger[:n], champion[:n], "better", number if priced else 1)
        for number, n in enumerate(sizes, 1)
    )
    return {"passed": any(passed)}


def sliced(rng: np.random.Generator, rows: int, spoilt: bool) -> dict[str, float]:
    """Whether a slice refuses a challenger whose probabilities are right, or that says the same to one slice."""
    labels, scores = drawn(rng, rows, 0.0)
    middle = apart(AREA) ** 2 / 2
    champion, challenger = (special.expit(special.logit(POSITIVE) + apart(AREA) * score - middle) for score in scores)
    groups = pd.DataFrame({f"x{i}": rng.choice(len(share), rows, p=share) for i, share in enumerate(COLUMNS)})
    if spoilt:
        challenger = np.where(groups["x6"] == 1, 0.5, challenger)
    margin = Limits().slice_margin
    slices = checks.slices(labels, challenger, champion, groups, margin)
    losses = metrics.log_losses(labels, challenger) - metrics.log_losses(labels, champion)
    alone = any(
        part.mean() > margin and stats.ttest_1samp(part, 0).pvalue < checks.ERROR for part in parts(losses, groups)
    )
    return {"refused": any(not check.passed for check in slices), "alone": alone, "slices": len(slices)}


def parts(values: Floats, groups: pd.DataFrame) -> Iterator[NDArray[np.float64]]:
    for column in groups:
        for value in groups[column].unique():
            if (part := values[groups[column] == value]).size >= checks.FEWEST_ROWS:
                yield part


if __name__ == "__main__":
    main()
