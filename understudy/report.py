"""Numbers as text: the comparison of a batch, and what a registered version says of itself. Pure."""

from collections.abc import Mapping

import pandas as pd

from understudy.columns import Category
from understudy.metrics import Interval
from understudy.schema import Table


def comparison(cv_scores: Mapping[str, float], results: Mapping[str, Mapping[str, Interval]]) -> pd.DataFrame:
    """A row per family: its mean cross-validation score, and each held-out metric as "value (low to high)"."""
    rows = [
        {"Family": name, "Mean CV score": f"{cv_scores[name]:.3f}", **{m: interval(v) for m, v in metrics.items()}}
        for name, metrics in results.items()
    ]
    return pd.DataFrame(rows)


def interval(values: Interval) -> str:
    """The value and its bounds, as in "0.806 (0.750 to 0.862)"."""
    value, low, high = values
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, for descriptions in MLflow's UI."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def version_card(
    table: Table, family: str, params: Mapping[str, str], figures: Mapping[str, float], data: str, name: str
) -> str:
    """What a registered version is, takes, reached, and how to call it, as Markdown."""
    columns = "\n".join(
        f"| {column.name} | {'category' if isinstance(column, Category) else 'number'} | {column.allowed} "
        f"| {'yes' if column.missing else 'no'} |"
        for column in table.columns
    )
    values = ", ".join(f"{key} {value}" for key, value in sorted(params.items())) or "none"
    scores = "\n".join(f"- {key}: {value:.3f}" for key, value in sorted(figures.items()))
    return f"""**{family}** that predicts `{table.target}` ({table.negative} or {table.positive}), from {data}.

Best grid values: {values}.

{scores}

It takes raw rows of these columns, or rows of the encoded form ({", ".join(c.name for c in table.encoded)}):

| column | kind | allowed | may be missing |
| --- | --- | --- | --- |
{columns}

Serve it with `mlflow models serve -m "models:/{name}/<version>" --env-manager local`, then POST
`{{"dataframe_records": [{{...}}]}}` to `/invocations`; add `"params": {{"output": "probability"}}` for probabilities.
"""
