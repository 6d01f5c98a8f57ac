"""The search over a family's grid: which values are best, by cross-validation, at which threshold."""

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn import linear_model
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline

from understudy import families
from understudy.errors import UserError
from understudy.figures.metrics import Floats, Labels
from understudy.schema.declaration import Table
from understudy.scoring import pipelines
from understudy.training import threshold

if TYPE_CHECKING:
    from distributed import Client, Future

# What `Table.select_by` decides by on each fold, by names that scikit-learn has or would have.
SCORES = {"accuracy": "accuracy", "AUC": "roc_auc", "log loss": "neg_log_loss", "cost": "neg_cost"}
SECONDS_TO_START = 2  # what joblib's processes take to import scikit-learn


@dataclass(frozen=True)
class SearchResult:
    """What a search over a grid came to.

    Args:
        values: The best grid values, by the classifier's own names.
        scores: At the best values, accuracy and roc_auc to their values on the folds, shape (FOLDS,).
        log_loss: On the folds, of the classifier's probabilities, in nats.
        log_loss_calibrated: The same with a sigmoid on them; where it is lower, the Pipeline has that sigmoid.
        thresholds: What each threshold costs on the folds, as `threshold.curve` gives it.
        pipeline: Fitted on all training rows with the best values; takes raw rows.
    """

    values: Mapping[str, Any]
    scores: Mapping[str, Floats]
    log_loss: float
    log_loss_calibrated: float
    thresholds: pd.DataFrame
    pipeline: Pipeline

    @property
    def calibrated(self) -> bool:
        """Whether the Pipeline's probabilities are calibrated."""
        return self.log_loss_calibrated < self.log_loss

    @property
    def params(self) -> dict[str, object]:
        """The best grid values, under the classifier's own names and, for the logistic, the textbook's `penalty`."""
        params = dict(self.values)
        if "l1_ratio" in params:
            params["penalty"] = {0: "l2", 1: "l1"}[params.pop("l1_ratio")]
        return params

    @property
    def metrics(self) -> dict[str, float]:
        """Cross-validation's figures for the best grid values.

        Accuracy at a threshold of 0.5, as GridSearchCV has it, and its spread over the folds; ROC AUC; log loss
        without and with calibration; the threshold that was chosen, and the mean cost of a row at it.
        """
        accuracy, chosen = self.scores["accuracy"], float(self.pipeline[-1].threshold)
        return {
            "Mean CV score": float(accuracy.mean()),
            "cv/score std": float(accuracy.std()),
            "cv/score min": float(accuracy.min()),
            "cv/score max": float(accuracy.max()),
            "cv/AUC": float(self.scores["roc_auc"].mean()),
            "cv/log loss": self.log_loss,
            "cv/log loss calibrated": self.log_loss_calibrated,
            "cv/threshold": chosen,
            "cv/cost": float(self.thresholds.set_index("threshold")["cost"][chosen]),
        }


def choose(names: str) -> list[str]:
    """The families asked for, by name with commas between or "all", and the floor that every batch has.

    Raises:
        UserError: There is no such family.
    """
    known = [name for name in families.FAMILIES if name != families.FLOOR]
    chosen = known if names == "all" else names.split(",")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise UserError(f"--models: there is no family {', '.join(unknown)}", f"choose from {', '.join(known)}, or all")
    return [*dict.fromkeys(chosen), families.FLOOR]


def search(
    table: Table,
    rows: pd.DataFrame,
    family: families.Family,
    grid: families.Grid,
    seed: int,
    jobs: int,
    cluster: "Client | None" = None,
) -> SearchResult:
    """Cross-validated search over a grid: the first of the best candidates, by what the table selects by.

    The best one's probabilities on the folds, each by the fit that has not seen the row, then decide on calibration and
    on the threshold.

    The rows are those of training, with their target. The seed is that of the folds and of the classifier, where it
    draws at random. The result does not depend on the number of processes, of which -1 is one per core, nor on whether
    there is a cluster, all of whose threads fit the folds instead.
    """
    features, *prepare, (_, classifier) = pipelines.build(table, pipelines.unfitted(family.classifier, {})).steps
    if "random_state" in classifier.get_params():
        classifier.set_params(random_state=seed)
    x, y, labels = features[1].transform(rows), rows[table.target.name].to_numpy(), table.labels(rows)
    folds = StratifiedKFold(pipelines.FOLDS, shuffle=True, random_state=seed)
    learned = Pipeline([*prepare, ("classifier", classifier)])
    candidates = ParameterGrid({f"classifier__{name}": values for name, values in grid.items()})
    is_long = _is_long(learned, candidates, x, labels)
    workers = cluster if is_long else None
    in_folds = InOneThread(learned.steps) if workers else learned
    with _spread(workers) if workers else nullcontext():
        values, scores = _best(table, in_folds, candidates, x, labels, folds, jobs if is_long else 1)
        classifier.set_params(**values)
        raw = cross_val_predict(in_folds, x, labels, cv=folds, method="predict_proba")[:, 1]
    sigmoid = _calibrated(classifier, raw, labels, folds)
    losses = log_loss(labels, raw), log_loss(labels, sigmoid)
    calibrate = losses[1] < losses[0]
    thresholds = threshold.curve(table, labels, sigmoid if calibrate else raw)
    chosen = threshold.choose(table, thresholds)
    decided = pipelines.decided(table, classifier, folds if calibrate else None, chosen)
    fitted = Pipeline([*prepare, ("classifier", decided)]).fit(x, y)
    return SearchResult(values, scores, *losses, thresholds, Pipeline([features, *fitted.steps]))


