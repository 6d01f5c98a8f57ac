"""What is served answers as scikit-learn does, on rows of every kind and on the very edge of a split."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lightgbm import LGBMClassifier
from mlflow.models import Model
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.special import expit, logit
from sklearn import ensemble
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

from tests.conftest import PROJECT, REAL, SAMPLE, environment
from understudy.families import FAMILIES
from understudy.reading import table_rows
from understudy.schema.columns import Category, Number, listed
from understudy.schema.declaration import Table
from understudy.scoring import conversion, model_files, pipelines, scorer
from understudy.scoring.predictors import TREES
from understudy.table import TABLE

HMDA = Table(
    name="Hmda_denial",
    path="data/hmda.csv",
    identifier="id",
    target=Category("deny", ("no", "yes")),
    columns=(
        *(Number(name, "of 1", 0, 3) for name in ("dir", "hir", "lvr")),
        *(Number(name, "points", 1, 6) for name in ("ccs", "mcs")),
        *(Category(name, ("no", "yes"), missing=True) for name in ("pbcr", "dmi", "self", "single", "black")),
        Number("uria", "percent", 0, 100),
        Category("comdominiom", (0, 1)),
    ),
)
ENCODED = [column.name for column in TABLE.encoded]
CLASSIFIERS = {
    "LogisticRegression": FAMILIES["LogisticRegression"].classifier,
    "DecisionTreeClassifier": FAMILIES["DecisionTreeClassifier"].classifier,
    "RandomForestClassifier": ensemble.RandomForestClassifier(30),
    "ExtraTrees": ensemble.ExtraTreesClassifier(30),
    "GradientBoosting": ensemble.GradientBoostingClassifier(n_estimators=30),
    "HistGradientBoosting": ensemble.HistGradientBoostingClassifier(max_iter=10),
    "LightGBM": LGBMClassifier(n_estimators=50, n_jobs=1, verbose=-1),
    "LightGBM's forest": LGBMClassifier(
        boosting_type="rf", n_estimators=20, subsample=0.5, subsample_freq=1, n_jobs=1, verbose=-1
    ),
    "XGBoost": XGBClassifier(n_estimators=200, n_jobs=1),
    # Every leaf of an unpruned forest is a vote, so that many rows lie exactly on the threshold.
    "votes": ensemble.RandomForestClassifier(50, max_features=1),
}


class Made:
    """A fitted Pipeline, what is served of it, and the folder that this was read from."""

    def __init__(
        self, folder: Path, table: Table, classifier: BaseEstimator, calibrated_on: StratifiedKFold | None = None
    ) -> None:
        self.table, self.folder = table, folder / "model"
        rows, _ = table.split(table_rows.read(table, PROJECT / table.path))
        decided = pipelines.decided(table, clone(classifier), calibrated_on, 0.42)
        self.pipeline = pipelines.build(table, decided).fit(rows, rows[table.target.name])
        model_files.save_model(str(self.folder), Model(), self.pipeline, rows)
        self.scorer = scorer.load(self.folder)

    @property
    def written(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / scorer.FILE).read_text()))

    def assert_alike(self, features: NDArray[np.float64], rows: Any) -> None:
        """Rows, whose features these are, get scikit-learn's labels and probabilities."""
        learned = self.pipeline[1:]
        assert self.scorer.predict(rows) == learned.predict(features).tolist()
        probabilities = np.array(self.scorer.predict(rows, scorer.PROBABILITY))
        difference = np.abs(probabilities - pipelines.positive(learned, features, self.table)).max()
        # XGBoost computes its sigmoid in float32.
        assert difference < (2e-7 if self.written["kind"] == "xgboost" else 1e-12)


def generated(made: Made, count: int) -> NDArray[np.float64]:
    """Features that the table allows, shape (count, features): missing ones, and numbers on splits and next to them."""
    rng, number, features = np.random.default_rng(0), 0, np.empty((count, len(made.table.encoded)))
    prepare = made.written["prepare"]
    for place, column in enumerate(made.table.encoded):
        if isinstance(column, Category):
            drawn = rng.integers(len(column.values), size=count).astype(float)
        else:
            edges = np.array(splits(made.folder, sum(prepare["counts"]) + number), dtype=np.float32)
            for _ in range(3):
                edges = np.concatenate([edges, np.nextafter(edges, np.float32(9)), np.nextafter(edges, np.float32(-9))])
            scaled = np.where(rng.random(count) < 0.8, rng.choice(edges, count), rng.normal(size=count) * 2)
            drawn = np.clip(scaled * prepare["scale"][number] + prepare["mean"][number], column.low, column.high)
            number += 1
        features[:, place] = np.where((rng.random(count) < 0.2) & column.missing, np.nan, drawn)
    return features


