"""Figures about predictions. Arrays in, matplotlib figures out; nothing is shown.

Sized to be read as a thumbnail: few words, large letters, one message each.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from understudy.figures.metrics import Floats, Interval, Labels, Scored

Scores = Mapping[str, Floats]

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#999999", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "lines.linewidth": 2.5,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "savefig.dpi": 120,
}
CHANCE: dict[str, Any] = {"color": "#bbbbbb", "linestyle": "--", "linewidth": 1.5}
MARK: dict[str, Any] = {"color": "#000000", "linestyle": "--", "linewidth": 1.5}


def roc(labels: Labels, scores: Scores) -> Figure:
    """ROC curve of each name's probabilities, shape (n,), against the same labels, shape (n,)."""
    with _panel("ROC curve") as (figure, axes):
        axes.plot([0, 1], [0, 1], **CHANCE)
        for name, probabilities in scores.items():
            RocCurveDisplay.from_predictions(labels, probabilities, name=name, ax=axes)
        axes.set(xlabel="False positive rate", ylabel="True positive rate")
        axes.legend(loc="lower right", fontsize=10, handlelength=1.2)  # clear of the curves
    return figure


def precision_recall(labels: Labels, scores: Scores) -> Figure:
    """Precision against recall; the dashed line is the share of positive labels."""
    with _panel("Precision and recall") as (figure, axes):
        axes.axhline(labels.mean(), **CHANCE)
        for name, probabilities in scores.items():
            PrecisionRecallDisplay.from_predictions(labels, probabilities, name=name, ax=axes)
        axes.set(xlabel="Recall", ylabel="Precision")
        axes.legend(loc="lower left")
    return figure


