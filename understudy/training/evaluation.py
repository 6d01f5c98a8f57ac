"""A batch's models on the held-out rows: what `train.py` ends with, and `evaluate.py` does again."""

import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import Run
from mlflow.utils import mlflow_tags
from sklearn.pipeline import Pipeline

from understudy import terminal
from understudy.errors import UserError
from understudy.families import FLOOR
from understudy.figures import cards, metrics, plots
from understudy.figures.metrics import Interval, Labels, Scored
from understudy.report import batch_page, page
from understudy.report.batch_page import Origin
from understudy.report.findings import Evaluated
from understudy.scoring import pipelines
from understudy.table import TABLE
from understudy.terminal import Reply
from understudy.tracking import connection, family_runs, provenance, runs
from understudy.tracking.family_runs import Report
from understudy.training import selection, threshold
from understudy.training.search import SearchResult
from understudy.verification import inspection

IMPORTANCE_ROWS = 10_000
HEADLINE = ["Family", "Mean CV score", "Accuracy", "AUC"]


def evaluate(
    client: mlflow.MlflowClient, batch: Run, rows: pd.DataFrame, results: Mapping[str, SearchResult] | None = None
) -> Reply:
    """Evaluate every family of a batch on the held-out side of its whole table; logs and returns the comparison.

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
    evaluated = [*candidates, *family_runs.families(client, batch, runs.REFERENCE)]
    for run in terminal.bar(evaluated, unit="family"):
        name = family_runs.family_name(run)
        if results:
            pipeline, thresholds = results[name].pipeline, results[name].thresholds
        else:
            pipeline, thresholds = _loaded(client, run, held_out), family_runs.thresholds(run)
        families[name] = _evaluate_family(client, run, pipeline, thresholds, held_out)
    best, pages = None, dict[str, str]()
    if ranked := [family_runs.family_name(run) for run in selection.ranked(candidates)]:  # they may be deleted
        best = families[ranked[0]]
        family_runs.log_best(client, batch, best.name, best.cv_score, best.metrics)
        in_order = [families[name] for name in dict.fromkeys([*ranked, *sorted(families, key=FLOOR.__eq__)])]
        pages = page.drawn(lambda: batch_page.html(TABLE, held_out, in_order, _origin(batch)))
    return _compare(client, batch, TABLE.labels(held_out), families, best, pages)


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
    slices = [metrics.slices(labels, scored.called, group) for _, group in TABLE.groups(held_out).items()]
    tables = {family_runs.SLICES: pd.concat(slices).assign(value=_cells)} if slices else {}
    evaluated = Evaluated(
        name=name,
        run=run.info.run_id,
        scored=scored,
        metrics=metrics.evaluate(labels, scored),
        cv_score=runs.metric(run, "Mean CV score"),
        params=run.data.params,
        costs={"out of fold": thresholds, "held out": threshold.curve(TABLE, labels, scored.probabilities)},
        slices=tables.get(family_runs.SLICES),
    )
    figures = {} if name == FLOOR else _curves(evaluated, labels)
    if figures:
        figures["permutation_importance"] = plots.importance(_importance(pipeline, held_out), name)
    sensitive = [column.name for column in TABLE.categories if column.sensitive]
    if sensitive and figures:
        figures["groups"] = plots.groups(
            tables[family_runs.SLICES][tables[family_runs.SLICES]["column"].isin(sensitive)], name
        )
    card = cards.family_card(run.data.params, evaluated.cv_score, evaluated.metrics)
    family_runs.log_evaluation(client, run, evaluated.metrics, Report(figures, tables, card))
    return evaluated


def _cells(slices: pd.DataFrame) -> pd.Series:
    """The values of slices for people."""
    return slices["value"].map(cards.cell)


def _curves(family: Evaluated, labels: Labels) -> dict[str, Figure]:
    """The plots of one model's probabilities, by file name."""
    name, scored, answers = family.name, family.scored, (TABLE.negative, TABLE.positive)
    scores = {name: scored.probabilities}
    return {
        "ROC_curve": plots.roc(labels, scores),
        "precision_recall": plots.precision_recall(labels, scores),
        "calibration": plots.calibration(labels, scores),
        "confusion_matrix": plots.confusion(labels, scored, answers, name),
        "score_distribution": plots.distribution(labels, scored, answers, name),
        "threshold": plots.threshold(family.costs, scored.threshold, name),
    }


def _importance(pipeline: Pipeline, held_out: pd.DataFrame) -> pd.DataFrame:
    """How much of the AUC is lost when a column is shuffled, on at most `IMPORTANCE_ROWS` rows."""
    sample = held_out.sample(min(len(held_out), IMPORTANCE_ROWS), random_state=0)
    columns = sample[[column.name for column in TABLE.columns]]
    return metrics.importance(lambda rows: pipelines.positive(pipeline, rows, TABLE), columns, TABLE.labels(sample))


