"""What the gate has to know of two versions: both are verified, and scored anew on the challenger's held-out rows."""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from understudy.gate import live as live_rows
from understudy.gate.checks import Check, Rule
from understudy.gate.decision import Answers, Challenger, Decision, Evidence, Terms
from understudy.gate.live import LiveRows, Pairs
from understudy.registry import records
from understudy.registry.records import Move, SavedRecord, Verdict
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


@dataclass(frozen=True)
class Case:
    """What there is to decide on.

    Args:
        planned: The move.
        challenger: The version that is to be moved.
        others: The champion, and those before it from which the margin counts; empty where there is none.
        known: The records of a registered model whose version is to go to Production.
        rows: The held-out rows.
        counts: Of rows.
    """

    planned: Move
    challenger: LoadedVersion
    others: Sequence[LoadedVersion]
    known: Sequence[SavedRecord]
    rows: pd.DataFrame
    counts: Mapping[str, int]

    @property
    def against(self) -> str | None:
        """The number of the version that the challenger is compared with; None for none."""
        return self.others[0].number if self.others else None


def decide(
    client: MlflowClient, name: str, rule: Rule, data: str | None = None, pairs: Pairs | None = None
) -> Callable[[Move], Verdict]:
    """The gate's verdict on a planned move of a version of a registered model, compared by a rule; prints the checks.

    The limits are those of the table of the checkout that promotes, whatever limits a version was trained with. The
    rows that decide are those that training kept, or the held-out side of the table at the address `data`; or live
    rows, where `pairs` has enough that champion and challenger both answered. What keeps the gate from deciding (a
    champion that cannot be loaded, rows that are gone) is a reason to refuse.

    Raises:
        UserError: By what is returned: the challenger itself is not what was registered, or cannot be loaded; or the
            live rows cannot be read.
    """

    def judge(planned: Move) -> Verdict:
        challenger = _load(client, name, planned.version)
        try:
            case = _case(client, name, planned, challenger, rule, data)
        except UserError as error:
            return _undecided(error, rule)
        is_compared = planned.stage == "production" and case.against
        answered = pairs(str(case.against), planned.version) if pairs and is_compared else None
        try:
            return _judged(client, name, case, rule, answered)
        except UserError as error:
            return _undecided(error, rule)

    return judge


def _undecided(error: UserError, rule: Rule) -> Verdict:
    return Verdict(why=f"the gate cannot decide: {error.problem}", rule=rule)


def _case(
    client: MlflowClient, name: str, planned: Move, challenger: LoadedVersion, rule: Rule, data: str | None
) -> Case:
    number = comparison.champion(client, name, planned)
    known = records.find(client, name) if planned.stage == "production" else []
    numbers = [] if number in (None, planned.version) else [str(number)]
    if numbers and rule == "not-worse":
        numbers += comparison.earlier(client, name, known, (*numbers, planned.version))
    others = [_load(client, name, other) for other in numbers]
    rows, counts = _rows(client, name, challenger, others, data)
    return Case(planned, challenger, others, known, rows, counts)


