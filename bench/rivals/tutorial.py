"""FastAPI, joblib and pandas: uvicorn bench.rivals.tutorial:app."""

import os
from typing import Any

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(os.environ["MODEL"])


class Body(BaseModel):
    """Rows in pandas' split form."""

    dataframe_split: dict[str, Any]


@app.post("/invocations")
def invocations(body: Body) -> dict[str, list[str]]:
    """Score them."""
    rows = pd.DataFrame(body.dataframe_split["data"], columns=body.dataframe_split["columns"])
    return {"predictions": model.predict(rows).tolist()}
