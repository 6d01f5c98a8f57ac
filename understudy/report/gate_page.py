"""The page of a verdict of the gate: who, against whom, on what rows, and each check beside its limit."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from understudy.figures import cards
from understudy.report import charts, page
from understudy.report.charts import Measured

RESULTS = {True: ("✓ pass", "good"), False: ("✗ fail", "bad"), None: ("decides nothing", "muted")}
COLOURS = {"good": "var(--good)", "bad": "var(--bad)", "muted": "var(--muted)"}
MOST_SLICES = 12  # that are shown, the worst first; gate.json has all
DECIDED = ("allowed", "why", "checks", "rule", "decided by")  # of gate.json; the rest are counts of rows
SLICE = "log loss less champion's, "  # what is in the name of a slice's check
RULES = {
    "not-worse": "not-worse: it may predict worse by no more than the margin",
    "better": "better: it has to predict better",
    "point": "point: it may not predict worse on these rows, whatever the interval",
}


def html(name: str, record: Mapping[str, Any], decided: Mapping[str, Any]) -> str:
    """The page of a verdict.

    Args:
        name: Of the registered model.
        record: The decision's record, by the names of its parts.
        decided: What gate.json says; empty where the gate could not decide.
    """
    checks = decided.get("checks", [])
    slices = [check for check in checks if SLICE in check["name"]]
    shown = sorted(slices, key=lambda check: check["passed"] is not False)[:MOST_SLICES]
    others = [check for check in checks if SLICE not in check["name"]]
    aside = [check for check in others if check["passed"] is None]
    parts = [
        ("Checks", "Each check beside its limit", [_row(check) for check in others if check not in aside]),
        ("Slices", f"{len(shown)} of {len(slices)} slices, the worst first", [_row(check) for check in shown]),
        ("Beside the checks", "What was measured too, and decides nothing", [_row(check) for check in aside]),
    ]
    verdict, tone = _verdict(record)
    return page.render(
        "gate.html",
        f"{name} version {record['version']} to {_place(record)}",
        verdict=verdict,
        tone=tone,
        about=_about(record, decided),
        parts=[part for part in parts if part[2]],
        notes=[check["note"] for check in checks if check["passed"] is not False and check["note"]],
        counts={key.capitalize(): f"{value:,}" for key, value in decided.items() if key not in DECIDED},
    )


def _place(record: Mapping[str, Any]) -> str:
    return str(record["stage"] or record["action"]).capitalize()


def _verdict(record: Mapping[str, Any]) -> tuple[str, str]:
    """What came of it, and its tone."""
    instead = f" in place of version {record['before']}" if record["before"] else ""
    move = f"version {record['version']} go to {_place(record)}{instead}"
    if record["why"] is None:
        return f"The gate lets {move}: no check failed.", "good"
    if record["forced"]:
        return f"A person lets {move}, although the gate does not: {record['why']}.", "warn"
    return f"The gate does not let {move}: {record['why']}.", "bad"


def _about(record: Mapping[str, Any], decided: Mapping[str, Any]) -> dict[str, str]:
    nothing = "none, since there is none to compare with" if decided else None
    rival = f"version {record['against']}" if record["against"] else nothing
    about = {
        "Asked by": record["asker"] or record["who"],
        "Approved by": record["who"] if record["asker"] else None,
        "Compared with": rival,
        "On": f"{decided['rows']:,} rows that were held out" if "rows" in decided else None,
        "Decided by": record["decided_by"],
        "Rule": RULES.get(record["rule"]) if record["stage"] == "production" else None,
        "Reason": record["reason"],
    }
    return {label: str(value) for label, value in about.items() if value}


def _row(check: Mapping[str, Any]) -> Sequence[str | Markup]:
    said, tone = RESULTS[check["passed"]]
    mark = Markup('<span class="mark {}">{}</span>').format(tone, said)
    value, low, high = (check[key] for key in ("value", "low", "high"))
    if value is None:
        return [check["name"], mark, "", "not measured", check["limit"]]
    interval = (value, value, value) if low is None or high is None else (value, low, high)
    measured = cards.number(value) if interval[1:] == (value, value) else cards.interval(interval)
    drawn: str | Markup = ""
    if check["bound"] is not None:
        drawn = charts.gauge(Measured(check["name"], COLOURS[tone], interval), check["bound"])
    return [check["name"], mark, drawn, measured, check["limit"]]
