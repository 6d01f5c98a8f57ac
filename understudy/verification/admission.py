"""What has to be true of a run's model before a version is made of it, and what is noted of it with the version.

The run's owner may change the run at any time; a version's tags lie out of that reach.
"""

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run

from understudy.errors import UserError
from understudy.table import TABLE
from understudy.tracking import batch_rows, family_runs, runs
from understudy.verification import inspection, manifest

COUNT = "understudy.held_out.rows"


def admit(client: MlflowClient, run: Run, uri: str, called: str) -> dict[str, str]:
    """Inspect a family run's model and the rows of its batch; returns the tags that its version must carry.

    The model is at an address as `models:/` has it, and called by people what `called` says.

    Raises:
        UserError: Training did not make the run; the model's files are gone, or are not what training writes; or the
            rows that were kept to compare versions on are gone, repeat a row or have been trained on.
    """
    if family_runs.FAMILY_NAME not in run.data.tags:
        raise UserError(f"{called} was not trained by train.py", "register a run of this project: python register.py")
    digests = {name: batch_rows.rows_digest(client, run, name) for name in (batch_rows.HELD_OUT, batch_rows.TRAINED_ON)}
    held_out, trained_on = (batch_rows.rows(client, run, name, digest) for name, digest in digests.items())
    _check_rows(held_out, trained_on, f"kept with the batch of run {run.info.run_id}")
    noted = {rows_tag(name): digest for name, digest in digests.items()} | {COUNT: str(len(held_out))}
    with inspection.inspected(client, run, uri, held_out, called) as (folder, _):
        return manifest.record(client, run.info.run_id, folder) | noted


def rows_tag(name: str) -> str:
    """The version's tag that holds the digest of a file of rows, `HELD_OUT` or `TRAINED_ON`."""
    return f"understudy.{name.removesuffix('.parquet')}.digest"


def _check_rows(held_out: pd.DataFrame, trained_on: pd.DataFrame, where: str) -> None:
    identifier, target = TABLE.identifier, TABLE.target.name
    if not {identifier, target} <= {*held_out} or [*trained_on] != [identifier]:
        raise UserError(f"the rows {where} are none of {TABLE.name}", runs.TRAIN_AGAIN)
    if held_out[identifier].duplicated().any():
        raise UserError(f"the held-out rows {where} repeat a {identifier}", runs.TRAIN_AGAIN)
    if held_out[identifier].isin(trained_on[identifier]).any():
        raise UserError(f"some of the held-out rows {where} have been trained on", runs.TRAIN_AGAIN)
    if not all((held_out[target] == label).any() for label in (TABLE.negative, TABLE.positive)):
        raise UserError(f"the held-out rows {where} are all of one class", runs.TRAIN_AGAIN)
