"""May a new version take over? Answers and measurements in, a decision out; nothing is read and nothing is written."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from understudy.figures import metrics
from understudy.figures.metrics import Floats, Labels
from understudy.gate import checks
from understudy.gate.checks import Check, Rule
from understudy.schema.declaration import Limits

RESAMPLES = 2_000
DUMMY = 0.5  # the area under the ROC curve of any constant
TOLERANCE = 1e-6  # of a probability, between the two forms of one model


@dataclass(frozen=True)
class Answers:
    """What a version says of the held-out rows: probabilities of label 1, and labels as 0 or 1, shape (n,) each."""

    probabilities: Floats
    labels: Labels


@dataclass(frozen=True)
class Challenger:
    """What was measured of the version that asks.

    Args:
        answers: Of its scikit-learn form.
        served: Of the form that is served, to the same rows.
        breaks: What its table breaks for those who send rows to the champion; see `compatibility.breaking_changes`.
        milliseconds: For the answer to one row.
        megabytes: Of its files, in millions of bytes.
    """

    answers: Answers
    served: Answers
    breaks: tuple[str, ...]
    milliseconds: float
    megabytes: float


@dataclass(frozen=True)
class Decision:
    """What all checks say together.

    Args:
        checks: All but those of slices.
        slices: One for each slice, the worst first.
        draws: Of the difference in ROC AUC, challenger less champion, shape (draws,); empty without a champion.
    """

    checks: tuple[Check, ...]
    slices: tuple[Check, ...] = ()
    draws: tuple[float, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether no check failed."""
        return not self._failed

    @property
    def why(self) -> str:
        """Why not, in one sentence; empty if it is allowed."""
        return "; ".join(check.note for check in self._failed)

    @property
    def _failed(self) -> list[Check]:
        return [check for check in (*self.checks, *self.slices) if check.passed is False]

    def table(self) -> pd.DataFrame:
        """What to print: all checks, of the slices those that failed, or else the worst."""
        slices = [check for check in self.slices if not check.passed] or self.slices[:1]
        return pd.DataFrame([check.printed() for check in (*self.checks, *slices)])

    def as_dict(self) -> dict[str, Any]:
        """All but the draws, as JSON has it: what is not a number is null."""
        every = [asdict(check) for check in (*self.checks, *self.slices)]
        finite = [{key: None if _is_lost(value) else value for key, value in check.items()} for check in every]
        return {"allowed": self.allowed, "why": self.why, "checks": finite}


def staging(challenger: Challenger, limits: Limits, breaking: bool = False) -> Decision:
    """What Staging asks: that rows are still understood, that what is served is what was tested, and what it costs.

    Args:
        challenger: The version that asks.
        limits: Of its table.
        breaking: Whether it may break what rows are.
    """
    return Decision(tuple(_fitness(challenger, limits, breaking)))


def production(
    labels: Labels,
    challenger: Challenger,
    champion: Answers | None,
    groups: pd.DataFrame,
    limits: Limits,
    rule: Rule = "not-worse",
    breaking: bool = False,
    seed: int = 0,
) -> Decision:
    """What Production asks: what Staging does, and that the version predicts well enough to take over.

    Args:
        labels: True ones of the held-out rows, 0 or 1, shape (n,).
        challenger: The version that asks.
        champion: What the version in Production says of the same rows; None if there is none.
        groups: Columns of the same rows whose values make slices, shape (n, columns).
        limits: Of the challenger's table.
        rule: The challenger's ROC AUC less the champion's has to be above 0 (`better`) or above the negative margin
            (`not-worse`) with its whole 95 % interval, or at least 0 itself (`point`).
        breaking: Whether it may break what rows are.
        seed: Of the resampling.
    """
    fitness = tuple(_fitness(challenger, limits, breaking))
    mine, n = challenger.answers, len(labels)
    if len(np.unique(labels)) < 2:
        note = f"the {n} held-out rows do not have both labels, so nothing is known of how it tells them apart"
        return Decision((Check("held-out rows", n, "both labels", False, note=note), *fitness))
    versions = [mine] if champion is None else [mine, champion]
    areas, draws = metrics.areas(labels, [version.probabilities for version in versions], RESAMPLES, seed)
    floor = checks.above("ROC AUC", areas[0], draws[0], DUMMY, n)
    if champion is None:
        return Decision((floor, *fitness))
    less = draws[0] - draws[1]
    compared = checks.compare(areas[0] - areas[1], less, rule, limits.margin, n)
    won = checks.mcnemar(labels, mine.labels, champion.labels)
    worse = checks.slices(labels, mine.probabilities, champion.probabilities, groups, limits.slice_margin)
    return Decision((floor, compared, won, *fitness), tuple(worse), tuple(less.tolist()))


def _fitness(challenger: Challenger, limits: Limits, breaking: bool) -> Iterator[Check]:
    mine, served, breaks = challenger.answers, challenger.served, challenger.breaks
    limit = "waived by --breaking" if breaking else "at most 0"
    note = f"it breaks what rows may be ({', '.join(breaks)})" if breaks else ""
    yield Check("breaks of the contract", len(breaks), limit, breaking or not breaks, note=note)
    apart = float(np.max(np.abs(mine.probabilities - served.probabilities), initial=0))
    yield checks.at_most("probabilities apart when served", apart, TOLERANCE)
    yield checks.at_most("labels apart when served", int(np.sum(mine.labels != served.labels)), 0)
    yield checks.at_most("milliseconds for one row", challenger.milliseconds, limits.milliseconds)
    yield checks.at_most("megabytes of files", challenger.megabytes, limits.megabytes)


def _is_lost(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
