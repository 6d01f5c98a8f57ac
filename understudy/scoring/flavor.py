"""What runs when MLflow asks a served model for predictions: the scorer, for rows as MLflow and Python bring them.

Its check of the rows takes the place of MLflow's: the signature has no inputs, so that rows of every accepted form
arrive here as they are. Neither scikit-learn nor skops is loaded for a converted model, so that a server starts sooner,
and an executor of Spark needs neither.
"""

import json
import math
import os
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from understudy.schema.columns import Cells
from understudy.schema.faults import Fault, repeated
from understudy.schema.spelling import number
from understudy.scoring import scorer
from understudy.scoring.forms import RowsRefused
from understudy.scoring.scorer import LABEL, VERSION, Scorer

# Cells that databases and Spark have, and JSON has not.
SPELLED: dict[type, Callable[[Any], Any]] = {Decimal: float, date: date.isoformat}


class MlflowRowsRefused(MlflowException):
    """A refusal as MLflow knows it; stock serve answers 400 with the faults and nothing of what was sent."""

    def __init__(self, refused: RowsRefused) -> None:
        super().__init__(str(refused), error_code=INVALID_PARAMETER_VALUE)
        self.body = refused.body()

    def serialize_as_json(self) -> str:
        """The answer's body. `message` is not used: stock serve has written the rows into it."""
        return json.dumps(self.body)


class PyfuncScorer:
    """A Scorer that takes rows as MLflow and Python bring them."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        columns = (*scorer.table.columns, *scorer.table.encoded)
        self._known = {scorer.table.row_id, *(column.name for column in columns)}
        self._numbers = {column.name for column in columns if not column.is_text}

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> list[Any]:
        """Score raw rows, rows of the encoded form, or unnamed rows of the encoded form.

        Args:
            rows: As `Scorer.predict` takes them, or a DataFrame, or an array of shape (n, features). NaN is a
                missing cell here, since pandas knows no other.
            params: `output`, as of `Scorer.predict`.

        Raises:
            MlflowRowsRefused: Rows or params that are not allowed; names every fault.
        """
        try:
            output = (params or {}).get("output", LABEL)
            plain = self._of_frame(rows) if isinstance(rows, pd.DataFrame) else _plain(rows)
            return self.scorer.predict(plain, output, os.environ.get(VERSION, ""))
        except RowsRefused as refused:
            raise MlflowRowsRefused(refused) from None
        except RecursionError:
            nested = RowsRefused([Fault("the table", "nested too deeply", "rows of cells")])
            raise MlflowRowsRefused(nested) from None

    def _of_frame(self, rows: pd.DataFrame) -> Any:
        if isinstance(rows.columns, pd.RangeIndex):
            return _plain(rows.to_numpy().tolist())
        names = [str(name).strip() for name in rows]
        if twice := list(repeated(names)):
            raise RowsRefused(twice)
        given = names
        if len(names) > len(self._known):  # pandas takes seconds for the cells of columns that are refused anyway
            places = [place for place, name in enumerate(names) if name in self._known]
            given, rows = [names[place] for place in places], rows.iloc[:, places]
        # All columns at once: one by one, they take ten times as long for a row as the model does.
        cells = rows.to_numpy(dtype=object, na_value=None).T.tolist()  # type: ignore[arg-type]
        columns = dict(zip(given, cells, strict=True))
        if len(names) > len(given):
            columns = dict.fromkeys(names, [None] * len(rows)) | columns
        columns |= {name: _of_json(cells) for name, cells in columns.items()}
        texts = {name: [cell or "" for cell in columns[name]] for name in self._numbers if _is_csv(columns.get(name))}
        return columns | self.scorer.from_text(texts) if texts else columns


def _of_json(cells: Cells) -> Cells:
    """Decimal numbers as numbers, and dates as text, as JSON would bring them."""
    kind = type(next((cell for cell in cells if cell is not None), None))
    return [SPELLED[kind](cell) if type(cell) is kind else cell for cell in cells] if kind in SPELLED else cells


def _is_csv(cells: Cells | None) -> bool:
    """Whether a column of numbers is text because pandas has read CSV and found a cell in it that it takes for none."""
    first = next((cell for cell in cells or () if cell is not None), None)
    if not isinstance(first, str) or {*map(type, cells or ())} - {str, type(None)}:
        return False
    return any(isinstance(number(cell), str) or cell != cell.strip() for cell in cells or () if cell is not None)


def _plain(rows: Any) -> Any:
    """Rows as JSON would bring them."""
    if isinstance(rows, np.ndarray):
        return _plain(rows.tolist())
    if isinstance(rows, dict):
        return {name: _plain(cells) for name, cells in rows.items()}
    if isinstance(rows, list):
        return [_plain(cell) for cell in rows]
    return None if isinstance(rows, float) and math.isnan(rows) else rows


def _load_pyfunc(path: str) -> PyfuncScorer:
    """Load the python_function flavor of the model folder at `path`; MLflow's interface."""
    if VERSION in os.environ:
        # MLflow's server writes what it was asked into a message that nobody sees, array by array: 30 s for 200,000.
        np.set_printoptions(override_repr=lambda array: f"array of shape {array.shape}")
    return PyfuncScorer(scorer.load(Path(path)))
