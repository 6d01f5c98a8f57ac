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
    parts = [
        ("Checks", "Each check beside its limit", [_row(check) for check in others]),
        ("Slices", f"{len(shown)} of {len(slices)} slices, the worst first", [_row(check) for check in shown]),
    ]
    place = str(record["stage"] or record["action"]).capitalize()
    verdict, tone = _verdict(record)
    return page.render(
        "gate.html",
        f"{name} version {record['version']} to {place}",
        verdict=verdict,
        tone=tone,
        about=_about(record, bool(checks)),
        parts=[part for part in parts if part[2]],
        notes=[check["note"] for check in checks if check["passed"] and check["note"]],
        counts={key.capitalize(): f"{value:,}" for key, value in decided.items() if key not in DECIDED},
    )


def _verdict(record: Mapping[str, Any]) -> tuple[str, str]:
    """What came of it, and its tone."""
    if record["why"] is None:
        return "The gate lets it pass: no check failed.", "good"
    if record["forced"]:
        return f"Forced by a person, although the gate refuses it: {record['why']}.", "warn"
    return f"The gate refuses it, and nothing moves: {record['why']}.", "bad"


def _about(record: Mapping[str, Any], is_decided: bool) -> dict[str, str]:
    nothing = "none, since there is none to compare with" if is_decided else None
    rival = f"version {record['against']}" if record["against"] else nothing
    about = {
        "Asked by": record["asker"] or record["who"],
        "Approved by": record["who"] if record["asker"] else None,
        "Compared with": rival,
        "Rule": record["rule"],
        "Decided by": record["decided_by"],
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
