"""BentoML: bentoml serve bench.rivals.bento:Loans."""

import os
from typing import Any

import bentoml
import joblib
import pandas as pd


@bentoml.service(workers=1)
class Loans:
    """The model behind BentoML's own server."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api(route="/invocations")  # type: ignore[untyped-decorator]
    def predict(self, dataframe_split: dict[str, Any]) -> dict[str, list[str]]:
        """Score rows in pandas' split form."""
        rows = pd.DataFrame(dataframe_split["data"], columns=dataframe_split["columns"])
        return {"predictions": self.model.predict(rows).tolist()}
