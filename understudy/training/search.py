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
Splits: TypeAlias = Sequence[tuple[Cells, Cells]]


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


@dataclass(frozen=True)
class Search:
    """What a search over a grid found.

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


def search(
    table: Table, rows: pd.DataFrame, family: families.Family, grid: families.Grid, seed: int, jobs: int
) -> Search:
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
    folds = StratifiedKFold(pipelines.FOLDS, shuffle=True, random_state=seed)
    splits = list(folds.split(x, y))
    candidates = list(ParameterGrid(grid))
    tried = _out_of_fold(Pipeline([*prepare, ("classifier", classifier)]), candidates, x, labels, splits, jobs)
    right = (tried > 0.5) == labels
    best = int(np.mean([right[:, kept].mean(axis=1) for _, kept in splits], axis=0).argmax())
    classifier.set_params(**candidates[best])
    sigmoid = _calibrated(classifier, labels, tried[best], splits)
    losses = log_loss(labels, tried[best]), log_loss(labels, sigmoid)
    calibrate = losses[1] < losses[0]
    thresholds = threshold.curve(table, labels, sigmoid if calibrate else tried[best])
    decided = pipelines.decided(table, classifier, folds if calibrate else None, threshold.choose(table, thresholds))
    fitted = Pipeline([*prepare, ("classifier", decided)]).fit(x, y)
    scores = _scores(labels, tried[best], splits)
    return Search(candidates[best], scores, *losses, thresholds, Pipeline([features, *fitted.steps]))


def _out_of_fold(
    learned: Pipeline,
    candidates: Sequence[Mapping[str, Any]],
    x: Cells,
    labels: Labels,
    splits: Splits,
    jobs: int,
) -> Floats:
    """Each candidate's probabilities of label 1 for every row, given when its fold was kept, shape (candidates, n)."""
    chains = _chains(learned[-1], candidates)
    tasks = (
        delayed(_chain_probabilities)(learned[-1], [candidates[i] for i in chain], *fold)
        for fold in _folds(learned[:-1], x, labels, splits)
        for chain in chains
    )
    probabilities = np.empty((len(candidates), len(labels)))
    for number, found in enumerate(_computed(tasks, len(splits) * len(chains), jobs)):
        fold, chain = divmod(number, len(chains))
        probabilities[np.array(chains[chain])[:, None], splits[fold][1]] = found
    return probabilities


def _calibrated(classifier: BaseEstimator, labels: Labels, probabilities: Floats, splits: Splits) -> Floats:
    """What a sigmoid that is fitted on the other folds' probabilities makes of each fold's, shape (n,)."""
    # A classifier's decision function, where it has one, is what CalibratedClassifierCV would fit its sigmoid on.
    edge = np.finfo(float).eps
    has_logits = hasattr(classifier, "decision_function")
    responses = logit(np.clip(probabilities, edge, 1 - edge)) if has_logits else probabilities
    sigmoid = linear_model.LogisticRegression(C=np.inf)
    fitted: Floats = cross_val_predict(sigmoid, responses[:, None], labels, cv=splits, method="predict_proba")[:, 1]
    return fitted


def _scores(labels: Labels, probabilities: Floats, splits: Splits) -> dict[str, Floats]:
    """Accuracy and ROC AUC on each fold, shape (FOLDS,), by scikit-learn's names for them."""
    kept = [(labels[fold], probabilities[fold]) for _, fold in splits]
    return {
        "accuracy": np.array([accuracy_score(truth, found > 0.5) for truth, found in kept]),
        "roc_auc": np.array([roc_auc_score(truth, found) for truth, found in kept]),
    }


def _chains(classifier: BaseEstimator, candidates: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The candidates' indices; in one list, by size, those that a warm start makes from one another."""
    grows = {"n_estimators", "warm_start"} <= classifier.get_params().keys()
    chains: dict[str, list[int]] = {}
    for i in sorted(range(len(candidates)), key=lambda i: candidates[i].get("n_estimators", 0)):
        rest = {**candidates[i], "n_estimators": None} if grows else i
        chains.setdefault(repr(rest), []).append(i)
    return list(chains.values())


def _folds(prepare: Pipeline, x: Cells, y: Labels, splits: Splits) -> Iterator[tuple[Cells, Labels, Cells]]:
    """Prepared rows and labels to fit on, and rows to score, for each fold; nothing is learned from those to score."""
    for fitted, kept in splits:
        own = clone(prepare)
        yield own.fit_transform(x[fitted]), y[fitted], own.transform(x[kept])


def _chain_probabilities(
    classifier: BaseEstimator, chain: Sequence[Mapping[str, Any]], x: Cells, y: Labels, kept: Cells
) -> list[Floats]:
    """The candidates' probabilities of label 1 for the rows that were kept, shape (rows,) each."""
    classifier = clone(classifier)
    if len(chain) > 1:
        # A forest of 400 trees is the first 400 of the 700 with the same seed.
        classifier.set_params(warm_start=True)
    found = []
    for candidate in chain:
        classifier.set_params(**candidate).fit(x, y)
        found.append(classifier.predict_proba(kept)[:, 1])
    return found


def _computed(tasks: Iterator[Any], count: int, jobs: int) -> list[Any]:
    """The results of `count` tasks, in processes if the first one says that starting them pays."""
    started = time.perf_counter()
    function, arguments, _ = next(tasks)
    first = function(*arguments)
    left = (time.perf_counter() - started) * (count - 1)
    return [first, *Parallel(n_jobs=jobs if left > SECONDS_TO_START else 1)(tasks)]


def params(searched: Search) -> dict[str, object]:
    """The best grid values, under the classifier's own names and, for the logistic, the textbook's `penalty`."""
    best = dict(searched.values)
    if "l1_ratio" in best:
        best["penalty"] = {0: "l2", 1: "l1"}[best.pop("l1_ratio")]
    return best


def metrics(searched: Search) -> dict[str, float]:
    """Cross-validation's figures for the best grid values.

    Accuracy at a threshold of 0.5, as GridSearchCV has it, and its spread over the folds; ROC AUC; log loss without
    and with calibration; the threshold that was chosen, and the mean cost of a row at it.
    """
    accuracy, chosen = searched.scores["accuracy"], float(searched.pipeline[-1].threshold)
    return {
        "Mean CV score": float(accuracy.mean()),
        "cv/score std": float(accuracy.std()),
        "cv/score min": float(accuracy.min()),
        "cv/score max": float(accuracy.max()),
        "cv/AUC": float(searched.scores["roc_auc"].mean()),
        "cv/log loss": searched.log_loss,
        "cv/log loss calibrated": searched.log_loss_calibrated,
        "cv/threshold": chosen,
        "cv/cost": float(searched.thresholds.set_index("threshold")["cost"][chosen]),
    }
