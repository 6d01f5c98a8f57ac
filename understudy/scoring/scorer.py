"""What answers for a served model: rows of any form in; labels, probabilities or what moved them out.

Both servers and the batch run this. For a converted model it loads neither MLflow, pandas nor scikit-learn. The check
of the rows is the one that training's rows went through.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import median_low, mode
from typing import Any, NamedTuple

import numpy as np

from understudy.schema.columns import Category, Cells, Declared, unlisted
from understudy.schema.declaration import Table
from understudy.schema.faults import Fault
from understudy.schema.logged import row_ids
from understudy.scoring import forms, predictors
from understudy.scoring.forms import Form, RowsRefused
from understudy.scoring.predictors import Predictor

FORMAT = 2
FILE = "scorer.json"
VERSION = "UNDERSTUDY_VERSION"  # names the version that MLflow serves; whoever starts the server sets it
LABEL, PROBABILITY, DETAIL = "label", "probability", "detail"
OUTPUTS = (LABEL, PROBABILITY, DETAIL)
REASONS = 3  # columns that a detail names
NOISE = 1e-9  # what rounding leaves of no effect
TOLERANCE = 1e-6  # how far a probability may be from scikit-learn's


class Answered(NamedTuple):
    """Rows that were scored, n of them.

    Args:
        form: "raw" or "encoded".
        columns: The rows as they were understood.
        ids: That the rows brought, None for a row without one; None if no row brought any.
        probabilities: Of the positive label, 0 to 1, shape (n,).
        predictions: What was asked for, shape (n,).
    """

    form: str
    columns: Mapping[str, Cells]
    ids: list[str | None] | None
    probabilities: list[float]
    predictions: list[Any]


class Scorer:
    """A model behind the check of its own table.

    Args:
        table: That it was trained on.
        predictor: What gives the probabilities.
        threshold: The answer is the positive label from this probability on.
        stored: Some `rows` by column, and their `probabilities` by scikit-learn.
    """

    def __init__(self, table: Table, predictor: Predictor, threshold: float, stored: Mapping[str, Any]) -> None:
        self.table, self.predictor, self.threshold, self._stored = table, predictor, threshold, stored
        self._raw, self._encoded = forms.forms(table)
        # Where several columns name rows together, or none does, requests bring ids beside the rows.
        self._identifier = table.identifier if isinstance(table.identifier, str) else None
        self._with_other = [column for column in table.categories if column.other]

    def predict(self, rows: Any, output: str = LABEL, version: str = "") -> list[Any]:
        """Score raw rows, rows of the encoded form, or unnamed rows of the encoded form.

        Args:
            rows: A dict of columns or a list of dicts with the table's columns or the encoded ones, and perhaps its
                identifier; or a list of lists. Cells are what JSON knows; None is a missing one.
            output: "label"; "probability" of the positive label, 0 to 1; or "detail": a dict of both, the row's id if
                there is one, the threshold, the version, and the columns that moved the score most.
            version: Of the model, for `detail`.

        Raises:
            RowsRefused: Rows or an output that are not allowed; names every fault.
        """
        return self.answer(rows, output, version).predictions

    def answer(
        self, rows: Any, output: str, version: str, request: str | None = None, ids: Cells | None = None
    ) -> Answered:
        """What `predict` answers, and what it was made from.

        Args:
            rows: See `predict`.
            output: See `predict`.
            version: See `predict`.
            request: Its id, from which rows without one have theirs.
            ids: Of each row, beside rows that have no identifier.

        Raises:
            RowsRefused: As of `predict`, or the ids are not allowed.
        """
        if output not in OUTPUTS:
            raise RowsRefused([Fault("params.output", "unknown value", ", ".join(OUTPUTS))])
        form, columns, named = self._form_and_columns(rows)
        columns, features = form.features(columns)
        known = self._identifiers(named, ids, len(features[0]))
        probabilities = self._probabilities(features)
        if output == PROBABILITY:
            return Answered(form.name, columns, known, probabilities, probabilities)
        labels = self.labels(probabilities)
        if output == LABEL:
            return Answered(form.name, columns, known, probabilities, labels)
        common = {"threshold": self.threshold, "version": version}
        effects = self.predictor.effects(np.array(features, dtype=float).T).tolist()
        details = [
            {"label": label, "probability": probability, **common, "moved": self._moved(row)}
            for label, probability, row in zip(labels, probabilities, effects, strict=True)
        ]
        if request or known:
            called = row_ids(known, request, len(labels)) if request else known or []
            details = [{"id": row_id, **detail} for row_id, detail in zip(called, details, strict=True)]
        return Answered(form.name, columns, known, probabilities, details)

    def unlisted(self, form: str, columns: Mapping[str, Cells]) -> dict[str, int]:
        """How many cells of accepted rows count as other values, by column; only those of raw rows can be told."""
        with_other = self._with_other if form == self._raw.name else []
        return {column.name: unlisted(column, columns[column.name]) for column in with_other}

    def from_text(self, columns: Mapping[str, Sequence[str]]) -> dict[str, Cells]:
        """Columns of a CSV file as JSON would bring them, for `predict`; those that are not known too."""
        form = self.form(columns)
        return {name: forms.from_text(cells, form.columns.get(name)) for name, cells in columns.items()}

    def example(self) -> dict[str, Any]:
        """A raw row that the table allows: each column's middle or commonest stored cell, and so nobody's row."""
        row = {column.name: _middle(column, self._stored["rows"][column.name]) for column in self.table.columns}
        is_allowed = not self.table.faults({name: [cell] for name, cell in row.items()})
        return row if is_allowed else {column.name: column.example for column in self.table.columns}

    def smoke(self) -> None:
        """Score the stored rows.

        Raises:
            ValueError: The answers are not the stored ones.
        """
        rows, expected = self._stored["rows"], self._stored["probabilities"]
        is_close = np.allclose(self.predict(rows, PROBABILITY), expected, 0, TOLERANCE)
        if not is_close or self.predict(rows) != self.labels(expected):
            raise ValueError("the stored rows do not get the stored answers")

    def _form_and_columns(self, rows: Any) -> tuple[Form, Mapping[str, Cells], Cells | None]:
        """The form of rows, their columns, and the cells of the identifier if they have it."""
        columns = forms.named(rows, (self._raw.columns.keys(), self._encoded.columns.keys()))
        if columns is None:
            return self._encoded, forms.with_names(rows, list(self._encoded.columns)), None
        if columns.keys() == self._raw.columns.keys():
            return self._raw, columns, None
        columns = forms.stripped(columns)
        named = columns.pop(self._identifier, None) if self._identifier else None
        form = self.form(columns)
        known = {name: cells for name, cells in columns.items() if name in form.columns or not self.table.ignores(name)}
        return form, known, named

    def _identifiers(self, named: Cells | None, ids: Cells | None, count: int) -> list[str | None] | None:
        """The ids of so many rows, from their identifier or from beside them; None if there is neither."""
        if named is None and ids is None:
            return None
        name, cells = ("ids", ids) if ids is not None else (str(self._identifier), named or [])
        if len(cells) != count or None not in (named, ids):
            raise RowsRefused([Fault(name, "as many as rows are needed, and once", "an id for each row")])
        return forms.identifiers(name, cells)

    def form(self, columns: Collection[str]) -> Form:
        """The form of rows that have columns of these names, perhaps among others."""
        if {*columns} != self._raw.columns.keys() and forms.is_encoded(self.table, list(columns)):
            return self._encoded
        return self._raw

    def _probabilities(self, features: list[Cells]) -> list[float]:
        if len(features[0]) == 1:
            return [self.predictor.probability([cells[0] for cells in features])]
        probabilities: list[float] = self.predictor.probabilities(np.array(features, dtype=float).T).tolist()
        return probabilities

    def labels(self, probabilities: Sequence[float]) -> list[str]:
        """The labels for probabilities of the positive one, 0 to 1."""
        positive, negative, threshold = self.table.positive, self.table.negative, self.threshold
        return [positive if probability >= threshold else negative for probability in probabilities]

    def _moved(self, effects: list[float]) -> list[dict[str, Any]]:
        """The columns that moved a score most, the strongest first; only those that did."""
        strongest = sorted(range(len(effects)), key=lambda place: -abs(effects[place]))[:REASONS]
        sources = self.table.sources
        return [
            {
                "column": " + ".join(sources[place]),
                "towards": self.table.positive if effects[place] > 0 else self.table.negative,
                self.predictor.unit: effects[place],
            }
            for place in strongest
            if abs(effects[place]) > NOISE
        ]


def _middle(column: Declared, cells: Cells) -> Any:
    """A cell like most of a column's, which may hold what a category does not list; that is never taken."""
    if isinstance(column, Category):
        cell = mode([cell for cell in cells if column.lists(cell)] or column.values)
    else:
        cell = median_low([cell for cell in cells if cell is not None] or [column.example])
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def load(folder: Path) -> Scorer:
    """The Scorer of a saved model's folder.

    Raises:
        ValueError: Its format is another one than this code reads.
    """
    written = json.loads((folder / FILE).read_text())
    if written["format"] != FORMAT:
        raise ValueError(f"the model has format {written['format']}, this code reads {FORMAT}: update understudy")
    table = Table.of(written["table"])
    predictor = predictors.load(folder, table, written)
    return Scorer(table, predictor, float(written["threshold"]), written["stored"])
