"""A store with many runs: copies of what the project's own scripts have written into it, made inside the database.

Each copy has ids of its own and all that its original has: tags, params, metrics with their history, inputs, outputs,
logged models. It has no files: what looks at files looks at the originals, which are the newest.
"""

import re
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS, MLFLOW_PARENT_RUN_ID
from sqlalchemy import ColumnElement, Engine, MetaData, Table, literal

from bench.stack import Stack
from understudy.registry import records
from understudy.table import TABLE
from understudy.tracking import family_runs, runs

ID = re.compile("([0-9a-f]{32})")
TIMES = {"start_time", "end_time", "timestamp", "creation_timestamp_ms", "last_updated_timestamp_ms"}
TIMES |= {"metric_timestamp_ms"}
# The tables that say something of a run or of a model, and the columns by which they do.
OF = {
    "runs": ["run_uuid"],
    "tags": ["run_uuid"],
    "params": ["run_uuid"],
    "metrics": ["run_uuid"],
    "latest_metrics": ["run_uuid"],
    "inputs": ["source_id", "destination_id"],
    "logged_models": ["model_id"],
    "logged_model_tags": ["model_id"],
    "logged_model_params": ["model_id"],
    "logged_model_metrics": ["model_id"],
}
MINUTE = 60_000  # milliseconds
OTHERS = 10  # of a hundred runs are other people's
RECORDS, SCORINGS = 1, 1  # of a hundred runs
LEFT_OPEN = 50  # one of so many runs of other people's was never ended
NUMBER = records.TAGS["number"]


@dataclass(frozen=True)
class Row:
    """A row of a table that is to be copied."""

    table: Table
    values: dict[str, object]


