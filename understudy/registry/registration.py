"""From a family's run to a registered version: what has to be true of it, what is noted.

The run's owner may change the run at any time; a version's tags lie out of that reach.
"""

import json

import pandas as pd
from mlflow import MlflowClient, MlflowException
from mlflow.entities import LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.utils import mlflow_tags

from understudy.errors import UserError
from understudy.registry import history, registered
from understudy.report import card
from understudy.schema.declaration import Table
from understudy.table import TABLE
from understudy.tracking import batch_rows, family_runs, naming, provenance, runs
from understudy.verification import manifest

COUNT = "understudy.held_out.rows"


def register(client: MlflowClient, run: Run, table: Table, name: str) -> tuple[ModelVersion, bool]:
    """The version of a family run's model, and whether it was made now; a run never registers twice.

    Raises:
        UserError: The model's files are gone, incomplete or not what training writes, or no registered model can have
            that name.
    """
    for version in registered.versions(client, name):
        if version.run_id == run.info.run_id:
            _link(client, family_runs.model_id(run), version)
            return version, False
    if client.get_logged_model(family_runs.model_id(run)).status != LoggedModelStatus.READY:
        problem = f"the upload of the model of run {run.info.run_id} was cut off"
        raise UserError(problem, "train again: python train.py")
    admitted = admit(client, run, family_runs.model_uri(run), f"the model of run {run.info.run_id}")
    create(client, table, name)
    described = _card(client, run, table, name)
    runs.log_text(client, run.info.run_id, described, card.FILE)
    version = client.create_model_version(
        name,
        source=family_runs.model_uri(run),
        model_id=family_runs.model_id(run),
        run_id=run.info.run_id,
        description=described,
        tags={tag: runs.tag(run, tag) for tag in (family_runs.FAMILY_NAME, provenance.DATA_DIGEST)} | admitted,
        await_creation_for=0,  # it is there when the call returns; MLflow would say that it waits
    )
    _link(client, family_runs.model_id(run), version)
    return version, True


def _card(client: MlflowClient, run: Run, table: Table, name: str) -> str:
    """The model card of a family's run, which is to be a version."""
    batch = runs.run_or_none(client, run.data.tags.get(mlflow_tags.MLFLOW_PARENT_RUN_ID, ""))
    hides = batch is not None and batch.data.params.get("without_sensitive") == "True"
    tags = {label: run.data.tags[tag] for label, tag in history.RUN_TAGS.items() if tag in run.data.tags}
    known = card.Recorded(
        name=name,
        family=family_runs.family_name(run),
        params=run.data.params,
        metrics=run.data.metrics,
        tags=tags | {"run": run.info.run_id, "trained by": run.data.tags.get(mlflow_tags.MLFLOW_USER, card.NOTHING)},
        rows=family_runs.counts(run),
        slices=family_runs.slices(run),
    )
    return card.written(table, table.without_sensitive() if hides else table, known)


def admit(client: MlflowClient, run: Run, uri: str, called: str) -> dict[str, str]:
    """Inspect a family run's model and the rows of its batch; returns the tags that its version must carry.

    The model is at an address as `models:/` has it, and called by people what `called` says.

    Raises:
        UserError: Training did not make the run; the model's files are gone, or are not what training writes; or the
            rows that were kept to compare versions on are gone, repeat a row or have been trained on.
    """
    from understudy.verification import inspection  # skops loads all of scikit-learn, which archive and show do without

    if family_runs.FAMILY_NAME not in run.data.tags:
        raise UserError(f"{called} was not trained by train.py", "register a run of this project: python register.py")
    digests = {name: batch_rows.rows_digest(client, run, name) for name in (batch_rows.HELD_OUT, batch_rows.TRAINED_ON)}
    held_out = batch_rows.rows(client, run, batch_rows.HELD_OUT, digests[batch_rows.HELD_OUT])
    trained_on = batch_rows.rows(client, run, batch_rows.TRAINED_ON, digests[batch_rows.TRAINED_ON], [TABLE.row_id])
    _check_rows(held_out, trained_on, f"kept with the batch of run {run.info.run_id}")
    noted = {rows_tag(name): digest for name, digest in digests.items()} | {COUNT: str(len(held_out))}
    with inspection.inspected(client, run, uri, held_out, called) as (folder, _):
        return manifest.record(client, run.info.run_id, folder) | noted


def rows_tag(name: str) -> str:
    """The version's tag that holds the digest of a file of rows, `HELD_OUT` or `TRAINED_ON`."""
    return f"understudy.{name.removesuffix('.parquet')}.digest"


def kept_rows(
    client: MlflowClient, name: str, number: str, file: str, columns: list[str] | None = None
) -> pd.DataFrame:
    """Rows of a version's batch, `HELD_OUT` or `TRAINED_ON`, whose digest was noted when the version was registered.

    All of their columns, unless some are named.

    Raises:
        UserError: None was noted, or the rows are gone or others.
    """
    version = client.get_model_version(name, number)
    digest = version.tags.get(rows_tag(file))
    if not version.run_id or digest is None:
        raise UserError(f"version {number} of {name} has no rows on record", f"python register.py{naming.option(name)}")
    return batch_rows.rows(client, client.get_run(version.run_id), file, digest, columns)


def _check_rows(held_out: pd.DataFrame, trained_on: pd.DataFrame, where: str) -> None:
    identifier, target = TABLE.row_id, TABLE.target.name
    if not {identifier, target} <= {*held_out}:
        raise UserError(f"the rows {where} are none of {TABLE.name}", runs.TRAIN_AGAIN)
    if held_out[identifier].duplicated().any():
        raise UserError(f"the held-out rows {where} repeat a {identifier}", runs.TRAIN_AGAIN)
    if held_out[identifier].isin(trained_on[identifier]).any():
        raise UserError(f"some of the held-out rows {where} have been trained on", runs.TRAIN_AGAIN)
    if not all((held_out[target] == label).any() for label in (TABLE.negative, TABLE.positive)):
        raise UserError(f"the held-out rows {where} are all of one class", runs.TRAIN_AGAIN)


def create(client: MlflowClient, table: Table, name: str) -> None:
    """Make a registered model for the table's versions, unless there is one of that name.

    Raises:
        UserError: No registered model can have that name.
    """
    naming.check_name(name)
    try:
        client.create_registered_model(name, description=f"Predicts `{table.target.name}`, one row at a time.")
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(PERMISSION_DENIED):
            client.get_registered_model(name)  # an account that may not make one goes on if there is one
        elif error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        registered.registered_model(client, name)  # which may be spelt in another way


def _link(client: MlflowClient, model_id: str, version: ModelVersion) -> None:
    """Name the version on the logged model as MLflow's register_model does; its page says "not registered" without."""
    known = family_runs.linked_versions(client.get_logged_model(model_id))
    link = {"name": version.name, "version": int(version.version)}  # as a server writes it; its client says text
    if link not in known:
        client.set_logged_model_tags(model_id, {mlflow_tags.MLFLOW_MODEL_VERSIONS: json.dumps([*known, link])})
