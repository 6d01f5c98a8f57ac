"""Whether a model's folder is what this project's training writes; the one door to models that nobody vouches for.

Whoever may write to a run decides what lies in its files, and what is loaded runs as whoever loads it. So nothing is
loaded before all of the folder has been compared with what this checkout writes for the same table and family: a model
of that make is fitted here on the run's own rows, and may differ in what it has learned and in nothing else.
"""

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from mlflow.models import Model
from skops import io as skops

from understudy.errors import UserError, is_known, visible
from understudy.families import FAMILIES
from understudy.schema.columns import Category, Number
from understudy.schema.declaration import Table
from understudy.scoring import flavor, pipelines, scorer, scorer_files
from understudy.scoring.pipelines import FOLDS
from understudy.scoring.predictors import TREES
from understudy.table import TABLE
from understudy.verification import reference, repository
from understudy.verification.skeleton import Place, check_trees, skeleton

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

MLMODEL, SKOPS, CODE = "MLmodel", "model.skops", "code"
TEXTS = ("conda.yaml", "python_env.yaml", "requirements.txt")
FILES = {MLMODEL, SKOPS, scorer.FILE, *TEXTS}
# What MLflow writes into MLmodel about one model; the rest is the same for all models of a make.
OF_ONE_MODEL = {"artifact_path", "model_id", "model_size_bytes", "model_uuid", "run_id", "utc_time_created"}
TYPES = "skops_trusted_types"
LARGEST = {MLMODEL: 100_000, scorer.FILE: 50_000_000, **dict.fromkeys(TEXTS, 100_000)}  # bytes
WIDEST = 5_000  # columns that a table may become
SHOWN = 200  # characters of what is foreign
ROWS = 500  # of each class, to fit a model of the same make on
VERSION = re.compile(r"(?<=python: )[0-9.]+$|(==|<=|=)[0-9]+([.][0-9a-z]+)*$")
RUNTIME = "onnxruntime"


class Foreign(Exception):  # noqa: N818
    """Something that training does not write; the text says what and where."""


@dataclass(frozen=True)
class Reference:
    """What training writes, as far as it does not depend on rows.

    Args:
        mlmodel: The content of MLmodel.
        texts: The content of the files that name packages, by name.
        code: The modules that go with a model, by their paths in the package.
        places: The skeletons of all makes of the family.
    """

    mlmodel: Mapping[str, Any]
    texts: Mapping[str, str]
    code: Mapping[str, bytes]
    places: frozenset[Place]


def load(folder: Path, family: str, rows: pd.DataFrame, called: str) -> "Pipeline":
    """The fitted Pipeline of a saved model, once all of the model's folder has been inspected.

    Args:
        folder: A private copy of the model's folder.
        family: The family's name.
        rows: Rows of its table with their target, to fit a model of the same make on.
        called: What people call the model.

    Raises:
        UserError: There is no such family here, or something in the folder is not what training writes.
    """
    if family not in FAMILIES:
        fix = "add it to understudy/families.py as it was, or train again: python train.py"
        raise UserError(f"{called} is of the family {family}, which this project does not have", fix)
    try:
        with _naming(scorer.FILE):
            document = _document(folder)
            table = Table.of(document["table"])
            _check_table(table)
        _check_files(folder)
        reference = _reference(table, family, rows)
        _check_texts(folder, reference.texts)
        _check_code(folder, reference.code)
        with _naming(SKOPS):
            _check_skops(folder, table, reference.places)
        with _naming(MLMODEL):
            _check_mlmodel(folder, reference.mlmodel)
        with _naming(SKOPS):
            pipeline = _fitted(folder, table)
        with _naming(scorer.FILE):
            _check_derived(folder, document, pipeline, table, table.encode(rows))
    except Foreign as foreign:
        problem = f"{called} is not what training writes, and could run anything: {foreign}"
        raise UserError(problem, "train again with this project: python train.py") from None
    return pipeline


@contextmanager
def _naming(file: str) -> Iterator[None]:
    """Say of a file that it is foreign, whatever goes wrong with what is in it."""
    try:
        yield
    except Foreign:
        raise
    except Exception as error:
        if is_known(error):  # of the disk
            raise
        raise Foreign(f"{file} ({type(error).__name__}: {str(error)[:SHOWN]})") from error


