"""Every plot can be drawn."""

import numpy as np
import pandas as pd

from understudy.figures import metrics, plots
from understudy.figures.metrics import Scored
from understudy.table import TABLE
from understudy.training import threshold


def test_figures_are_drawn_and_empty_bins_do_no_harm() -> None:
    labels, probabilities = np.array([0, 1, 0, 1, 1]), np.array([0.2, 0.2, 0.2, 0.9, 0.9])
    figures = [
        plots.roc(labels, {"a": probabilities, "b": 1 - probabilities}),
        plots.precision_recall(labels, {"a": probabilities}),
        plots.calibration(labels, {"a": probabilities}),
        plots.confusion(labels, Scored(probabilities, 0.5), ("N", "Y"), "a"),
        plots.distribution(labels, Scored(probabilities, 0.5), ("N", "Y"), "a"),
        plots.threshold({"rows": threshold.curve(TABLE, labels, probabilities)}, 0.5, "a"),
        plots.importance(pd.DataFrame({"x": [0.1, 0.2], "y": [0.0, 0.0]}), "a"),
        plots.groups(metrics.slices(labels, probabilities > 0.5, pd.Series([*"xxyy", None], name="z")), "a"),
        plots.differences(np.linspace(-0.1, 0.2, 50).tolist(), (0.05, -0.1, 0.2), -0.02, "a"),
        plots.comparison({"a": metrics.evaluate(labels, Scored(probabilities, 0.5))}),
    ]
    for figure in figures:
        figure.canvas.draw()
