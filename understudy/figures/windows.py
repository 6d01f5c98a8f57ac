"""A figure of a window of rows beside those of the training: every column at a glance. Nothing is shown or written."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import fill

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from understudy.figures.metrics import Floats
from understudy.figures.plots import COLOURS, GREY, MOST_COLUMNS, RED, STYLE

BINS = 24  # of numbers
MOST_VALUES = 8  # of a category, that have room for their names
WIDTH, NAME, SHAPE, SIZE = 12.0, 2.6, 5.6, 1.9  # inches: of the figure, and of the three parts of a row
ROW, BARS, HEAD, FOOT = 0.85, 0.5, 0.8, 0.75  # inches: heights of a row, its bars, and what is above and below all rows
LETTERS = 60  # that the names of a category's values have together


@dataclass(frozen=True)
class DrawnColumn:
    """What is drawn of a column, or of the scores.

    Args:
        name: Of the column.
        before: Its cells in the reference as numbers, NaN where missing, shape (m,).
        now: Those in the window, shape (n,).
        values: What the numbers 0, 1, ... stand for; empty if they are numbers.
        psi: Population stability index; None if there is none.
        p: The smallest of its tests, 0 to 1; None without a test.
        alarm: Whether it is below its level.
    """

    name: str
    before: Floats
    now: Floats
    values: tuple[str, ...]
    psi: float | None
    p: float | None
    alarm: bool


def figure(columns: Sequence[DrawnColumn], title: str) -> Figure:
    """A row for each column with its distribution in reference and window, PSI and p; those with alarms come first.

    Args:
        columns: As many are drawn as have room; those with alarms, then those with the largest PSI.
        title: In lines.
    """
    ordered = by_alarm(columns)
    more = f"\n{len(ordered)} of {len(columns)} are drawn" if len(ordered) < len(columns) else ""
    heading = "\n".join(fill(line, 100) for line in f"{title}{more}".splitlines()).replace("$", r"\$")
    head = HEAD + 0.28 * heading.count("\n")
    height = head + ROW * len(ordered) + FOOT
    with rc_context({**STYLE, "font.size": 11, "axes.grid": False}):
        drawn = Figure(figsize=(WIDTH, height))
        drawn.text(0.15 / WIDTH, 1 - 0.15 / height, heading, va="top", fontsize=14)
        for number, column in enumerate(ordered, 1):
            foot = height - head - ROW * number + (ROW - BARS) / 2
            name = fill(column.name, 24, max_lines=3, placeholder=" …").replace("$", r"\$")
            drawn.text(0.15 / WIDTH, (foot + BARS / 2) / height, name, va="center")
            _shape(drawn.add_axes((NAME / WIDTH, foot / height, SHAPE / WIDTH, BARS / height)), column)
        place = ((NAME + SHAPE + 0.2) / WIDTH, FOOT / height, SIZE / WIDTH, ROW * len(ordered) / height)
        _sizes(drawn.add_axes(place), ordered)
        patches = [
            Patch(color=GREY, alpha=0.5, label="reference (numbers: percentiles 1 to 99)"),
            Patch(color=COLOURS[0], label="window"),
        ]
        patches += [Patch(color=RED, label="window, with an alarm")]
        drawn.legend(handles=patches, loc="lower left", bbox_to_anchor=(NAME / WIDTH, 0), ncols=3)
    return drawn


def by_alarm(columns: Sequence[DrawnColumn]) -> list[DrawnColumn]:
    """As many columns as have room; those with alarms, then those with the largest PSI."""
    return sorted(columns, key=lambda column: (not column.alarm, -(column.psi or 0)))[:MOST_COLUMNS]


def shares(column: DrawnColumn) -> tuple[list[str], Floats, Floats]:
    """What each bin of a column is called, its share in the reference, and that in the window, shape (bins,) each."""
    edges, missing, before, now = _binned(column)
    names = column.values or [f"{low} to {high}" for low, high in pairwise(map(_end, edges.tolist()))]
    if not column.values:  # what lies outside is counted in the nearest bin
        names = [f"up to {_end(edges[1])}", *names[1:-1], f"from {_end(edges[-2])} on"]
    return [*names, *["missing"] * missing], before, now


def _binned(column: DrawnColumn) -> tuple[Floats, bool, Floats, Floats]:
    """The edges of the bins, whether there is one more for missing cells, and the shares of both samples."""
    missing = bool(np.isnan(np.concatenate([column.before, column.now])).any())
    edges, _ = _bins(column)
    before, now = (_shares(cells, edges, missing) for cells in (column.before, column.now))
    return edges, missing, before, now


def _shape(axes: Axes, column: DrawnColumn) -> None:
    """Shares of the values in both samples: bars for the reference, lines for the window."""
    (edges, missing, before, now), (_, ticks) = _binned(column), _bins(column)
    places = np.append(np.arange(len(edges) - 1), [1.05 * len(edges) - 0.8] * missing)  # with a gap
    width = 0.7 if column.values else 1.0
    axes.bar(places, before, width, color=GREY, alpha=0.5)
    axes.hlines(now, places - width / 2, places + width / 2, color=_colour(column), linewidth=2.5)
    ticks |= {float(places[-1]): "missing"} if missing else {}
    axes.set_xticks([*ticks], [*ticks.values()], fontsize=9)
    axes.tick_params("x", length=0, pad=1)
    axes.set(yticks=[], ylim=(0, 1.05 * max(1e-9, *before, *now)), xlim=(-0.8, places[-1] + 0.8))
    axes.spines["left"].set_visible(False)


def _bins(column: DrawnColumn) -> tuple[Floats, dict[float, str]]:
    """The edges of the bins, and texts by the place of the bin that they stand below."""
    if column.values:
        most = max(1, LETTERS // len(column.values) - 1)
        texts = [text if len(text) <= most else f"{text[: most - 1]}…" for text in column.values]
        named = enumerate(texts) if len(texts) <= MOST_VALUES else [(0, f"{len(texts)} values")]
        return np.arange(-0.5, len(texts)), {float(place): text.replace("$", r"\$") for place, text in named}
    cells = np.concatenate([column.before, column.now])
    low, high = np.nanquantile(cells, [0.01, 0.99]).tolist() if not np.isnan(cells).all() else (0.0, 0.0)
    ends = {0.0: low, BINS - 1.0: high} if high > low else {(BINS - 1) / 2: low}
    air = 0 if high > low else 0.5
    edges: Floats = np.linspace(low - air, high + air, BINS + 1, dtype=float)
    return edges, {at: _end(end) for at, end in ends.items()}


def _end(value: float) -> str:
    """An end of a bin."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _shares(cells: Floats, edges: Floats, missing: bool) -> Floats:
    """The share of the cells in each bin, those outside in the nearest, and at the end that of missing ones."""
    counts, _ = np.histogram(np.clip(cells[~np.isnan(cells)], edges[0], edges[-1]), edges)
    return np.append(counts, [np.isnan(cells).sum()] * missing) / max(1, len(cells))


def _sizes(axes: Axes, columns: Sequence[DrawnColumn]) -> None:
    """The columns' PSI as bars, with the figures beside them."""
    places = np.arange(len(columns)) + 0.5
    axes.barh(places, [column.psi or 0 for column in columns], 0.35, color=[_colour(column) for column in columns])
    axes.set(ylim=(len(columns), 0), yticks=[], xlim=(0, max([0.25, *(column.psi or 0 for column in columns)])))
    axes.locator_params("x", nbins=3)
    for place, text in enumerate(["PSI", "p"]):
        axes.annotate(text, (1.1 + 0.4 * place, 1), xycoords="axes fraction", va="bottom")
    for row, column in zip(places, columns, strict=True):
        weight = "bold" if column.alarm else "normal"
        for place, (value, form) in enumerate([(column.psi, ".3f"), (column.p, ".1g")]):
            text = "" if value is None else f"{value:{form}}"
            axes.annotate(
                text, (1.1 + 0.4 * place, row), xycoords=("axes fraction", "data"), va="center", weight=weight
            )


def _colour(column: DrawnColumn) -> str:
    return RED if column.alarm else COLOURS[0]
