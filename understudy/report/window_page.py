"""The page of a window of the monitor: what has drifted, and whether the answers have become worse."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from markupsafe import Markup

from understudy.figures import cards, windows
from understudy.figures.windows import DrawnColumn
from understudy.report import charts, page

MOST_FAULTS = 20


def html(name: str, found: Mapping[str, Any], drawn: Sequence[DrawnColumn]) -> str:
    """The page of a window.

    Args:
        name: What people call the window.
        found: What the monitor's report.json says.
        drawn: The columns with their cells.
    """
    tested = {column["column"]: column for column in found["columns"]}
    ordered = windows.by_alarm(drawn)
    rows, outcome = found["rows"], found["outcome"]
    return page.render(
        "window.html",
        name,
        verdict=_sentence(found["verdict"]),
        tone="bad" if outcome and outcome["worse"] else "warn" if found["exit"] else "good",
        about={
            "Rows": f"{rows['accepted']:,}, and {rows['refused']:,} refused",
            "From": _time(found["since"]) if found["since"] else "the first row",
            "To": _time(found["until"]),
            "Compared with": _compared_with(found["compared_with"]),
        },
        columns_caption=f"{len(ordered)} of {len(drawn)} columns",
        columns=(
            ["Column", "Result", "Distribution", "p", "PSI", "Missing before", "Missing"],
            [_column(column, tested.get(column.name, {})) for column in ordered],
        ),
        scores=_scores(found["scores"]),
        together=[_together(form, of) for form, of in found["together"].items()],
        **_outcome(outcome, found["estimate"]),
        shadows=[_shadow(shadow) for shadow in found["shadows"]],
        faults=[[fault, f"{count:,}"] for fault, count in [*found["faults"].items()][:MOST_FAULTS]],
    )


def _time(text: str) -> str:
    return cards.shown_time(datetime.fromisoformat(text))


def _sentence(text: str) -> str:
    """A text with a capital first, and its names as they are."""
    return f"{text[:1].upper()}{text[1:]}."


def _compared_with(reference: Mapping[str, Any]) -> str:
    kind = "rows that it was trained on" if reference["trained_on"] else "held-out rows, since training kept no others"
    return f"{reference['rows']:,} {kind}"


def _number(value: float | None) -> str:
    return "" if value is None else cards.number(value)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _column(column: DrawnColumn, tested: Mapping[str, Any]) -> list[str | Markup]:
    tone, result = ("muted", "not tested") if column.p is None else ("good", "✓ as before")
    if column.alarm:
        tone, result = "bad", "✗ alarm"
    names, before, now = windows.shares(column)
    colour = "var(--bad)" if column.alarm else "var(--link)"
    return [
        column.name,
        Markup('<span class="mark {}">{}</span>').format(tone, result),
        charts.shares(names, before.tolist(), now.tolist(), colour, f"{column.name}, before and in this window"),
        _number(column.p),
        _number(column.psi),
        _share(tested.get("missing_before")),
        _share(tested.get("missing")),
    ]


def _scores(of: Mapping[str, Any]) -> str:
    means = f"mean {_number(of['mean'])}, before {_number(of['mean_before'])}"
    p = "" if of["p"] is None else f", p {_number(of['p'])}"
    return f"{means}; {of['test']}{p}{', an alarm' if of['alarm'] else ''}"


def _together(form: str, of: Mapping[str, Any]) -> str:
    area = f" at AUC {of['auc']:.3f}, p {_number(of['p'])}" if of["auc"] is not None else ""
    tells = f", by {', '.join(of['columns'])}" if of["columns"] else ""
    return f"All {form} columns together: {of['test']}{area}{tells}{', an alarm' if of['alarm'] else ''}"


def _shadow(of: Mapping[str, Any]) -> str:
    answered = of["rows"] - of["refused"]
    return f"Version {of['version']}: {of['agreeing']:,} of {answered:,} labels agree, {of['refused']:,} rows refused"


def _outcome(outcome: Mapping[str, Any] | None, estimate: Mapping[str, Any]) -> dict[str, object]:
    """What the labels say, or else what is expected."""
    names, known = ["Metric", "Now", "At promotion", "Change", "Result"], outcome or {}
    worse, no_change = Markup('<span class="mark bad">✗ worse</span>'), ""
    rows = [
        [
            metric,
            *(cards.interval(known[part][metric]) for part in ("metrics", "before", "change")),
            worse if metric in known["worse"] else no_change,
        ]
        for metric in known.get("metrics", ())
    ]
    labelled = f"{known['rows']:,} answered rows have a label, {known['positive']:,} of them positive." if known else ""
    expected = [
        [metric, *(_number(estimate[part][metric]) for part in ("expected", "expected_before", "true_before"))]
        for metric in estimate["expected"]
    ]
    columns = ["Metric", "Expected now", "Expected of the held-out rows", "Came true of these"]
    return {"outcome": (names, rows) if outcome else None, "labelled": labelled, "estimate": (columns, expected)}
