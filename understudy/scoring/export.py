"""A fitted Pipeline as arrays, for `compiled.py` to compute with: JSON, and trees as ONNX.

What is known here is what `models.pipeline` makes, around a logistic regression or scikit-learn's trees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
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
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from understudy.scoring.compiled import Floats, Preparation

AVERAGED = (DecisionTreeClassifier, RandomForestClassifier, ExtraTreesClassifier)
OPSET, IR_VERSION = 5, 10  # the first with trees in float64, and what goes with it


class NotConvertible(Exception):  # noqa: N818
    """A Pipeline of which this module does not know the arrays."""


@dataclass(frozen=True)
class Nodes:
    """A tree's nodes: children, split and value, each of shape (nodes,); a leaf has no left child, which is -1."""

    left: NDArray[np.int_]
    right: NDArray[np.int_]
    feature: NDArray[np.int_]
    threshold: Floats
    value: Floats


def converted(learned: Pipeline, positive: str, features: Floats) -> tuple[dict[str, Any], bytes]:
    """What a Pipeline has learned, as JSON takes it, and its trees as ONNX; the latter empty if it has none.

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
        mean = Preparation(prepare)(features).mean(axis=0)
        linear = {"weights": weights.tolist(), "intercept": float(intercept), "mean": mean.tolist()}
        return {"kind": "linear", "prepare": prepare, **linear}, b""
    trees, rest = _trees(classifier, positive, link)
    return {"kind": "trees", "prepare": prepare, "link": link, **rest}, _onnx(trees, classifier.n_features_in_)


def _preparation(prepare: ColumnTransformer) -> dict[str, Any]:
    """What `compiled.Preparation` reads."""
    fitted = {name: (steps, list(places)) for name, steps, places in prepare.transformers_ if len(places)}
    if fitted.keys() - {"categories", "numbers"}:
        raise NotConvertible("other columns than categories and numbers")
    fill = np.full(prepare.n_features_in_, np.nan)
    found: dict[str, Any] = {"categories": [], "numbers": [], "counts": [], "mean": [], "scale": []}
    if "categories" in fitted:
        steps, places = fitted["categories"]
        fill[places], one_hot = _after_imputing(steps, OneHotEncoder)
        found |= {"categories": places, "counts": [len(values) for values in one_hot.categories_]}
    if "numbers" in fitted:
        steps, places = fitted["numbers"]
        fill[places], scaled = _after_imputing(steps, StandardScaler)
        if not (scaled.with_mean and scaled.with_std):
            raise NotConvertible("numbers that are not scaled")
        found |= {"numbers": places, "mean": scaled.mean_.tolist(), "scale": scaled.scale_.tolist()}
    if np.isnan(fill).any():
        raise NotConvertible("a feature that is missing in every row")
    return {"fill": fill.tolist(), **found}


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
    """The trees of a classifier, and how their sum becomes its response."""
    if type(classifier) in AVERAGED:
        # What a link takes is the response for the second class, whichever is positive.
        label = 1 if link else list(classifier.classes_).index(positive)
        trees = [each.tree_ for each in getattr(classifier, "estimators_", [classifier])]
        return [_own(tree, tree.value[:, 0, label]) for tree in trees], _sum(True, divisor=len(trees))
    if type(classifier) is GradientBoostingClassifier:
        trees, rate = [each.tree_ for each in classifier.estimators_[:, 0]], classifier.learning_rate
        start = np.zeros((1, classifier.n_features_in_))
        grown = sum(rate * each.predict(start)[0] for each in classifier.estimators_[:, 0])
        base = float(classifier.decision_function(start)[0] - grown)
        return [_own(tree, rate * tree.value[:, 0, 0]) for tree in trees], _sum(True, base=base)
    if type(classifier) is HistGradientBoostingClassifier:
        nodes = [tree.nodes for [tree] in classifier._predictors]
        if not any(each["is_categorical"].any() for each in nodes):
            return [_histogram(each) for each in nodes], _sum(False, base=float(classifier._baseline_prediction[0, 0]))
    raise NotConvertible(f"a {type(classifier).__name__}")


def _sum(rounded: bool, divisor: int = 1, base: float = 0) -> dict[str, Any]:
    """How trees see the columns, and what becomes of their sum; see `compiled.Trees`."""
    return {"rounded": rounded, "divisor": divisor, "base": base}


def _own(tree: Any, value: Floats) -> Nodes:
    return Nodes(tree.children_left, tree.children_right, tree.feature, tree.threshold, value)


def _histogram(nodes: NDArray[Any]) -> Nodes:
    left = np.where(nodes["is_leaf"] == 1, -1, nodes["left"].astype(int))
    return Nodes(left, nodes["right"].astype(int), nodes["feature_idx"], nodes["num_threshold"], nodes["value"])


def _onnx(trees: Sequence[Nodes], columns: int) -> bytes:
    """Trees whose values are added up, in float64, as an ONNX model from `columns`, shape (n, columns), to (n, 1)."""
    import onnx  # takes 0.1 s that --help need not wait for
    from onnx import TensorProto, helper, numpy_helper

    trees = [_grown(tree) for tree in trees]
    inner = [tree.left >= 0 for tree in trees]
    nodes = list(accumulate((int(each.sum()) for each in inner), initial=0))
    leaves = list(accumulate((int((~each).sum()) for each in inner), initial=0))
    # ONNX numbers the inner nodes and the leaves of all trees apart.
    place = [
        np.where(each, np.cumsum(each) - 1 + node, np.cumsum(~each) - 1 + leaf)
        for each, node, leaf in zip(inner, nodes, leaves, strict=False)
    ]

    def of_nodes(field: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, field)[each] for tree, each in zip(trees, inner, strict=True)])

    def children(side: str, found: Sequence[NDArray[Any]]) -> list[int]:
        parts = [each[getattr(tree, side)[own]] for tree, own, each in zip(trees, inner, found, strict=True)]
        return list(map(int, np.concatenate(parts)))

    is_leaf = [~each for each in inner]
    values = np.concatenate([tree.value[each] for tree, each in zip(trees, is_leaf, strict=True)])
    node = helper.make_node(
        "TreeEnsemble",
        ["columns"],
        ["sum"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,  # SUM
        post_transform=0,  # NONE
        tree_roots=nodes[:-1],
        nodes_featureids=of_nodes("feature").astype(int).tolist(),
        nodes_splits=numpy_helper.from_array(of_nodes("threshold").astype(float)),
        nodes_modes=numpy_helper.from_array(np.zeros(nodes[-1], dtype=np.uint8)),  # BRANCH_LEQ
        nodes_truenodeids=children("left", place),
        nodes_falsenodeids=children("right", place),
        nodes_trueleafs=children("left", is_leaf),
        nodes_falseleafs=children("right", is_leaf),
        leaf_targetids=[0] * leaves[-1],
        leaf_weights=numpy_helper.from_array(values.astype(float)),
    )
    shapes = [("columns", columns), ("sum", 1)]
    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, width]) for name, width in shapes]
    graph = helper.make_graph([node], "trees", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _grown(tree: Nodes) -> Nodes:
    """The same tree with at least one inner node, which ONNX asks for."""
    if len(tree.left) > 1:
        return tree
    return Nodes(np.array([1, -1]), np.array([1, -1]), np.array([0, -2]), np.zeros(2), np.repeat(tree.value, 2))
