"""Rows of live traffic that both versions have answered, and which of them can be compared once their labels are known.

Why only some of them count where labels are selective: docs/decisions/0024-live-evidence.md.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from understudy.figures.metrics import Floats, Labels
from understudy.gate import decision
from understudy.gate.decision import Answers, Evidence
from understudy.schema.spelling import folded
from understudy.table import TABLE

SELECTIVE = 0.5  # labels are selective if the share that has one is for one answer less than this of the other's
MOST_ROWS = 100_000  # that are compared; more would only show differences too small to matter

Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class LiveRows:
    """Rows that champion and challenger both answered, one of them in Production and the other as its shadow.

    Args:
        ids: Of the rows, each once, shape (n,), the newest row last.
        labels: True labels, 0 or 1, and NaN where none is known, shape (n,).
        answered: The label, 0 or 1, that the version in Production answered, shape (n,).
        challenger: The challenger's answers.
        champion: The champion's.
        cells: Raw column to its cells, by the places of the rows that have it; no more than rows with a label are
            needed.
        counts: What people are told of labels that were left out: what they are, and how many.
    """

    ids: "pd.Series[str]"
    labels: Floats
    answered: Labels
    challenger: Answers
    champion: Answers
    cells: "Mapping[str, pd.Series[Any]]"
    counts: Mapping[str, int]


# Of a champion and a challenger, by their numbers; raises UserError where log or labels cannot be read.
Pairs: TypeAlias = Callable[[str, str], LiveRows]


@dataclass(frozen=True)
class CountedRows:
    """The live rows that count.

    Args:
        ids: Of the rows, shape (n,).
        evidence: Their labels, and what both versions answered.
        lines: What people are told of how they were chosen.
    """

    ids: "pd.Series[str]"
    evidence: Evidence
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """Which rows decide: the live ones or the held-out ones.

    Args:
        deciding: The identifiers of those that decide.
        beside: Those of the others that were measured.
        live: The live rows; None if there are none.
        counts: Of live rows.
        decided_by: Which rows decide, and how many, for people; None where no live rows were asked for.
        why: Why those, for people.
    """

    deciding: "pd.Series[str]"
    beside: "pd.Series[str]"
    live: Evidence | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    decided_by: str | None = None
    why: str = ""


def choose(identifiers: "pd.Series[str]", held_out: Evidence, live: CountedRows | None) -> Choice:
    """Let live rows decide if they are enough, or else the held-out ones.

    Args:
        identifiers: Of the held-out rows.
        held_out: Their labels and answers.
        live: The live rows; None where none were asked for.
    """
    if live is None:
        return Choice(identifiers, identifiers[:0])
    count, enough = len(live.ids), decision.enough(held_out)
    counts, evidence = {"live rows": count}, live.evidence if count else None
    why = f"of the rarer label there are {live.evidence.rarer:,} live rows, and {enough:,} are enough"
    if decision.are_enough(live.evidence, held_out):
        return Choice(live.ids, identifiers, evidence, counts, f"{count:,} live rows", why)
    return Choice(identifiers, live.ids, evidence, counts, f"{len(identifiers):,} held-out rows", why)


def counted(rows: LiveRows, learned: Collection[str]) -> CountedRows:
    """The rows that tell how good both versions are.

    They have a label, and neither version has learned from them. Where labels are selective they are those that both
    versions gave the answer whose truth comes to light, as `_both_chose` says.

    Args:
        rows: All rows that both have answered.
        learned: The identifiers of rows that either has learned from, `folded`.
    """
    is_new = ~rows.ids.map(folded).isin(learned).to_numpy(dtype=bool)
    has_label = ~np.isnan(rows.labels) & is_new
    if not len(rows.ids):
        nothing = "live: no row of the log was answered by both versions since both were made"
        return CountedRows(rows.ids, _evidence(rows, np.arange(0)), (nothing,))
    lines = [f"{is_new.sum():,} rows were answered by both versions, {has_label.sum():,} of them have a label"]
    lines += [f"{count:,} {what}" for what, count in rows.counts.items() if count]
    if learned_from := int((~is_new).sum()):
        lines += [f"{learned_from:,} more are left out, since one of the versions has learned from them"]
    shares = []
    for answer, name in enumerate((TABLE.negative, TABLE.positive)):
        is_answer = is_new & (rows.answered == answer)
        given, known = int(is_answer.sum()), int((is_answer & has_label).sum())
        lines += [f"{known:,} of {given:,} that the version in Production answered {name} have a label"]
        shares += [known / given if given else None]
    counts_for = has_label
    if (known_answer := _known_answer(*shares)) is not None:
        counts_for = has_label & _both_chose(rows, is_new, known_answer)
        lines += [_about_selection(known_answer, int(counts_for.sum()))]
    places = np.flatnonzero(counts_for)[-MOST_ROWS:]
    return CountedRows(rows.ids.iloc[places], _evidence(rows, places), tuple(f"live: {line}" for line in lines))


def _known_answer(negative: float | None, positive: float | None) -> int | None:
    """The answer, 0 or 1, whose labels come to light much more often than the other's; None where labels are fair.

    Args:
        negative: The share of rows answered 0 that have a label; None if none were answered so.
        positive: The same of 1.
    """
    if negative is None or positive is None:
        return None
    if min(negative, positive) >= SELECTIVE * max(negative, positive):
        return None
    return int(positive > negative)


def _both_chose(rows: LiveRows, is_new: Bools, answer: int) -> Bools:
    """Which rows both versions gave an answer, had each given it to the same share of the rows, shape (n,).

    That share is the smaller one of the two. Else a version that seldom gives the answer would be judged on a narrower
    choice of its own than the other.
    """
    versions = (rows.champion, rows.challenger)
    wanted = min(int((version.labels[is_new] == answer).sum()) for version in versions)
    chosen = is_new.copy()
    for version in versions:
        scores = version.probabilities if answer else -version.probabilities
        chosen &= scores >= _cut(scores[is_new], wanted)
    return chosen


def _cut(scores: Floats, wanted: int) -> float:
    """The least score that at most so many scores reach; ties that would be too many are left out together."""
    values, counts = np.unique(scores, return_counts=True)
    reached = np.cumsum(counts[::-1])[::-1]
    fits = values[reached <= wanted]
    return float(fits[0]) if len(fits) else np.inf


def _about_selection(answer: int, count: int) -> str:
    known, other = (TABLE.positive, TABLE.negative) if answer else (TABLE.negative, TABLE.positive)
    return (
        f"labels are selective: rows answered {other} seldom have one, so only the {count:,} that both versions "
        f"would answer {known} count, each as often as the other"
    )


def _evidence(rows: LiveRows, places: NDArray[np.intp]) -> Evidence:
    """What is known of the rows at these places."""
    champion, challenger = (
        replace(version, probabilities=version.probabilities[places], labels=version.labels[places])
        for version in (rows.champion, rows.challenger)
    )
    place_of = pd.Series(np.arange(len(places)), index=places)
    groups = {}
    for column in (category.name for category in TABLE.categories if category.name in rows.cells):
        cells = rows.cells[column]
        present = cells[cells.index.isin(places)]
        groups[column] = TABLE.groups(present.to_frame(column))[column].set_axis(place_of[present.index].to_numpy())
    return Evidence(rows.labels[places].astype(int), challenger, (champion,), groups, is_live=True)
