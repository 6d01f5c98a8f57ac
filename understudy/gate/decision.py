"""May a version go to Staging or to Production? Answers and measurements in, a `Decision` out; nothing is read."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from understudy import errors, terminal
from understudy.figures import metrics
from understudy.figures.metrics import Floats, Labels
from understudy.gate import checks
from understudy.gate.checks import Check, Groups, Rule
from understudy.schema.declaration import Limits

RESAMPLES = 2_000
CONSTANT = 0.5  # the area under the ROC curve of a model that says the same to every row
TOLERANCE = 1e-6  # of a probability, between the two forms of one model
ENOUGH = 200  # live rows of the rarer label that decide, however many rows are held out


@dataclass(frozen=True)
class Terms:
    """What is asked of a version.

    Args:
        limits: Those of the checkout that promotes; a version cannot bring limits of its own.
        rule: How its ROC AUC is compared with the champion's; see `checks.difference`.
        breaking: Whether it may take other rows than the champion.
        attempt: Its number among the challengers that were asked about on rows like these; see `checks.share`.
        losses: Its number among those that were asked about by `not-worse` since a version passed by `better`.
    """

    limits: Limits
    rule: Rule = "not-worse"
    breaking: bool = False
    attempt: int = 1
    losses: int = 1


@dataclass(frozen=True)
class Answers:
    """A version's answers to rows: probabilities of label 1, and labels as 0 or 1, shape (n,) each."""

    probabilities: Floats
    labels: Labels


@dataclass(frozen=True)
class Evidence:
    """Rows whose true labels are known, n of them, and what was answered.

    Args:
        labels: True labels, 0 or 1, shape (n,).
        challenger: The challenger's answers.
        champions: Those of the version in Production, if there is one, and of the champions before it from which the
            margin counts too.
        groups: Columns whose values make slices; see `checks.slices`.
        is_live: Whether the rows are those of live traffic.
        left_out: Which champions before it could not be compared with, and why, for people.
    """

    labels: Labels
    challenger: Answers
    champions: Sequence[Answers]
    groups: Groups
    is_live: bool = False
    left_out: Sequence[str] = ()

    @property
    def rarer(self) -> int:
        """How many rows the rarer label has."""
        positive = int(self.labels.sum())
        return min(positive, len(self.labels) - positive)