def _origin(batch: Run) -> Origin:
    """How a batch was made, as its run says."""
    tags, params = batch.data.tags, batch.data.params
    commit, began = tags.get(mlflow_tags.MLFLOW_GIT_COMMIT), datetime.fromtimestamp(batch.info.start_time / 1000, UTC)
    facts = {
        "Data": f"{tags.get(provenance.DATA_PATH, 'not on record')}, digest {tags.get(provenance.DATA_DIGEST)}",
        "Commit": f"{commit or 'none'}{', with changes' if tags.get('git.dirty') == 'true' else ''}",
        "Seed": tags.get("seed", "not on record"),
        "Packages": tags.get("packages", "not on record"),
        "Lock file": f"digest {tags.get('lock.digest', 'not on record')}",
        "Batch": f"run {batch.info.run_id}, {began:%Y-%m-%d %H:%M} UTC",
    }
    given = {name.replace("_", "-"): value for name, value in params.items() if value not in ("", "False")}
    options = "".join(
        f" --{name}{'' if value == 'True' else f' {shlex.quote(value)}'}" for name, value in given.items()
    )
    return Origin(facts, [*([f"git checkout {commit}"] if commit else []), f"python train.py{options}"])


def _compare(
    client: mlflow.MlflowClient,
    batch: Run,
    labels: Labels,
    families: Mapping[str, Evaluated],
    best: Evaluated | None,
    pages: Mapping[str, str],
) -> Reply:
    """Log the comparison of a batch's families on its run, with pages by the names of their files, and return it."""
    results = {name: family.metrics for name, family in families.items()}
    comparison = cards.intervals(results)
    comparison.insert(1, "Mean CV score", [f"{family.cv_score:.3f}" for family in families.values()])
    costs = _costs_without_sensitive(labels, families)
    tables = {"comparison": comparison, **({"cost_without_sensitive": cards.intervals(costs)} if costs else {})}
    probabilities = {name: family.scored.probabilities for name, family in families.items()}
    figures = {"ROC_curve": plots.roc(labels, probabilities), "comparison": plots.comparison(results)}
    caption = f"{len(labels)} held-out rows, value (95 % interval):"
    text = f"{_lead(batch, families, best, pages)}\n\n{caption}\n\n{cards.markdown(comparison[HEADLINE])}"
    report = Report(figures, tables, text, pages)
    family_runs.log_report(client, batch, report, connection.PROJECT / "plots")
    lines = [caption, *terminal.table(comparison[HEADLINE].to_dict("records"))]
    if costs:
        lines += ["without sensitive columns less with them, on the same rows:"]
        lines += terminal.table(tables["cost_without_sensitive"][["Family", "Accuracy", "AUC"]].to_dict("records"))
    server_first = "" if connection.is_server() else " (after make ui)"
    address = connection.page(f"experiments/{batch.info.experiment_id}/runs/{batch.info.run_id}")
    values = {
        "batch": batch.info.run_id,
        "rows": len(labels),
        "families": [
            {"name": name, "run": of.run, "mean_cv_score": of.cv_score, "metrics": _named(of.metrics)}
            for name, of in families.items()
        ],
        "cost_without_sensitive": {name: _named(cost) for name, cost in costs.items()},
        "plots": "plots/",
        "report": next((f"plots/{name}" for name in pages), None),
        "page": address,
    }
    reports = [f"report: plots/{name}" for name in pages]
    return Reply(values, [*lines, "plots: plots/", *reports, f"compare{server_first}: {address}"])


def _lead(batch: Run, families: Mapping[str, Evaluated], best: Evaluated | None, pages: Mapping[str, str]) -> str:
    """Where MLflow's UI shows a batch's families together, and the best of them, as Markdown.

    The UI folds all but two lines of a description away, and of these it lets people click the first one only.
    MLflow's own page of several runs leaves its list of files no room beside three plots in windows narrower than some
    2,050 pixels, so the curves of all families are one file of the batch.
    """
    experiment_id, run_id = batch.info.experiment_id, batch.info.run_id
    ids = json.dumps([of.run for name, of in families.items() if name != FLOOR])
    side_by_side = connection.link("compare-runs", runs=ids, experiments=json.dumps([experiment_id]))
    curves, *reports = (
        connection.link(f"experiments/{experiment_id}/runs/{run_id}/artifacts/{file}")
        for file in ("ROC_curve.png", *pages)
    )
    report = "".join(f", read [the report]({address})" for address in reports)
    named = f"\n\nBest in cross-validation: **{best.name}**, mean CV score {best.cv_score:.3f}." if best else ""
    return f"[Compare the families]({side_by_side}){report}, or see [their ROC curves]({curves}).{named}"


def _named(metrics: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {name: cards.named(interval) for name, interval in metrics.items()}


def _costs_without_sensitive(labels: Labels, families: Mapping[str, Evaluated]) -> dict[str, dict[str, Interval]]:
    """What hiding the sensitive columns costs each family; empty unless the batch was trained to show it."""
    return {
        name: metrics.difference(labels, family.scored, families[f"{name}{family_runs.WITH}"].scored)
        for name, family in families.items()
        if f"{name}{family_runs.WITH}" in families
    }
