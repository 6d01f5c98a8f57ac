"""What the gate has to know of two versions: both are verified, and scored anew on the challenger's held-out rows."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.pyfunc import PyFuncModel
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from understudy.errors import UserError
from understudy.figures import plots
from understudy.figures.metrics import Labels
from understudy.gate import checks, rules
from understudy.gate.checks import Check, Rule
from understudy.gate.rules import Answers, Challenger, Decision
from understudy.registry import history, records, registered, stages
from understudy.registry.records import Move, Verdict
from understudy.schema import compatibility
from understudy.schema.declaration import Table
from understudy.scoring import pipelines, scorer
from understudy.table import TABLE
from understudy.tracking import batch_rows
from understudy.verification import admission, manifest

TIMES = 30  # that one row is scored


@dataclass(frozen=True)
class Model:
    """A verified version in its two forms, its table, and the size of its files in millions of bytes."""

    served: PyFuncModel
    pipeline: Pipeline
    table: Table
    megabytes: float


def decide(client: MlflowClient, name: str, rule: Rule, data: str | None = None) -> Callable[[Move], Verdict]:
    """The gate's verdict on a planned move of a version of a registered model.

    What keeps the gate from deciding (a champion that cannot be loaded, rows that are gone) is a reason to refuse.

    Args:
        client: Of the store that holds the model.
        name: The registered model's.
        rule: How the challenger is compared with the champion.
        data: The address of a table whose held-out side is to decide; None for the rows that training kept.

    Raises:
        UserError: By what is returned: the challenger itself is not what was registered, or cannot be loaded.
    """

    def judge(planned: Move) -> Verdict:
        challenger = _load(client, name, planned.version)
        try:
            number = _champion(client, name, planned)
            champion = _load(client, name, number) if number not in (None, planned.version) else None
            rows, counts = _rows(client, name, planned.version, number or "", champion, data)
            decision = _decide(planned, rule, challenger, champion, rows)
        except UserError as error:
            return Verdict(why=f"the gate cannot decide: {error.problem}", rule=rule)
        verdict = _verdict(decision, rule, counts, planned.version, number or "")
        if champion is None:
            return verdict
        if planned.stage == "production" and number != planned.before:
            compared = f"compared with version {number}, the last in Production whose files are there"
            verdict = replace(verdict, table=f"{compared}\n{verdict.table}")
        return replace(verdict, against=number)

    return judge


def _champion(client: MlflowClient, name: str, planned: Move) -> str | None:
    """The version that a challenger is compared with; None if there has never been one.

    That is the one in Production, or else the last that was there and whose files are still the registered ones.

    Raises:
        UserError: There has been one, nothing is left of it and of those before it, and Production is asked for.
    """
    versions = {str(version.version): version for version in registered.versions(client, name)}
    in_production = planned.stage == "production"
    named = planned.before if in_production else stages.aliases(client, name).get("production")
    if named in versions:
        return named
    found = records.find(client, name)
    for number in reversed(history.champions(found)):
        if number == planned.version or (number in versions and _is_whole(client, versions[number])):
            return number
    moves = [record for record in found if record.outcome == records.COMPLETED and record.stage == "production"]
    lost = history.lost(versions.values(), found)
    if not in_production or not (moves or lost):
        return None  # Production asks again
    if moves:
        earlier = " of an earlier registered model of that name" if moves[-1].is_earlier else ""
        problem = f"version {moves[-1].version}{earlier} was in Production, and nothing is left to compare with"
    else:
        problem = f"the last record of version {', '.join(lost)} is gone, and nobody knows what was in Production"
    raise UserError(f'{problem}; --force --reason "..." goes ahead', "force it")


def _is_whole(client: MlflowClient, version: ModelVersion) -> bool:
    """Whether a version's files are those that were registered."""
    try:
        with manifest.verified(client, version):
            return True
    except UserError:
        return False


def _load(client: MlflowClient, name: str, number: str) -> Model:
    with manifest.verified(client, client.get_model_version(name, number)) as folder:
        megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        with _told(f"version {number} of {name} cannot be loaded"):
            served, pipeline = manifest.load(folder)
            return Model(served, pipeline, pipelines.table(pipeline), megabytes)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Tell as a reason whatever a model does wrong that was made with other packages or for another table."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        fix = "choose another version, or install what it was trained with"
        raise UserError(f"{what}: {type(error).__name__}: {error}", fix) from error


