"""What the gate has to know of two versions: both are verified, and scored anew on the challenger's held-out rows."""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.pyfunc import PyFuncModel
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from understudy.errors import UserError
from understudy.figures import plots
from understudy.gate import attempts, checks, comparison, decision
from understudy.gate.checks import Check, Rule
from understudy.gate.decision import Answers, Challenger, Decision, Terms
from understudy.registry import records
from understudy.registry.records import Move, Verdict
from understudy.schema import compatibility
from understudy.schema.declaration import Table
from understudy.schema.spelling import folded
from understudy.scoring import pipelines, scorer
from understudy.table import TABLE
from understudy.tracking import naming
from understudy.verification import manifest

TIMES = 30  # that one row is scored, to tell how long the answer takes


@dataclass(frozen=True)
class LoadedVersion:
    """A verified version in the two forms that its folder holds, with the size of its files in millions of bytes."""

    number: str
    served: PyFuncModel
    pipeline: Pipeline
    megabytes: float

    @property
    def table(self) -> Table:
        """The table that the version was trained on."""
        return pipelines.table(self.pipeline)

    def columns_of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The columns that the version is asked with, as far as rows have them."""
        return rows[[column.name for column in self.table.columns if column.name in rows]]


def decide(client: MlflowClient, name: str, rule: Rule, data: str | None = None) -> Callable[[Move], Verdict]:
    """The gate's verdict on a planned move of a version of a registered model, compared by a rule; prints the checks.

    The limits are those of the table of the checkout that promotes, whatever limits a version was trained with. The
    rows that decide are those that training kept, or the held-out side of the table at the address `data`. What keeps
    the gate from deciding (a champion that cannot be loaded, rows that are gone) is a reason to refuse.

    Raises:
        UserError: By what is returned: the challenger itself is not what was registered, or cannot be loaded.
    """

    def judge(planned: Move) -> Verdict:
        challenger = _load(client, name, planned.version)
        try:
            number = comparison.champion(client, name, planned)
            known = records.find(client, name) if planned.stage == "production" else []
            numbers = [] if number in (None, planned.version) else [str(number)]
            if numbers and rule == "not-worse":
                numbers += comparison.earlier(client, name, known, (*numbers, planned.version))
            others = [_load(client, name, other) for other in numbers]
            rows, counts = _rows(client, name, challenger, others, data)
            marked = attempts.marks(rows[TABLE.row_id])
            question = (planned.version, number, attempts.digest(marked))
            terms = Terms(
                TABLE.limits,
                rule,
                planned.breaking,
                attempts.on_such_rows(client, known, question, marked),
                attempts.since_better(known, question),
            )
            decided = _decide(planned.stage, terms, challenger, others, rows)
        except UserError as error:
            return Verdict(why=f"the gate cannot decide: {error.problem}", rule=rule)
        if others and planned.stage == "production" and number != planned.before:
            print(f"compared with version {number}, the last in Production whose files are there")
        print(decided)
        verdict = _verdict(decided, terms, counts, f"version {planned.version} less version {number}")
        if others and planned.stage == "production":
            files = {**verdict.files, attempts.FILE: marked}
            return replace(verdict, against=number, rows=question[-1], files=files)
        return replace(verdict, against=number) if others else verdict

    return judge


def _load(client: MlflowClient, name: str, number: str) -> LoadedVersion:
    with manifest.verified(client, client.get_model_version(name, number)) as folder:
        megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        with _refusing(f"version {number} of {name} cannot be loaded"):
            return LoadedVersion(number, *manifest.load(folder), megabytes)


@contextmanager
def _refusing(problem: str) -> Iterator[None]:
    """Turn whatever goes wrong with a model that was made with other packages or for another table into a refusal."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        fix = "choose another version, or install what it was trained with"
        raise UserError(f"{problem}: {type(error).__name__}: {error}", fix) from error


