"""What the gate has to know of two versions: both are verified, and scored anew on the challenger's held-out rows."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from numpy.typing import NDArray

from understudy.errors import UserError
from understudy.figures import plots
from understudy.gate import attempts, checks, comparison, decision, loaded
from understudy.gate import live as live_rows
from understudy.gate.checks import Check, Rule
from understudy.gate.decision import Challenger, Decision, Evidence, Terms
from understudy.gate.live import LiveRows, Pairs
from understudy.gate.loaded import LoadedVersion
from understudy.registry import records
from understudy.registry.records import Move, SavedRecord, Verdict
from understudy.schema import compatibility
from understudy.schema.spelling import folded
from understudy.table import TABLE
from understudy.tracking import naming


@dataclass(frozen=True)
class Case:
    """What there is to decide on.

    Args:
        planned: The move.
        challenger: The version that is to be moved.
        others: The champion, and those before it from which the margin counts; empty where there is none.
        rows: The held-out rows.
        counts: Of rows.
        left_out: Which champions before it cannot be compared with, and why, for people.
    """

    planned: Move
    challenger: LoadedVersion
    others: Sequence[LoadedVersion]
    rows: pd.DataFrame
    counts: Mapping[str, int]
    left_out: tuple[str, ...] = ()

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
        challenger = loaded.load(client, name, planned.version)
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
    others = [] if number in (None, planned.version) else [loaded.load(client, name, str(number))]
    rows, counts = _rows(client, name, challenger, others, data)
    case = Case(planned, challenger, others, rows, counts)
    if others and rule == "not-worse" and planned.stage == "production":
        known = records.find(client, name)
        for earlier in comparison.earlier(client, name, known, (others[0].number, planned.version)):
            try:
                case = _beside(client, name, case, earlier)
            except UserError as error:
                case = replace(case, left_out=(*case.left_out, f"version {earlier} ({error.problem})"))
    return case


def _beside(client: MlflowClient, name: str, case: Case, number: str) -> Case:
    """The case with one more champion, an earlier one.

    Raises:
        UserError: It cannot be loaded or asked, or leaves no rows with both labels.
    """
    with loaded.refusing("it cannot score the held-out rows"):
        other = loaded.load(client, name, number)
        dropped = _dropped(client, name, case.rows, [other], [other])
        rows = case.rows[~dropped].reset_index(drop=True)
        if rows[TABLE.target.name].nunique() < 2:
            raise UserError("it has learned from the held-out rows, or refuses them", "train again")
        other.answers(rows)
    counts = {"rows": len(rows), "rows dropped": case.counts["rows dropped"] + int(dropped.sum())}
    return replace(case, others=[*case.others, other], rows=rows, counts={**case.counts, **counts})


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
        answered = _agreeing(answered, case.challenger, case.others[0])
        live = live_rows.counted(answered, _learned(client, name, [case.challenger, case.others[0]]))
        print("\n".join(live.lines))
    choice = live_rows.choose(identifiers, held_out, live)
    question = attempts.Question(planned.version, against, choice.deciding, choice.beside)
    look = Verdict(rule=rule, against=against, rows=question.rows, decided_by=choice.decided_by)
    opened = records.start(client, name, planned, replace(look, files={attempts.FILE: question.marks}))
    try:
        terms = _priced(client, name, opened, question, terms)
    except UserError as error:
        return replace(look, why=_undecided(error, rule).why, record=opened)
    decided = decision.production(measured, held_out, terms, choice.live)
    verdict = _told(decided, terms, {**case.counts, **choice.counts}, compared, choice.decided_by)
    if choice.decided_by:
        print(f"decided by {choice.decided_by}: {choice.why}")
    return replace(verdict, against=against, rows=question.rows, decided_by=choice.decided_by, record=opened)


def _priced(client: MlflowClient, name: str, opened: SavedRecord, question: attempts.Question, terms: Terms) -> Terms:
    """The terms with the price of a question, whose record is open: of two that ask at once, each sees the other's."""
    others = [record for record in records.find(client, name) if record.run_id != opened.run_id]
    attempt, losses = attempts.on_such_rows(client, others, question), attempts.since_better(others, question)
    return replace(terms, attempt=attempt, losses=losses)


