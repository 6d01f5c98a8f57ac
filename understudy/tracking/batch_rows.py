"""The rows that a batch keeps: those that versions are compared on, and those that its models have learned from."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import pandas as pd
from mlflow.entities import Run, RunTag
from mlflow.utils import mlflow_tags

from understudy.errors import UserError
from understudy.tracking import provenance, runs

ROWS, HELD_OUT, TRAINED_ON = "rows", "held_out.parquet", "trained_on.parquet"


def log_rows(client: mlflow.MlflowClient, run_id: str, held_out: pd.DataFrame, trained_on: pd.DataFrame) -> None:
    """Keep with a batch the rows that later versions are compared on, and those that it learned from.

    Args:
        client: Of the store that holds the run.
        run_id: The batch's.
        held_out: With the identifier, all columns, and the target: versions are compared on groups of sensitive
            columns too, whether or not they see them.
        trained_on: With the identifier, the columns that the batch's versions see, and the target: what is scored later
            is compared with these rows. Earlier releases have kept the identifier alone.
    """
    tags = []
    with TemporaryDirectory() as folder:
        for name, rows in [(HELD_OUT, held_out), (TRAINED_ON, trained_on)]:
            rows.to_parquet(Path(folder, name), index=False)
            tags.append(RunTag(digest_tag(name), hashlib.sha256(Path(folder, name).read_bytes()).hexdigest()))
        client.log_artifacts(run_id, folder, ROWS)
    client.log_batch(run_id, tags=tags)


def rows_digest(client: mlflow.MlflowClient, run: Run, name: str) -> str:
    """The SHA-256 digest of `HELD_OUT` or `TRAINED_ON`, as the batch of a family's run says it.

    Raises:
        UserError: The run is none of training's.
    """
    batch = _batch(client, run, name)
    before = batch.data.tags.get(f"{ROWS}.{name}")  # what the tag was called in 0.2
    return before or runs.tag(batch, digest_tag(name))


def digest_tag(name: str) -> str:
    """The batch's tag that holds the digest of `HELD_OUT` or `TRAINED_ON`."""
    return f"{runs.OURS}{ROWS}.{name}"


def rows(
    client: mlflow.MlflowClient, run: Run, name: str, digest: str, columns: list[str] | None = None
) -> pd.DataFrame:
    """`HELD_OUT` or `TRAINED_ON` of the batch that a family's run is part of.

    Args:
        client: Of the store that holds the run.
        run: The family's.
        name: Which of the two.
        digest: SHA-256 that the file must have.
        columns: Those to read; None for all.

    Raises:
        UserError: The rows are gone, not those of the digest, or without one of these columns.
    """
    batch_id = _batch(client, run, name).info.run_id
    file = f"{ROWS}/{name} of run {batch_id}"
    with TemporaryDirectory() as folder:
        try:
            path = Path(client.download_artifacts(batch_id, f"{ROWS}/{name}", folder))
            actual = hashlib.sha256(path.read_bytes()).hexdigest()
        except (mlflow.MlflowException, OSError):
            raise UserError(f"run {batch_id} has no {ROWS}/{name}", runs.TRAIN_AGAIN) from None
        if actual != digest:
            raise UserError(f"{file} is not what training kept", runs.TRAIN_AGAIN)
        return _read(path, file, columns)


def _read(path: Path, called: str, columns: list[str] | None) -> pd.DataFrame:
    from pyarrow import parquet  # takes memory that following an alias does not need

    try:
        # Each row has an identifier of its own, which takes some bits however well it is packed.
        metadata = parquet.read_metadata(path)
        if metadata.num_rows > 8 * path.stat().st_size:
            raise UserError(f"{called} has more rows than it can have", runs.TRAIN_AGAIN)
        for column in {*(columns or ())} - {*metadata.schema.names}:
            raise UserError(f"{called} has no column {column}", runs.TRAIN_AGAIN)
        return pd.read_parquet(path, columns=columns)
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are among these
        raise UserError(f"{called} is no Parquet: {type(error).__name__}", runs.TRAIN_AGAIN) from None


def _batch(client: mlflow.MlflowClient, run: Run, name: str) -> Run:
    """The batch that a family's run is part of, which has kept a file of rows."""
    batch_id = str(run.data.tags.get(mlflow_tags.MLFLOW_PARENT_RUN_ID, run.info.run_id))
    batch = runs.run_or_none(client, batch_id)
    if batch is None:
        raise UserError(f"run {batch_id}, which kept {ROWS}/{name}, is gone", runs.TRAIN_AGAIN)
    provenance.check_location(str(batch.info.artifact_uri), f"run {batch_id}")
    return batch
