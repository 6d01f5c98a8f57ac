"""Converts a fitted Pipeline into what `predictors.py` computes with: numbers as JSON takes them, and trees as ONNX.

It knows the Pipelines that `pipelines.build` makes around a logistic regression or around trees of scikit-learn's,
LightGBM's and XGBoost's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from understudy.schema.columns import Floats
from understudy.scoring import boosters
from understudy.scoring.boosters import Nodes, NotConvertible
from understudy.scoring.predictors import XGBOOST, Preparation

AVERAGED = (DecisionTreeClassifier, RandomForestClassifier, ExtraTreesClassifier)
OPSET, IR_VERSION = 5, 10  # the first with trees in float64, and what goes with it


def convert(learned: Pipeline, positive: str, features: Floats) -> tuple[dict[str, Any], bytes | None]:
    """What a Pipeline has learned, as JSON takes it, and its trees as an ONNX file; None if it has none.

    Args:
        learned: Two steps, the preparation and the classifier with its threshold.
        positive: Its positive label.
        features: Of training rows, shape (n, features), NaN where missing.

    Raises:
        NotConvertible: It is made of something else.
    """
    if [type(step) for _, step in learned.steps[:-1]] != [ColumnTransformer]:
        raise NotConvertible("not one ColumnTransformer before the classifier")
    prepare = _preparation(learned[0])
    classifier, link = _link(learned[-1].estimator_, positive)
    if link and type(classifier) is LogisticRegression:
        weights, intercept = link[0] * classifier.coef_[0], link[0] * classifier.intercept_[0] + link[1]
        mean = Preparation(prepare).rows(features).mean(axis=0)
        linear = {"weights": weights.tolist(), "intercept": float(intercept), "mean": mean.tolist()}
        return {"kind": "linear", "prepare": prepare, **linear}, None
    trees, response = _trees(classifier, positive, link)
    written = {"kind": "trees", "prepare": prepare, "link": link, **response}
    dtype = np.dtype(np.float32 if written["kind"] == XGBOOST else float)
    return written, _onnx(trees, classifier.n_features_in_, dtype)


def _preparation(prepare: ColumnTransformer) -> dict[str, Any]:
    """What `Preparation` reads."""
    fitted = {name: (steps, list(places)) for name, steps, places in prepare.transformers_ if len(places)}
    if fitted.keys() - {"categories", "numbers"}:
        raise NotConvertible("other columns than categories and numbers")
    fill = np.full(prepare.n_features_in_, np.nan)
    written: dict[str, Any] = {"categories": [], "numbers": [], "counts": [], "mean": [], "scale": []}
    if "categories" in fitted:
        steps, places = fitted["categories"]
        fill[places], one_hot = _after_imputing(steps, OneHotEncoder)
        written |= {"categories": places, "counts": [len(values) for values in one_hot.categories_]}
    if "numbers" in fitted:
        steps, places = fitted["numbers"]
        fill[places], scaled = _after_imputing(steps, StandardScaler)
        if not (scaled.with_mean and scaled.with_std):
            raise NotConvertible("numbers that are not scaled")
        written |= {"numbers": places, "mean": scaled.mean_.tolist(), "scale": scaled.scale_.tolist()}
    if np.isnan(fill).any():
        raise NotConvertible("a feature that is missing in every row")
    return {"fill": fill.tolist(), **written}


def _after_imputing(steps: Any, kind: type) -> tuple[Floats, Any]:
    """What an imputer fills in, and the step of a kind after it."""
    if not isinstance(steps, Pipeline) or [type(step) for _, step in steps.steps] != [SimpleImputer, kind]:
        raise NotConvertible(f"something else than an imputer and a {kind.__name__}")
    return steps[0].statistics_, steps[1]


def _link(decided: BaseEstimator, positive: str) -> tuple[BaseEstimator, list[float] | None]:
    """The classifier below the threshold, and a and b if the probability is expit(a * its response + b)."""
    classifier, link = decided, [1.0, 0.0] if hasattr(decided, "decision_function") else None
    if isinstance(decided, CalibratedClassifierCV):
        if decided.method != "sigmoid" or decided.ensemble is not False:
            raise NotConvertible("calibrated by more than one sigmoid")
        [calibrated] = decided.calibrated_classifiers_
        [sigmoid] = calibrated.calibrators
        classifier, link = calibrated.estimator, [-float(sigmoid.a_), -float(sigmoid.b_)]
    if link and classifier.classes_[1] != positive:
        link = [-link[0], -link[1]]
    return classifier, link


def _trees(classifier: BaseEstimator, positive: str, link: list[float] | None) -> tuple[list[Nodes], dict[str, Any]]:
    """The trees of a classifier, how they see the columns, and how their sum becomes its response: `TreePredictor`."""
    if type(classifier) in AVERAGED:
        # What a link takes is the response for the second class, whichever is positive.
        label = 1 if link else list(classifier.classes_).index(positive)
        trees = [each.tree_ for each in getattr(classifier, "estimators_", [classifier])]
        nodes = [_nodes(tree, tree.value[:, 0, label]) for tree in trees]
        return nodes, {"rounded": True, "divisor": len(trees), "base": 0}
    if type(classifier) is GradientBoostingClassifier:
        estimators, rate = classifier.estimators_[:, 0], classifier.learning_rate
        row = np.zeros((1, classifier.n_features_in_))
        grown = sum(rate * each.predict(row)[0] for each in estimators)
        base = float(classifier.decision_function(row)[0] - grown)
        nodes = [_nodes(each.tree_, rate * each.tree_.value[:, 0, 0]) for each in estimators]
        return nodes, {"rounded": True, "divisor": 1, "base": base}
    if type(classifier) is HistGradientBoostingClassifier:
        # There is no public way to its trees, and what it starts from cannot be computed back to the last bit.
        trees, base = [tree.nodes for [tree] in classifier._predictors], classifier._baseline_prediction[0, 0]
        if not any(tree["is_categorical"].any() for tree in trees):
            return list(map(_histogram_nodes, trees)), {"rounded": False, "divisor": 1, "base": float(base)}
    return _boosted(classifier, -1 if not link and classifier.classes_[0] == positive else 1)


def _boosted(classifier: BaseEstimator, sign: int) -> tuple[list[Nodes], dict[str, Any]]:
    """The same of another library's classifier; the sign is -1 if its first label is asked for."""
    inner = classifier.estimators_[0] if type(classifier) is OneVsRestClassifier else classifier
    name = f"{type(inner).__module__}.{type(inner).__name__}"  # neither library is imported for a look at a type
    if name == "lightgbm.sklearn.LGBMClassifier":
        return boosters.lightgbm_trees(inner.booster_.model_to_string())
    if name == "xgboost.sklearn.XGBClassifier":
        return boosters.xgboost_trees(bytes(inner.get_booster().save_raw("ubj")), sign)
    raise NotConvertible(f"a {type(classifier).__name__}")


