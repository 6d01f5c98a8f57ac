"""A batch's models on the held-out rows: what `train.py` ends with, and `evaluate.py` does again."""

from collections.abc import Mapping
from dataclasses import dataclass

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import Run
from sklearn.pipeline import Pipeline

from understudy.errors import UserError
from understudy.families import FLOOR
from understudy.figures import cards, metrics, plots
from understudy.figures.metrics import Interval, Labels, Scored
from understudy.scoring import pipelines
from understudy.table import TABLE
from understudy.tracking import connection, family_runs, provenance, runs
from understudy.tracking.family_runs import Report
from understudy.training import selection, threshold
from understudy.training.search import SearchResult
from understudy.verification import inspection

IMPORTANCE_ROWS = 10_000
HEADLINE = ["Family", "Mean CV score", "Accuracy", "AUC"]


@dataclass(frozen=True)
class Evaluated:
    """How good a family's model is.

    Args:
        scored: The model on the held-out rows.
        metrics: On these rows, each with its 95 % interval.
        cv_score: The mean score in cross-validation.
    """

    scored: Scored
    metrics: Mapping[str, Interval]
    cv_score: float


def evaluate(
    client: mlflow.MlflowClient, batch: Run, rows: pd.DataFrame, results: Mapping[str, SearchResult] | None = None
) -> None:
    """Evaluate every family of a batch on the held-out side of its whole table, log and print the comparison.

    What training has found need not be loaded where it is at hand, by the families' names.

    Raises:
        UserError: The rows are not the ones the batch was trained on, or a model is not what training writes.
    """
    if TABLE.digest(rows) != runs.tag(batch, provenance.DATA_DIGEST):
        raise UserError(
            f"the table is not the one that batch {batch.info.run_id} was trained on",
            "give that file with --data, or train on this one: python train.py",
        )
    _, held_out = TABLE.split(rows)
    families: dict[str, Evaluated] = {}
    candidates = family_runs.families(client, batch)
    for run in [*candidates, *family_runs.families(client, batch, runs.REFERENCE)]:
        name = family_runs.family_name(run)
        if results:
            pipeline, thresholds = results[name].pipeline, results[name].thresholds
        else:
            pipeline, thresholds = _loaded(client, run, held_out), family_runs.thresholds(run)
        families[name] = _evaluate_family(client, run, pipeline, thresholds, held_out)
    if {*families} != {FLOOR}:  # the runs of the others may be deleted
        best = family_runs.family_name(selection.best_family(candidates))
        family_runs.log_best(client, batch, best, families[best].cv_score, families[best].metrics)
    _compare(client, batch, TABLE.labels(held_out), families)


def _loaded(client: mlflow.MlflowClient, run: Run, held_out: pd.DataFrame) -> Pipeline:
    called = f"the model of run {run.info.run_id}"
    with inspection.inspected(client, run, family_runs.model_uri(run), held_out, called) as (_, pipeline):
        return pipeline


def _evaluate_family(
    client: mlflow.MlflowClient, run: Run, pipeline: Pipeline, thresholds: pd.DataFrame, held_out: pd.DataFrame
) -> Evaluated:
    """Score the held-out rows with a family's model, and log metrics, plots and slices on its run."""
    name, labels = family_runs.family_name(run), TABLE.labels(held_out)
    scored = Scored(pipelines.positive(pipeline, held_out, TABLE), pipeline[-1].threshold)
    evaluated = Evaluated(scored, metrics.evaluate(labels, scored), runs.metric(run, "Mean CV score"))
    figures = {} if name == FLOOR else _curves(name, labels, scored, thresholds)
    if figures:
        figures["permutation_importance"] = plots.importance(_importance(pipeline, held_out), name)
    slices = [metrics.slices(labels, scored.called, group) for _, group in TABLE.groups(held_out).items()]
    tables = {"slices": pd.concat(slices)} if slices else {}
    sensitive = [column.name for column in TABLE.categories if column.sensitive]
    if sensitive and figures:
        figures["groups"] = plots.groups(tables["slices"][tables["slices"]["column"].isin(sensitive)], name)
    card = cards.family_card(run.data.params, evaluated.cv_score, evaluated.metrics)
    family_runs.log_evaluation(client, run, evaluated.metrics, Report(figures, tables, card))
    return evaluated


def _curves(name: str, labels: Labels, scored: Scored, thresholds: pd.DataFrame) -> dict[str, Figure]:
    """The plots of one model's probabilities, by file name; `thresholds` is the curve that chose its threshold."""
    scores, answers = {name: scored.probabilities}, (TABLE.negative, TABLE.positive)
    costs = {"out of fold": thresholds, "held out": threshold.curve(TABLE, labels, scored.probabilities)}
    return {
        "ROC_curve": plots.roc(labels, scores),
        "precision_recall": plots.precision_recall(labels, scores),
        "calibration": plots.calibration(labels, scores),
        "confusion_matrix": plots.confusion(labels, scored, answers, name),
        "score_distribution": plots.distribution(labels, scored, answers, name),
        "threshold": plots.threshold(costs, scored.threshold, name),
    }


def _importance(pipeline: Pipeline, held_out: pd.DataFrame) -> pd.DataFrame:
    """How much of the AUC is lost when a column is shuffled, on at most `IMPORTANCE_ROWS` rows."""
    sample = held_out.sample(min(len(held_out), IMPORTANCE_ROWS), random_state=0)
    columns = sample[[column.name for column in TABLE.columns]]
    return metrics.importance(lambda rows: pipelines.positive(pipeline, rows, TABLE), columns, TABLE.labels(sample))


def _compare(client: mlflow.MlflowClient, batch: Run, labels: Labels, families: Mapping[str, Evaluated]) -> None:
    """Log the comparison of a batch's families on its run, and print it."""
    results = {name: family.metrics for name, family in families.items()}
    comparison = cards.intervals(results)
    comparison.insert(1, "Mean CV score", [f"{family.cv_score:.3f}" for family in families.values()])
    costs = _costs_without_sensitive(labels, families)
    tables = {"comparison": comparison, **({} if costs is None else {"cost_without_sensitive": costs})}
    probabilities = {name: family.scored.probabilities for name, family in families.items()}
    figures = {"ROC_curve": plots.roc(labels, probabilities), "comparison": plots.comparison(results)}
    caption = f"{len(labels)} held-out rows, value (95 % interval):"
    report = Report(figures, tables, f"{caption}\n\n{cards.markdown(comparison[HEADLINE])}")
    family_runs.log_report(client, batch, report, connection.PROJECT / "plots")
    print(caption)
    print(comparison[HEADLINE].to_string(index=False))
    if costs is not None:
        print("without sensitive columns less with them, on the same rows:")
        print(costs[["Family", "Accuracy", "AUC"]].to_string(index=False))
    print("plots: plots/")
    server_first = "" if connection.is_server() else " (after make ui)"
    print(f"compare{server_first}: {connection.page(batch.info.experiment_id)}")


def _costs_without_sensitive(labels: Labels, families: Mapping[str, Evaluated]) -> pd.DataFrame | None:
    """What hiding the sensitive columns costs; None unless the batch was trained to show it."""
    differences = {
        name: metrics.difference(labels, family.scored, families[f"{name}{family_runs.WITH}"].scored)
        for name, family in families.items()
        if f"{name}{family_runs.WITH}" in families
    }
    return cards.intervals(differences) if differences else None
