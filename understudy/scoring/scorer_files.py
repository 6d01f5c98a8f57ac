"""Writes what a served model needs beside its scikit-learn form: `scorer.json` and, for trees, `trees.onnx`."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import Pipeline

from understudy.schema.columns import Category, Cells, Floats, listed
from understudy.schema.declaration import Table
from understudy.scoring import conversion, pipelines, scorer
from understudy.scoring.boosters import NotConvertible
from understudy.scoring.predictors import SKLEARN, TREES

if TYPE_CHECKING:
    import pandas as pd

TRIED = 1_000  # rows that a converted model has to answer as scikit-learn does
STORED = 20  # of which these go with the model
MIDDLES = (10, 30, 50, 70, 90)  # percentiles: the middles of five equal shares


def write(folder: Path, pipeline: Pipeline, table: Table, rows: "pd.DataFrame") -> None:
    """Convert a Pipeline that was fitted on training rows, or write down that its scikit-learn form is to be used.

    The folder is made, for what is to lie beside that form.
    """
    folder.mkdir()
    features, tried = table.encode(rows), _mixed(table, rows)
    probabilities = pipelines.positive(pipeline[1:], table.encode(tried), table).tolist()
    document, trees = derived(pipeline, table, features)
    spread = {"spread": _spread(table, features)}
    try:
        _write(folder, {**document, **spread, "stored": {"rows": tried, "probabilities": probabilities}}, trees)
        if document["kind"] != SKLEARN:
            scorer.load(folder).smoke()
    except ValueError:
        document, trees = _unconverted(pipeline, table), None
        (folder / TREES).unlink(missing_ok=True)
    few = {name: cells[:STORED] for name, cells in tried.items()}
    _write(folder, {**document, **spread, "stored": {"rows": few, "probabilities": probabilities[:STORED]}}, trees)


def derived(pipeline: Pipeline, table: Table, features: Floats) -> tuple[dict[str, Any], bytes | None]:
    """What of `scorer.json` follows from a fitted Pipeline, and the content of `trees.onnx`; None if it has no trees.

    The features are those of training rows, shape (n, features), NaN where missing. Nothing depends on them but the
    `mean` of a linear model's columns.
    """
    document = _unconverted(pipeline, table)
    try:
        converted, trees = conversion.convert(pipeline[1:], table.positive, features)
    except NotConvertible:
        return document, None
    return document | converted, trees


def _unconverted(pipeline: Pipeline, table: Table) -> dict[str, Any]:
    threshold = float(pipeline[-1].threshold)
    return {"format": scorer.FORMAT, "table": table.as_dict(), "threshold": threshold, "kind": SKLEARN}


def _write(folder: Path, document: dict[str, Any], trees: bytes | None) -> None:
    (folder / scorer.FILE).write_text(json.dumps(document))
    if trees is not None:
        (folder / TREES).write_bytes(trees)


def _mixed(table: Table, rows: "pd.DataFrame") -> dict[str, Cells]:
    """Rows that the table allows and nobody sent: each column of some training rows in an order of its own."""
    rng = np.random.default_rng(0)
    chosen = rows.iloc[rng.permutation(len(rows))[:TRIED]]
    mixed = {column.name: listed(chosen[column.name]) for column in table.columns}
    mixed = {name: [cells[place] for place in rng.permutation(len(cells))] for name, cells in mixed.items()}
    refused = {row - 1 for fault in table.faults(mixed) for row in fault.rows}
    return {name: [cell for row, cell in enumerate(cells) if row not in refused] for name, cells in mixed.items()}


def _spread(table: Table, features: Floats) -> list[tuple[list[float], list[float]]]:
    """For each feature some values of training, and their shares: all codes of a category, five values of a number."""
    spread = []
    for column, values in zip(table.encoded, features.T, strict=True):
        present = values[~np.isnan(values)]
        if isinstance(column, Category) and len(present):
            counts = np.bincount(present.astype(int), minlength=len(column.values))
            spread.append((list(map(float, column.values)), (counts / len(present)).tolist()))
        else:
            middles = np.percentile(present, MIDDLES).tolist() if len(present) else [math.nan] * len(MIDDLES)
            spread.append((middles, [1 / len(MIDDLES)] * len(MIDDLES)))
    return spread
