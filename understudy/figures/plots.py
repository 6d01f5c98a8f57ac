"""Figures about predictions. Arrays in, matplotlib figures out; nothing is shown.

Sized to be read as a thumbnail: few words, large letters, one message each. A family has its own colour in all of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from understudy.families import FAMILIES, FLOOR
from understudy.figures.metrics import Floats, Interval, Labels, Scored

Scores = Mapping[str, Floats]

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
GREY, BLACK, RED = "#999999", "#000000", "#b00020"
LOWER_IS_BETTER = {"Log loss", "Brier score"}
MOST_COLUMNS = 30  # whose importance is drawn
TEXT_WIDTH = 34  # letters of a name, before it goes on in the next line
LINE = 0.25  # inches that a line of text takes
STYLE: dict[Any, Any] = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 5),
    "lines.linewidth": 2.5,
    "legend.fontsize": 10,
    "legend.frameon": False,
}
CHANCE: dict[str, Any] = {"color": "#bbbbbb", "linestyle": "--", "linewidth": 1.5}
MARK: dict[str, Any] = {"color": BLACK, "linestyle": "--", "linewidth": 1.5}


def roc(labels: Labels, scores: Scores) -> Figure:
    """ROC curve of each name's probabilities, shape (n,), against the same labels, shape (n,)."""
    with _panel("ROC curve") as (figure, axes):
        axes.plot([0, 1], [0, 1], **CHANCE)
        for name, probabilities in scores.items():
            RocCurveDisplay.from_predictions(labels, probabilities, name=name, ax=axes, curve_kwargs=_look(name))
        axes.set(xlabel="False positive rate", ylabel="True positive rate")
    return figure


def precision_recall(labels: Labels, scores: Scores) -> Figure:
    """Precision against recall of each name's probabilities, and the share of positives among all rows."""
    with _panel("Precision and recall") as (figure, axes):
        axes.axhline(labels.mean(), **CHANCE)
        for name, probabilities in scores.items():
            PrecisionRecallDisplay.from_predictions(labels, probabilities, name=name, ax=axes, curve_kwargs=_look(name))
        axes.set(xlabel="Recall", ylabel="Precision", ylim=(-0.03, 1.03))
    return figure


def calibration(labels: Labels, scores: Scores) -> Figure:
    """Observed share of positives against the predicted probability, in bins of equal counts."""
    options = {"n_bins": 8, "strategy": "quantile", "marker": "o", "markersize": 7, "ref_line": False}
    with _panel("Calibration") as (figure, axes):
        axes.plot([0, 1], [0, 1], **CHANCE)
        bins = []
        for name, probabilities in scores.items():
            drawn = CalibrationDisplay.from_predictions(
                labels, probabilities, name=name, ax=axes, **options, **_look(name)
            )
            bins += [drawn.prob_true, drawn.prob_pred]
        limits = _range(np.concatenate(bins))
        axes.set(xlabel="Predicted probability", ylabel="Observed share", xlim=limits, ylim=limits, aspect="equal")
    return figure


def confusion(labels: Labels, scored: Scored, answers: tuple[str, str], name: str) -> Figure:
    """Counts of true against predicted labels; `answers` are the words for label 0 and label 1."""
    colours = LinearSegmentedColormap.from_list(name, ["#ffffff", _colour(name)])
    options = {"cmap": colours, "colorbar": False, "im_kw": {"vmin": 0}, "text_kw": {"fontsize": 24}}
    words = [_wrapped(answer, 14) for answer in answers]
    lines = [line for word in words for line in word.splitlines()]
    room = (0.6 + 0.11 * max(2, *map(len, lines)), 0.65 + LINE * max(word.count("\n") for word in words))
    with _panel(f"Confusion matrix\n{name}", room=room) as (figure, axes):
        ConfusionMatrixDisplay.from_predictions(
            labels, scored.called, labels=[0, 1], display_labels=words, ax=axes, **options
        )
        axes.set(xlabel="Predicted", ylabel="True")
        axes.tick_params(labelsize=11)
        axes.grid(visible=False)
    return figure