def _nodes(tree: Any, value: Floats) -> Nodes:
    return Nodes(tree.children_left, tree.children_right, tree.feature, tree.threshold, value)


def _histogram_nodes(nodes: NDArray[Any]) -> Nodes:
    left = np.where(nodes["is_leaf"] == 1, -1, nodes["left"].astype(int))
    return Nodes(left, nodes["right"].astype(int), nodes["feature_idx"], nodes["num_threshold"], nodes["value"])


def _onnx(trees: Sequence[Nodes], columns: int, dtype: np.dtype[Any]) -> bytes:
    """Trees whose values are added up in a type, as an ONNX model from `columns`, shape (n, columns), to (n, 1)."""
    import onnx  # takes 0.1 s that --help need not wait for
    from onnx import helper, numpy_helper

    nodes, roots = _joined(trees)
    is_inner = nodes.left >= 0
    # ONNX numbers inner nodes and leaves apart, each through all trees.
    number = np.where(is_inner, np.cumsum(is_inner), np.cumsum(~is_inner)) - 1
    left, right = nodes.left[is_inner], nodes.right[is_inner]
    ensemble = helper.make_node(
        "TreeEnsemble",
        ["columns"],
        ["sum"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,  # SUM
        post_transform=0,  # NONE
        tree_roots=number[roots].tolist(),
        nodes_featureids=nodes.feature[is_inner].astype(int).tolist(),
        nodes_splits=numpy_helper.from_array(nodes.threshold[is_inner].astype(dtype)),
        nodes_modes=numpy_helper.from_array(np.zeros(len(left), dtype=np.uint8)),  # BRANCH_LEQ
        nodes_truenodeids=number[left].tolist(),
        nodes_falsenodeids=number[right].tolist(),
        nodes_trueleafs=(~is_inner[left]).astype(int).tolist(),
        nodes_falseleafs=(~is_inner[right]).astype(int).tolist(),
        leaf_targetids=[0] * int((~is_inner).sum()),
        leaf_weights=numpy_helper.from_array(nodes.value[~is_inner].astype(dtype)),
    )
    shapes, kind = [("columns", columns), ("sum", 1)], helper.np_dtype_to_tensor_dtype(dtype)
    ends = [helper.make_tensor_value_info(name, kind, [None, width]) for name, width in shapes]
    graph = helper.make_graph([ensemble], "trees", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _joined(trees: Sequence[Nodes]) -> tuple[Nodes, NDArray[np.int_]]:
    """All trees' nodes behind each other, and the places of the roots."""
    grown = [tree if len(tree.left) > 1 else _grown(tree) for tree in trees]
    roots = np.cumsum([0, *(len(tree.left) for tree in grown)])[:-1]
    left = [np.where(tree.left < 0, -1, tree.left + root) for tree, root in zip(grown, roots, strict=True)]
    right = [tree.right + root for tree, root in zip(grown, roots, strict=True)]
    rest = ([getattr(tree, field) for tree in grown] for field in ("feature", "threshold", "value"))
    return Nodes(*map(np.concatenate, (left, right, *rest))), roots


def _grown(leaf: Nodes) -> Nodes:
    """A tree of one leaf below an inner node, since ONNX asks for one."""
    child = np.array([1, -1])
    return Nodes(child, child, np.zeros(2, dtype=int), np.zeros(2), np.repeat(leaf.value, 2))
