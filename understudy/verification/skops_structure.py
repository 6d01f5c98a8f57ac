"""The structure of a skops file: all that decides what is made and called when it is loaded, without its numbers.

A skops file is a tree of objects as JSON, with arrays beside it. Two models of one family that learned from different
rows have the same structure, so whatever the structure of one has and that of the other lacks does not come from rows.
"""

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from numpy.typing import NDArray

Place: TypeAlias = tuple[str, ...]
Numbers: TypeAlias = NDArray[Any]

SCHEMA = "schema.json"
OF_EACH_OBJECT = {"__loader__", "__module__", "__class__", "__id__"}
# What is named after the address that an array had in memory.
FILES = {"NdArrayNode": re.compile(r"\d+\.npy"), "BytesNode": re.compile(r"[\da-f-]{36}\.bin")}
VERSION = re.compile(r"\d+(\.\w+)+")


def structure(file: Path | bytes) -> frozenset[Place]:
    """The places of a skops file, or of its content: for each object, the keys and types from the root to it.

    The text belongs to them if it is one. All items of a list have one place, and so have all numbers; a text that is a
    version number counts as any other.

    Raises:
        Exception: Skops does not write such a file.
    """
    with ZipFile(BytesIO(file) if isinstance(file, bytes) else file) as archive:
        if any(entry.compress_type != ZIP_STORED for entry in archive.infolist()):
            raise ValueError("its entries are compressed")
        names = set(archive.namelist()) - {SCHEMA}
        if not all(any(pattern.fullmatch(name) for pattern in FILES.values()) for name in names):
            raise ValueError("it has an entry of another name")
        walk = _Walk()
        walk.enter(json.loads(archive.read(SCHEMA)), ())
    return frozenset(walk.places)


class _Walk:
    """A walk through the whole tree; `places` are those that it has seen."""

    def __init__(self) -> None:
        self.places: set[Place] = set()
        self._shapes: dict[tuple[Any, ...], int] = {}
        self._objects: dict[Any, int] = {}

    def enter(self, value: Any, place: Place, is_tuple: bool = False) -> int:
        """Walk through a value; returns a number that only an equal value has."""
        if isinstance(value, list):
            self.places.add((*place, "a list"))  # which may be empty
            keys = map(str, range(len(value))) if is_tuple else ["*"] * len(value)
            return self._shape("list", *map(self.enter, value, ((*place, key) for key in keys)))
        if isinstance(value, dict):
            return self._enter_object(value, place) if "__loader__" in value else self._enter_items(value, place)
        self.places.add((*place, _kind(value)))
        return self._shape(type(value).__name__, repr(value))

    def _enter_object(self, value: dict[str, Any], place: Place) -> int:
        loader, kind = value["__loader__"], f"{value['__module__']}.{value['__class__']}"
        inside = (*place, f"{loader} {kind}")
        self.places.add(inside)
        content = {key: inner for key, inner in value.items() if key not in OF_EACH_OBJECT}
        if loader == "JsonNode":
            content["content"] = json.loads(content["content"])
        if loader in FILES and not FILES[loader].fullmatch(content.pop("file", "0.npy")):
            raise ValueError("an array lies in a file of another name")
        if not place:
            VERSION.fullmatch(content.pop("_skops_version"))  # raises where it is no text
        shape = self._shape(loader, kind, self._enter_items(content, inside, loader == "TupleNode"))
        # Under an id that it knows skops takes the first object, whatever is written at the second place.
        if type(value["__id__"]) is not int or self._objects.setdefault(value["__id__"], shape) != shape:
            raise ValueError("one id stands for two objects")
        return shape

    def _enter_items(self, value: dict[str, Any], place: Place, is_tuple: bool = False) -> int:
        self.places.add((*place, "items"))
        return self._shape("items", *((key, self.enter(value[key], (*place, key), is_tuple)) for key in value))

    def _shape(self, *parts: Any) -> int:
        return self._shapes.setdefault(parts, len(self._shapes))


def _kind(value: Any) -> str:
    """A text's content, or what kind of value it is."""
    if isinstance(value, str):
        return "a version" if VERSION.fullmatch(value) else repr(value)
    return "a number" if type(value) in (int, float) else str(value)


def check_trees(file: Path, columns: int) -> None:
    """Refuse a skops file with trees that scikit-learn's compiled code would follow out of its memory or in a circle.

    Raises:
        Exception: There is such a tree, or an array that numpy does not write.
    """
    with ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                nodes = np.load(BytesIO(archive.read(name)), allow_pickle=False)
                fields = {*(nodes.dtype.names or ())}
                if {"left_child", "right_child"} <= fields:
                    left, right, feature = nodes["left_child"], nodes["right_child"], nodes["feature"]
                    _check_tree(left, right, feature, left == -1, columns)
                elif {"left", "right"} <= fields:
                    left, right, feature = nodes["left"], nodes["right"], nodes["feature_idx"]
                    _check_tree(left, right, feature, nodes["is_leaf"] == 1, columns)


def _check_tree(left: Numbers, right: Numbers, feature: Numbers, is_leaf: NDArray[np.bool_], columns: int) -> None:
    inner = np.flatnonzero(~is_leaf)
    for children in (left[inner].astype(int), right[inner].astype(int)):
        # Both kinds of trees number a child after its parent.
        if (children <= inner).any() or (children >= len(left)).any():
            raise ValueError("the nodes of a tree lead nowhere")
    if (feature[inner] < 0).any() or (feature[inner] >= columns).any():
        raise ValueError("the nodes of a tree ask for a column that is not there")