def splits(folder: Path, column: int) -> list[float]:
    """Where trees split a column that they see, and 0."""
    if not (folder / TREES).exists():
        return [0.0]
    [node] = onnx.load(folder / TREES).graph.node
    attributes = {attribute.name: attribute for attribute in node.attribute}
    values = numpy_helper.to_array(attributes["nodes_splits"].t)
    return [0.0, *values[np.array(attributes["nodes_featureids"].ints) == column]]


def assert_alike(made: Made, count: int) -> None:
    """Generated rows, and all rows of the tables at hand, get scikit-learn's answers."""
    if count:
        features = generated(made, count)
        cells = features.astype(object)
        cells[np.isnan(features)] = None
        made.assert_alike(features, cells.tolist())
        for output in (scorer.LABEL, scorer.PROBABILITY):
            one_by_one = [made.scorer.predict([row], output)[0] for row in cells[:1_000].tolist()]
            together = made.scorer.predict(cells[:1_000].tolist(), output)
            assert one_by_one == (together if output == scorer.LABEL else pytest.approx(together, abs=1e-12))
    paths = [PROJECT / made.table.path, *([REAL] if made.table is TABLE and REAL.exists() else [])]
    for rows in (table_rows.read(made.table, path) for path in paths):
        columns = {column.name: listed(rows[column.name]) for column in made.table.columns}
        made.assert_alike(made.table.encode(rows), columns)
    made.scorer.smoke()


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_what_is_served_answers_as_scikit_learn_does(name: str, tmp_path: Path) -> None:
    made = Made(tmp_path, TABLE, CLASSIFIERS[name])
    assert made.written["kind"] == {"LogisticRegression": "linear", "XGBoost": "xgboost"}.get(name, "trees")
    assert_alike(made, 100_000)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("labels", [("no", "yes"), ("yes", "no")])
@pytest.mark.parametrize(
    "name", ["LogisticRegression", "RandomForestClassifier", "HistGradientBoosting", "LightGBM", "XGBoost"]
)
def test_so_it_does_when_calibrated_and_whichever_label_is_positive(
    name: str, labels: tuple[str, str], calibrated: bool, tmp_path: Path
) -> None:
    table, classifier = replace(HMDA, target=Category("deny", labels)), CLASSIFIERS[name]
    made = Made(tmp_path, table, classifier, StratifiedKFold(2) if calibrated else None)
    assert made.written["kind"] != "sklearn"
    assert_alike(made, 10_000)


def test_xgboosts_sums_are_its_own_to_the_last_bit(tmp_path: Path) -> None:
    made = Made(tmp_path, TABLE, CLASSIFIERS["XGBoost"])
    features = generated(made, 100_000)
    [booster] = made.pipeline[-1].estimator_.estimators_
    sums = booster.predict(made.pipeline[1:-1].transform(features), output_margin=True)
    assert np.abs(made.scorer.predictor.probabilities(features) - expit(sums.astype(float))).max() < 1e-15


def test_xgboost_sees_zeros_where_scikit_learn_would_give_it_a_sparse_matrix(tmp_path: Path) -> None:
    states = tuple("abcdefghijklmnopqrst")
    lines = [f"{n},{states[n % 20]},{n * 37 % 11},{'yes' if n % 20 < 9 or n % 7 == 0 else 'no'}" for n in range(400)]
    (tmp_path / "states.csv").write_text("\n".join(["id,state,years,late", *lines]) + "\n")
    columns = (Category("state", states), Number("years", "years", 0, 11))
    target = Category("late", ("no", "yes"))
    table = Table("Late", str(tmp_path / "states.csv"), identifier="id", target=target, columns=columns)
    made = Made(tmp_path, table, CLASSIFIERS["XGBoost"])
    assert made.written["kind"] == "xgboost"
    assert_alike(made, 1_000)


@pytest.mark.parametrize(
    "classifier",
    [
        DecisionTreeClassifier(min_samples_leaf=1_000),
        LGBMClassifier(min_child_samples=1_000, n_estimators=3, n_jobs=1, verbose=-1),
        XGBClassifier(min_child_weight=1_000, n_estimators=3, n_jobs=1),
    ],
)
def test_a_tree_of_one_leaf_is_served(classifier: BaseEstimator, tmp_path: Path) -> None:
    made = Made(tmp_path, TABLE, classifier)
    assert made.written["kind"] != "sklearn"
    assert_alike(made, 100)