def _rows(
    client: MlflowClient, name: str, number: str, champion_number: str, champion: Model | None, data: str | None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The held-out rows without those that a version has learned from or the champion refuses, and how many are which.

    Rows of the table that is named count more than those that training kept, and how these differ is printed.
    """
    rows = _kept(client, name, number, batch_rows.HELD_OUT)
    counts: dict[str, int] = {}
    if data is not None:
        kept, (_, rows) = rows, TABLE.split(TABLE.read(data))
        counts, text = _differences(kept, rows)
        print(f"{len(rows)} held-out rows of the table decide; those that training kept {text}")
    learned = [_kept(client, name, number, batch_rows.TRAINED_ON)]
    learned += [_kept(client, name, champion_number, batch_rows.TRAINED_ON)] if champion else []
    with _told("the held-out rows do not fit the table"):
        dropped = rows[TABLE.identifier].isin(pd.concat(learned).iloc[:, 0]).to_numpy()
        dropped = dropped | _refused(champion, rows) if champion else dropped
    if dropped.all():
        raise UserError("the versions have learned from all held-out rows, or the champion refuses them", "train again")
    counts |= {"rows": int((~dropped).sum()), "rows dropped": int(dropped.sum())}
    return rows[~dropped].reset_index(drop=True), counts


def _kept(client: MlflowClient, name: str, number: str, which: str) -> pd.DataFrame:
    """Rows of a version's batch, if they are those that its registration has noted."""
    version = client.get_model_version(name, number)
    digest = version.tags.get(admission.rows_tag(which))
    if not version.run_id or digest is None:
        raise UserError(f"version {number} of {name} has no rows on record", "python register.py")
    return batch_rows.rows(client, client.get_run(version.run_id), which, digest)


def _differences(kept: pd.DataFrame, rows: pd.DataFrame) -> tuple[dict[str, int], str]:
    """How the held-out rows that training kept differ from the table's, as counts and for people."""
    before, now = (each.set_index(TABLE.identifier) for each in (kept, rows))
    common = before.index.intersection(now.index)
    before, now = (each.loc[common, now.columns.intersection(before.columns)] for each in (before, now))
    differs = (before != now) & ~(before.isna() & now.isna())
    counts = {
        "rows not in the table": len(kept) - len(common),
        "rows only in the table": len(rows) - len(common),
        "rows that differ": int(differs.any(axis=1).sum()),
    }
    columns = ", ".join(f"{name} in {count}" for name, count in differs.sum().items() if count)
    named = [f"{count} {what}" for what, count in counts.items() if count]
    text = f"differ: {', '.join(named)}" if named else "are the same"
    return counts, f"{text} ({columns})" if columns else text


def _refused(model: Model, rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows a model's table does not allow, shape (n,)."""
    refused = np.zeros(len(rows), dtype=bool)
    for fault in model.table.faults(_raw(model, rows)):
        if not fault.rows:
            raise UserError(f"the champion cannot score the held-out rows: {fault}", "force it")
        refused[np.array(fault.rows) - 1] = True
    return refused


def _raw(model: Model, rows: pd.DataFrame) -> pd.DataFrame:
    return rows[[column.name for column in model.table.columns if column.name in rows]]


def _decide(planned: Move, rule: Rule, challenger: Model, champion: Model | None, rows: pd.DataFrame) -> Decision:
    with _told("the challenger cannot score the held-out rows"):
        measured = Challenger(
            answers=_answers(challenger, rows),
            served=_served(challenger, rows),
            breaks=tuple(compatibility.broken(champion.table, challenger.table)) if champion else (),
            milliseconds=_milliseconds(challenger, rows),
            megabytes=challenger.megabytes,
        )
    if planned.stage == "staging":
        return rules.staging(measured, TABLE.limits, planned.breaking)
    groups = rows[[column.name for column in TABLE.categories if column.name in rows]]
    with _told("the champion cannot score the held-out rows"):
        champions = _answers(champion, rows) if champion else None
    with _told("the held-out rows have no labels"):
        labels = TABLE.labels(rows)
    return rules.production(labels, measured, champions, groups, TABLE.limits, rule, planned.breaking)


def _answers(model: Model, rows: pd.DataFrame) -> Answers:
    raw, table = _raw(model, rows), model.table
    return Answers(pipelines.positive(model.pipeline, raw, table), _is_positive(model.pipeline.predict(raw), table))


def _served(model: Model, rows: pd.DataFrame) -> Answers:
    raw = _raw(model, rows)
    probabilities = np.array(model.served.predict(raw, params={"output": scorer.PROBABILITY}))
    return Answers(probabilities, _is_positive(np.array(model.served.predict(raw)), model.table))


def _is_positive(labels: NDArray[np.str_], table: Table) -> Labels:
    return np.where(labels == table.positive, 1, 0)


def _milliseconds(model: Model, rows: pd.DataFrame) -> float:
    """For the answer to one row, through MLflow as it is served; the median, after one to warm up."""
    row, seconds = _raw(model, rows)[:1], []
    for _ in range(TIMES + 1):
        started = time.perf_counter()
        model.served.predict(row)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]) * 1000)


def _verdict(decision: Decision, rule: Rule, counts: dict[str, int], challenger: str, champion: str) -> Verdict:
    figures = {}
    compared = next((check for check in decision.checks if check.name == checks.DIFFERENCE), None)
    if compared:
        interval = (compared.value, float(compared.low or 0), float(compared.high or 0))
        limit, who = checks.least(rule, TABLE.limits.margin), f"version {challenger} less version {champion}"
        figures["difference.png"] = plots.differences(decision.draws, interval, limit, who)
    measured: dict[str, float] = {}
    for check in (*decision.checks, *decision.slices):
        measured |= _figures(check)
    return Verdict(
        why=decision.why or None,
        table=decision.table().to_string(index=False),
        rule=rule,
        metrics=measured | counts,
        files={"gate.json": json.dumps({**decision.as_dict(), **counts, "rule": rule}, indent=1)},
        figures=figures,
    )


def _figures(check: Check) -> dict[str, float]:
    """A check's figure and its bounds, by names that MLflow takes and that stay the same as the rows change."""
    name = re.sub(r", \d+ rows.*|[^ \w./-]", "", check.name)
    figures = {name: check.value, f"{name} low": check.low, f"{name} high": check.high}
    return {key: value for key, value in figures.items() if value is not None and np.isfinite(value)}