def calibration(labels: Labels, scores: Scores) -> Figure:
    """Observed share of positives against the predicted probability, in bins of equal counts."""
    options = {"n_bins": 8, "strategy": "quantile", "marker": "o", "markersize": 7}
    with _panel("Calibration") as (figure, axes):
        axes.plot([0, 1], [0, 1], **CHANCE)
        for name, probabilities in scores.items():
            CalibrationDisplay.from_predictions(labels, probabilities, name=name, ax=axes, ref_line=False, **options)
        axes.set(xlabel="Predicted probability", ylabel="Observed share", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.legend(loc="upper left")
    return figure


def confusion(labels: Labels, scored: Scored, answers: tuple[str, str], name: str) -> Figure:
    """Counts of true against predicted labels; `answers` are the words for label 0 and label 1."""
    options = {"cmap": "Blues", "colorbar": False, "im_kw": {"vmin": 0}, "text_kw": {"fontsize": 24}}
    with _panel(f"Confusion matrix\n{name}", names=True) as (figure, axes):
        ConfusionMatrixDisplay.from_predictions(
            labels, scored.called, labels=[0, 1], display_labels=answers, ax=axes, **options
        )
        axes.set(xlabel="Predicted", ylabel="True")
        axes.grid(visible=False)
    return figure


def distribution(labels: Labels, scored: Scored, answers: tuple[str, str], name: str) -> Figure:
    """How the probabilities of label 1 are spread, stacked by true label, and the threshold."""
    groups = [scored.probabilities[labels == 0], scored.probabilities[labels == 1]]
    edges = np.linspace(0, 1, 21).tolist()
    with _panel(f"Score distribution\n{name}") as (figure, axes):
        axes.hist(groups, edges, stacked=True, color=COLOURS[1::-1], label=[f"true {answer}" for answer in answers])
        axes.axvline(scored.threshold, **MARK, label=f"threshold {scored.threshold:.2f}")
        axes.set(xlabel=f"Predicted probability of {answers[1]}", ylabel="Rows", xlim=(0, 1))
        axes.legend(loc="upper left")
    return figure


def threshold(curves: Mapping[str, pd.DataFrame], chosen: float, name: str) -> Figure:
    """What each threshold costs a row, a line for each of the curves as `threshold.curve` gives them."""
    with _panel(f"Decision threshold\n{name}") as (figure, axes):
        for rows, curve in curves.items():
            axes.plot(curve["threshold"], curve["cost"], label=rows)
        axes.axvline(chosen, **MARK, label=f"chosen {chosen:.2f}")
        axes.set(xlabel="Threshold", ylabel="Mean cost of a row", xlim=(0, 1), ylim=(0, None))
        axes.legend(loc="lower right")
    return figure


def importance(losses: pd.DataFrame, name: str) -> Figure:
    """Loss of AUC when one column is shuffled: a column of the table each, a repeat a row."""
    means = losses.mean().sort_values()
    with _panel(f"Permutation importance\n{name}", width=7.0, names=True) as (figure, axes):
        axes.barh(means.index, means, xerr=losses.std()[means.index], ecolor="#555555")
        axes.set(xlabel="Loss of AUC when shuffled")
        axes.grid(visible=False, axis="y")
    return figure


def comparison(results: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Every metric of every family with its 95 % interval: a panel each, a line per family."""
    names = list(results)
    metrics = list(results[names[0]])
    with rc_context(STYLE):
        figure = Figure(figsize=(13, 1.9 + 0.62 * len(names)), layout="constrained")
        panels = figure.subplots(2, (len(metrics) + 1) // 2, sharey=True).flat
        for metric, axes in zip(metrics, panels, strict=False):
            _intervals(axes, [results[name][metric] for name in names], range(len(names)))
            axes.set_title(metric)
            axes.set_yticks(range(len(names)), names)
        figure.suptitle("Held-out rows, 95 % intervals")
    return figure


def groups(slices: pd.DataFrame, name: str) -> Figure:
    """Rates of the groups that sensitive columns make, with 95 % intervals, and their ratio to the largest group's.

    The slices are as `metrics.slices` gives them.
    """
    rates = ["positive rate", "true positive rate", "false positive rate"]
    labels = [f"{g['column']} {g['value']} ({g['rows']} rows, {g['ratio']:.2f})" for _, g in slices.iterrows()]
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 1.6 + 0.5 * len(slices)), layout="constrained")
        for rate, axes in zip(rates, figure.subplots(1, len(rates), sharey=True), strict=True):
            intervals = slices[[rate, f"{rate} low", f"{rate} high"]].itertuples(index=False)
            _intervals(axes, intervals, pd.factorize(slices["column"])[0])
            axes.set(title=rate.capitalize(), xlim=(-0.03, 1.03))
            axes.set_yticks(range(len(slices)), labels)
        figure.suptitle(f"Groups, {name} (rows, ratio of positive rates to the largest group's)")
    return figure


def differences(draws: Sequence[float], interval: Interval, limit: float, name: str) -> Figure:
    """How the difference in ROC AUC, challenger less champion, varies over resamples of the held-out rows.

    Args:
        draws: The differences, shape (draws,).
        interval: Value, lower and upper 95 % bound; the bar at the foot.
        limit: What the interval has to be above.
        name: Who is compared, for the title.
    """
    value, low, high = interval
    with _panel(f"Difference in ROC AUC\n{name}", width=7.0, names=True) as (figure, axes):
        axes.hist(draws, bins=40, alpha=0.45)
        axes.axvline(limit, color=COLOURS[1], label=f"limit {limit:.3f}")
        axes.axvline(0, **MARK, label="no difference")
        bounds = f"{value:.3f} ({low:.3f} to {high:.3f})"
        bar: dict[str, Any] = {
            "color": COLOURS[7],
            "linewidth": 4,
            "markersize": 11,
            "markevery": [1],
            "clip_on": False,
        }
        axes.plot([low, value, high], [0, 0, 0], "o-", label=bounds, **bar)
        axes.set(xlabel="ROC AUC, challenger less champion", ylabel="Resamples")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, columnspacing=1.2)
    return figure


def _intervals(axes: Axes, intervals: Iterable[Interval], colours: Iterable[int]) -> None:
    """Draw each interval as a line with its value on it, the first on top, in the colours of these numbers."""
    y = -1
    for y, ((value, low, high), number) in enumerate(zip(intervals, colours, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot([low, high], [y, y], color=colour)
        axes.plot(value, y, "o", color=colour, markersize=9)
    axes.set_ylim(y + 0.5, -0.5)


@contextmanager
def _panel(title: str, width: float = 5.6, names: bool = False) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel. Where a table's names stand beside it, their room has to be measured, which is slow."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, 5.0), layout="constrained" if names else None)
        if not names:
            figure.subplots_adjust(left=0.15, right=0.96, bottom=0.13, top=0.87)
        axes = figure.subplots()
        axes.set_title(title)
        yield figure, axes