def distribution(labels: Labels, scored: Scored, answers: tuple[str, str], name: str) -> Figure:
    """How the probabilities of label 1 are spread over the rows of each true label, and the threshold."""
    limits = _range(np.append(scored.probabilities, scored.threshold))
    bins = np.linspace(*limits, 26).tolist()
    with _panel(f"Score distribution\n{name}") as (figure, axes):
        for label, colour in enumerate([GREY, _colour(name)]):
            values = scored.probabilities[labels == label]
            weights = np.full(len(values), 1 / max(1, len(values)))  # the rarer label is to be seen too
            axes.hist(values, bins, weights=weights, color=colour, alpha=0.7, label=f"true {answers[label]}")
        axes.axvline(scored.threshold, **MARK, label=f"threshold {scored.threshold:.2f}")
        axes.set(xlabel="Predicted probability", ylabel="Rows of the true label", xlim=limits)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.locator_params("y", nbins=5)
    return figure


def threshold(curves: Mapping[str, pd.DataFrame], chosen: float, name: str) -> Figure:
    """What each threshold costs a row, a line for each of the curves as `threshold.curve` gives them."""
    with _panel(f"Decision threshold\n{name}", room=(1.05, 0.65)) as (figure, axes):
        for (rows, curve), line in zip(curves.items(), ["-", ":", "-."], strict=False):
            axes.plot(curve["threshold"], curve["cost"], label=rows, color=_colour(name), linestyle=line)
        axes.axvline(chosen, **MARK, label=f"chosen {chosen:.2f}")
        axes.set(xlabel="Threshold", ylabel="Mean cost of a row (lower is better)", xlim=(0, 1), ylim=(0, None))
    return figure


def importance(losses: pd.DataFrame, name: str) -> Figure:
    """Loss of AUC when a column is shuffled: of the table's columns the largest, a repeat a row."""
    means = losses.mean().sort_values(ascending=False).head(MOST_COLUMNS)
    title = ["Permutation importance", name]
    if len(means) < losses.shape[1]:
        title.append(f"the {len(means)} largest of {losses.shape[1]}")
    columns = [_wrapped(str(column)) for column in means.index]
    size = (7.0, 1.6 + max(1.4, LINE * _lines(columns)))
    with _panel("\n".join(title), size, room=None) as (figure, axes):
        places = _place(axes, columns)
        axes.barh(places, means, 0.75, xerr=losses.std()[means.index], color=_colour(name), ecolor="#555555")
        axes.set(xlabel="Loss of AUC when shuffled")
        axes.grid(visible=False, axis="y")
        axes.locator_params("x", nbins=5)
    return figure


