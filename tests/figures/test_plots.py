"""Every plot can be drawn on any table: nothing is cut off, nothing collides, and a family keeps its colour."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from understudy.families import FAMILIES, FLOOR
from understudy.figures import metrics, plots
from understudy.figures.metrics import Scored
from understudy.table import TABLE
from understudy.training import threshold

LONG = "A column whose name is as long as those of a warehouse, in US$ or CA$, and that goes on and on"
FAMILY = "RandomForestClassifier"
ANSWERS = {"short": ("N", "Y"), "long": ("The customer has left us for good", "The customer stays")}


def figures(share: float, columns: int, words: str, rows: int = 1500) -> dict[str, Figure]:
    """All plots of a family on generated rows of that share of positives, with short or with long words."""
    rng = np.random.default_rng(0)
    labels = np.zeros(rows, dtype=int)
    labels[: max(2, int(share * rows))] = 1
    odds = np.log(share / (1 - share)) + rng.normal(size=rows) + 1.5 * labels
    probabilities = 1 / (1 + np.exp(-odds))
    scored, answers = Scored(probabilities, 0.5), ANSWERS[words]
    names = [f"{LONG} {n}" if words == "long" else f"c{n}" for n in range(columns)]
    losses = pd.DataFrame(rng.exponential(0.001, (5, columns)), columns=names)
    group = pd.Series([f"{LONG if words == 'long' else ''} {n}" for n in rng.integers(0, 12, rows)], name="group")
    every = [*FAMILIES, *(f"{name} with sensitive columns" for name in FAMILIES if name != FLOOR)]
    costs = {"out of fold": threshold.curve(TABLE, labels, odds), "held out": threshold.curve(TABLE, labels, odds)}
    return {
        "roc": plots.roc(labels, dict.fromkeys(every, probabilities)),
        "precision_recall": plots.precision_recall(labels, {FAMILY: probabilities}),
        "calibration": plots.calibration(labels, {FAMILY: probabilities}),
        "confusion": plots.confusion(labels, scored, answers, FAMILY),
        "distribution": plots.distribution(labels, scored, answers, FAMILY),
        "threshold": plots.threshold(costs, 0.5, FAMILY),
        "importance": plots.importance(losses, FAMILY),
        "comparison": plots.comparison(dict.fromkeys(every, metrics.evaluate(labels, scored))),
        "groups": plots.groups(metrics.slices(labels, scored.called, group), FAMILY),
        "differences": plots.differences(np.linspace(-0.1, 0.2, 50).tolist(), (0.05, -0.1, 0.2), -0.02, "2 less 1"),
    }


def boxes(figure: Figure) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Where words are in a drawn figure: of each direction of each axis, the tick labels' extents in pixels."""
    for axes in figure.axes:
        for name, axis, side in [("x", axes.xaxis, 0), ("y", axes.yaxis, 1)]:
            drawn = [label for label in axis.get_ticklabels() if label.get_visible() and label.get_text()]
            inside = [box.get_points()[:, side] for label in drawn if (box := label.get_window_extent()).width]
            yield name, sorted((float(low), float(high)) for low, high in inside)


@pytest.mark.parametrize(
    ("share", "columns", "words"), [(0.6, 11, "short"), (0.018, 30, "short"), (0.4, 200, "long"), (0.97, 1, "short")]
)
def test_nothing_is_cut_off_and_nothing_collides(share: float, columns: int, words: str) -> None:
    for name, figure in figures(share, columns, words).items():
        figure.draw_without_rendering()
        whole, texts = figure.bbox, [axes.get_tightbbox() for axes in figure.axes]
        for box in [*texts, *(legend.get_window_extent() for legend in figure.legends)]:
            assert box is not None
            assert (whole.x0 - 1 <= box.x0, box.x1 <= whole.x1 + 1) == (True, True), name
            assert (whole.y0 - 1 <= box.y0, box.y1 <= whole.y1 + 1) == (True, True), name
        for direction, extents in boxes(figure):
            assert all(mine[1] <= other[0] + 1 for mine, other in pairwise(extents)), (name, direction)
        for legend in figure.legends:
            assert all(legend.get_window_extent().y1 <= axes.get_tightbbox().y0 + 1 for axes in figure.axes), name  # type: ignore[union-attr]
        assert all(axes.get_legend() is None for axes in figure.axes), name


def test_one_row_of_a_class_one_probability_and_empty_bins_do_no_harm() -> None:
    labels, probabilities = np.array([0, 1, 0, 1, 1]), np.array([0.2, 0.2, 0.2, 0.9, 0.9])
    constant = np.full(5, 0.6)
    for scores in (probabilities, constant):
        drawn = [
            plots.roc(labels, {"a": scores}),
            plots.precision_recall(labels, {"a": scores}),
            plots.calibration(labels, {"a": scores}),
            plots.distribution(labels, Scored(scores, 0.6), ("N", "Y"), "a"),
            plots.groups(metrics.slices(labels, scores > 0.5, pd.Series([*"xxyy", None], name="z")), "a"),
        ]
        for figure in drawn:
            figure.draw_without_rendering()


def colours(axes: Axes, label: str) -> set[str]:
    return {to_hex(line.get_color()) for line in axes.lines if str(line.get_label()).startswith(label)}


def test_a_family_has_its_colour_in_every_plot_and_the_floor_is_grey() -> None:
    drawn = figures(0.4, 3, "short")
    own = [name for name in FAMILIES if name != FLOOR]
    [together] = drawn["roc"].axes
    of = {name: colours(together, name) for name in FAMILIES}
    assert len(set.union(*of.values())) == len(FAMILIES)
    assert of[FLOOR] == {plots.GREY}
    compared = [to_hex(line.get_color()) for line in drawn["comparison"].axes[0].lines[::2]]
    assert [{colour} for colour in compared[: len(FAMILIES)]] == [of[name] for name in FAMILIES]
    assert [{colour} for colour in compared[len(FAMILIES) :]] == [of[name] for name in own]
    for name in ("precision_recall", "calibration"):
        assert colours(drawn[name].axes[0], FAMILY) == of[FAMILY]
    assert colours(drawn["threshold"].axes[0], "held out") == of[FAMILY]
    for name in ("importance", "distribution"):
        assert {to_hex(patch.get_facecolor()) for patch in drawn[name].axes[0].patches} - {plots.GREY} == of[FAMILY]


def test_axes_follow_rare_positives_and_of_many_columns_the_largest_are_drawn() -> None:
    rare = figures(0.018, 200, "short")
    assert rare["calibration"].axes[0].get_xlim()[1] < 0.5
    shares = [patch.get_bbox().height for patch in rare["distribution"].axes[0].patches]  # type: ignore[attr-defined]
    assert sum(shares) == pytest.approx(2)  # each label's rows add up to 100 %
    assert len(rare["importance"].axes[0].patches) == plots.MOST_COLUMNS
    assert rare["importance"].axes[0].get_title().endswith("the 30 largest of 200")
    assert "lower is better" in rare["threshold"].axes[0].get_ylabel()
    assert [axes.get_title() for axes in rare["comparison"].axes if "lower" in axes.get_title()] == [
        "Log loss (lower is better)",
        "Brier score (lower is better)",
    ]
