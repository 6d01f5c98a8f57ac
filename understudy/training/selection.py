"""Which family of a batch is the best."""

from mlflow.entities import Run

from understudy.errors import UserError
from understudy.families import FLOOR
from understudy.tracking import family_runs, runs


def best_family(candidates: list[Run]) -> Run:
    """The run with the highest mean cross-validation score; of equal ones, the lowest log loss. Never the floor.

    Raises:
        UserError: There is none but the floor.
    """
    searched = [run for run in candidates if family_runs.family_name(run) != FLOOR]
    if not searched:
        raise UserError(f"of the newest batch no run but that of {FLOOR} is left", "python train.py")
    return max(searched, key=lambda run: (runs.metric(run, "Mean CV score"), -_log_loss(run)))


def _log_loss(run: Run) -> float:
    """The log loss in cross-validation of the probabilities that the model gives: calibrated where that is better."""
    return min(runs.metric(run, name) for name in ("cv/log loss", "cv/log loss calibrated"))
