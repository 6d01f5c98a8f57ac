from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import mlflow
import pytest
from mlflow.models import Model
from sklearn import metrics as sklearn_metrics
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.conftest import REAL, SAMPLE, needs_real_table
from understudy import families
from understudy.errors import UserError
from understudy.families import FAMILIES, Family
from understudy.figures import metrics
from understudy.figures.metrics import Scored
from understudy.reading import table_rows
from understudy.scoring import model_files, pipelines
from understudy.table import TABLE
from understudy.training import search, selection

TRAINING, HELD_OUT = TABLE.split(table_rows.read(TABLE, SAMPLE))


class Spy(LogisticRegression):  # type: ignore[misc]
    """Keeps what it is fitted on."""

    seen: list[Any] = []  # noqa: RUF012

    def fit(self, X: Any, y: Any) -> "Spy":  # noqa: N803
        Spy.seen.append(X)
        super().fit(X, y)
        return self


def folds_leak() -> bool:
    """Whether the rows of a fold were scaled by anything but the fold's own mean: its columns are off centre then."""
    Spy.seen.clear()
    search.search(TABLE, TRAINING, Family(Spy(), {}, {}), {}, seed=0, jobs=1)
    folds = [rows for rows in Spy.seen if len(rows) < len(TRAINING)]
    assert len(folds) == 2 * pipelines.FOLDS  # for the scores, and for the probabilities
    return any(abs(fold[:, -1].mean()) > 1e-9 for fold in folds)


def test_preprocessing_learns_from_the_training_folds_only() -> None:
    assert not folds_leak()


