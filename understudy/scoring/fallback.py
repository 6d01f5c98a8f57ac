"""A served model that could not be converted: scikit-learn's own form."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from skops import io as skops

from understudy.schema.declaration import Table
from understudy.scoring import pipelines
from understudy.scoring.compiled import Floats, Spread, marginal


class Fitted:
    """A fitted Pipeline behind the same interface as `compiled.Trees`.

    Args:
        folder: Of the saved model.
        table: That it was trained on.
        spread: See `compiled.marginal`.
    """

    unit = "probability"

    def __init__(self, folder: Path, table: Table, spread: Spread) -> None:
        file = folder / "model.skops"
        # Which types these are has been decided before, where the version was registered.
        self.learned = skops.load(file, trusted=skops.get_untrusted_types(file=file))[1:]
        self.table, self.spread = table, spread

    def probabilities(self, features: Floats) -> Floats:
        """Of the positive label, shape (n,)."""
        return pipelines.positive(self.learned, features, self.table)

    def probability(self, features: Sequence[float]) -> float:
        """The same for one row."""
        return float(self.probabilities(np.array([features], dtype=float))[0])

    def effects(self, features: Floats) -> Floats:
        """See `compiled.marginal`."""
        return marginal(self.probabilities, features, self.spread)