def _judged(client: MlflowClient, name: str, case: Case, rule: Rule, answered: LiveRows | None) -> Verdict:
    planned, measured, against = case.planned, _measured(case), case.against
    terms = Terms(TABLE.limits, rule, planned.breaking)
    compared = f"version {planned.version} less version {against}"
    if planned.stage == "staging":
        return replace(_told(decision.staging(measured, terms), terms, case.counts, compared), against=against)
    held_out = _held_out(case, measured)
    if against is None:
        return _told(decision.production(measured, held_out, terms), terms, case.counts, compared)
    if against != planned.before:
        print(f"compared with version {against}, the last in Production whose files are there")
    identifiers, live = case.rows[TABLE.row_id], None
    if answered is not None:
        live = live_rows.counted(answered, _learned(client, name, [case.challenger, case.others[0]]))
        print("\n".join(live.lines))
    choice = live_rows.choose(identifiers, held_out, live)
    question = attempts.Question(planned.version, against, choice.deciding, choice.beside)
    attempt, losses = attempts.on_such_rows(client, case.known, question), attempts.since_better(case.known, question)
    terms = replace(terms, attempt=attempt, losses=losses)
    decided = decision.production(measured, held_out, terms, choice.live)
    verdict = _told(decided, terms, {**case.counts, **choice.counts}, compared, choice.decided_by)
    if choice.decided_by:
        print(f"decided by {choice.decided_by}: {choice.why}")
    files = {**verdict.files, attempts.FILE: question.marks}
    return replace(verdict, against=against, rows=question.rows, files=files, decided_by=choice.decided_by)


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
    with _refusing("the rows that training kept do not fit the table"):
        learned = _learned(client, name, (challenger, *others))
        dropped = rows[TABLE.row_id].map(folded).isin(learned).to_numpy()
        for other in others:
            dropped = dropped | _refused(other, rows)
    if dropped.all():
        raise UserError("the versions have learned from all held-out rows, or the champion refuses them", "train again")
    counts |= {"rows": int((~dropped).sum()), "rows dropped": int(dropped.sum())}
    return rows[~dropped].reset_index(drop=True), counts


def _learned(client: MlflowClient, name: str, versions: Iterable[LoadedVersion]) -> "pd.Series[str]":
    return comparison.learned(client, name, {version.number: version.table.row_id for version in versions})


def _refused(version: LoadedVersion, rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows the champion's table does not allow, shape (n,)."""
    refused = np.zeros(len(rows), dtype=bool)
    for fault in version.table.faults(version.columns_of(rows)):
        if not fault.rows:
            raise UserError(f"the champion cannot score the held-out rows: {fault}", "force it")
        refused[np.array(fault.rows) - 1] = True
    return refused


def _measured(case: Case) -> Challenger:
    challenger, rows = case.challenger, case.rows
    with _refusing("the challenger cannot score the held-out rows"):
        return Challenger(
            answers=_answers(challenger, rows),
            served=_served_answers(challenger, rows),
            breaks=tuple(compatibility.breaking_changes(case.others[0].table, challenger.table)) if case.others else (),
            milliseconds=_milliseconds(challenger, rows),
            megabytes=challenger.megabytes,
        )


def _held_out(case: Case, measured: Challenger) -> Evidence:
    groups = TABLE.groups(case.rows)
    with _refusing("the champion cannot score the held-out rows"):
        champions = [_answers(other, case.rows) for other in case.others]
    with _refusing("the held-out rows have no labels"):
        labels = TABLE.labels(case.rows)
    return Evidence(labels, measured.answers, champions, groups)


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


def _told(
    decided: Decision, terms: Terms, counts: Mapping[str, int], compared: str, decided_by: str | None = None
) -> Verdict:
    """Print what was decided, and make a verdict of it."""
    print(decided)
    figures = {}
    for check in decided.checks:
        if check.name.endswith(checks.DIFFERENCE) and check.passed is not None:
            interval = (check.value, float(check.low or 0), float(check.high or 0))
            limit = checks.least_difference(terms.rule, terms.limits.margin)
            figures["difference.png"] = plots.differences(decided.draws, interval, limit, compared)
    measured: dict[str, float] = {}
    for check in decided.checks:
        measured |= _metrics(check)
    for check in decided.slices:
        measured |= _metrics(check, "slice/")
    told = {"rule": terms.rule, "decided by": decided_by}
    return Verdict(
        why=decided.why,
        rule=terms.rule,
        metrics={**measured, **counts},
        files={"gate.json": json.dumps({**decided.as_dict(), **counts, **told}, indent=1)},
        figures=figures,
    )


def _metrics(check: Check, kind: str = "") -> dict[str, float]:
    """A check's figure and its bounds, by names that MLflow takes and that stay the same as the rows change."""
    bare = check.name.removeprefix(checks.LIVE)
    name = naming.metric(re.sub(r", \d+ rows.*", "", bare))
    name = f"{'live/' if bare != check.name else ''}{kind}{name}"
    values = {name: check.value, f"{name} low": check.low, f"{name} high": check.high}
    return {key: value for key, value in values.items() if value is not None and np.isfinite(value)}
