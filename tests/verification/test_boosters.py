"""Models of LightGBM, XGBoost and other libraries: who trains them can register them, and nobody plants in them."""

import ast
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from mlflow import MlflowClient
from mlflow.models import Model
from sklearn.base import BaseEstimator, ClassifierMixin
from xgboost import XGBClassifier

import register
import train
from bench.planted import edited
from tests.conftest import SAMPLE, Ended, is_refusal
from understudy.errors import UserError
from understudy.families import FAMILIES, Family
from understudy.reading import table_rows
from understudy.scoring import model_files, pipelines
from understudy.table import TABLE
from understudy.tracking import family_runs
from understudy.training import search
from understudy.verification import inspection

Call = Callable[..., Ended]
BOOSTERS = {
    "LightGBM": Family(LGBMClassifier(verbose=-1), quick={"n_estimators": [5, 10]}, book={}),
    "XGBoost": Family(XGBClassifier(), quick={"n_estimators": [5, 10], "max_depth": [3]}, book={}),
    "dart": Family(LGBMClassifier(boosting_type="dart", n_estimators=5, verbose=-1), quick={}, book={}),
    "XGBoost's dart": Family(XGBClassifier(booster="dart", n_estimators=5), quick={}, book={}),
    "gblinear": Family(XGBClassifier(booster="gblinear", n_estimators=5), quick={}, book={}),
    # Most of its columns have one value, and most of its trees one leaf.
    "stumps": Family(LGBMClassifier(min_child_samples=150, n_estimators=5, verbose=-1), quick={}, book={}),
}