def _document(folder: Path) -> dict[str, Any]:
    document = json.loads(_text(folder, scorer.FILE))
    if type(document) is not dict:
        raise TypeError("it holds no object")
    return document


def _text(folder: Path, name: str) -> str:
    if (folder / name).stat().st_size > LARGEST[name]:
        raise Foreign(f"{name} has more than {LARGEST[name]} bytes")
    return (folder / name).read_text()


def _check_table(table: Table) -> None:
    if (table.name, table.identifier, table.target) != (TABLE.name, TABLE.identifier, TABLE.target):
        raise Foreign(f"{scorer.FILE} is of another table than {TABLE.name}, or of another target")
    if _width(table) > WIDEST:
        raise Foreign(f"the table in {scorer.FILE} becomes more than {WIDEST} columns")


def _width(table: Table) -> int:
    """How many columns a classifier gets."""
    return sum(len(column.values) if isinstance(column, Category) else 1 for column in table.encoded)


def _check_files(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix(): path.is_file() for path in folder.rglob("*") if not path.is_dir()}
    code = {name for name in names if re.fullmatch(rf"{CODE}/{repository.PACKAGE.name}/(\w+/)?\w+\.py", name)}
    if others := [name for name in names if name not in {*code, *FILES, TREES} or not names[name]]:
        raise Foreign(f"{_shown(min(others))} is none of its files")
    if lacking := FILES - names.keys():
        raise Foreign(f"{min(lacking)} is missing")


def _reference(table: Table, family: str, rows: pd.DataFrame) -> Reference:
    with (
        _naming(f"the table in {scorer.FILE}"),
        warnings.catch_warnings(action="ignore"),  # of a training that is none
        TemporaryDirectory(prefix="understudy-") as name,
    ):
        some, places = _some(table, rows), set[Place]()
        for pipeline in reference.shapes(table, some, FAMILIES[family]):
            places |= skeleton(skops.dumps(pipeline))
        folder = Path(name, "model")
        flavor.save_model(str(folder), Model(), pipeline, some)
        return Reference(
            mlmodel=yaml.safe_load((folder / MLMODEL).read_text()),
            texts={text: (folder / text).read_text() for text in TEXTS},
            code=_modules(folder),
            places=frozenset(places),
        )


