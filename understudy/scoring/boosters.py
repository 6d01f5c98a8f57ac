"""Trees of LightGBM and XGBoost, read from what these write down, without either of them.

LightGBM's form is a text: a head of `key=value`, then the trees, each as long as the head says. XGBoost's is UBJSON
(https://ubjson.org, draft 12), with the lengths as it writes them.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.schema.columns import Floats
from understudy.scoring.predictors import XGBOOST

NUMBERS = {b"U": ">u1", b"i": ">i1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
CONSTANTS = {b"T": True, b"F": False, b"Z": None}
DEEPEST = 50  # objects and lists within each other
IS_CATEGORICAL = 1  # a bit of LightGBM's decision_type
MISSING, ZERO = 12, 4  # two more bits, and their value if zero counts as missing


class NotConvertible(Exception):  # noqa: N818
    """The project does not know how to convert the Pipeline."""


@dataclass(frozen=True)
class Nodes:
    """A tree's nodes: children, split and value, each of shape (nodes,); a leaf has -1 as its left child."""

    left: NDArray[np.int_]
    right: NDArray[np.int_]
    feature: NDArray[np.int_]
    threshold: Floats
    value: Floats


def lightgbm(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The head and the trees of a LightGBM model's text: values by key, arrays with spaces between their numbers.

    Raises:
        ValueError: A tree is not where the head says, or a key comes twice.
        KeyError: The head says no lengths.
    """
    beginning, _, rest = text.partition("\n\n")
    head, trees, start, content = _items(beginning), [], 0, rest.encode()
    for number, size in enumerate(map(int, head["tree_sizes"].split())):
        tree = content[start : start + size].decode()
        if size < 1 or not tree.startswith(f"Tree={number}\n"):
            raise ValueError(f"tree {number} is not where the head says")
        trees.append(_items(tree))
        start += size
    if not content[start:].startswith(b"end of trees\n"):
        raise ValueError("there are more trees than the head says")
    return head, trees


def _items(text: str) -> dict[str, str]:
    lines = [line.partition("=") for line in text.split("\n") if line]
    items = {key: value for key, _, value in lines}
    if len(items) < len(lines):
        raise ValueError("a key comes twice")
    return items


def array(written: str, kind: type = float) -> NDArray[Any]:
    """Numbers with spaces between them."""
    return np.array(written.split(), dtype=kind)


def xgboost(content: bytes) -> dict[str, Any]:
    """A serialized XGBoost model, its arrays of numbers as numpy has them.

    Raises:
        ValueError: It is no such file.
    """
    reader = _Reader(content)
    model = reader.value(reader.take(1), 0)
    if type(model) is not dict or reader.place < len(content):
        raise ValueError("it is no object of UBJSON")
    return model


class _Reader:
    """Reads one value after another."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if not 0 <= count <= len(self.content) - self.place:
            raise ValueError("it ends too early")
        self.place += count
        return self.content[self.place - count : self.place]

    def value(self, kind: bytes, depth: int) -> Any:
        """The value that stands after the letter of its kind."""
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        if kind in CONSTANTS:
            return CONSTANTS[kind]
        if kind == b"S":
            return self._text()
        if kind == b"{":
            return self._object(depth)
        if kind == b"[":
            return self._list(depth)
        if kind not in NUMBERS:
            raise ValueError(f"there is no kind {kind!r}")
        return self._numbers(kind, 1)[0].item()

    def _numbers(self, kind: bytes, count: int) -> NDArray[Any]:
        dtype = np.dtype(NUMBERS[kind])
        return np.frombuffer(self.take(count * dtype.itemsize), dtype).astype(dtype.newbyteorder("="))

    def _length(self) -> int:
        if self.take(1) != b"L":
            raise ValueError("a length is of another kind")
        [length] = struct.unpack(">q", self.take(8))
        return int(length)

    def _text(self) -> str:
        return self.take(self._length()).decode()

    def _object(self, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while self.content[self.place : self.place + 1] != b"}":
            key = self._text()
            if key in items:
                raise ValueError("a key comes twice")
            items[key] = self.value(self.take(1), depth + 1)
        self.take(1)
        return items

    def _list(self, depth: int) -> Any:
        mark = self.take(1)
        if mark == b"$":
            kind = self.take(1)
            if kind not in NUMBERS or self.take(1) != b"#":
                raise ValueError("an array is of another kind")
            return self._numbers(kind, self._length())
        if mark != b"#":
            raise ValueError("a list has no length")
        return [self.value(self.take(1), depth + 1) for _ in range(self._length())]


def lightgbm_trees(text: str) -> tuple[list[Nodes], dict[str, Any]]:
    """The trees of a LightGBM model, and what `TreePredictor` reads of them.

    It computes in float64, and its response is what its decision function says.

    Raises:
        NotConvertible: It has others than these trees.
    """
    head, written = lightgbm(text)
    if head["objective"] != "binary sigmoid:1":
        raise NotConvertible(f"LightGBM's objective {head['objective']}")
    divisor = len(written) if "average_output" in head else 1
    return list(map(_lightgbm_nodes, written)), {"rounded": False, "divisor": divisor, "base": 0}


def _lightgbm_nodes(tree: dict[str, str]) -> Nodes:
    leaves = int(tree["num_leaves"])
    inner, kinds = leaves - 1, array(tree["decision_type"], int)
    if tree["is_linear"] != "0" or (kinds & IS_CATEGORICAL).any() or (kinds & MISSING == ZERO).any():
        raise NotConvertible("LightGBM's linear leaves, its categories, or zeros that count as missing")
    # LightGBM numbers inner nodes and leaves apart, and has the complement of a leaf's number as a child.
    left, right = (array(tree[f"{side}_child"], int) for side in ("left", "right"))
    left, right = (np.where(child < 0, inner + ~child, child) for child in (left, right))
    rest, none = np.zeros(leaves), np.full(leaves, -1)
    feature = np.concatenate([array(tree["split_feature"], int), none])
    threshold = np.concatenate([array(tree["threshold"]), rest])
    value = np.concatenate([np.zeros(inner), array(tree["leaf_value"])])
    return Nodes(np.concatenate([left, none]), np.concatenate([right, none]), feature, threshold, value)


def xgboost_trees(content: bytes, sign: float) -> tuple[list[Nodes], dict[str, Any]]:
    """The trees of an XGBoost model, and what `TreePredictor` reads of them.

    It computes in float32 and starts from its base score, in the order of its trees. The sign is -1 if its first label
    is asked for.

    Raises:
        NotConvertible: It has others than these trees.
    """
    learner = xgboost(content)["learner"]
    kinds = learner["objective"]["name"], learner["gradient_booster"]["name"]
    if kinds != ("binary:logistic", "gbtree"):
        raise NotConvertible(f"XGBoost's {' of '.join(kinds)}")
    score, whole = np.float32(learner["learner_model_param"]["base_score"].strip("[]")), np.float32(1)
    base = -np.log(whole / score - whole)
    leaf = np.array([-1])
    start = Nodes(leaf, leaf, np.array([0]), np.zeros(1), np.array([base]))
    written = learner["gradient_booster"]["model"]["trees"]
    nodes = [start, *map(_xgboost_nodes, written)]
    return nodes, {"kind": XGBOOST, "rounded": True, "divisor": 1, "base": 0, "sign": sign}


def _xgboost_nodes(tree: dict[str, Any]) -> Nodes:
    if tree["split_type"].any():
        raise NotConvertible("XGBoost's categories")
    split = tree["split_conditions"]
    # It asks whether a number is less than a split: at most the float32 before it.
    threshold = np.nextafter(split, np.float32(-np.inf))
    return Nodes(tree["left_children"], tree["right_children"], tree["split_indices"], threshold, split)
