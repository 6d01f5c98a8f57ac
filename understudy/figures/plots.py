"""Figures about predictions. Arrays in, matplotlib figures out; nothing is shown and nothing is global.

Sized to be read as a thumbnail: few words, large letters, one message each.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_auc_score, roc_curve

from understudy.figures.metrics import Floats, Interval, Labels, Scored

Scores = Mapping[str, Floats]

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#999999", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
STYLE: dict[Any, Any] = {
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


def roc(labels: Labels, scores: Scores) -> Figure:
    """ROC curve of each name's probabilities, shape (n,), against the same labels, shape (n,)."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linestyle="--", linewidth=1.5)
        for (name, probabilities), colour in zip(scores.items(), COLOURS, strict=False):
            false, true, _ = roc_curve(labels, probabilities)
            axes.plot(false, true, color=colour, label=f"{name} {roc_auc_score(labels, probabilities):.3f}")
        axes.set(xlabel="False positive rate", ylabel="True positive rate", aspect="equal")
        axes.legend(loc="lower right", title="AUC")

    return _figure("ROC curve", draw)


def precision_recall(labels: Labels, scores: Scores) -> Figure:
    """Precision against recall; the dashed line is the share of positive labels."""

    def draw(axes: Axes) -> None:
        axes.axhline(labels.mean(), color="#bbbbbb", linestyle="--", linewidth=1.5)
        for (name, probabilities), colour in zip(scores.items(), COLOURS, strict=False):
            precision, recall, _ = precision_recall_curve(labels, probabilities)
            axes.step(recall, precision, where="post", color=colour, label=name)
        axes.set(xlabel="Recall", ylabel="Precision", ylim=(0, 1.03))
        axes.legend(loc="lower left")

    return _figure("Precision and recall", draw)


def calibration(labels: Labels, scores: Scores, bins: int = 8) -> Figure:
    """Observed share of positives against the predicted probability, in bins of equal counts."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linestyle="--", linewidth=1.5)
        for (name, probabilities), colour in zip(scores.items(), COLOURS, strict=False):
            share, predicted = calibration_curve(labels, probabilities, n_bins=bins, strategy="quantile")
            axes.plot(predicted, share, marker="o", markersize=7, color=colour, label=name)
        axes.set(xlabel="Predicted probability", ylabel="Observed share", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.legend(loc="upper left")

    return _figure("Calibration", draw)


def confusion(labels: Labels, scored: Scored, answers: tuple[str, str], name: str) -> Figure:
    """Counts of true against predicted labels; `answers` are the words for label 0 and label 1."""

    def draw(axes: Axes) -> None:
        counts = confusion_matrix(labels, scored.called.astype(int), labels=[0, 1])
        axes.imshow(counts, cmap="Blues", vmin=0)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if count > counts.max() / 2 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=24)
        axes.set_xticks([0, 1], answers)
        axes.set_yticks([0, 1], answers)
        axes.set(xlabel="Predicted", ylabel="True")
        axes.grid(visible=False)

    return _figure(f"Confusion matrix\n{name}", draw, names=True)


def distribution(labels: Labels, scored: Scored, answers: tuple[str, str], name: str) -> Figure:
    """How the probabilities of label 1 are spread, stacked by true label, and the threshold."""

    def draw(axes: Axes) -> None:
        edges = np.linspace(0, 1, 21).tolist()
        groups = [scored.probabilities[labels == 0], scored.probabilities[labels == 1]]
        axes.hist(groups, edges, stacked=True, color=COLOURS[1::-1], label=[f"true {answer}" for answer in answers])
        at = scored.threshold
        axes.axvline(at, color="black", linestyle="--", linewidth=1.5, label=f"threshold {at:.2f}")
        axes.set(xlabel=f"Predicted probability of {answers[1]}", ylabel="Rows", xlim=(0, 1))
        axes.legend(loc="upper left")

    return _figure(f"Score distribution\n{name}", draw)


def threshold(curves: Mapping[str, pd.DataFrame], chosen: float, name: str) -> Figure:
    """What each threshold costs a row, a line for each of the curves as `threshold.curve` gives them."""

    def draw(axes: Axes) -> None:
        for (rows, curve), colour in zip(curves.items(), COLOURS, strict=False):
            axes.plot(curve["threshold"], curve["cost"], color=colour, label=rows)
        axes.axvline(chosen, color="black", linestyle="--", linewidth=1.5, label=f"chosen {chosen:.2f}")
        axes.set(xlabel="Threshold", ylabel="Mean cost of a row", xlim=(0, 1), ylim=(0, None))
        axes.legend(loc="lower right")

    return _figure(f"Decision threshold\n{name}", draw)


def importance(losses: pd.DataFrame, name: str) -> Figure:
    """Loss of AUC when one column is shuffled: a column of the table each, a repeat a row."""

    def draw(axes: Axes) -> None:
        means = losses.mean().sort_values()
        axes.barh(means.index, means, xerr=losses.std()[means.index], color=COLOURS[0], ecolor="#555555")
        axes.set(xlabel="Loss of AUC when shuffled")
        axes.grid(visible=False, axis="y")

    return _figure(f"Permutation importance\n{name}", draw, width=7.0, names=True)


def comparison(results: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Every metric of every family with its 95 % interval: a panel each, a line per family."""
    names = list(results)
    metrics = list(results[names[0]])
    with rc_context(STYLE):
        figure = Figure(figsize=(13, 1.9 + 0.62 * len(names)), layout="constrained")
        panels = figure.subplots(2, (len(metrics) + 1) // 2, sharey=True).flat
        for metric, axes in zip(metrics, panels, strict=False):
            for y, name in enumerate(names):
                value, low, high = results[name][metric]
                axes.plot([low, high], [y, y], color=COLOURS[y % len(COLOURS)])
                axes.plot(value, y, "o", color=COLOURS[y % len(COLOURS)], markersize=9)
            axes.set_title(metric)
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.5, -0.5)
        figure.suptitle("Held-out rows, 95 % intervals")
    return figure