def _some(table: Table, rows: pd.DataFrame) -> pd.DataFrame:
    """At most `ROWS` of each class, and at least `FOLDS`, some of them repeated if there are fewer.

    A column that is missing in all of them has a value in one: in the rows that a model learned from there may be some.
    """
    classes = [rows[rows[table.target.name] == label][:ROWS] for label in (table.negative, table.positive)]
    if any(each.empty for each in classes):
        raise Foreign("the rows that were kept with its batch are all of one class")
    enough = pd.concat([pd.concat([each] * -(-FOLDS // len(each))) for each in classes], ignore_index=True)
    for column in table.columns:
        if enough[column.name].isna().all():
            value = column.values[0] if isinstance(column, Category) else column.high
            enough[column.name] = enough[column.name].astype(object).where(enough.index > 0, value).infer_objects()
    return enough


def _check_mlmodel(folder: Path, reference: Mapping[str, Any]) -> None:
    text = _text(folder, MLMODEL)
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
        raise Foreign(f"{MLMODEL} refers to itself")
    written = yaml.safe_load(text)
    types = written["flavors"]["sklearn"].pop(TYPES, [])
    if types != skops.get_untrusted_types(file=folder / SKOPS):
        raise Foreign(f"{MLMODEL} trusts other types than {SKOPS} has")
    known = {key: value for key, value in reference.items() if key not in OF_ONE_MODEL}
    known["flavors"]["sklearn"].pop(TYPES, None)
    _compare({key: value for key, value in written.items() if key not in OF_ONE_MODEL}, known, MLMODEL)


def _compare(written: object, known: object, place: str) -> None:
    """Refuse whatever differs in more than the number of a version."""
    if isinstance(written, dict) and isinstance(known, dict):
        for key in written.keys() ^ known.keys():
            raise Foreign(f"{place}: {_shown(str(key))} is {'not known' if key in written else 'missing'}")
        for key in known:
            _compare(written[key], known[key], f"{place}: {key}" if ":" not in place else f"{place}.{key}")
    elif written != known and not (place.endswith("_version") and re.fullmatch(r"\d+(\.\w+)+", str(written))):
        raise Foreign(f"{place} is {_shown(repr(written))} and not {known!r}")


def _check_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """The packages that are named are the same, in whatever versions."""
    has_trees = (folder / TREES).exists()
    for name, known in texts.items():
        with _naming(name):
            lines = [[VERSION.sub("", line) for line in text.splitlines()] for text in (_text(folder, name), known)]
            written, wanted = ([line for line in each if has_trees or RUNTIME not in line] for each in lines)
            if written != wanted:
                raise Foreign(f"{name} names other packages")


def _check_code(folder: Path, code: Mapping[str, bytes]) -> None:
    others = [module for module, content in _modules(folder).items() if content != code.get(module)]
    if others and not repository.is_past(folder / CODE / repository.PACKAGE.name, others):
        name = f"{CODE}/{repository.PACKAGE.name}/{min(others)}"
        raise Foreign(f"{name} is not the module of this checkout or of a commit before it")


def _modules(folder: Path) -> dict[str, bytes]:
    """The modules that go with a model, by their paths in the package."""
    package = folder / CODE / repository.PACKAGE.name
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in package.rglob("*.py")}


def _check_skops(folder: Path, table: Table, places: frozenset[Place]) -> None:
    """Whether loading and using the Pipeline would make and call nothing but what training puts there."""
    if others := skeleton(folder / SKOPS) - places:
        first = min(others, key=lambda place: (len(place), place))
        raise Foreign(f"{SKOPS} has something that its family has not: {_named(first)}")
    check_trees(folder / SKOPS, _width(table))


def _fitted(folder: Path, table: Table) -> "Pipeline":
    file = folder / SKOPS
    pipeline: Pipeline = skops.load(file, trusted=skops.get_untrusted_types(file=file))
    if pipelines.table(pipeline) != table:
        raise Foreign(f"{SKOPS} and {scorer.FILE} are of two tables")
    return pipeline


def _named(place: Place) -> str:
    """Where something is in a model, and what it is, for people."""
    *way, last = [step for step in place if step not in ("content", "*") and "Node builtins." not in step]
    keys = [step for step in way if " " not in step]
    return _shown(f"{'.'.join(keys)} is {last.rpartition(' ')[2] if 'Node ' in last else last}")


def _check_derived(
    folder: Path, document: Mapping[str, Any], pipeline: "Pipeline", table: Table, features: "np.typing.NDArray[Any]"
) -> None:
    """What is served is what the Pipeline becomes here; the figures about training rows are figures."""
    known, trees = scorer_files.derived(pipeline, table, features)
    if document.keys() != {*known, "spread", "stored"}:
        raise Foreign(f"{scorer.FILE} has other keys")
    for key, value in json.loads(json.dumps(known)).items():
        if key != "mean" and json.dumps(document[key]) != json.dumps(value):
            raise Foreign(f"{scorer.FILE}: {key} is not what {SKOPS} says")
    if not _are_figures(document.get("mean", []), len(known.get("mean", []))):
        raise Foreign(f"{scorer.FILE}: mean")
    spread = zip(document["spread"], table.encoded, strict=True)
    if not all(_is_spread(values, shares, column) for (values, shares), column in spread):
        raise Foreign(f"{scorer.FILE}: spread")
    if trees != ((folder / TREES).read_bytes() if (folder / TREES).exists() else None):
        raise Foreign(f"{TREES} is not what {SKOPS} says")
    scorer.load(folder).smoke()


def _is_spread(values: Any, shares: Any, column: Category | Number) -> bool:
    """Whether these are some of a feature's values, NaN where training had none, and numbers for them."""
    counts = {len(scorer_files.MIDDLES), len(column.values) if isinstance(column, Category) else 0}
    finite = [0 if value != value else value for value in values]
    return len(values) in counts and _are_figures(finite, len(values)) and _are_figures(shares, len(values))


def _are_figures(values: Any, count: int) -> bool:
    """Whether it is a list of so many finite numbers."""
    if type(values) is not list or len(values) != count:
        return False
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)


def _shown(text: str) -> str:
    return visible(text[:SHOWN])
