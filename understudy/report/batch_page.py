"""The page of a batch: its families side by side on the held-out rows, and how they were made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from understudy.families import FAMILIES
from understudy.figures import cards, plots
from understudy.figures.metrics import Labels
from understudy.report import charts, curves, findings, page
from understudy.report.charts import Line, Measured
from understudy.report.findings import Evaluated
from understudy.schema.declaration import Table

Cells = tuple[list[str], list[list[str]]]  # names of columns, and rows of texts
MOST_GROUPS = 60  # that are shown; slices.csv has all
DRAWN = ("Accuracy", "AUC", "Log loss")  # as many as fit beside each other on a desk


@dataclass(frozen=True)
class Origin:
    """How a batch was made.

    Args:
        facts: Data, code, seed, packages and runs, by what they are called.
        commands: Those that repeat it.
    """

    facts: Mapping[str, str]
    commands: Sequence[str]


def html(table: Table, held_out: pd.DataFrame, families: Sequence[Evaluated], origin: Origin) -> str:
    """The page of a batch.

    Args:
        table: What the rows are of.
        held_out: The rows that its families are compared on, of both labels.
        families: The best in cross-validation first, others and the floor behind.
        origin: How it was made.
    """
    labels = table.labels(held_out)
    searched = findings.searched(families)
    best = families[0]
    compared = findings.differences(labels, searched)
    return page.render(
        "batch.html",
        f"{table.name}: the families of a batch",
        told_apart=findings.told_apart(compared, len(labels)),
        best=best.name,
        keys=[(family.name, _colour(family), _is_dashed(family)) for family in families],
        ranked_caption=f"{len(labels):,} held-out rows, value (95 % interval); the best in cross-validation first",
        ranked=_ranked(families),
        interval_charts=_interval_charts(families),
        compared=_compared(compared),
        curve_charts=_curve_charts(table, labels, families),
        params=_params(families),
        **_thresholds(table, searched),
        gaps=findings.gap_sentences(best.slices),
        fewest=findings.FEWEST_ROWS,
        slices=_slices(best.slices),
        **_disputed(table, held_out[table.row_id].tolist(), labels, searched),
        positive=table.positive,
        negative=table.negative,
        made=origin.facts,
        commands=origin.commands,
    )


def _colour(family: Evaluated) -> str:
    number = plots.colour_number(family.name)
    return "var(--floor)" if number is None else f"var(--family-{number + 1})"


def _is_dashed(family: Evaluated) -> bool:
    return family.name not in FAMILIES


def _ranked(families: Sequence[Evaluated]) -> Cells:
    names = list(families[0].metrics)
    rows = [
        [family.name, f"{family.cv_score:.3f}", *(cards.interval(family.metrics[name]) for name in names)]
        for family in families
    ]
    return ["Family", "Mean CV score", *names], rows


def _compared(compared: Mapping[tuple[str, str], tuple[float, float, float]]) -> Cells:
    rows = [[f"{one} less {other}", cards.interval(interval)] for (one, other), interval in compared.items()]
    return ["Families", "Difference (interval)"], rows


def _interval_charts(families: Sequence[Evaluated]) -> list[tuple[Markup, str]]:
    drawn = []
    for metric in DRAWN:
        measured = [Measured(family.name, _colour(family), family.metrics[metric]) for family in families]
        better = " (lower is better)" if metric in plots.LOWER_IS_BETTER else ""
        drawn.append((charts.intervals(measured, f"{metric} of each family"), f"{metric}{better}"))
    return drawn


def _lines(families: Sequence[Evaluated], points: Mapping[str, curves.Points], has_dots: bool = False) -> list[Line]:
    return [Line(each.name, _colour(each), points[each.name], _is_dashed(each), has_dots) for each in families]


def _curve_charts(table: Table, labels: Labels, families: Sequence[Evaluated]) -> list[tuple[Markup, str]]:
    searched, whole = findings.searched(families), (-0.02, 1.02)
    roc = {each.name: curves.roc(labels, each.scored.probabilities) for each in searched}
    recall = {each.name: curves.precision_recall(labels, each.scored.probabilities) for each in searched}
    observed = {each.name: curves.calibration(labels, each.scored.probabilities) for each in searched}
    ends = np.concatenate([np.ravel(points) for points in observed.values()])
    around = (max(0.0, float(ends.min()) - 0.05), min(1.0, float(ends.max()) + 0.05))
    share = float(labels.mean())
    chance = "the dotted line is chance"
    return [
        (
            charts.lines(
                _lines(searched, roc),
                "False positive rate",
                "True positive rate",
                "ROC curve of each family",
                [(0, 0), (1, 1)],
                {"x": whole, "y": whole},
            ),
            f"ROC curve; {chance}",
        ),
        (
            charts.lines(
                _lines(searched, recall),
                "Recall",
                "Precision",
                "Precision by recall of each family",
                [(0, share), (1, share)],
                {"x": whole, "y": whole},
            ),
            f"Precision and recall; {chance}",
        ),
        (
            charts.lines(
                _lines(searched, observed, has_dots=True),
                "Predicted probability",
                f"Observed share of {table.positive}",
                "Calibration of each family",
                [(around[0], around[0]), (around[1], around[1])],
                {"x": around, "y": around},
            ),
            f"Calibration, in {curves.BINS} bins of equal counts; on the dotted line probabilities are true",
        ),
    ]


def _params(families: Sequence[Evaluated]) -> Cells:
    names = sorted({name for family in families for name in family.params})
    differing = [name for name in names if len({family.params.get(name) for family in families}) > 1]
    rows = [[family.name, *(family.params.get(name, "") for name in differing)] for family in families if family.params]
    return ["Family", *differing], rows


def _thresholds(table: Table, families: Sequence[Evaluated]) -> dict[str, object]:
    drawn = []
    for rows in families[0].costs:
        points = {family.name: curves.costs(family.costs[rows]) for family in families}
        chart = charts.lines(
            _lines(families, points), "Threshold", "Mean cost of a row", f"Cost of each threshold, {rows}"
        )
        drawn.append((chart, f"What each threshold costs a row, {rows} (lower is better)"))
    cells = []
    for family in families:
        curve = family.costs["held out"].set_index("threshold")
        chosen = curve.iloc[np.abs(curve.index.to_numpy() - family.scored.threshold).argmin()]
        cheapest = curve["cost"].idxmin()
        shares = [f"{chosen['false positives']:.3f}", f"{chosen['false negatives']:.3f}"]
        cells.append(
            [
                family.name,
                f"{family.scored.threshold:.2f}",
                f"{chosen['cost']:.3f}",
                *shares,
                f"{curve['cost'].min():.3f} at {cheapest:.2f}",
            ]
        )
    names = ["Family", "Threshold", "Cost", f"Wrongly {table.positive}", f"Wrongly {table.negative}", "Cheapest here"]
    return {
        "cost_charts": drawn,
        "thresholds": (names, cells),
        "costs": (f"{table.false_positive_cost:g}", f"{table.false_negative_cost:g}"),
        "break_even": f"{table.break_even:.2f}",
    }


def _slices(slices: pd.DataFrame | None) -> Cells:
    """The groups of the table's categories; of many the worst answered, and none of too few rows to tell."""
    if slices is not None and len(slices) > MOST_GROUPS:
        slices = slices[slices["rows"] >= findings.FEWEST_ROWS].nsmallest(MOST_GROUPS, "accuracy")
    rates = ["accuracy", "positive rate", "true positive rate", "false positive rate"]
    rows = [
        [f"{group['column']}: {cards.cell(group['value'])}", f"{group['rows']:,}"]
        + [_rate(group[rate], group[f"{rate} low"], group[f"{rate} high"]) for rate in rates]
        for _, group in ([] if slices is None else slices.iterrows())
    ]
    return ["Group", "Rows", *(rate.capitalize() for rate in rates)], rows


def _rate(value: float, low: float, high: float) -> str:
    return "no such row" if np.isnan(value) else cards.interval((value, low, high))


def _disputed(table: Table, rows: Sequence[object], labels: Labels, families: Sequence[Evaluated]) -> dict[str, object]:
    counts, found = findings.disputed(rows, labels, families)
    names, answers = [family.name for family in families], (table.negative, table.positive)
    lines = [
        [row.row, answers[row.label]]
        + [f"{'✓ right' if is_right else '✗ wrong'}, {value:.2f}" for is_right, value in row.answers]
        for row in found
    ]
    pairs = [[name, *(f"{count:,}" for count in line)] for name, line in zip(names, counts.tolist(), strict=True)]
    return {"counts": (["Right", *names], pairs), "disputed": ([table.row_id, table.target.name, *names], lines)}