def _rows(
    client: MlflowClient, name: str, challenger: LoadedVersion, others: Sequence[LoadedVersion], data: str | None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The held-out rows that no version has learned from and no champion refuses, and counts of rows."""
    rows, counts = comparison.held_out(client, name, challenger.number, data)
    identifiers = {version.number: version.table.row_id for version in (challenger, *others)}
    with _refusing("the rows that training kept do not fit the table"):
        learned = comparison.learned(client, name, identifiers)
        dropped = rows[TABLE.row_id].map(folded).isin(learned).to_numpy()
        for other in others:
            dropped = dropped | _refused(other, rows)
    if dropped.all():
        raise UserError("the versions have learned from all held-out rows, or the champion refuses them", "train again")
    counts |= {"rows": int((~dropped).sum()), "rows dropped": int(dropped.sum())}
    return rows[~dropped].reset_index(drop=True), counts


def _refused(version: LoadedVersion, rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows the champion's table does not allow, shape (n,)."""
    refused = np.zeros(len(rows), dtype=bool)
    for fault in version.table.faults(version.columns_of(rows)):
        if not fault.rows:
            raise UserError(f"the champion cannot score the held-out rows: {fault}", "force it")
        refused[np.array(fault.rows) - 1] = True
    return refused


def _decide(
    stage: str, terms: Terms, challenger: LoadedVersion, others: Sequence[LoadedVersion], rows: pd.DataFrame
) -> Decision:
    with _refusing("the challenger cannot score the held-out rows"):
        measured = Challenger(
            answers=_answers(challenger, rows),
            served=_served_answers(challenger, rows),
            breaks=tuple(compatibility.breaking_changes(others[0].table, challenger.table)) if others else (),
            milliseconds=_milliseconds(challenger, rows),
            megabytes=challenger.megabytes,
        )
    if stage == "staging":
        return decision.staging(measured, terms)
    groups = TABLE.groups(rows)
    with _refusing("the champion cannot score the held-out rows"):
        champions = [_answers(other, rows) for other in others]
    with _refusing("the held-out rows have no labels"):
        labels = TABLE.labels(rows)
    return decision.production(labels, measured, champions, groups, terms)


def _answers(version: LoadedVersion, rows: pd.DataFrame) -> Answers:
    asked, table = version.columns_of(rows), version.table
    probabilities = pipelines.positive(version.pipeline, asked, table)
    return Answers(probabilities, (version.pipeline.predict(asked) == table.positive).astype(int))


def _served_answers(version: LoadedVersion, rows: pd.DataFrame) -> Answers:
    asked = version.columns_of(rows)
    probabilities = np.array(version.served.predict(asked, params={"output": scorer.PROBABILITY}))
    return Answers(probabilities, (np.array(version.served.predict(asked)) == version.table.positive).astype(int))


def _milliseconds(version: LoadedVersion, rows: pd.DataFrame) -> float:
    """How long MLflow's form takes to answer one row; the median, after one answer to warm up."""
    row, seconds = version.columns_of(rows)[:1], []
    for _ in range(TIMES + 1):
        started = time.perf_counter()
        version.served.predict(row)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]) * 1000)


def _verdict(decided: Decision, terms: Terms, counts: dict[str, int], compared: str) -> Verdict:
    figures = {}
    for check in decided.checks:
        if check.name == checks.DIFFERENCE:
            interval = (check.value, float(check.low or 0), float(check.high or 0))
            limit = checks.least_difference(terms.rule, terms.limits.margin)
            figures["difference.png"] = plots.differences(decided.draws, interval, limit, compared)
    measured: dict[str, float] = {}
    for check in decided.checks:
        measured |= _metrics(check)
    for check in decided.slices:
        measured |= {f"slice/{name}": value for name, value in _metrics(check).items()}
    return Verdict(
        why=decided.why,
        rule=terms.rule,
        metrics=measured | counts,
        files={"gate.json": json.dumps({**decided.as_dict(), **counts, "rule": terms.rule}, indent=1)},
        figures=figures,
    )


def _metrics(check: Check) -> dict[str, float]:
    """A check's figure and its bounds, by names that MLflow takes and that stay the same as the rows change."""
    name = naming.metric(re.sub(r", \d+ rows.*", "", check.name))
    values = {name: check.value, f"{name} low": check.low, f"{name} high": check.high}
    return {key: value for key, value in values.items() if value is not None and np.isfinite(value)}
