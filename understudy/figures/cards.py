"""Numbers as text: the comparison of a batch, and how runs describe themselves."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:  # scikit-learn takes seconds to load, and most who ask for records measure nothing
    from understudy.figures.metrics import Interval


def intervals(results: "Mapping[str, Mapping[str, Interval]]") -> pd.DataFrame:
    """A row per family: each metric, or difference of a metric, as "value (low to high)"."""
    rows = [{"Family": name, **{key: interval(v) for key, v in metrics.items()}} for name, metrics in results.items()]
    return pd.DataFrame(rows)


def interval(values: "Interval") -> str:
    """The value and its bounds, as in "0.806 (0.750 to 0.862)"."""
    value, low, high = values
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def headline(metrics: Mapping[str, float]) -> dict[str, str]:
    """What `figures` finds, as text."""
    return {
        name: interval((values[0], values[1], values[2])) if values[1:] else number(values[0])
        for name, values in figures(metrics).items()
    }


def figures(metrics: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    """The metrics of a run whose names have no prefix, by name: the value, and its bounds where the run has them."""
    values = {name.removeprefix("interval/"): value for name, value in metrics.items()}
    pairs = {name: (f"{name} low", f"{name} high") for name in metrics}
    bounds = {name: (values[low], values[high]) for name, (low, high) in pairs.items() if {low, high} <= {*values}}
    beside = {bound for name in bounds for bound in pairs[name]}
    return {name: (values[name], *bounds.get(name, ())) for name in sorted({*values} - beside) if "/" not in name}


def named(values: tuple[float, ...]) -> dict[str, float | None]:
    """A value, and its bounds if it has some, as `--json` has them."""
    return dict(zip(("value", "low", "high"), (*values, None, None), strict=False))


def number(value: float) -> str:
    """A figure as text: three decimals, or its power of ten where these would be zeros."""
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.3f}" if round(value, 3) else f"{value:.0e}"


def cell(value: object) -> str:
    """A column's value, or that there is none."""
    return "missing" if value is None or value != value else f"{value:g}" if isinstance(value, float) else str(value)


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, for descriptions in MLflow's UI."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def family_card(params: Mapping[str, str], cv_score: float, metrics: "Mapping[str, Interval]") -> str:
    """A family's best grid values and how good it is, in one line."""
    values = ", ".join(f"{key} {value}" for key, value in params.items()) or "nothing to search"
    held_out = ", ".join(f"{name} {interval(metrics[name])}" for name in ("Accuracy", "AUC"))
    return f"Best of its grid: {values}. Mean CV score {cv_score:.3f}; held out: {held_out}."


def shown_time(time: datetime) -> str:
    """A time to the second, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