def test_a_planted_leak_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = pipelines.build

    def leaking(table: Any, classifier: Any) -> Pipeline:
        everything = honest(table, classifier)[1:-1].fit(table.encode(TRAINING))
        return Pipeline(
            [
                ("features", FunctionTransformer(table.encode)),
                ("prepare", FunctionTransformer(everything.transform)),
                ("classifier", classifier),
            ]
        )

    monkeypatch.setattr(pipelines, "build", leaking)
    assert folds_leak()


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_search_gives_the_same_model_on_one_core_and_on_two(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SECONDS_TO_START", 0)
    family = FAMILIES[name]
    on_one, on_two = (search.search(TABLE, TRAINING, family, family.quick, seed=3, jobs=jobs) for jobs in (1, 2))
    assert on_one.metrics == on_two.metrics
    assert pipelines.digest(on_one.pipeline) == pipelines.digest(on_two.pipeline)


def grids() -> Iterator[Any]:
    for name, family in FAMILIES.items():
        yield pytest.param(family, family.quick, id=f"{name} quick")
        few = {"n_estimators": [7, 4], "max_depth": [15, 20]} if "n_estimators" in family.book else {}
        yield pytest.param(family, {**family.book, **few}, id=f"{name} book")


@pytest.mark.parametrize(("family", "grid"), list(grids()))
def test_a_search_finds_what_grid_search_cv_finds(family: Family, grid: families.Grid) -> None:
    searched = search.search(TABLE, TRAINING, family, grid, seed=3, jobs=1)
    learned = pipelines.build(TABLE, clone(family.classifier))[1:]
    if "random_state" in family.classifier.get_params():
        learned[-1].set_params(random_state=3)
    expected = GridSearchCV(
        learned,
        {f"classifier__{name}": values for name, values in grid.items()},
        scoring=list(searched.scores),
        refit="accuracy",
        cv=StratifiedKFold(pipelines.FOLDS, shuffle=True, random_state=3),
    ).fit(TABLE.encode(TRAINING), TRAINING[TABLE.target.name])
    assert {f"classifier__{name}": value for name, value in searched.values.items()} == expected.best_params_
    for name, scores in searched.scores.items():
        folds = [f"split{fold}_test_{name}" for fold in range(pipelines.FOLDS)]
        assert scores.tolist() == [expected.cv_results_[fold][expected.best_index_] for fold in folds]
    decided = searched.pipeline[-1].estimator_
    fitted = decided.calibrated_classifiers_[0].estimator if searched.calibrated else decided
    assert joblib.hash([*searched.pipeline[1:-1], fitted]) == joblib.hash([*expected.best_estimator_])


def cost(fitted: Any, x: Any, y: Any) -> float:
    """What an answer costs at the break-even of a table whose wrong yes costs 4 times a wrong no, as a merit."""
    called, yes = fitted.predict_proba(x)[:, 1] >= 0.8, y == "Y"
    return -float((4 * (called & ~yes) + (~called & yes)).mean())


DECIDING = {"accuracy": "accuracy", "AUC": "roc_auc", "log loss": "neg_log_loss", "cost": cost}


def test_a_search_decides_by_what_the_table_declares() -> None:
    grid, best = {"max_depth": [1, 2, 4, 8, 30]}, {}
    learned = pipelines.build(TABLE, clone(FAMILIES["DecisionTreeClassifier"].classifier))[1:]
    learned[-1].set_params(random_state=0)
    folds = StratifiedKFold(pipelines.FOLDS, shuffle=True, random_state=0)
    for select_by, scoring in DECIDING.items():
        table = replace(TABLE, select_by=select_by, false_positive_cost=4)
        found = search.search(table, TRAINING, FAMILIES["DecisionTreeClassifier"], grid, seed=0, jobs=1)
        expected = GridSearchCV(learned, {"classifier__max_depth": grid["max_depth"]}, scoring=scoring, cv=folds)
        expected.fit(TABLE.encode(TRAINING), TRAINING[TABLE.target.name])
        assert found.values == {"max_depth": expected.best_params_["classifier__max_depth"]}
        best[select_by] = found.values["max_depth"]
    assert len({*best.values()}) > 1  # or nothing was decided


def results(**accuracies: float) -> dict[str, dict[str, float]]:
    return {name: {"Mean CV score": value} for name, value in accuracies.items()}


def test_training_doubts_a_floor_that_ties_and_costs_that_choose_nothing() -> None:
    tied, better = results(Tree=0.9821, DummyClassifier=0.982), results(Tree=0.99, DummyClassifier=0.982)
    [doubt] = selection.doubts(TABLE, tied)
    assert (
        doubt
        == 'by accuracy no family is better than DummyClassifier (0.982): try select_by="AUC" in understudy/table.py'
    )
    assert list(selection.doubts(TABLE, better)) == []
    [doubt] = selection.doubts(replace(TABLE, false_positive_cost=2), better)
    assert doubt.startswith("the costs of wrong answers choose thresholds but not the best")
    costs = {"Tree": 0.5, "DummyClassifier": 0.6}
    by_cost = {name: {"cv/cost": value} for name, value in costs.items()}
    assert list(selection.doubts(replace(TABLE, false_positive_cost=2, select_by="cost"), by_cost)) == []


@pytest.mark.parametrize("name", ["DecisionTreeClassifier", "LogisticRegression"])
def test_probabilities_are_calibrated_where_that_lowers_the_log_loss_out_of_fold(name: str) -> None:
    family, labels = FAMILIES[name], TABLE.labels(TRAINING)
    searched = search.search(TABLE, TRAINING, family, family.quick, seed=0, jobs=1)
    whole = pipelines.build(TABLE, pipelines.classifier(searched.pipeline))
    folds = StratifiedKFold(pipelines.FOLDS, shuffle=True, random_state=0)
    raw = cross_val_predict(whole, TRAINING, TRAINING["Loan_Status"], cv=folds, method="predict_proba")[:, 1]
    assert searched.log_loss == pytest.approx(sklearn_metrics.log_loss(labels, raw), rel=1e-12)
    # scikit-learn's own, with a search of folds inside each fold, is what the shortcut stands for.
    nested = CalibratedClassifierCV(whole, cv=folds, ensemble=False)
    slow = cross_val_predict(nested, TRAINING, TRAINING["Loan_Status"], cv=folds, method="predict_proba")[:, 1]
    assert searched.log_loss_calibrated == pytest.approx(sklearn_metrics.log_loss(labels, slow), abs=0.02)
    assert searched.calibrated == (name == "DecisionTreeClassifier")
    final = searched.pipeline[-1].estimator_
    assert isinstance(final, CalibratedClassifierCV if searched.calibrated else LogisticRegression)


def test_what_is_served_decides_at_the_threshold_that_the_costs_ask_for(tmp_path: Path) -> None:
    family = FAMILIES["LogisticRegression"]
    chosen = {}
    for costs in [(1, 1), (1, 9), (9, 1)]:
        table = replace(TABLE, false_positive_cost=costs[0], false_negative_cost=costs[1])
        pipeline = search.search(table, TRAINING, family, family.quick, seed=0, jobs=1).pipeline
        probabilities = pipelines.positive(pipeline, HELD_OUT, table)
        chosen[costs] = pipeline[-1].threshold
        model_files.save_model(str(tmp_path / f"{costs}"), Model(), pipeline, TRAINING)
        served = mlflow.pyfunc.load_model(str(tmp_path / f"{costs}"))
        labels = served.predict(HELD_OUT[[column.name for column in TABLE.columns]])
        assert labels == ["Y" if probability >= chosen[costs] else "N" for probability in probabilities]
    assert chosen[1, 9] < 0.3 < chosen[1, 1] < 0.7 < chosen[9, 1]


def test_the_book_grid_is_the_textbooks() -> None:
    assert dict(FAMILIES["RandomForestClassifier"].book) == {
        "n_estimators": [400, 700],
        "max_depth": [15, 20, 25],
        "criterion": ["gini", "entropy"],
        "max_leaf_nodes": [50, 100],
    }
    assert FAMILIES["LogisticRegression"].book["C"] == [100, 10, 1, 0.1, 0.01]
    assert FAMILIES["DecisionTreeClassifier"].book["max_depth"] == [3, 5, 7, 9, 11, 13]


@pytest.mark.parametrize(("l1_ratio", "penalty"), [(0, "l2"), (1, "l1")])
def test_the_logistics_penalty_is_reported_by_its_old_name(l1_ratio: int, penalty: str) -> None:
    family = FAMILIES["LogisticRegression"]
    searched = search.search(TABLE, TRAINING, family, {"C": [0.1], "l1_ratio": [l1_ratio]}, seed=0, jobs=1)
    assert searched.params == {"C": 0.1, "penalty": penalty}


def test_families_are_chosen_by_name() -> None:
    assert search.choose("all") == list(FAMILIES)
    assert search.choose("LogisticRegression") == ["LogisticRegression", "DummyClassifier"]
    with pytest.raises(UserError, match="no family Logistic"):
        search.choose("Logistic")


@pytest.mark.parametrize("path", [SAMPLE, pytest.param(REAL, marks=needs_real_table)])
def test_every_family_beats_the_floor_on_held_out_rows(path: Any) -> None:
    training, held_out = TABLE.split(table_rows.read(TABLE, path))
    for name, family in FAMILIES.items():
        searched = search.search(TABLE, training, family, family.quick, seed=0, jobs=1)
        probabilities = searched.pipeline.predict_proba(held_out)[:, 1]
        area, low, _ = metrics.evaluate(TABLE.labels(held_out), Scored(probabilities, 0.5))["AUC"]
        assert area == 0.5 if name == families.FLOOR else low > 0.5