@pytest.fixture(autouse=True)
def _families(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, family in BOOSTERS.items():
        monkeypatch.setitem(FAMILIES, name, family)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a model of a family, trained once."""
    folder, (training, _) = tmp_path_factory.mktemp("saved"), TABLE.split(table_rows.read(TABLE, SAMPLE))

    def save(name: str) -> Path:
        if not (folder / name).exists():
            searched = search.search(TABLE, training, BOOSTERS[name], BOOSTERS[name].quick, seed=3, jobs=1)
            model_files.save_model(str(folder / name), Model(), searched.pipeline, training)
        return folder / name

    return save


def inspect(folder: Path, family: str) -> Any:
    return inspection.load(folder, family, TABLE.split(table_rows.read(TABLE, SAMPLE))[1], "the model")


@pytest.mark.parametrize("name", list(BOOSTERS))
def test_what_a_booster_has_learned_is_let_in_by_its_family(name: str, saved: Callable[[str], Path]) -> None:
    rows = table_rows.read(TABLE, SAMPLE)
    assert inspect(saved(name), name).predict_proba(rows).shape == (614, 2)
    package = "lightgbm" if type(BOOSTERS[name].classifier) is LGBMClassifier else "xgboost"
    assert package in (saved(name) / "requirements.txt").read_text()
    with pytest.raises(UserError, match="the model is not what training writes"):
        inspect(saved(name), "XGBoost" if package == "lightgbm" else "LightGBM")


def test_training_again_gives_the_same_to_the_last_bit() -> None:
    training, _ = TABLE.split(table_rows.read(TABLE, SAMPLE))
    for name in ("LightGBM", "XGBoost"):
        grid = BOOSTERS[name].quick
        made = [search.search(TABLE, training, BOOSTERS[name], grid, seed=3, jobs=jobs) for jobs in (1, 2)]
        assert pipelines.digest(made[0].pipeline) == pipelines.digest(made[1].pipeline)


def in_text(old: str, new: str) -> Callable[[Path], None]:
    """LightGBM's text with something else in it."""

    def edit(node: Any) -> None:
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            if isinstance(value, dict) and str(value.get("content", "")).startswith('"tree\\nversion='):
                text = json.loads(value["content"])
                assert old in text
                value["content"] = json.dumps(text.replace(old, new, 1))
            edit(value)

    return lambda folder: edited(folder, edit)


def in_tree(old: str, new: str) -> Callable[[Path], None]:
    """The first tree with something else in it, and with its new length in the head."""

    def plant(folder: Path) -> None:
        [size] = re.findall(r"tree_sizes=(\d+)", (folder / "model.skops").read_bytes().decode("latin-1"))[:1]
        in_text(f"tree_sizes={size}", f"tree_sizes={int(size) + len(new) - len(old)}")(folder)
        in_text(old, new)(folder)

    return plant


def in_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """XGBoost's bytes with something else in them."""

    def plant(folder: Path) -> None:
        with zipfile.ZipFile(folder / "model.skops") as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(folder / "model.skops", "w") as archive:
            for name, content in entries.items():
                changed = change(content) if name.endswith(".bin") else content
                assert changed != content or not name.endswith(".bin")
                archive.writestr(name, changed)

    return plant


def first_of(key: str, value: int, size: int = 4) -> Callable[[Path], None]:
    """The first number of an array of a tree is another one."""

    def change(content: bytes) -> bytes:
        start = content.index(key.encode() + b"[$") + len(key) + 5 + 8
        return content[:start] + value.to_bytes(size, "big") + content[start + size :]

    return in_bytes(change)


def written(old: bytes, new: bytes) -> Callable[[Path], None]:
    return in_bytes(lambda content: content.replace(old, new))


COLUMNS = b"num_featureSL" + bytes(7) + b"\x02"
NOT_OF_THE_FAMILY = "has something that its family has not: "
NOWHERE, NO_COLUMN, LENGTH = "the nodes of a tree lead nowhere", "ask for a column that is not", "of another length"
PLANTED = {
    "a child that is not there": ("LightGBM", in_tree("\nleft_child=", "\nleft_child=99"), NOWHERE),
    "a column that is not there": ("LightGBM", in_tree("\nsplit_feature=", "\nsplit_feature=99"), NO_COLUMN),
    "fewer thresholds": ("LightGBM", in_tree("\nthreshold=", "\nthreshold=1\nleaf_depth="), LENGTH),
    "more leaves": ("LightGBM", in_tree("\nnum_leaves=", "\nnum_leaves=9"), LENGTH),
    "categories": ("LightGBM", in_text("\ndecision_type=2", "\ndecision_type=1"), "a tree asks for categories"),
    "a tree elsewhere": ("LightGBM", in_text("\nTree=1\n", "\nTree=7\n"), "is not where the head says"),
    "more columns": ("LightGBM", in_text("\nmax_feature_idx=", "\nmax_feature_idx=1"), NOT_OF_THE_FAMILY),
    "a file to read": ("LightGBM", in_text("[data: ]", "[data: /etc/passwd]"), NOT_OF_THE_FAMILY),
    "another objective": ("LightGBM", in_text("\nobjective=binary", "\nobjective=custom"), NOT_OF_THE_FAMILY),
    "digits of another script": ("LightGBM", in_text("[num_threads: 1]", "[num_threads: \u0661]"), NOT_OF_THE_FAMILY),
    "XGBoost's child that is not there": ("XGBoost", first_of("left_children", 999), NOWHERE),
    "a circle": ("XGBoost", first_of("right_children", 0), NOWHERE),
    "XGBoost's column that is not there": ("XGBoost", first_of("split_indices", 999), NO_COLUMN),
    "XGBoost's categories": ("XGBoost", first_of("split_type", 1, size=1), LENGTH),
    "another device": ("XGBoost", written(b"\x03cpu", b"\x03gpu"), NOT_OF_THE_FAMILY),
    "XGBoost's other objective": ("XGBoost", written(b"binary:logistic", b"binary:logitraw"), NOT_OF_THE_FAMILY),
    "XGBoost's columns": ("XGBoost", written(COLUMNS + b"20", COLUMNS + b"90"), NOT_OF_THE_FAMILY),
    "a length": ("XGBoost", written(b"left_children[$l#L\x00", b"left_children[$l#L\x7f"), "it ends too early"),
    "an end": ("XGBoost", in_bytes(lambda content: content + b"Z"), "it is no object of UBJSON"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(PLANTED))
def test_what_is_planted_in_a_booster_is_named(what: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    family, plant, problem = PLANTED[what]
    folder = Path(shutil.copytree(saved(family), tmp_path / "model"))
    plant(folder)
    with pytest.raises(UserError) as refused:
        inspect(folder, family)
    assert problem in refused.value.problem


class Notes(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of a library that the project does not know: what it has learned is a text."""

    def fit(self, x: Any, y: Any) -> "Notes":
        self.classes_, self.notes_ = np.unique(y), f"of {len(x)} rows {(y == np.unique(y)[1]).sum()} are positive"
        return self

    def predict_proba(self, x: Any) -> Any:
        _, rows, *_, positive, _, _ = self.notes_.split()
        share = int(positive) / int(rows)
        return np.tile([1 - share, share], (len(x), 1))

    def predict(self, x: Any) -> Any:
        return self.classes_[self.predict_proba(x).argmax(axis=1)]


class Keys(Notes):
    """Another one, which learns keys of a dict."""

    def fit(self, x: Any, y: Any) -> "Keys":
        super().fit(x, y)
        self.seen_ = {f"{len(x)} rows": 1}
        return self


def test_a_type_that_nobody_has_named_is_refused_when_training_saves(
    store: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, kind = MlflowClient(store), f"{__name__}.Notes"
    monkeypatch.setitem(FAMILIES, "Notes", Family(Notes(), quick={}, book={}))
    refused = call(train, "--models", "Notes")
    assert is_refusal(refused)
    assert f"error: Notes is made of types that its family does not name: {kind}\n" in refused.err
    assert client.search_logged_models(["1"]) == []
    types = refused.err.partition("types=")[2].strip()
    named = Family(Notes(), quick={}, book={}, types=ast.literal_eval(types))  # as the fix says
    monkeypatch.setitem(FAMILIES, "Notes", named)
    trained = call(train, "--models", "Notes")
    assert trained.code == 0
    assert re.search(r"^Notes: served by its own library, about \d+\.\d ms a row$", trained.out, re.MULTILINE)
    assert "version 1 registered: Notes" in call(register).out
    monkeypatch.setitem(FAMILIES, "Notes", Family(Notes(), quick={}, book={}))
    run = family_runs.families(client, family_runs.get_batch(client, TABLE))[0]
    assert "not what training writes" in call(register, "--name", "Another", "--run", run.info.run_id).err


def test_a_model_that_could_not_be_told_from_a_planted_one_is_not_saved(
    store: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "Keys", Family(Keys(), quick={}, book={}, types=[f"{__name__}.Keys"]))
    refused = call(train, "--models", "Keys")
    assert is_refusal(refused)
    assert "error: Keys is made of something that follows from its rows: steps.1.estimator_.seen_ is " in refused.err
