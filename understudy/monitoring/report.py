"""All that is found in a window: comparisons of its rows, what came true, and one sentence of verdict."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from understudy import terminal
from understudy.figures.metrics import Scored
from understudy.figures.windows import DrawnColumn
from understudy.monitoring import drift, outcomes
from understudy.monitoring.drift import ColumnDrift, ScoreDrift, TogetherDrift
from understudy.monitoring.labels import JoinedLabels, KnownLabels
from understudy.monitoring.outcomes import Estimate, Outcome
from understudy.monitoring.window import Reference, Window
from understudy.schema import logged

NOTHING, DRIFT, WORSE = 0, 5, 6  # exit codes


@dataclass(frozen=True)
class WindowReport:
    """What is found in a window.

    Args:
        window: Its rows.
        is_trained_on: Whether they were compared with the rows that the version was trained on.
        compared_with: How many rows these are.
        positive: The positive label.
        columns: The comparison of each column, by its name in the row log.
        scores: That of the version's probabilities.
        drawn: What a figure shows of each column.
        together: That of all columns at once, by form.
        known: The labels that were given; None without any.
        joined: Those of answered rows; None without any.
        outcome: How good these answers were; None without labels.
        estimate: What accuracy and AUC would be if the probabilities were true.
    """

    window: Window
    is_trained_on: bool
    compared_with: int
    positive: str
    columns: dict[str, ColumnDrift]
    drawn: list[DrawnColumn]
    scores: ScoreDrift
    together: dict[str, TogetherDrift]
    known: KnownLabels | None
    joined: JoinedLabels | None
    outcome: Outcome | None
    estimate: Estimate

    @property
    def drifted(self) -> list[str]:
        """What has an alarm, for people."""
        together = any(of.alarm for of in self.together.values())
        rest = {"the scores": self.scores.alarm, "all columns together": together}
        return [*(name for name, of in self.columns.items() if of.alarm), *(name for name in rest if rest[name])]

    @property
    def worse(self) -> tuple[str, ...]:
        """The metrics that are worse than they were when the version was promoted."""
        return self.outcome.worse if self.outcome else ()

    @property
    def code(self) -> int:
        """The exit code: 6 if outcomes are worse, else 5 if something has drifted, else 0."""
        return WORSE if self.worse else DRIFT if self.drifted else NOTHING

    @property
    def verdict(self) -> str:
        """One sentence, without a full stop."""
        parts = []
        if self.worse:
            parts.append(f"the outcome is worse than at promotion: {', '.join(self.worse)}")
        if self.drifted:
            parts.append(f"the rows have drifted: {', '.join(self.drifted)}")
        return "; ".join(parts) or f"nothing has drifted{'' if self.outcome is None else ', and no outcome is worse'}"

    def table(self) -> pd.DataFrame:
        """The comparison of each column, a row for each."""
        names = ["column", "test", "p", "psi", "missing_before", "missing", "missing_p", "level", "rows", "alarm"]
        return pd.DataFrame([{**asdict(of), "column": name} for name, of in self.columns.items()])[names]

    def metrics(self) -> dict[str, float]:
        """Every finite figure, by the name of its metric in MLflow."""
        window = self.window
        values: dict[str, float | None] = {"rows": window.accepted, "refused": window.refused, "exit code": self.code}
        for name, of in self.columns.items():
            values |= {f"p/{name}": of.p, f"psi/{name}": of.psi, f"missing/{name}": of.missing}
        values |= {"scores/p": self.scores.p, "scores/psi": self.scores.psi, "scores/mean": self.scores.mean}
        for form, together in self.together.items():
            values |= {f"together/{form} p": together.p, f"together/{form} AUC": together.auc}
        for shadow in window.shadows:
            values |= {f"shadow/agreement with version {shadow.version}": shadow.agreement}
        values |= {f"expected/{name}": value for name, value in self.estimate.expected.items()}
        if self.outcome:
            values["outcome/rows"] = self.outcome.rows
            for prefix, metrics in (("outcome", self.outcome.metrics), ("change", self.outcome.change)):
                for name, (value, low, high) in metrics.items():
                    values |= {f"{prefix}/{name}": value}
                    values |= {f"interval/{prefix} {name} low": low, f"interval/{prefix} {name} high": high}
        return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it: NaN becomes null."""
        window = self.window
        known = {name: value for name, value in vars(self.known).items() if name != "of"} if self.known else {}
        arrays = ("labels", "probabilities")
        joined = {name: value for name, value in vars(self.joined).items() if name not in arrays} if self.joined else {}
        everything: dict[str, Any] = terminal.finite(
            {
                "exit": self.code,
                "verdict": self.verdict,
                "since": window.since.isoformat() if window.since else None,
                "until": window.until.isoformat(),
                "rows": {"accepted": window.accepted, "refused": window.refused, "compared": len(window.probabilities)},
                "compared_with": {"rows": self.compared_with, "trained_on": self.is_trained_on},
                "faults": dict(window.faults.most_common()),
                "columns": self.table().to_dict("records"),
                "scores": asdict(self.scores),
                "together": {form: asdict(of) for form, of in self.together.items()},
                "shadows": [asdict(shadow) for shadow in window.shadows],
                "labels": {**known, **joined} or None,
                "outcome": asdict(self.outcome) if self.outcome else None,
                "estimate": asdict(self.estimate),
            }
        )
        return everything


def compare(
    reference: Reference, window: Window, known: KnownLabels | None, joined: JoinedLabels | None
) -> WindowReport:
    """Compare a window with what a version was trained on, and its answers with what came true, where that is known.

    The rows of two forms share the level of one, so that windows of both forms do not alarm more often.
    """
    table, before = reference.model.table, reference.scored
    declared = {"raw": table.columns, "encoded": table.encoded}
    alpha = drift.ALPHA / len(window.rows)
    columns: dict[str, ColumnDrift] = {}
    drawn: list[DrawnColumn] = []
    together: dict[str, TogetherDrift] = {}
    for form, rows in window.rows.items():
        learned = reference.rows[form]
        for column, of in zip(declared[form], drift.compare_columns(declared[form], learned, rows, alpha), strict=True):
            columns[name := logged.name(form, column.name)] = of
            drawn.append(drift.drawn(name, column, of, learned[column.name], rows[column.name]))
        together[form] = drift.compare_together(declared[form], learned, rows, alpha)
    outcome = None
    if joined:
        answered = Scored(joined.probabilities, before.threshold)
        outcome = outcomes.measure(joined.labels, answered, reference.labels, before)
    return WindowReport(
        window=window,
        is_trained_on=reference.is_trained_on,
        compared_with=len(reference.rows["raw"]),
        positive=table.positive,
        columns=columns,
        drawn=drawn,
        scores=drift.compare_scores(before.probabilities, window.probabilities),
        together=together,
        known=known,
        joined=joined,
        outcome=outcome,
        estimate=outcomes.estimate(Scored(window.probabilities, before.threshold), reference.labels, before),
    )
