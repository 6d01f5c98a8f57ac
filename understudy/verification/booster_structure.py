"""The structure of what LightGBM and XGBoost have learned, which lies in a skops file as a text and as bytes.

Their own parsers, in C++, read it when a model is loaded. So its keys and words have to be those of a model that was
fitted here; its numbers may be any, but its trees have to lead to nodes of their own, and to columns that there are.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.scoring import boosters

LIGHTGBM, XGBOOST = "tree\nversion=", b"{L"  # what they begin with
NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
# What stands for a number in LightGBM's text: the range of a column, "none" if it has one value only, what is infinite.
OTHERS = re.compile(r"(?<![^ =])(\[#:#\]|none|-?inf|-?nan)(?![^ \n])")
IMPORTANCE = "Column_#=#"  # of a column that a tree has asked for
SIZES = ("max_feature_idx=", "num_class=", "num_tree_per_iteration=", "num_cat=", "is_linear=")
SIZES_OF_XGBOOST = {"num_class", "num_feature", "num_target", "size_leaf_vector"}
OF_INNER_NODES = ("split_feature", "decision_type", "left_child", "right_child")
OF_NODES = ["left_children", "right_children", "parents", "split_indices", "split_conditions", "split_type"]
OF_NODES += ["default_left", "base_weights", "loss_changes", "sum_hessian"]


def of_lightgbm(text: str) -> frozenset[str]:
    """The lines of a LightGBM model's text, without the numbers except those that say how large something is.

    Raises:
        Exception: It is no such text, or a tree leads nowhere.
    """
    head, trees = boosters.lightgbm(text)
    for tree in trees:
        _check_lightgbm(tree, int(head["max_feature_idx"]) + 1)
    return frozenset(map(_line, text.split("\n"))) - {IMPORTANCE}


def _line(line: str) -> str:
    if line.startswith(SIZES):
        return line
    key, equals, values = OTHERS.sub("#", NUMBER.sub("#", line)).partition("=")
    return f"{key}={' '.join(dict.fromkeys(values.split(' '))) or '#'}" if equals else key


def _check_lightgbm(tree: dict[str, str], columns: int) -> None:
    leaves = int(tree["num_leaves"])
    feature, kinds, left, right = arrays = [boosters.array(tree[key], int) for key in OF_INNER_NODES]
    lengths = {len(array) for array in arrays} | {len(boosters.array(tree["threshold"]))}
    if leaves < 1 or lengths != {leaves - 1} or len(boosters.array(tree["leaf_value"])) != leaves:
        raise ValueError("a tree has arrays of another length")
    if (kinds & boosters.IS_CATEGORICAL).any():
        raise ValueError("a tree asks for categories")
    # A leaf's number is written as its complement.
    left, right = (np.where(child < 0, leaves - 2 - child, child) for child in (left, right))
    check_tree(left, right, feature, np.arange(2 * leaves - 1) >= leaves - 1, columns)


def of_xgboost(content: bytes) -> frozenset[tuple[str, ...]]:
    """The keys, types and texts of a serialized XGBoost model, without numbers except those that say how large it is.

    Raises:
        Exception: It is none, or a tree leads nowhere.
    """
    return frozenset(_places(boosters.xgboost(content), ()))


def _places(value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        _check_xgboost(value)
        yield (*place, "items")
        for key in value:
            yield from _places(value[key], (*place, key))
    elif isinstance(value, list):
        yield (*place, "a list")
        for item in value:
            yield from _places(item, (*place, "*"))
    elif isinstance(value, str):
        yield (*place, repr(value if place[-1] in SIZES_OF_XGBOOST else NUMBER.sub("#", value)))
    else:
        yield (*place, str(value) if value is None or type(value) is bool else "numbers")


def _check_xgboost(items: dict[str, Any]) -> None:
    """Refuse trees, weights and counts of them that do not go together."""
    if "tree_param" in items:
        columns, nodes = (int(items["tree_param"][f"num_{name}"]) for name in ("feature", "nodes"))
        left, right, *_ = arrays = [items[key] for key in OF_NODES]
        if nodes < 1 or {len(array) for array in arrays} != {nodes} or items["split_type"].any():
            raise ValueError("a tree has arrays of another length, or categories")
        check_tree(left, right, items["split_indices"], left == -1, columns)
    if "trees" in items:
        count, starts = len(items["trees"]), np.array(items["iteration_indptr"])
        groups, said = items["tree_info"], items["gbtree_model_param"]["num_trees"]
        if said != str(count) or len(groups) != count or np.any(groups):
            raise ValueError("there are more or fewer trees than it says")
        if starts[0] != 0 or starts[-1] != count or (np.diff(starts) < 0).any():
            raise ValueError("its rounds are not those of its trees")
    if "weight_drop" in items and len(items["weight_drop"]) != len(items["gbtree"]["model"]["trees"]):
        raise ValueError("there are more or fewer weights than trees")


def check_tree(
    left: NDArray[Any], right: NDArray[Any], feature: NDArray[Any], is_leaf: NDArray[np.bool_], columns: int
) -> None:
    """Refuse a tree that compiled code would follow out of its memory or in a circle.

    Args:
        left: Each node's left child, shape (nodes,); only those of inner nodes count.
        right: Each node's right child.
        feature: The column that each node asks for.
        is_leaf: Which nodes are leaves.
        columns: How many columns there are.

    Raises:
        ValueError: It is such a tree.
    """
    inner = np.flatnonzero(~is_leaf)
    for children in (left[inner].astype(int), right[inner].astype(int)):
        # All libraries number a child after its parent.
        if (children <= inner).any() or (children >= len(is_leaf)).any():
            raise ValueError("the nodes of a tree lead nowhere")
    if (feature[inner] < 0).any() or (feature[inner] >= columns).any():
        raise ValueError("the nodes of a tree ask for a column that is not there")
