"""What MLflow keeps of a scoring: a run that says which version scored which input, for whom, and what came of it."""

import json
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils import mlflow_tags

from understudy.batch import csv_rows, inputs, parts
from understudy.batch.job import Job
from understudy.batch.parts import Figures
from understudy.tracking import provenance, runs
from understudy.verification.digests import DIGEST

REJECTED = "rejected.json"  # the run's file that counts refused rows by column and reason


def experiment(name: str) -> str:
    """The name of the experiment that keeps the scorings with a registered model."""
    return f"{name} batches"


def asked(version: ModelVersion, digest: str, output: str, job: Job) -> dict[str, Any]:
    """All that the parts of a scoring depend on; whoever asks the same again goes on with them."""
    layout = {"rows": parts.ROWS, "block": csv_rows.BLOCK, "unit": inputs.UNIT, "batch": inputs.ROWS}
    columns, strict = [[field.name, str(field.type)] for field in job.schema], job.is_strict
    model = {"name": version.name, "version": str(version.version), "digest": version.tags[DIGEST]}
    return {**model, "input": digest, "output": output, "columns": columns, "strict": strict, **layout}


def tags(version: ModelVersion, address: str, digest: str, output: str) -> dict[str, str]:
    """The run's tags, by which it is found again."""
    source, target = provenance.recorded_form(address), provenance.recorded_form(output)
    return {
        "scoring.version": str(version.version),
        "scoring.input": source,
        "scoring.digest": digest,
        "scoring.output": target,
        mlflow_tags.MLFLOW_USER: provenance.who(),
        mlflow_tags.MLFLOW_RUN_NOTE: f"{source} with version {version.version} of {version.name} to {target}",
    }


def close(
    client: MlflowClient, run_id: str, address: str, digest: str, total: Figures, seconds: float
) -> dict[str, Any]:
    """Write onto the run what came of it, and return that: counts of rows, seconds, and rows by column and reason."""
    figures = {"rows": total.rows, "scored": total.scored, "rejected": total.rejected, "seconds": seconds}
    reasons = [{"column": of, "reason": why, "rows": rows} for (of, why), rows in total.faults.most_common()]
    provenance.log_scored(client, run_id, address, digest, figures)
    runs.log_text(client, run_id, json.dumps(reasons, indent=2, ensure_ascii=False), REJECTED)
    return {**figures, "reasons": reasons}