@pytest.mark.parametrize(
    "classifier",
    [
        GaussianNB(),
        CalibratedClassifierCV(GaussianNB(), method="isotonic"),
        LGBMClassifier(zero_as_missing=True, n_estimators=3, n_jobs=1, verbose=-1),
        LGBMClassifier(linear_tree=True, n_estimators=3, n_jobs=1, verbose=-1),
        LGBMClassifier(sigmoid=2, n_estimators=3, n_jobs=1, verbose=-1),
        XGBClassifier(booster="dart", rate_drop=0.5, n_estimators=3, n_jobs=1),
        XGBClassifier(booster="gblinear", n_estimators=3, n_jobs=1),
    ],
)
def test_what_cannot_be_converted_is_served_in_its_own_form(classifier: BaseEstimator, tmp_path: Path) -> None:
    made = Made(tmp_path, TABLE, classifier)
    assert made.written["kind"] == "sklearn"
    assert_alike(made, 0)


def test_a_conversion_that_answers_otherwise_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees, response = conversion._trees, {"rounded": True, "divisor": 1, "base": 0.1}
    monkeypatch.setattr(conversion, "_trees", lambda *fitted: (trees(*fitted)[0], response))
    made = Made(tmp_path, TABLE, CLASSIFIERS["DecisionTreeClassifier"])
    assert made.written["kind"] == "sklearn"
    assert not (made.folder / TREES).exists()
    made.scorer.smoke()


def test_stored_answers_that_are_not_given_are_noticed(tmp_path: Path) -> None:
    made = Made(tmp_path, TABLE, CLASSIFIERS["LogisticRegression"])
    written = made.written
    assert len(written["stored"]["probabilities"]) == model_files.STORED
    written["stored"]["probabilities"][3] += 1e-5
    (made.folder / scorer.FILE).write_text(json.dumps(written))
    with pytest.raises(ValueError, match="the stored rows do not get the stored answers"):
        scorer.load(made.folder).smoke()


def test_a_converted_model_needs_neither_mlflow_nor_pandas_nor_scikit_learn(tmp_path: Path) -> None:
    made = Made(tmp_path, TABLE, CLASSIFIERS["RandomForestClassifier"])
    program = (
        "import sys; from pathlib import Path; from understudy.scoring import scorer;"
        "scorer.load(Path(sys.argv[1])).smoke();"
        "sys.exit(bool({'mlflow', 'pandas', 'sklearn', 'scipy'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", program, made.folder], cwd=PROJECT, env=environment(), check=True)


def test_the_logistics_detail_adds_up_to_the_score(tmp_path: Path) -> None:
    made = Made(tmp_path, TABLE, CLASSIFIERS["LogisticRegression"])
    training, held_out = TABLE.split(table_rows.read(TABLE, SAMPLE))
    learned, features = made.pipeline[1:], TABLE.encode(held_out)
    scores = logit(learned.predict_proba(features)[:, 1])
    average = logit(learned.predict_proba(TABLE.encode(training))[:, 1]).mean()
    effects = made.scorer.predictor.effects(features)
    assert effects.sum(axis=1) == pytest.approx(scores - average, abs=1e-9)


def test_trees_detail_is_how_far_a_column_moves_the_probability(tmp_path: Path) -> None:
    made = Made(tmp_path, TABLE, DecisionTreeClassifier(max_depth=2))
    rows = table_rows.read(TABLE, SAMPLE)
    raw = {column.name: listed(rows[column.name]) for column in TABLE.columns}
    share = np.nanmean(TABLE.encode(TABLE.split(rows)[0])[:, ENCODED.index("Credit_History")])
    for number, told in enumerate(made.scorer.predict(raw, "detail", "7")[:50]):
        assert (told["version"], told["threshold"]) == ("7", 0.42)
        assert told["label"] == ("Y" if told["probability"] >= 0.42 else "N")
        assert [abs(moved["probability"]) for moved in told["moved"]] == sorted(
            (abs(moved["probability"]) for moved in told["moved"]), reverse=True
        )
        cells = {name: cells[number] for name, cells in raw.items()}
        given = made.scorer.predict([{**cells, "Credit_History": value} for value in (0, 1)], "probability")
        expected = told["probability"] - (given[0] * (1 - share) + given[1] * share)
        effect = {moved["column"]: moved for moved in told["moved"]}["Credit_History"]
        assert effect["probability"] == pytest.approx(expected)
        assert effect["towards"] == ("Y" if expected > 0 else "N")