def comparison(results: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Every metric of every family with its 95 % interval: a panel each, a line per family."""
    names = list(results)
    metrics, words = list(results[names[0]]), [_wrapped(name) for name in names]
    with rc_context(STYLE):
        figure = Figure(figsize=(13, 1.9 + 2.5 * LINE * _lines(words)), layout="constrained")
        panels = figure.subplots(2, (len(metrics) + 1) // 2, sharey=True).flat
        for metric, axes in zip(metrics, panels, strict=False):
            _intervals(axes, _place(axes, words), [results[name][metric] for name in names], names)
            axes.set_title(f"{metric} (lower is better)" if metric in LOWER_IS_BETTER else metric)
            axes.locator_params("x", nbins=4)
        figure.suptitle("Held-out rows, 95 % intervals")
    return figure


def groups(slices: pd.DataFrame, name: str) -> Figure:
    """Rates of the groups that sensitive columns make, with 95 % intervals, and their ratio to the largest group's.

    The slices are as `metrics.slices` gives them.
    """
    rates = ["positive rate", "true positive rate", "false positive rate"]
    words = [
        _wrapped(f"{g['column']} {g['value']} ({g['rows']:,} rows, {g['ratio']:.2f})", 44) for _, g in slices.iterrows()
    ]
    with rc_context(STYLE):
        figure = Figure(figsize=(12, 1.6 + 1.15 * LINE * _lines(words)), layout="constrained")
        for rate, axes in zip(rates, figure.subplots(1, len(rates), sharey=True), strict=True):
            intervals = slices[[rate, f"{rate} low", f"{rate} high"]].itertuples(index=False)
            _intervals(axes, _place(axes, words), intervals, [name] * len(slices))
            axes.set(title=rate.capitalize(), xlim=(-0.03, 1.03))
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        figure.suptitle(f"Groups, {_wrapped(name)} (rows, ratio of positive rates to the largest group's)")
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
    with _panel(f"Difference in ROC AUC\n{name}", (7.0, 5.0)) as (figure, axes):
        axes.hist(draws, bins=40, color="#cccccc")
        axes.axvline(limit, color=RED, label=f"limit {limit:.3f}")
        axes.axvline(0, **MARK, label="no difference")
        bounds = f"{value:.3f} ({low:.3f} to {high:.3f})"
        bar: dict[str, Any] = {"color": BLACK, "linewidth": 4, "markersize": 11, "markevery": [1], "clip_on": False}
        axes.plot([low, value, high], [0, 0, 0], "o-", label=bounds, **bar)
        axes.set(xlabel="ROC AUC, challenger less champion", ylabel="Resamples")
        axes.locator_params("x", nbins=7)
    return figure


def _look(name: str) -> dict[str, Any]:
    """Colour and line of a family's curve; it is dashed where the name says more than the family, as what it sees."""
    return {"color": _colour(name), "linestyle": "-" if name in FAMILIES else "--"}


def colour_number(name: str) -> int | None:
    """Which of `COLOURS` is that of a family, with whatever stands behind its name; None for the floor and others."""
    families = [family for family in FAMILIES if family != FLOOR]
    named = max((family for family in families if name.startswith(family)), key=len, default=None)
    return None if named is None else families.index(named) % len(COLOURS)


def _colour(name: str) -> str:
    """The colour of a family, by its place among the families; the floor, and what is none of them, is grey."""
    number = colour_number(name)
    return GREY if number is None else COLOURS[number]


def _range(values: Floats) -> tuple[float, float]:
    """The part of 0 to 1 that probabilities take, with some air beside it; all of it where they take most of it."""
    low, high = float(values.min()), float(values.max())
    air = max(0.01, (high - low) / 20)
    return (0.0, 1.0) if high - low > 0.5 else (max(0.0, low - air), min(1.0, high + air))


def _wrapped(text: str, width: int = TEXT_WIDTH) -> str:
    """A text in lines of so many letters; matplotlib takes what is between two plain $ for mathematics."""
    return fill(text, width).replace("$", r"\$")


def _lines(texts: Iterable[str]) -> int:
    return sum(text.count("\n") + 1 for text in texts)


def _place(axes: Axes, names: Sequence[str]) -> Floats:
    """Write names beside an axis, the first on top, each with the room of its lines; returns where, shape (names,)."""
    lines = np.array([_lines([name]) for name in names])
    places: Floats = lines.cumsum() - lines / 2
    axes.set_yticks(places, names, fontsize=11)
    axes.set_ylim(lines.sum(), 0)
    return places


def _intervals(axes: Axes, places: Floats, intervals: Iterable[Interval], families: Iterable[str]) -> None:
    """Draw each interval as a line with its value on it, in its place and in the colour of its family."""
    for y, (value, low, high), family in zip(places, intervals, families, strict=True):
        axes.plot([low, high], [y, y], **_look(family))
        axes.plot(value, y, "o", color=_colour(family), markersize=9)


@contextmanager
def _panel(
    title: str, size: tuple[float, float] = (5.6, 5.0), room: tuple[float, float] | None = (0.84, 0.65)
) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel, with a legend below it if anything has a label.

    Args:
        title: In lines, each of which may go on in the next.
        size: Width and height in inches; the legend's comes on top.
        room: What words take left of the panel and below it, in inches; None to measure it, which is slow.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout=None if room else "constrained")
        axes = figure.subplots()
        yield figure, axes
        heading = "\n".join(_wrapped(line, 44) for line in title.splitlines())
        axes.set_title(heading)
        handles, labels = axes.get_legend_handles_labels()
        words = [_wrapped(label, 60) for label in labels]
        if labels:
            axes.legend().remove()  # which scikit-learn puts over the curves
            figure.legend(handles, words, loc="lower center", borderaxespad=0.1, labelspacing=0.3)
        if room:
            width, height = size[0], size[1] + LINE * _lines(words)
            figure.set_size_inches(width, height)
            below, above = room[1] + LINE * _lines(words), 0.1 + 0.27 * _lines([heading])
            figure.subplots_adjust(room[0] / width, below / height, 1 - 0.22 / width, 1 - above / height)
