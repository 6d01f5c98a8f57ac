"""The structure of a skops file: all that decides what is made and called when it is loaded, without its numbers.

A skops file is a tree of objects as JSON, with arrays beside it. Two models of one family that learned from different
rows have the same structure, so whatever the structure of one has and that of the other lacks does not come from rows.
"""

import hashlib
import json
import re
from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from understudy.verification import booster_structure
from understudy.verification.booster_structure import check_tree

Place: TypeAlias = tuple[str, ...]

SCHEMA = "schema.json"
OF_EACH_OBJECT = {"__loader__", "__module__", "__class__", "__id__"}
# What is named after the address that an array had in memory.
BYTES = re.compile(r"[\da-f-]{36}\.bin")
FILES = {"NdArrayNode": re.compile(r"\d+\.npy"), "BytesNode": BYTES, "BytearrayNode": BYTES}
VERSION = re.compile(r"\d+(\.\w+)+")


def structure(file: Path | bytes, named: Collection[str] = ()) -> frozenset[Place]:
    """The places of a skops file, or of its content: for each object, the keys and types from the root to it.

    The text belongs to them if it is one. All items of a list have one place, and so have all numbers; a text that is a
    version number counts as any other. Of a type that is named all texts and bytes count as what it has learned.

    Raises:
        Exception: Skops does not write such a file.
    """
    with ZipFile(BytesIO(file) if isinstance(file, bytes) else file) as archive:
        if any(entry.compress_type != ZIP_STORED for entry in archive.infolist()):
            raise ValueError("its entries are compressed")
        names = set(archive.namelist()) - {SCHEMA}
        if not all(any(pattern.fullmatch(name) for pattern in FILES.values()) for name in names):
            raise ValueError("it has an entry of another name")
        walk = _Walk(archive, named)
        walk.enter(json.loads(archive.read(SCHEMA)), ())
    return frozenset(walk.places)


class _Walk:
    """A walk through the whole tree; `places` are those that it has seen."""

    def __init__(self, archive: ZipFile, named: Collection[str]) -> None:
        self.archive, self.named = archive, named
        self.places: set[Place] = set()
        self._is_named = False  # whether it is inside an object of a type that is named
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
        is_learned = self._is_named and isinstance(value, str) and place[-2].startswith("JsonNode ")
        self.places |= {(*place, kind) for kind in (["a text"] if is_learned else _kinds(value))}
        return self._shape(type(value).__name__, repr(value))

    def _enter_object(self, value: dict[str, Any], place: Place) -> int:
        loader, kind = value["__loader__"], f"{value['__module__']}.{value['__class__']}"
        inside = (*place, f"{loader} {kind}")
        self.places.add(inside)
        content = {key: inner for key, inner in value.items() if key not in OF_EACH_OBJECT}
        outside, self._is_named = self._is_named, self._names(loader, kind)
        if loader == "JsonNode":
            content["content"] = json.loads(content["content"])
        # An array of objects has no file.
        learned = self._enter_file(loader, content.pop("file"), inside) if loader in FILES and "file" in content else ""
        if not place:
            VERSION.fullmatch(content.pop("_skops_version"))  # raises where it is no text
        shape = self._shape(loader, kind, learned, self._enter_items(content, inside, loader == "TupleNode"))
        self._is_named = outside
        # Under an id that it knows skops takes the first object, whatever is written at the second place.
        if type(value["__id__"]) is not int or self._objects.setdefault(value["__id__"], shape) != shape:
            raise ValueError("one id stands for two objects")
        return shape

    def _names(self, loader: str, kind: str) -> bool:
        """Whether an object is of a type that is named, or a value of Python's in one."""
        return kind in self.named if loader == "ObjectNode" else self._is_named and kind.startswith("builtins.")

    def _enter_file(self, loader: str, name: str, inside: Place) -> str:
        """See what lies in an object's file; returns what only equal bytes have."""
        if not FILES[loader].fullmatch(name):
            raise ValueError("an array lies in a file of another name")
        if loader == "NdArrayNode":
            return ""
        content = self.archive.read(name)
        if loader == "BytearrayNode" and not self._is_named:
            self.places |= {(*inside, *inner) for inner in _places_of_bytes(content)}
        return hashlib.sha256(content).hexdigest()

    def _enter_items(self, value: dict[str, Any], place: Place, is_tuple: bool = False) -> int:
        self.places.add((*place, "items"))
        return self._shape("items", *((key, self.enter(value[key], (*place, key), is_tuple)) for key in value))

    def _shape(self, *parts: Any) -> int:
        return self._shapes.setdefault(parts, len(self._shapes))


def _kinds(value: Any) -> Collection[str]:
    """A text's content, or what kind of value it is."""
    if not isinstance(value, str):
        return ["a number" if type(value) in (int, float) else str(value)]
    if value.startswith(booster_structure.LIGHTGBM):
        return booster_structure.of_lightgbm(value)
    return ["a version" if VERSION.fullmatch(value) else repr(value)]


def _places_of_bytes(content: bytes) -> Collection[Place]:
    """What bytes have learned, by its structure; other bytes are what they are."""
    if content.startswith(booster_structure.XGBOOST):
        return booster_structure.of_xgboost(content)
    return [(f"bytes {hashlib.sha256(content).hexdigest()}",)]


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
                    check_tree(left, right, feature, left == -1, columns)
                elif {"left", "right"} <= fields:
                    left, right, feature = nodes["left"], nodes["right"], nodes["feature_idx"]
                    check_tree(left, right, feature, nodes["is_leaf"] == 1, columns)
