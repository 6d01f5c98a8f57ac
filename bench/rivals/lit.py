"""LitServe: python -m bench.rivals.lit PORT."""

import os
import sys
from typing import Any

import joblib
import litserve
import pandas as pd


class Loans(litserve.LitAPI):  # type: ignore[misc]
    """The model behind LitServe's own server."""

    def setup(self, device: str) -> None:
        """Load it."""
        self.model = joblib.load(os.environ["MODEL"])

    def decode_request(self, request: dict[str, Any]) -> pd.DataFrame:
        """Rows in pandas' split form."""
        rows = request["dataframe_split"]
        return pd.DataFrame(rows["data"], columns=rows["columns"])

    def predict(self, x: pd.DataFrame) -> list[str]:
        """Score them."""
        labels: list[str] = self.model.predict(x).tolist()
        return labels

    def encode_response(self, output: list[str]) -> dict[str, list[str]]:
        """In MLflow's form."""
        return {"predictions": output}


if __name__ == "__main__":
    server = litserve.LitServer(Loans(api_path="/invocations"), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", num_api_servers=1, generate_client_file=False)