@dataclass(frozen=True)
class Challenger:
    """What was measured of the version that is to be promoted.

    Args:
        answers: The answers of its scikit-learn form.
        served: The answers of the form that is served, to the same rows.
        breaks: What its table breaks for those who send rows to the champion; see `compatibility.broken`.
        milliseconds: How long the answer to one row takes.
        megabytes: The size of its files, in millions of bytes.
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
        checks: All checks but those of slices.
        slices: A check for each slice, the worst first.
        draws: The difference in ROC AUC, challenger less champion, on each resample; empty without a champion.
    """

    checks: tuple[Check, ...]
    slices: tuple[Check, ...] = ()
    draws: tuple[float, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether no check failed."""
        return not self._failed

    @property
    def why(self) -> str | None:
        """Why the version is refused, in one sentence; None if it is allowed."""
        return "; ".join(str(check.note) for check in self._failed) or None

    @property
    def _failed(self) -> list[Check]:
        return [check for check in (*self.checks, *self.slices) if check.passed is False]

    def table(self) -> pd.DataFrame:
        """The table that people see: all checks, but of the slices those that failed, or else the worst.

        Of slices that decide nothing it has the worst.
        """
        deciding, others = ([check for check in self.slices if (check.passed is None) == aside] for aside in (0, 1))
        slices = [check for check in deciding if not check.passed] or deciding[:1]
        return pd.DataFrame([check.printed() for check in (*self.checks, *slices, *others[:1])])

    def __str__(self) -> str:
        """That table, and below it what is to be known of checks that did not fail."""
        notes = [
            f"note: {check.note}" for check in (*self.checks, *self.slices) if check.passed is not False and check.note
        ]
        rows = self.table().to_dict("records")
        return "\n".join([*terminal.table(rows, {"pass": errors.GREEN, "fail": errors.RED}), *notes])

    def as_dict(self) -> dict[str, Any]:
        """All but the draws, as JSON takes it: NaN and the infinite become null."""
        known = [asdict(check) for check in (*self.checks, *self.slices)]
        return {"allowed": self.allowed, "why": self.why, "checks": terminal.finite(known)}


def staging(challenger: Challenger, terms: Terms) -> Decision:
    """Whether rows are still understood, what is served is what was tested, and it costs no more than it may."""
    answers, served, breaks = challenger.answers, challenger.served, challenger.breaks
    limit = "waived by --breaking" if terms.breaking else "at most 0"
    note = f"it breaks what rows may be ({', '.join(breaks)})" if breaks else None
    apart = float(np.max(np.abs(answers.probabilities - served.probabilities), initial=0))
    fitness = (
        Check("breaks of the contract", len(breaks), limit, terms.breaking or not breaks, note=note, bound=0),
        checks.at_most("probabilities apart when served", apart, TOLERANCE),
        checks.at_most("labels apart when served", int(np.sum(answers.labels != served.labels)), 0),
        checks.at_most("milliseconds for one row", challenger.milliseconds, terms.limits.milliseconds),
        checks.at_most("megabytes of files", challenger.megabytes, terms.limits.megabytes),
    )
    return Decision(fitness)


def production(
    challenger: Challenger, held_out: Evidence, terms: Terms, live: Evidence | None = None, seed: int = 0
) -> Decision:
    """Whether a version passes what Staging asks, and predicts well enough to take over.

    Args:
        challenger: The version that is to be promoted.
        held_out: The held-out rows.
        terms: What is asked of the challenger.
        live: Rows of live traffic, with the version in Production alone as champion; None where none have a label.
        seed: Seed of the bootstrap.
    """
    fitness = staging(challenger, terms).checks
    asked = _predicts(held_out, terms, seed)
    if live is None:
        return replace(asked, checks=(*asked.checks, *fitness))
    paired, is_live = _predicts(live, terms, seed), are_enough(live, held_out)
    deciding, other = (paired, asked) if is_live else (asked, paired)
    # Earlier champions were seldom a shadow's, so that their margin is always counted on held-out rows.
    aside = [
        check if check.name in (checks.EARLIER, checks.LOSSES) else checks.aside(check)
        for check in other.checks
        if check.name != checks.ATTEMPT
    ]
    slices = (*deciding.slices, *map(checks.aside, other.slices))
    return Decision((*deciding.checks, *aside, *fitness), slices, deciding.draws)


def are_enough(live: Evidence, held_out: Evidence) -> bool:
    """Whether live rows decide: by counts alone, so that nobody can choose by the outcome."""
    return live.rarer >= enough(held_out)


def enough(held_out: Evidence) -> int:
    """How many live rows the rarer label has to have, for live rows to decide."""
    return max(1, min(ENOUGH, held_out.rarer))


def _predicts(evidence: Evidence, terms: Terms, seed: int) -> Decision:
    """How well a version predicts rows, beside the champions."""
    labels, answers, champions, n = evidence.labels, evidence.challenger, evidence.champions, len(evidence.labels)
    of, limits = checks.LIVE if evidence.is_live else "", terms.limits
    if not evidence.rarer:
        called = f"{of or 'held-out '}rows"
        note = f"the {n} {called} do not have both labels, so nothing is known of how it tells them apart"
        return Decision((Check(called, n, "both labels", False, note=note),))
    areas, draws = metrics.areas(labels, [each.probabilities for each in (answers, *champions)], RESAMPLES, seed)
    floor = checks.above(f"{of}ROC AUC", areas[0], checks.bounds(draws[0]), CONSTANT, n)
    if not champions:
        return Decision((floor,))
    values, differences = areas[0] - areas[1:], draws[0] - draws[1:]
    named, attempt = f"{of}{checks.DIFFERENCE}", terms.attempt
    compared = [checks.difference(values[0], differences[0], terms.rule, limits.margin, labels, attempt, named)]
    if terms.rule != "point":
        compared.append(checks.attempts(attempt))
    if terms.rule == "not-worse" and (champions[1:] or evidence.left_out):
        losses = [
            checks.difference(value, draws, terms.rule, limits.margin, labels, terms.losses, checks.EARLIER)
            for value, draws in zip(values[1:], differences[1:], strict=True)
        ]
        left_out = f"not compared with {', '.join(evidence.left_out)}" if evidence.left_out else None
        price = replace(checks.attempts(terms.losses, checks.LOSSES), note=left_out)
        compared += [*sorted(losses, key=lambda check: check.low or 0)[:1], price]
    mcnemar = checks.mcnemar(labels, answers.labels, champions[0].labels, of)
    probabilities = answers.probabilities, champions[0].probabilities
    slices = checks.slices(labels, *probabilities, evidence.groups, limits.slice_margin, of)
    return Decision((floor, *compared, mcnemar), tuple(slices), tuple(differences[0].tolist()))
