"""What `train.py` is measured against: the same work as a tutorial would write it.

The same table, grids, folds, metrics, plots and floor; GridSearchCV on plain pipelines, one call per param and per
metric, pyplot, scikit-learn's own functions in loops, and `log_model` with an input example and inferred requirements.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mlflow
import mlflow.sklearn
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from mlflow.models import infer_signature
from sklearn import metrics
from sklearn.calibration import CalibrationDisplay
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

CATEGORIES = ["Gender", "Married", "Dependents", "Education", "Self_Employed", "Credit_History", "Property_Area"]
NUMBERS = ["LoanAmount", "Loan_Amount_Term", "TotalIncome"]
MODELS: dict[str, tuple[Any, dict[str, dict[str, list[Any]]]]] = {
    "DecisionTreeClassifier": (
        DecisionTreeClassifier(random_state=0),
        {
            "quick": {"max_depth": [3, 5, 7], "criterion": ["gini", "entropy"]},
            "book": {"max_depth": [3, 5, 7, 9, 11, 13], "criterion": ["gini", "entropy"]},
        },
    ),
    "LogisticRegression": (
        LogisticRegression(solver="liblinear", random_state=0),
        {
            "quick": {"C": [10, 1, 0.1], "l1_ratio": [0]},
            "book": {"C": [100, 10, 1, 0.1, 0.01], "l1_ratio": [1, 0]},
        },
    ),
    "RandomForestClassifier": (
        RandomForestClassifier(random_state=0),
        {
            "quick": {"n_estimators": [100], "max_depth": [5, 15]},
            "book": {
                "n_estimators": [400, 700],
                "max_depth": [15, 20, 25],
                "criterion": ["gini", "entropy"],
                "max_leaf_nodes": [50, 100],
            },
        },
    ),
    "DummyClassifier": (DummyClassifier(strategy="prior"), {"quick": {}, "book": {}}),
}
SPENT: dict[str, float] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", default="quick", choices=["quick", "book"])
    args = parser.parse_args()
    mpl.use("Agg")
    mlflow.set_experiment("Textbook")
    rows = pd.read_csv(Path(__file__).parents[1] / "data" / "loans.csv")
    rows["TotalIncome"] = np.log(rows["ApplicantIncome"] + rows["CoapplicantIncome"])
    rows["LoanAmount"] = np.log(rows["LoanAmount"])
    x, y = rows[CATEGORIES + NUMBERS], (rows["Loan_Status"] == "Y").astype(int)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)
    results = {}
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run(run_name="batch"):
        for name, (classifier, grids) in MODELS.items():
            with mlflow.start_run(run_name=name, nested=True):
                model = train(name, classifier, grids[args.grid], x_train, y_train)
                results[name] = evaluate(name, model, x_test, y_test, Path(folder))
        draw_comparison(results, y_test, Path(folder))
    for name, seconds in SPENT.items():
        print(f"{name} {seconds:.3f}")


def train(name: str, classifier: Any, grid: dict[str, list[Any]], x: Any, y: Any) -> Any:
    prepare = ColumnTransformer(
        [
            ("categories", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), CATEGORIES),
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
        ]
    )
    pipeline = make_pipeline(prepare, classifier)
    step = pipeline.steps[-1][0]
    search = GridSearchCV(
        pipeline,
        {f"{step}__{key}": values for key, values in grid.items()},
        scoring=["accuracy", "roc_auc", "neg_log_loss"],
        refit="accuracy",
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
        n_jobs=-1,
    )
    started = time.perf_counter()
    search.fit(x, y)
    spend("search", started)
    for key, value in search.best_params_.items():
        mlflow.log_param(key.split("__")[1], value)
    results = search.cv_results_
    best = search.best_index_
    folds = [results[f"split{fold}_test_accuracy"][best] for fold in range(5)]
    mlflow.log_metric("Mean CV score", results["mean_test_accuracy"][best])
    mlflow.log_metric("CV score std", results["std_test_accuracy"][best])
    mlflow.log_metric("CV score min", min(folds))
    mlflow.log_metric("CV score max", max(folds))
    mlflow.log_metric("CV AUC", results["mean_test_roc_auc"][best])
    mlflow.log_metric("CV log loss", -results["mean_test_neg_log_loss"][best])
    started = time.perf_counter()
    model = search.best_estimator_
    mlflow.sklearn.log_model(
        model,
        name=name,
        signature=infer_signature(x, model.predict(x)),
        input_example=x.dropna().head(),
        serialization_format="cloudpickle",  # the default format refuses these pipelines
    )
    spend("log_model", started)
    return model


def evaluate(name: str, model: Any, x: Any, y: Any, folder: Path) -> tuple[Any, dict[str, list[float]]]:
    probabilities = model.predict_proba(x)[:, 1]
    values = score(y, probabilities)
    started = time.perf_counter()
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(1000):
        chosen = rng.integers(0, len(y), len(y))
        if y.to_numpy()[chosen].min() != y.to_numpy()[chosen].max():
            draws.append(score(y.to_numpy()[chosen], probabilities[chosen]))
    spend("intervals", started)
    result = {}
    for key, value in values.items():
        low, high = np.percentile([draw[key] for draw in draws], [2.5, 97.5])
        result[key] = [value, low, high]
        mlflow.log_metric(key, value)
        mlflow.log_metric(f"{key} low", low)
        mlflow.log_metric(f"{key} high", high)
    started = time.perf_counter()
    shuffled = permutation_importance(model, x, y, scoring="roc_auc", n_repeats=5, random_state=0)
    spend("importance", started)
    started = time.perf_counter()
    draw(name, x, y, probabilities, shuffled, folder)
    spend("plots", started)
    return probabilities, result


def score(y: Any, probabilities: Any) -> dict[str, float]:
    labels = probabilities > 0.5
    return {
        "Accuracy": metrics.accuracy_score(y, labels),
        "f1-score": metrics.f1_score(y, labels),
        "AUC": metrics.roc_auc_score(y, probabilities),
        "PR AUC": metrics.average_precision_score(y, probabilities),
        "Log loss": metrics.log_loss(y, probabilities),
        "Brier score": metrics.brier_score_loss(y, probabilities),
    }


def draw(name: str, x: Any, y: Any, probabilities: Any, shuffled: Any, folder: Path) -> None:
    metrics.RocCurveDisplay.from_predictions(y, probabilities, name=name)
    save("ROC_curve", folder)
    metrics.PrecisionRecallDisplay.from_predictions(y, probabilities, name=name)
    save("precision_recall", folder)
    CalibrationDisplay.from_predictions(y, probabilities, n_bins=8, strategy="quantile", name=name)
    save("calibration", folder)
    metrics.ConfusionMatrixDisplay.from_predictions(y, probabilities > 0.5)
    save("confusion_matrix", folder)
    plt.hist([probabilities[y == 0], probabilities[y == 1]], bins=20, stacked=True, label=["N", "Y"])
    plt.legend()
    save("score_distribution", folder)
    plt.barh(x.columns, shuffled.importances_mean, xerr=shuffled.importances_std)
    save("permutation_importance", folder)


def draw_comparison(results: Any, y: Any, folder: Path) -> None:
    started = time.perf_counter()
    axes = plt.gca()
    for name, (probabilities, _) in results.items():
        metrics.RocCurveDisplay.from_predictions(y, probabilities, name=name, ax=axes)
    save("ROC_curve", folder)
    _, panels = plt.subplots(2, 3, sharey=True, figsize=(13, 4.4))
    for key, panel in zip(next(iter(results.values()))[1], panels.flat, strict=True):
        for name, (_, result) in results.items():
            value, low, high = result[key]
            panel.errorbar(value, name, xerr=[[value - low], [high - value]], fmt="o")
        panel.set_title(key)
    save("comparison", folder)
    table = pd.DataFrame(
        {name: {key: value[0] for key, value in result.items()} for name, (_, result) in results.items()}
    )
    table.T.to_csv(folder / "comparison.csv")
    mlflow.log_artifact(str(folder / "comparison.csv"))
    spend("plots", started)


def save(name: str, folder: Path) -> None:
    plt.tight_layout()
    plt.savefig(folder / f"{name}.png", dpi=120)
    plt.close()
    mlflow.log_artifact(str(folder / f"{name}.png"))


def spend(name: str, started: float) -> None:
    SPENT[name] = SPENT.get(name, 0) + time.perf_counter() - started


if __name__ == "__main__":
    main()
