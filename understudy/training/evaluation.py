"""A batch's models on the held-out rows: what `train.py` ends with, and `evaluate.py` does again."""

from collections.abc import Mapping

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import Run
from sklearn.pipeline import Pipeline

from understudy.errors import UserError
from understudy.figures import cards, metrics, plots
from understudy.figures.metrics import Interval, Labels, Scored
from understudy.scoring import pipelines
from understudy.table import TABLE
from understudy.tracking import connection, family_runs, provenance, runs
from understudy.training import threshold
from understudy.verification import inspection

IMPORTANCE_ROWS = 10_000


def evaluate(
    client: mlflow.MlflowClient, batch: Run, rows: pd.DataFrame, fitted: Mapping[str, Pipeline] | None = None
) -> None:
    """Evaluate every family of a batch on the held-out side of its table, log and print the comparison.

    Args:
        client: Of the store that holds the batch.
        batch: The batch.
        rows: Its whole table.
        fitted: The families' Pipelines, where they are at hand, so that they need not be loaded.

    Raises:
        UserError: The rows are not the ones the batch was trained on, or a model is not what training writes.
    """
    if TABLE.digest(rows) != runs.tag(batch, provenance.DATA_DIGEST):
        raise UserError(
            f"the table is not the one that batch {batch.info.run_id} was trained on",
            "give that file with --data, or train on this one: python train.py",
        )
    _, held_out = TABLE.split(rows)
    labels = TABLE.labels(held_out)
    scores: dict[str, Scored] = {}
    results: dict[str, dict[str, Interval]] = {}
    cv_scores: dict[str, float] = {}
    for run in [*family_runs.families(client, batch), *family_runs.families(client, batch, runs.REFERENCE)]:
        name = family_runs.family_name(run)
        pipeline = fitted[name] if fitted else _loaded(client, run, held_out)
        scores[name] = Scored(pipelines.positive(pipeline, held_out, TABLE), pipeline[-1].threshold)
        results[name] = metrics.evaluate(labels, scores[name])
        cv_scores[name] = runs.metric(run, "Mean CV score")
        drawn = figures(name, pipeline, held_out, scores[name], family_runs.thresholds(run))
        slices = slice_table(held_out, scores[name])
        sensitive = [column.name for column in TABLE.categories if column.sensitive]
        if sensitive:
            drawn["groups"] = plots.groups(slices[slices["column"].isin(sensitive)], name)
        card = cards.family_card(run.data.params, cv_scores[name], results[name])
        family_runs.log_evaluation(client, run, results[name], drawn, {"slices": slices}, card)
    curves = {name: scored.probabilities for name, scored in scores.items()}
    overview = {"ROC_curve": plots.roc(labels, curves), "comparison": plots.comparison(results)}
    runs.log_figures(client, batch, overview, connection.PROJECT / "plots")
    comparison = cards.comparison(cv_scores, results)
    headline = comparison[["Family", "Mean CV score", "Accuracy", "AUC"]]
    caption = f"{len(held_out)} held-out rows, value (95 % interval):"
    runs.log_tables(client, batch, {"comparison": comparison})
    runs.describe(client, batch, f"{caption}\n\n{cards.markdown(headline)}")
    print(caption)
    print(headline.to_string(index=False))
    show_costs(client, batch, labels, scores)
    print("plots: plots/")
    first = "" if connection.is_server() else " (after make ui)"
    print(f"compare{first}: {connection.page(batch.info.experiment_id)}")


def _loaded(client: mlflow.MlflowClient, run: Run, rows: pd.DataFrame) -> Pipeline:
    called = f"the model of run {run.info.run_id}"
    with inspection.inspected(client, run, family_runs.model_uri(run), rows, called) as (_, pipeline):
        return pipeline


def show_costs(client: mlflow.MlflowClient, batch: Run, labels: Labels, scores: Mapping[str, Scored]) -> None:
    """Log and print what hiding the sensitive columns costs, in a batch that was trained to show it."""
    pairs = {name: f"{name}{family_runs.WITH}" for name in scores if f"{name}{family_runs.WITH}" in scores}
    if pairs:
        cost = cards.costs({name: metrics.difference(labels, scores[name], scores[pairs[name]]) for name in pairs})
        runs.log_tables(client, batch, {"cost_without_sensitive": cost})
        print("without sensitive columns less with them, on the same rows:")
        print(cost[["Family", "Accuracy", "AUC"]].to_string(index=False))


def slice_table(held_out: pd.DataFrame, scored: Scored) -> pd.DataFrame:
    """How the rows of each value of each category column fare."""
    labels = TABLE.labels(held_out)
    return pd.concat([metrics.slices(labels, scored.called, held_out[column.name]) for column in TABLE.categories])


def figures(
    name: str, pipeline: Pipeline, held_out: pd.DataFrame, scored: Scored, thresholds: pd.DataFrame
) -> dict[str, Figure]:
    """The plots of one model on the held-out rows, by file name; `thresholds` is the curve that chose its threshold."""
    labels = TABLE.labels(held_out)
    one, answers = {name: scored.probabilities}, (TABLE.negative, TABLE.positive)
    columns = [column.name for column in TABLE.columns]
    some = held_out.sample(min(len(held_out), IMPORTANCE_ROWS), random_state=0)
    losses = metrics.importance(
        lambda rows: pipelines.positive(pipeline, rows, TABLE), some[columns], TABLE.labels(some)
    )
    costs = {"out of fold": thresholds, "held out": threshold.curve(TABLE, labels, scored.probabilities)}
    return {
        "ROC_curve": plots.roc(labels, one),
        "precision_recall": plots.precision_recall(labels, one),
        "calibration": plots.calibration(labels, one),
        "confusion_matrix": plots.confusion(labels, scored, answers, name),
        "score_distribution": plots.distribution(labels, scored, answers, name),
        "threshold": plots.threshold(costs, scored.threshold, name),
        "permutation_importance": plots.importance(losses, name),
    }