def _is_long(learned: Pipeline, candidates: ParameterGrid, x: Floats, labels: Labels) -> bool:
    """Whether a search takes longer on one core than other processes take to start, as one fit tells."""
    started = time.perf_counter()
    clone(learned).set_params(**candidates[0]).fit(x, labels)
    return (time.perf_counter() - started) * len(candidates) * pipelines.FOLDS > SECONDS_TO_START


@contextmanager
def _spread(cluster: "Client") -> Iterator[None]:
    """Lets joblib work on a cluster in the block."""
    lasting = _Lasting(cluster)
    with joblib.parallel_config(backend="dask", client=lasting):
        try:
            yield
        finally:
            cluster.cancel(lasting.shared)  # joblib would keep the rows on the workers until Python collects it


class _Lasting:
    """A cluster's client for joblib, which scatters what tasks share: the rows, and those of each fold.

    What is scattered is lost with the worker that has it, and the search with it, since Dask drops further copies as
    soon as no task waits for them. What a task returns is made again, and goes to each worker once too.
    """

    def __init__(self, cluster: "Client") -> None:
        self.cluster = cluster
        self.shared: list[Future[Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    async def scatter(self, data: Any, **options: Any) -> "Future[Any]":
        with warnings.catch_warnings(action="ignore"):  # Dask advises to scatter more than 10 MB
            future = self.cluster.submit(_itself, data)
        self.shared.append(future)
        return future


def _itself(data: Any) -> Any:
    return data


class InOneThread(Pipeline):  # type: ignore[misc]
    """A Pipeline whose parts leave each worker's one thread to the folds.

    joblib would spread a forest's trees over the cluster too, whatever `n_jobs` says, and make tasks of milliseconds.
    """

    def fit(self, x: Floats, y: Labels) -> "InOneThread":
        """Fit in this thread."""
        with joblib.parallel_config(backend="sequential"):
            super().fit(x, y)
        return self

    def predict_proba(self, x: Floats) -> Floats:
        """Probabilities, computed in this thread, shape (n, 2)."""
        with joblib.parallel_config(backend="sequential"):
            probabilities: Floats = super().predict_proba(x)
        return probabilities


def _best(
    table: Table,
    learned: Pipeline,
    candidates: ParameterGrid,
    x: Floats,
    labels: Labels,
    folds: StratifiedKFold,
    jobs: int,
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """The best values of a grid, and accuracy and roc_auc at them on each fold, shape (FOLDS,)."""
    options = {"scoring": partial(_scores, table), "refit": False, "cv": folds, "error_score": "raise"}
    searched = GridSearchCV(learned, candidates.param_grid, n_jobs=jobs, **options).fit(x, labels)
    results: Any = pd.DataFrame(searched.cv_results_)
    best = results.loc[results[f"rank_test_{SCORES[table.select_by]}"].idxmin()]  # the first of equal ones
    values = {name.removeprefix("classifier__"): value for name, value in best["params"].items()}
    splits = {name: [f"split{fold}_test_{name}" for fold in range(pipelines.FOLDS)] for name in ("accuracy", "roc_auc")}
    return values, {name: best[columns].to_numpy(dtype=float) for name, columns in splits.items()}


def _scores(table: Table, fitted: Pipeline, x: Floats, labels: Labels) -> dict[str, float]:
    """What `SCORES` names, from one prediction: accuracy above 0.5, the cost of a row from the break-even on."""
    probabilities = fitted.predict_proba(x)[:, 1]
    false_positives, false_negatives = threshold.wrong_shares(labels, probabilities, table.break_even)
    return {
        "accuracy": accuracy_score(labels, probabilities > 0.5),
        "roc_auc": roc_auc_score(labels, probabilities),
        "neg_log_loss": -log_loss(labels, probabilities),
        "neg_cost": -table.false_positive_cost * false_positives - table.false_negative_cost * false_negatives,
    }


def _calibrated(classifier: BaseEstimator, probabilities: Floats, labels: Labels, folds: StratifiedKFold) -> Floats:
    """What a sigmoid that is fitted on the other folds' probabilities makes of each fold's, shape (n,)."""
    # A classifier's decision function, where it has one, is what CalibratedClassifierCV would fit its sigmoid on.
    edge = np.finfo(float).eps
    has_logits = hasattr(classifier, "decision_function")
    responses = logit(np.clip(probabilities, edge, 1 - edge)) if has_logits else probabilities
    sigmoid = linear_model.LogisticRegression(C=np.inf)
    calibrated: Floats = cross_val_predict(sigmoid, responses[:, None], labels, cv=folds, method="predict_proba")
    return calibrated[:, 1]
