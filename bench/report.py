"""What the page of a batch costs beside the plots of one, in turn, and how large it is: python -m bench.report.

Labels and probabilities of three families are drawn. The first chart of a process starts V8, so it is timed apart.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pandas as pd

from understudy.figures import metrics, plots
from understudy.figures.metrics import Scored
from understudy.report import batch_page, charts
from understudy.report.batch_page import Origin
from understudy.report.findings import Evaluated
from understudy.table import TABLE
from understudy.training import threshold

FAMILIES = ("LogisticRegression", "DecisionTreeClassifier", "RandomForestClassifier")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[186, 10_000], help="held out (default: 186 10000)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    return parser


def batch(count: int) -> tuple[pd.DataFrame, list[Evaluated]]:
    """So many held-out rows, and three families on them."""
    rng = np.random.default_rng(0)
    labels = (rng.random(count) < 0.7).astype(int)
    rows = pd.DataFrame({TABLE.row_id: np.arange(count), TABLE.target.name: np.array(["N", "Y"])[labels]})
    values, families = pd.Series(rng.integers(0, 20, count), name="value"), []
    for name in FAMILIES:
        scored = Scored(0.3 * labels + 0.7 * rng.random(count), 0.5)
        costs = {side: threshold.curve(TABLE, labels, scored.probabilities) for side in ("out of fold", "held out")}
        slices = metrics.slices(labels, scored.called, values)
        families.append(
            Evaluated(name, "run", scored, metrics.evaluate(labels, scored), 0.7, {"C": "1"}, costs, slices)
        )
    return rows, families


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def draw(rows: pd.DataFrame, families: list[Evaluated]) -> None:
    """The plots of a batch, as evaluating writes them."""
    scores = {family.name: family.scored.probabilities for family in families}
    figures = [plots.roc(TABLE.labels(rows), scores), plots.comparison({each.name: each.metrics for each in families})]
    for figure in figures:
        figure.savefig(BytesIO())


def main() -> None:
    args = options().parse_args()
    first = seconds(lambda: charts.lines([charts.Line("a", "red", [(0, 0), (1, 1)])], "x", "y", "a line"))
    print(f"first chart of a process: {first:.2f} s")
    for count in args.rows:
        rows, families = batch(count)
        pages: list[str] = []
        times = [
            (
                seconds(lambda: draw(rows, families)),  # noqa: B023 - called at once
                seconds(lambda: pages.append(batch_page.html(TABLE, rows, families, Origin({}, [])))),  # noqa: B023
            )
            for _ in range(args.rounds)
        ]
        plotted, paged = (statistics.median(column) for column in zip(*times, strict=True))
        size = len(pages[-1].encode()) / 1000
        print(f"{count:>6,} rows: two plots {plotted:.2f} s, the page {paged:.2f} s, {size:.0f} kB")


if __name__ == "__main__":
    main()