def fill(store: Stack, engine: Engine, count: int) -> None:
    """Make a store that the scripts have written to hold some `count` runs more, all older than what is there.

    The last two decisions have to be a promotion to Production and its rollback. They are copied as newer ones.
    """
    client = store.client
    [experiment] = client.search_experiments(filter_string=f"name = '{TABLE.name}'")
    batch = family_runs.get_batch(client, TABLE)
    families = client.search_runs([experiment.experiment_id], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{batch.info.run_id}'")
    decisions = _runs_of(client, records.experiment(TABLE.name))[-2:]
    scorings = _runs_of(client, f"{TABLE.name} batches")[-1:]
    other, left_open = (log_other(client, experiment.experiment_id, ended) for ended in (True, False))
    family = [batch, *families]
    others = count * OTHERS // 100
    batches = (count - others - count * (RECORDS + SCORINGS) // 100) // len(family)
    copy(engine, family, batches, -MINUTE)
    copy(engine, [other], others - others // LEFT_OPEN, -MINUTE)
    copy(engine, [left_open], others // LEFT_OPEN, -MINUTE)
    copy(engine, scorings, count * SCORINGS // 100, -MINUTE)
    copy(engine, decisions, count * RECORDS // 200, 1)
    check(client, experiment.experiment_id, batch, batches)


def _runs_of(client: MlflowClient, experiment: str) -> list[Run]:
    [known] = client.search_experiments(filter_string=f"name = '{experiment}'")
    return list(client.search_runs([known.experiment_id], order_by=["attributes.start_time ASC"]))


def log_other(client: MlflowClient, experiment_id: str, is_ended: bool) -> Run:
    """A run as other people log theirs: ten params and twenty metrics, with a name and none of the project's tags."""
    run = client.create_run(experiment_id, tags={"team": "pricing"}, run_name="gradient boosting, third try")
    now = int(time.time() * 1000)
    metrics = [Metric(f"metric {number}", number / 7, now, 0) for number in range(20)]
    client.log_batch(run.info.run_id, metrics, [Param(f"param {number}", str(number)) for number in range(10)])
    if is_ended:
        client.set_terminated(run.info.run_id)
    return run


def copy(engine: Engine, originals: Sequence[Run], times: int, step: int) -> None:
    """Copy runs that belong together some times, each copy `step` milliseconds after the one before."""
    if not times:
        return
    schema = MetaData()
    schema.reflect(engine)
    copies = Table(
        "copies",
        schema,
        sqlalchemy.Column("prefix", sqlalchemy.String(30), primary_key=True),
        sqlalchemy.Column("number", sqlalchemy.Integer),
    )
    with engine.begin() as connection:
        copies.create(connection)
        # In the order of their ids, so that each statement below writes its rows in the order of their keys.
        prefixes = sorted(uuid.uuid4().hex[:30] for _ in range(times))
        numbers = sorted(range(1, times + 1), key=lambda number: uuid.uuid4().hex)
        pairs = zip(prefixes, numbers, strict=True)
        connection.execute(copies.insert(), [{"prefix": prefix, "number": number} for prefix, number in pairs])
    with engine.begin() as connection:
        if engine.dialect.name == "mysql":
            connection.exec_driver_sql("set foreign_key_checks = 0, unique_checks = 0")
        rows = list(_rows(connection, schema, originals))
        ids = sorted({match for row in rows for match in _own_ids(row)})
        suffixes = {known: f"{number:02x}" for number, known in enumerate(ids)}
        for row in rows:
            values = {column: _value(row, column, copies, suffixes, step, len(originals)) for column in row.values}
            chosen = sqlalchemy.select(*values.values()).select_from(copies).order_by(copies.c.prefix)
            connection.execute(row.table.insert().from_select([*values], chosen))
        copies.drop(connection)


def _rows(connection: sqlalchemy.Connection, schema: MetaData, originals: Sequence[Run]) -> Iterator[Row]:
    """All rows about runs, about the models that they have logged and about their inputs and outputs."""
    known = [run.info.run_id for run in originals]
    models = schema.tables["logged_models"]
    known += connection.scalars(sqlalchemy.select(models.c.model_id).where(models.c.source_run_id.in_(known))).all()
    inputs: list[str] = []
    for name, columns in OF.items():
        table = schema.tables[name]
        matches = sqlalchemy.or_(*(table.c[column].in_(known) for column in columns))
        for row in connection.execute(table.select().where(matches)).mappings():
            if row.get("tag_key") == MLFLOW_MODEL_VERSIONS:
                continue  # the copies are not registered
            inputs += [row["input_uuid"]] if name == "inputs" else []
            yield Row(table, dict(row))
    table = schema.tables["input_tags"]
    for row in connection.execute(table.select().where(table.c.input_uuid.in_(inputs))).mappings():
        yield Row(table, dict(row))


def _own_ids(row: Row) -> list[str]:
    """The ids that a row's run, model or input has, by which other rows name it."""
    owner = {"runs": "run_uuid", "logged_models": "model_id", "inputs": "input_uuid"}.get(row.table.name)
    return ID.findall(str(row.values[owner])) if owner else []


def _value(
    row: Row, column: str, copies: Table, suffixes: dict[str, str], step: int, originals: int
) -> ColumnElement[object]:
    """A column of a row's copies: with the ids and times of the copy, and otherwise as it is."""
    value = row.values[column]
    if column in TIMES and value:
        return literal(value) + copies.c.number * step
    if column == "value" and row.values.get("key") == NUMBER and row.table.name == "tags":
        return sqlalchemy.cast(literal(int(str(value))) + copies.c.number * originals, sqlalchemy.String(20))
    if not isinstance(value, str) or not any(match in suffixes for match in ID.findall(value)):
        return literal(value, row.table.c[column].type)
    parts = [part for part in ID.split(value) if part]
    new = [copies.c.prefix + suffixes[part] if part in suffixes else literal(part) for part in parts]
    whole = new[0]
    for part in new[1:]:
        whole = whole + part
    return whole


def check(client: MlflowClient, experiment_id: str, batch: Run, batches: int) -> None:
    """See that MLflow's own search finds the copies, with all that the original has.

    Raises:
        RuntimeError: It does not.
    """
    query = f"tags.`{runs.KIND}` = '{runs.BATCH}'"
    [oldest] = client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"], max_results=1)
    copies, originals = (family_runs.families(client, each) for each in (oldest, batch))
    if batch.info.start_time - oldest.info.start_time != batches * MINUTE or _told(copies) != _told(originals):
        raise RuntimeError("the copies are not what was copied")
    for run in copies:
        if client.get_logged_model(family_runs.model_id(run)).source_run_id != run.info.run_id:
            raise RuntimeError(f"the model of run {run.info.run_id} is not its own")


def _told(families: Sequence[Run]) -> list[tuple[object, ...]]:
    return sorted((run.info.run_name, run.data.params, run.data.metrics) for run in families)
