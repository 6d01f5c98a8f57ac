"""What answers for a served model: rows of any form in; labels, probabilities or their reasons out.

Both servers and the batch run this. For a model that could be converted it loads neither MLflow, pandas nor
scikit-learn. The check of the rows is the one that training's rows went through.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from understudy.schema.columns import Cells, Fault
from understudy.schema.declaration import Table
from understudy.scoring import forms
from understudy.scoring.compiled import Floats, Linear, Preparation, Trees
from understudy.scoring.forms import RowsRefused

FORMAT = 2
FILE = "scorer.json"
FITTED = "sklearn"  # the kind of a model that answers in scikit-learn's own form
VERSION = "UNDERSTUDY_VERSION"  # of the model that MLflow serves, from whoever starts the server
LABEL, PROBABILITY, DETAIL = "label", "probability", "detail"
OUTPUTS = (LABEL, PROBABILITY, DETAIL)
REASONS = 3
NOISE = 1e-9  # what rounding leaves of no effect
TOLERANCE = 1e-6  # how far a probability may be from scikit-learn's


class Model(Protocol):
    """What gives the probabilities; features are of shape (n, features), NaN where missing."""

    unit: str

    def probabilities(self, features: Floats) -> Floats:
        """Of the positive label, shape (n,)."""

    def probability(self, features: Sequence[float]) -> float:
        """The same for one row, shape (features,)."""

    def effects(self, features: Floats) -> Floats:
        """How far each feature moved the score, in the model's unit, shape (n, features)."""


class Scorer:
    """A model behind the check of its own table.

    Args:
        table: That it was trained on.
        model: What gives the probabilities.
        threshold: The answer is the positive label from this probability on.
        stored: Some `rows` by column, and their `probabilities` by scikit-learn.
    """

    def __init__(self, table: Table, model: Model, threshold: float, stored: Mapping[str, Any]) -> None:
        self.table, self.model, self.threshold, self._stored = table, model, threshold, stored
        self._raw, self._encoded = forms.forms(table)

    def predict(self, rows: Any, output: str = LABEL, version: str = "") -> list[Any]:
        """Score raw rows, rows of the encoded form, or unnamed rows of the encoded form.

        Args:
            rows: A dict of columns or a list of dicts with the table's columns or the encoded ones; or a list of
                lists. Cells are what JSON knows; None is a missing one.
            output: "label"; "probability" of the positive label, 0 to 1; or "detail": a dict of both, the threshold,
                the version, and the columns that moved the score most.
            version: Of the model, for `detail`.

        Raises:
            RowsRefused: Rows or an output that are not allowed; names every fault.
        """
        if output not in OUTPUTS:
            raise RowsRefused([Fault("params.output", "unknown value", ", ".join(OUTPUTS))])
        columns = self._features(rows)
        probabilities = self._probabilities(columns)
        if output == PROBABILITY:
            return probabilities
        labels = self._labels(probabilities)
        if output == LABEL:
            return labels
        known = {"threshold": self.threshold, "version": version}
        effects = self.model.effects(np.array(columns, dtype=float).T).tolist()
        return [
            {"label": label, "probability": probability, **known, "moved": self._moved(row)}
            for label, probability, row in zip(labels, probabilities, effects, strict=True)
        ]

    def from_text(self, columns: Mapping[str, Sequence[str]]) -> dict[str, Cells]:
        """Columns of a CSV file as JSON would say them, for `predict`; columns that are not known too."""
        form = self._form(columns)
        return {name: forms.from_text(cells, form.columns.get(name)) for name, cells in columns.items()}

    def smoke(self) -> None:
        """Score the stored rows.

        Raises:
            ValueError: The answers are not the stored ones.
        """
        wanted = self._stored["probabilities"]
        found = self.predict(self._stored["rows"], PROBABILITY)
        if self.predict(self._stored["rows"]) != self._labels(wanted) or not np.allclose(found, wanted, 0, TOLERANCE):
            raise ValueError("the stored rows do not get the stored answers")

    def _probabilities(self, columns: list[Cells]) -> list[float]:
        if len(columns[0]) == 1:
            return [self.model.probability([cells[0] for cells in columns])]
        found: list[float] = self.model.probabilities(np.array(columns, dtype=float).T).tolist()
        return found

    def _features(self, rows: Any) -> list[Cells]:
        columns = forms.named(rows)
        if columns is None:
            return self._encoded.features(forms.with_names(rows, list(self._encoded.columns)))
        return self._form(columns).features(columns)

    def _form(self, columns: Mapping[str, Any]) -> forms.Form:
        if columns.keys() != self._raw.columns.keys() and forms.is_encoded(self.table, list(columns)):
            return self._encoded
        return self._raw

    def _labels(self, probabilities: list[float]) -> list[str]:
        positive, negative, threshold = self.table.positive, self.table.negative, self.threshold
        return [positive if probability >= threshold else negative for probability in probabilities]

    def _moved(self, effects: list[float]) -> list[dict[str, Any]]:
        """The columns that moved a score most, first the one that did it most; only those that did."""
        order = sorted(range(len(effects)), key=lambda place: -abs(effects[place]))[:REASONS]
        sources = self.table.sources
        return [
            {
                "column": " + ".join(sources[place]),
                "towards": self.table.positive if effects[place] > 0 else self.table.negative,
                self.model.unit: effects[place],
            }
            for place in order
            if abs(effects[place]) > NOISE
        ]


def load(folder: Path) -> Scorer:
    """The Scorer of a saved model's folder.

    Raises:
        ValueError: Its format is another one than this code reads.
    """
    written = json.loads((folder / FILE).read_text())
    if written["format"] != FORMAT:
        raise ValueError(f"the model has format {written['format']}, this code reads {FORMAT}: update understudy")
    table = Table.of(written["table"])
    return Scorer(table, _model(folder, table, written), float(written["threshold"]), written["stored"])


def _model(folder: Path, table: Table, written: Mapping[str, Any]) -> Model:
    spread = [(np.array(values, dtype=float), np.array(shares)) for values, shares in written["spread"]]
    if written["kind"] == FITTED:
        from understudy.scoring.fallback import Fitted  # loads MLflow and scikit-learn

        return Fitted(folder, table, spread)
    prepare = Preparation(written["prepare"])
    return Linear(prepare, written) if written["kind"] == "linear" else Trees(prepare, written, folder, spread)
