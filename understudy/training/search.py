"""The search over a family's grid: which values are best, by cross-validation, at which threshold."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.special import logit
from sklearn import linear_model
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import ParameterGrid, StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline

from understudy import families
from understudy.errors import UserError
from understudy.figures.metrics import Floats, Labels
from understudy.schema.declaration import Table
from understudy.scoring import pipelines
from understudy.training import threshold

SECONDS_TO_START = 2  # what joblib's processes take to import scikit-learn
Cells: TypeAlias = NDArray[Any]
Candidates: TypeAlias = Sequence[Mapping[str, Any]]


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


@dataclass(frozen=True)
class _Folds:
    """The training rows, and how cross-validation divides them.

    Args:
        x: Their features, not yet prepared, shape (n, features).
        labels: 0 or 1, shape (n,).
        splits: For each fold, the indices of the rows to learn from and of those to score.
    """

    x: Cells
    labels: Labels
    splits: Sequence[tuple[Cells, Cells]]


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
    table: Table, rows: pd.DataFrame, family: families.Family, grid: families.Grid, seed: int, jobs: int
) -> SearchResult:
    """Cross-validated search over a grid, as GridSearchCV does it: the first candidate of the best mean accuracy.

    What candidates have in common is computed once: the features, each fold's preparation, a forest's trees. The
    best one's probabilities on the folds then decide on calibration and on the threshold.

    Args:
        table: What the rows are.
        rows: The training rows, with their target.
        family: The classifier.
        grid: Values to try for each of the classifier's parameters.
        seed: Of the folds and of the classifier, where it draws at random.
        jobs: Processes; -1 is one per core. The result does not depend on it.
    """
    features, *prepare, (_, classifier) = pipelines.build(table, clone(family.classifier)).steps
    if "random_state" in classifier.get_params():
        classifier.set_params(random_state=seed)
    x, y, labels = features[1].transform(rows), rows[table.target.name].to_numpy(), table.labels(rows)
    stratified = StratifiedKFold(pipelines.FOLDS, shuffle=True, random_state=seed)
    folds = _Folds(x, labels, list(stratified.split(x, y)))
    candidates = list(ParameterGrid(grid))
    tried = _out_of_fold(Pipeline([*prepare, ("classifier", classifier)]), candidates, folds, jobs)
    best = _most_accurate(tried, folds)
    classifier.set_params(**candidates[best])
    raw, sigmoid = tried[best], _calibrated(classifier, tried[best], folds)
    losses = log_loss(labels, raw), log_loss(labels, sigmoid)
    calibrate = losses[1] < losses[0]
    thresholds = threshold.curve(table, labels, sigmoid if calibrate else raw)
    chosen = threshold.choose(table, thresholds)
    decided = pipelines.decided(table, classifier, stratified if calibrate else None, chosen)
    fitted = Pipeline([*prepare, ("classifier", decided)]).fit(x, y)
    return SearchResult(candidates[best], _scores(raw, folds), *losses, thresholds, Pipeline([features, *fitted.steps]))


def _out_of_fold(learned: Pipeline, candidates: Candidates, folds: _Folds, jobs: int) -> Floats:
    """Each candidate's probabilities of label 1 for every row, by the fit that has not seen it: (candidates, n)."""
    chains = _chains(learned[-1], candidates)
    tasks = (
        delayed(_chain_probabilities)(learned[-1], [candidates[i] for i in chain], *prepared)
        for prepared in _prepared(learned[:-1], folds)
        for chain in chains
    )
    probabilities = np.empty((len(candidates), len(folds.labels)))
    for number, of_chain in enumerate(_computed(tasks, len(folds.splits) * len(chains), jobs)):
        fold, chain = divmod(number, len(chains))
        probabilities[np.array(chains[chain])[:, None], folds.splits[fold][1]] = of_chain
    return probabilities


def _chains(classifier: BaseEstimator, candidates: Candidates) -> list[list[int]]:
    """The candidates' indices; in one list, by size, those that a warm start makes from one another."""
    grows = {"n_estimators", "warm_start"} <= classifier.get_params().keys()
    chains: dict[str, list[int]] = {}
    for i in sorted(range(len(candidates)), key=lambda i: candidates[i].get("n_estimators", 0)):
        rest = {**candidates[i], "n_estimators": None} if grows else i
        chains.setdefault(repr(rest), []).append(i)
    return list(chains.values())


def _prepared(prepare: Pipeline, folds: _Folds) -> Iterator[tuple[Cells, Labels, Cells]]:
    """For each fold, prepared rows and labels to fit on, and rows to score, of which the preparation learns nothing."""
    for learned, scored in folds.splits:
        fresh = clone(prepare)
        yield fresh.fit_transform(folds.x[learned]), folds.labels[learned], fresh.transform(folds.x[scored])


def _chain_probabilities(
    classifier: BaseEstimator, chain: Candidates, x: Cells, labels: Labels, scored: Cells
) -> list[Floats]:
    """The candidates' probabilities of label 1 for the rows to score, shape (rows,) each."""
    classifier = clone(classifier)
    if len(chain) > 1:
        # A forest of 400 trees is the first 400 of the 700 with the same seed.
        classifier.set_params(warm_start=True)
    probabilities = []
    for candidate in chain:
        classifier.set_params(**candidate).fit(x, labels)
        probabilities.append(classifier.predict_proba(scored)[:, 1])
    return probabilities


def _computed(tasks: Iterator[Any], count: int, jobs: int) -> list[Any]:
    """The results of `count` tasks, in processes if the first one says that starting them pays."""
    started = time.perf_counter()
    function, arguments, _ = next(tasks)
    first = function(*arguments)
    left = (time.perf_counter() - started) * (count - 1)
    return [first, *Parallel(n_jobs=jobs if left > SECONDS_TO_START else 1)(tasks)]


def _most_accurate(probabilities: Floats, folds: _Folds) -> int:
    """The first candidate of the best mean accuracy over the folds; `probabilities` as of `_out_of_fold`."""
    right = (probabilities > 0.5) == folds.labels
    return int(np.mean([right[:, scored].mean(axis=1) for _, scored in folds.splits], axis=0).argmax())


def _calibrated(classifier: BaseEstimator, probabilities: Floats, folds: _Folds) -> Floats:
    """What a sigmoid that is fitted on the other folds' probabilities makes of each fold's, shape (n,)."""
    # A classifier's decision function, where it has one, is what CalibratedClassifierCV would fit its sigmoid on.
    edge = np.finfo(float).eps
    has_logits = hasattr(classifier, "decision_function")
    responses = logit(np.clip(probabilities, edge, 1 - edge)) if has_logits else probabilities
    sigmoid = linear_model.LogisticRegression(C=np.inf)
    calibrated = cross_val_predict(sigmoid, responses[:, None], folds.labels, cv=folds.splits, method="predict_proba")
    column: Floats = calibrated[:, 1]
    return column


def _scores(probabilities: Floats, folds: _Folds) -> dict[str, Floats]:
    """Accuracy and ROC AUC on each fold, shape (FOLDS,), by scikit-learn's names for them."""
    scored = [(folds.labels[rows], probabilities[rows]) for _, rows in folds.splits]
    return {
        "accuracy": np.array([accuracy_score(labels, answers > 0.5) for labels, answers in scored]),
        "roc_auc": np.array([roc_auc_score(labels, answers) for labels, answers in scored]),
    }
