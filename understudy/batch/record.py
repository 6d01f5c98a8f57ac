"""What MLflow keeps of a scoring: a run that says which version scored which input, for whom, and what came of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils import mlflow_tags

from understudy.batch.outputs import Output
from understudy.registry import records
from understudy.tracking import provenance, runs

REJECTED = "rejected.json"  # the run's file that counts refused rows by column and reason


def experiment(name: str) -> str:
    """The name of the experiment that keeps the scorings with a registered model."""
    return f"{name} batches"


def tags(version: ModelVersion, address: str, digest: str, output: Path) -> dict[str, str]:
    """The run's tags, by which it is found again."""
    source, target = provenance.recorded_form(address), provenance.recorded_form(str(output))
    return {
        "scoring.version": str(version.version),
        "scoring.input": source,
        "scoring.digest": digest,
        "scoring.output": target,
        mlflow_tags.MLFLOW_USER: records.who(),
        mlflow_tags.MLFLOW_RUN_NOTE: f"{source} with version {version.version} of {version.name} to {target}",
    }


def result(output: Output, seconds: float) -> dict[str, float]:
    """How many rows there were, how many of them were scored and rejected, and how many seconds that took."""
    rows = output.rows + output.rejected_rows
    return {"rows": rows, "scored": output.rows, "rejected": output.rejected_rows, "seconds": seconds}


def reasons(output: Output) -> list[dict[str, Any]]:
    """How many rows were refused for each column and reason, the most first."""
    return [{"column": of, "reason": why, "rows": rows} for (of, why), rows in output.faults.most_common()]


def close(
    client: MlflowClient, run_id: str, address: str, digest: str, output: Output, figures: Mapping[str, float]
) -> None:
    """Write onto the run what came of it."""
    provenance.log_scored(client, run_id, address, digest, figures)
    runs.log_text(client, run_id, json.dumps(reasons(output), indent=2, ensure_ascii=False), REJECTED)