def _rows(
    client: MlflowClient, name: str, challenger: LoadedVersion, others: Sequence[LoadedVersion], data: str | None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The held-out rows that no version has learned from and no champion refuses, and counts of rows."""
    rows, counts = comparison.held_out(client, name, challenger.number, data)
    with loaded.refusing("the rows that training kept do not fit the table"):
        dropped = _dropped(client, name, rows, (challenger, *others), others)
    if dropped.all():
        raise UserError("the versions have learned from all held-out rows, or the champion refuses them", "train again")
    counts |= {"rows": int((~dropped).sum()), "rows dropped": int(dropped.sum())}
    return rows[~dropped].reset_index(drop=True), counts


def _dropped(
    client: MlflowClient,
    name: str,
    rows: pd.DataFrame,
    versions: Sequence[LoadedVersion],
    asked: Sequence[LoadedVersion],
) -> NDArray[np.bool_]:
    """Which rows one of the versions has learned from, or one of those that are asked refuses, shape (n,)."""
    dropped = rows[TABLE.row_id].map(folded).isin(_learned(client, name, versions)).to_numpy(dtype=bool)
    for version in asked:
        dropped = dropped | version.refused(rows)
    return dropped


def _learned(client: MlflowClient, name: str, versions: Iterable[LoadedVersion]) -> "pd.Series[str]":
    return comparison.learned(client, name, {version.number: version.table.row_id for version in versions})


def _agreeing(answered: LiveRows, challenger: LoadedVersion, champion: LoadedVersion) -> LiveRows:
    """The live rows, of which those count as without a label whose answers the two versions do not give now.

    They may be another model's, or of a log that somebody has written. Encoded rows are taken as they are.
    """
    labels, cells = answered.labels.copy(), answered.cells
    raw = pd.DataFrame(dict(cells))
    for version, answers in ((challenger, answered.challenger), (champion, answered.champion)):
        columns = [column.name for column in version.table.columns]
        if {*columns} <= {*cells}:
            has_all = np.logical_and.reduce([raw.index.isin(cells[name].index) for name in columns])
            places = raw.index[has_all & ~np.isnan(labels[raw.index])].to_numpy()
            with loaded.refusing("the versions cannot score the rows of the log"):
                labels[places[version.differs(raw.loc[places], answers.probabilities[places])]] = np.nan
    count = int(np.isnan(labels).sum() - np.isnan(answered.labels).sum())
    others = {"rows count as without a label, since the versions answer otherwise now than the log says": count}
    return replace(answered, labels=labels, counts={**answered.counts, **others})


def _measured(case: Case) -> Challenger:
    challenger, rows = case.challenger, case.rows
    with loaded.refusing("the challenger cannot score the held-out rows"):
        return Challenger(
            answers=challenger.answers(rows),
            served=challenger.served_answers(rows),
            breaks=tuple(compatibility.breaking_changes(case.others[0].table, challenger.table)) if case.others else (),
            milliseconds=challenger.milliseconds(rows),
            megabytes=challenger.megabytes,
        )


def _held_out(case: Case, measured: Challenger) -> Evidence:
    groups = TABLE.groups(case.rows)
    with loaded.refusing("the champion cannot score the held-out rows"):
        champions = [other.answers(case.rows) for other in case.others]
    with loaded.refusing("the held-out rows have no labels"):
        labels = TABLE.labels(case.rows)
    return Evidence(labels, measured.answers, champions, groups, left_out=case.left_out)


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
        files={records.GATE: json.dumps({**decided.as_dict(), **counts, **told}, indent=1)},
        figures=figures,
    )


def _metrics(check: Check, kind: str = "") -> dict[str, float]:
    """A check's figure and its bounds, by names that MLflow takes and that stay the same as the rows change."""
    bare = check.name.removeprefix(checks.LIVE)
    name = naming.metric(re.sub(r", \d+ rows.*", "", bare))
    name = f"{'live/' if bare != check.name else ''}{kind}{name}"
    values = {name: check.value, f"{name} low": check.low, f"{name} high": check.high}
    return {key: value for key, value in values.items() if value is not None and np.isfinite(value)}