def groups(slices: pd.DataFrame, name: str) -> Figure:
    """Rates of the groups that sensitive columns make, with 95 % intervals, and their ratio to the largest group's.

    Args:
        slices: As `metrics.slices` gives them.
        name: Whose they are, for the title.
    """
    rates = ["positive rate", "true positive rate", "false positive rate"]
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 1.6 + 0.5 * len(slices)), layout="constrained")
        for rate, axes in zip(rates, figure.subplots(1, len(rates), sharey=True), strict=True):
            shade = pd.factorize(slices["column"])[0]
            for y, (_, group) in enumerate(slices.iterrows()):
                colour = COLOURS[shade[y] % len(COLOURS)]
                axes.plot([group[f"{rate} low"], group[f"{rate} high"]], [y, y], color=colour)
                axes.plot(group[rate], y, "o", color=colour, markersize=9)
            axes.set(title=rate.capitalize(), xlim=(-0.03, 1.03), ylim=(len(slices) - 0.5, -0.5))
            labels = [f"{g['column']} {g['value']} ({g['rows']} rows, {g['ratio']:.2f})" for _, g in slices.iterrows()]
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

    def draw(axes: Axes) -> None:
        axes.hist(draws, bins=40, color=COLOURS[0], alpha=0.45)
        axes.axvline(limit, color=COLOURS[1], label=f"limit {limit:.3f}")
        axes.axvline(0, color=COLOURS[7], linewidth=1.5, linestyle="--", label="no difference")
        said = f"{value:.3f} ({low:.3f} to {high:.3f})"
        [bar] = axes.plot([low, value, high], [0, 0, 0], "o-", color=COLOURS[7], linewidth=4, markersize=11, label=said)
        bar.set(markevery=[1], clip_on=False)
        axes.set(xlabel="ROC AUC, challenger less champion", ylabel="Resamples")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, columnspacing=1.2)

    return _figure(f"Difference in ROC AUC\n{name}", draw, width=7.0, names=True)


def _figure(title: str, draw: Callable[[Axes], None], width: float = 5.6, names: bool = False) -> Figure:
    """One panel. Where a table's names stand beside it, the room they take has to be measured, which is slow."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, 5.0), layout="constrained" if names else None)
        if not names:
            figure.subplots_adjust(left=0.15, right=0.96, bottom=0.13, top=0.87)
        axes = figure.subplots()
        draw(axes)
        axes.set_title(title)
    return figure
