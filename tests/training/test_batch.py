"""What training and evaluation leave in MLflow."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

import evaluate
import train
from tests.conftest import PROJECT, REAL, SAMPLE, Ended, needs_real_table, started_training
from understudy import families
from understudy.errors import UserError
from understudy.reading import table_rows
from understudy.table import TABLE
from understudy.tracking import batch_rows, family_runs, provenance
from understudy.tracking import runs as tracked
from understudy.training import search, selection

METRICS = ["Accuracy", "f1-score", "AUC", "PR AUC", "Log loss", "Brier score"]
PLOTS = ["ROC_curve", "calibration", "confusion_matrix", "permutation_importance", "precision_recall"]
PLOTS += ["score_distribution", "groups", "threshold"]


@pytest.fixture
def batch(client: MlflowClient) -> Run:
    return family_runs.get_batch(client, TABLE)


@pytest.fixture
def runs(client: MlflowClient, batch: Run) -> dict[str, Run]:
    return {run.info.run_name: run for run in family_runs.families(client, batch)}


def test_a_batch_has_a_run_for_each_family_and_the_floor(batch: Run, runs: dict[str, Run]) -> None:
    assert list(runs) == [
        "DecisionTreeClassifier",
        "LogisticRegression",
        "RandomForestClassifier",
        "DummyClassifier",
    ]
    assert {run.info.status for run in [batch, *runs.values()]} == {"FINISHED"}
    asked = {"models": "all", "grid": "quick", "data": "", "seed": "0", "jobs": "-1", "cluster": ""}
    asked |= {"without_sensitive": "False"}
    assert batch.data.params == asked


def test_a_family_run_holds_params_and_metrics_under_the_names_people_know(runs: dict[str, Run]) -> None:
    assert set(runs["LogisticRegression"].data.params) == {"C", "penalty"}
    assert set(runs["RandomForestClassifier"].data.params) == {"n_estimators", "max_depth"}
    expected = {"Mean CV score", *METRICS, "training/seconds", "training/rows"}
    expected |= {f"cv/{name}" for name in ("score std", "score min", "score max", "AUC", "cost", "threshold")}
    expected |= {"cv/log loss", "cv/log loss calibrated"}
    expected |= {f"interval/{name} {bound}" for name in METRICS for bound in ("low", "high")}
    for run in runs.values():
        assert set(run.data.metrics) == expected
        low, high = run.data.metrics["interval/AUC low"], run.data.metrics["interval/AUC high"]
        assert low <= run.data.metrics["AUC"] <= high
        assert run.data.tags["mlflow.note.content"].startswith("Best of its grid: ")
    assert runs["DummyClassifier"].data.metrics["AUC"] == 0.5


def test_a_run_says_what_it_was_made_from(runs: dict[str, Run]) -> None:
    rows = table_rows.read(TABLE, SAMPLE)
    sides = dict(zip(["training", "held-out"], TABLE.split(rows), strict=True))
    for run in runs.values():
        tags = run.data.tags
        assert tags["data.digest"] == TABLE.digest(rows)
        assert tags["seed"] == "0"
        assert tags["git.dirty"] in ("true", "false", "unknown")
        assert f"mlflow {mlflow.__version__}" in tags["packages"]
        assert "lock.digest" in tags
        assert "mlflow.source.git.commit" in tags
        inputs = {dataset.tags[0].value: dataset.dataset for dataset in run.inputs.dataset_inputs}  # type: ignore[union-attr]
        assert {context: dataset.digest for context, dataset in inputs.items()} == {
            context: TABLE.digest(side) for context, side in sides.items()
        }


def test_where_there_is_no_git_changes_are_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.tags(TABLE, str(SAMPLE), "digest", seed=0)["git.dirty"] == "unknown"


def test_a_model_can_be_loaded_by_its_run_and_its_family(runs: dict[str, Run]) -> None:
    _, held_out = TABLE.split(table_rows.read(TABLE, SAMPLE))
    for name, run in runs.items():
        model = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/{name}")
        right = (model.predict(held_out) == held_out[TABLE.target.name]).mean()
        assert right == pytest.approx(run.data.metrics["Accuracy"], abs=1e-12)


def test_the_rows_that_versions_are_compared_on_are_kept_with_the_batch(
    client: MlflowClient, batch: Run, runs: dict[str, Run]
) -> None:
    training, held_out = TABLE.split(table_rows.read(TABLE, SAMPLE))
    for run in [batch, runs["LogisticRegression"]]:
        for name, rows in [(batch_rows.HELD_OUT, held_out), (batch_rows.TRAINED_ON, training)]:
            digest = batch_rows.rows_digest(client, run, name)
            pd.testing.assert_frame_equal(batch_rows.rows(client, run, name, digest), rows)


def test_sensitive_columns_that_no_version_sees_are_kept_with_the_held_out_rows_alone(
    store: str, call: Callable[..., Ended]
) -> None:
    assert call(train, "--models", "LogisticRegression", "--without-sensitive").code == 0
    client = MlflowClient(store)
    batch = family_runs.get_batch(client, TABLE)
    for name, sensitive in [(batch_rows.HELD_OUT, {"Gender", "Married"}), (batch_rows.TRAINED_ON, set())]:
        kept = batch_rows.rows(client, batch, name, batch_rows.rows_digest(client, batch, name))
        assert {"Gender", "Married"} & {*kept} == sensitive
        assert {"Loan_ID", "Education", "Loan_Status"} <= {*kept}


def test_a_batch_names_its_best_family_with_the_headline_metrics(batch: Run, runs: dict[str, Run]) -> None:
    best = selection.best_family([*runs.values()])
    assert batch.data.tags[family_runs.BEST] == family_runs.family_name(best)
    assert batch.data.metrics == {name: best.data.metrics[name] for name in ("Mean CV score", "Accuracy", "AUC")}


def test_plots_are_on_each_run_and_in_the_projects_folder(
    client: MlflowClient, batch: Run, runs: dict[str, Run], trained: Path
) -> None:
    for name, run in runs.items():
        on_run = {Path(file.path).stem for file in client.list_artifacts(run.info.run_id)}
        plots = PLOTS if name != families.FLOOR else []
        assert on_run - {"manifests", "card"} == {*plots, "slices", "thresholds"}
        assert {path.stem for path in (trained / "plots" / name).glob("*")} == set(plots)
    assert {Path(file.path).name for file in client.list_artifacts(batch.info.run_id)} == {
        "comparison.csv",
        "comparison.png",
        "ROC_curve.png",
        "report.html",
        "rows",
    }
    assert (trained / "plots" / "ROC_curve.png").stat().st_size > 10_000
    assert (trained / "plots" / "comparison.png").stat().st_size > 10_000
    comparison = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{batch.info.run_id}/comparison.csv"))
    assert comparison["Family"].tolist() == list(runs)
    assert "| Family | Mean CV score |" in batch.data.tags["mlflow.note.content"]


def test_every_run_reports_how_groups_and_slices_fare(runs: dict[str, Run]) -> None:
    _, held_out = TABLE.split(table_rows.read(TABLE, SAMPLE))
    for name, run in runs.items():
        slices = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/slices.csv"))
        assert list(dict.fromkeys(slices["column"])) == [column.name for column in TABLE.categories]
        assert (slices.groupby("column")["rows"].sum() == len(held_out)).all()
        women = slices[(slices["column"] == "Gender") & (slices["value"] == "Female")].iloc[0]
        rows = held_out[held_out["Gender"] == "Female"]
        called = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/{name}").predict(rows) == TABLE.positive
        truth = rows["Loan_Status"] == TABLE.positive
        assert women["rows"] == len(rows)
        assert women["positive rate"] == pytest.approx(called.mean())
        assert women["true positive rate"] == pytest.approx(called[truth].mean())
        assert women["false positive rate"] == pytest.approx(called[~truth].mean())
        assert women["positive rate low"] <= women["positive rate"] <= women["positive rate high"]
        assert slices.sort_values("rows").groupby("column")["ratio"].last().eq(1).all()


def snapshot(client: MlflowClient, runs: list[Run]) -> list[object]:
    """All that a second evaluation could change."""
    seen: list[object] = []
    for run in runs:
        now = client.get_run(run.info.run_id)
        history = {name: client.get_metric_history(run.info.run_id, name) for name in now.data.metrics}
        files = sorted(Path(now.info.artifact_uri).rglob("*.*"))
        values = {name: [(m.value, m.timestamp, m.step) for m in points] for name, points in history.items()}
        seen += [now.info.status, now.info.end_time, now.data.tags, values, [(f.name, f.read_bytes()) for f in files]]
    return seen


def test_evaluating_twice_changes_nothing(
    client: MlflowClient, batch: Run, runs: dict[str, Run], call: Callable[..., Ended]
) -> None:
    before = snapshot(client, [batch, *runs.values()])
    ended = call(evaluate)
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.endswith("next: python register.py\n")
    assert snapshot(client, [batch, *runs.values()]) == before


def test_evaluating_a_changed_table_is_refused(batch_store: str, tmp_path: Path, call: Callable[..., Ended]) -> None:
    changed = tmp_path / "changed.csv"
    changed.write_text(SAMPLE.read_text().replace(",Urban,Y", ",Rural,Y", 1))
    ended = call(evaluate, "--data", str(changed))
    assert ended.code == 2
    assert ended.err.startswith("error: the table is not the one that batch ")
    assert len(ended.err.splitlines()) == 2


@needs_real_table
def test_the_real_table_is_trained_on_with_the_families_asked_for(store: str, call: Callable[..., Ended]) -> None:
    ended = call(train, "--data", str(REAL), "--models", "LogisticRegression", "--experiment-name", "Elsewhere")
    assert ended.code == 0
    assert ended.err == ""
    client = MlflowClient(store)
    batch = family_runs.get_batch(client, TABLE)
    experiment = client.get_experiment(batch.info.experiment_id)
    assert experiment.name == "Elsewhere"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert batch.info.run_name == "loan_prediction_train quick"
    assert [run.info.run_name for run in family_runs.families(client, batch)] == [
        "LogisticRegression",
        "DummyClassifier",
    ]
    assert call(evaluate, "--data", str(REAL)).code == 0


@pytest.mark.parametrize("path", [SAMPLE, pytest.param(REAL, marks=needs_real_table)])
def test_the_same_again_gives_the_same_to_the_last_digit(path: Path, store: str, call: Callable[..., Ended]) -> None:
    client = MlflowClient(store)
    seen = []
    for jobs in ("1", "2"):
        call(train, "--data", str(path), "--jobs", jobs)
        runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
        metrics = [{k: v for k, v in run.data.metrics.items() if k != "training/seconds"} for run in runs]
        seen.append((metrics, [run.data.tags["model.digest"] for run in runs]))
    assert seen[0] == seen[1]
    assert len(set(seen[0][1])) == len(families.FAMILIES)


def test_a_seed_changes_the_folds_and_is_recorded(store: str, call: Callable[..., Ended]) -> None:
    call(train, "--models", "DecisionTreeClassifier", "--seed", "5")
    client = MlflowClient(store)
    run = family_runs.families(client, family_runs.get_batch(client, TABLE))[0]
    assert run.data.tags["seed"] == "5"
    training, _ = TABLE.split(table_rows.read(TABLE, SAMPLE))
    family = families.FAMILIES["DecisionTreeClassifier"]
    same, other = (search.search(TABLE, training, family, family.quick, seed=seed, jobs=1) for seed in (5, 6))
    assert run.data.metrics["cv/log loss"] == same.metrics["cv/log loss"]
    assert run.data.metrics["cv/log loss"] != other.metrics["cv/log loss"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_ends_killed(migrated: Path, tmp_path: Path, number: int, code: int) -> None:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    process = started_training(uri, tmp_path)
    time.sleep(1)
    # As a terminal does it: the whole group gets it.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    # joblib's workers, while they start, print what interrupts them.
    assert "train.py" not in err
    assert f"{PROJECT / 'understudy'}/" not in err  # the clone's folder may have the package's name
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]


def test_a_training_that_fails_leaves_failed_runs_and_no_model(
    store: str, call: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(search, "search", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        call(train)
    client = MlflowClient(store)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    assert [run.info.status for run in client.search_runs(experiments)] == ["FAILED", "FAILED"]
    assert list(client.search_logged_models(experiments)) == []


def test_names_that_mysql_takes_for_one_are_refused_before_anything_is_written(
    client: MlflowClient, batch: Run, runs: dict[str, Run]
) -> None:
    run = runs["LogisticRegression"]
    before = [client.get_run(shown.info.run_id).to_dictionary() for shown in (batch, run)]
    count, known = len(client.search_runs(["1"])), len(client.search_logged_models(["1"]))
    writes: list[tuple[str, Callable[[], None]]] = [
        ("'auc' and 'AUC'", lambda: family_runs.log_evaluation(client, run, {"auc": (0.5, 0.4, 0.6)}, NOTHING)),
        ("'Grid' and 'grid'", lambda: family_runs.log_batch(client, batch.info.run_id, {"Grid": 1}, [])),
        ("'C' and 'c'", lambda: log_family(client, run, params={"C": 1, "c": 2})),
        ("'k' and 'K'", lambda: log_family(client, run, metrics={"k": 1, "K": 2})),
        ("'café' and 'Cafe '", lambda: open_record(client, metrics={"café": 1, "Cafe ": 2})),
        ("'a' and 'A'", lambda: start_run({"a": "", "A": ""})),
    ]
    for named, write in writes:
        with pytest.raises(UserError, match=f"{named} of one run differ only in case"):
            write()
    assert [client.get_run(shown.info.run_id).to_dictionary() for shown in (batch, run)] == before
    assert (len(client.search_runs(["1"])), len(client.search_logged_models(["1"]))) == (count, known)
    assert client.get_experiment_by_name("records") is None


NOTHING = family_runs.Report({}, {}, "")


def log_family(client: MlflowClient, run: Run, **names: dict[str, float]) -> None:
    named = {"params": {}, "metrics": {}, **names}
    model = families.FAMILIES["DummyClassifier"].classifier
    none = pd.DataFrame()
    trained = family_runs.TrainedFamily("model", model, none, **named, thresholds=none, inputs=[])
    family_runs.log_family(client, run.info.run_id, trained)


def start_run(tags: dict[str, str]) -> None:
    with tracked.run("batch", tracked.BATCH, tags):
        pass


def open_record(client: MlflowClient, metrics: dict[str, float]) -> None:
    tracked.open_record(client, "records", tracked.Opening("record", {}, metrics, {}, {}))
