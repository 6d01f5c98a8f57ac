"""What one answer costs without a server: the scorer beside the fitted Pipeline, for one row and for 10,000.

python -m bench.scoring      times are the shortest of 30, in microseconds and milliseconds
"""

import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from mlflow.models import Model
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline

from understudy.families import FAMILIES
from understudy.reading import table_rows
from understudy.schema.columns import listed
from understudy.scoring import model_files, pipelines, scorer
from understudy.serving import request
from understudy.table import TABLE

CLASSIFIERS = {
    "logistic": FAMILIES["LogisticRegression"].classifier,
    "tree": FAMILIES["DecisionTreeClassifier"].classifier,
    "300 trees": RandomForestClassifier(300),
}
if find_spec("lightgbm") and find_spec("xgboost"):  # from requirements-boosting.lock
    from lightgbm import LGBMClassifier
    from xgboost import XGBClassifier

    CLASSIFIERS["LightGBM, 300 trees"] = LGBMClassifier(n_estimators=300, n_jobs=1, verbose=-1)
    CLASSIFIERS["XGBoost, 300 trees"] = XGBClassifier(n_estimators=300, n_jobs=1)


def main() -> None:
    training, _ = TABLE.split(table_rows.read(TABLE, TABLE.path))
    many = training[[column.name for column in TABLE.columns]].sample(10_000, replace=True, random_state=0)
    for name, classifier in CLASSIFIERS.items():
        pipeline, served = made(training, classifier)
        for rows in (many[:1], many):
            times = measured(pipeline, served, rows.reset_index(drop=True))
            summary = ", ".join(f"{what} {shown(seconds, len(rows))}" for what, seconds in times.items())
            print(f"{name}, {len(rows):,} rows: {summary}", flush=True)


def measured(pipeline: Pipeline, served: scorer.Scorer, rows: pd.DataFrame) -> dict[str, float]:
    """Seconds that each part takes."""
    columns, features = {name: listed(rows[name]) for name in rows}, TABLE.encode(rows)
    row = features[0].tolist()

    def predictor() -> object:
        return served.predictor.probability(row) if len(rows) == 1 else served.predictor.probabilities(features)

    sent = {"columns": list(columns), "data": list(map(list, zip(*columns.values(), strict=True)))}
    content = json.dumps({"dataframe_split": sent}).encode()
    return {
        "reading its JSON": shortest(lambda: request.asked(content, "application/json", served)),
        "Pipeline on a frame": shortest(lambda: pipeline.predict(rows)),
        "Pipeline on features": shortest(lambda: pipeline[1:].predict(features)),
        "scorer": shortest(lambda: served.predict(columns)),
        "of which its predictor": shortest(predictor),
        "scorer's detail": shortest(lambda: served.predict(columns, scorer.DETAIL), 3),
    }


def made(training: pd.DataFrame, classifier: BaseEstimator) -> tuple[Pipeline, scorer.Scorer]:
    """A fitted Pipeline and what is served of it."""
    decided = pipelines.decided(TABLE, classifier, None, 0.5)
    pipeline = pipelines.build(TABLE, decided).fit(training, training[TABLE.target.name])
    with TemporaryDirectory() as folder:
        model_files.save_model(f"{folder}/model", Model(), pipeline, training)
        return pipeline, scorer.load(Path(folder, "model"))


def shortest(call: Callable[[], object], times: int = 30) -> float:
    """The shortest of some calls, in seconds: on a machine with other work the one that was least disturbed."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def shown(seconds: float, rows: int) -> str:
    return f"{seconds * 1e6:.0f} us" if rows == 1 else f"{seconds * 1e3:.1f} ms"


if __name__ == "__main__":
    main()
