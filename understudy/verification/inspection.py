"""Whether a model's folder is what this project's training writes; the one door to models that nobody vouches for.

Whoever may write to a run decides what lies in its files, and what is loaded runs as whoever loads it. So nothing is
loaded before the skops file has been compared with models of the same family that are fitted here; and what has been
loaded is saved again here, and the whole folder compared with that. It may differ in what was learned, in nothing else.
"""

import json
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.models import Model
from sklearn.pipeline import Pipeline
from skops import io as skops

from understudy.errors import UserError, is_known, visible
from understudy.families import FAMILIES, Family
from understudy.schema.columns import Category, Number
from understudy.schema.declaration import Table
from understudy.scoring import model_files, pipelines, scorer
from understudy.scoring.predictors import TREES
from understudy.table import TABLE
from understudy.tracking import family_runs
from understudy.verification import manifest, reference, repository
from understudy.verification.skops_structure import Place, check_trees

MLMODEL, SKOPS = "MLmodel", "model.skops"
CODE = f"code/{repository.PACKAGE.name}"
PACKAGES = ("conda.yaml", "python_env.yaml", "requirements.txt")
FILES = {MLMODEL, SKOPS, scorer.FILE, *PACKAGES}
LARGEST = {MLMODEL: 100_000, scorer.FILE: 50_000_000, **dict.fromkeys(PACKAGES, 100_000)}  # bytes
# What MLflow writes into MLmodel about one model only.
OF_ONE_MODEL = {"artifact_path", "model_id", "model_size_bytes", "model_uuid", "run_id", "utc_time_created"}
# What scorer.json says of the rows that a model was trained on.
OF_THE_ROWS = {"mean", "spread", "stored"}
VERSION = re.compile(r"(?<=python: )[0-9.]+$|(==|<=|=)[0-9]+([.][0-9a-z]+)*$")
MOST_COLUMNS = 5_000  # that a table may become
SHOWN = 200  # characters of what is foreign


class Foreign(Exception):  # noqa: N818
    """Something that training does not write; the text says what and where."""


@contextmanager
def inspected(
    client: MlflowClient, run: Run, uri: str, rows: pd.DataFrame, called: str
) -> Iterator[tuple[Path, Pipeline]]:
    """As `load`, of a family run's model in the store: the private copy of its folder, and the Pipeline in it.

    Raises:
        UserError: Besides, the files are gone.
    """
    family = family_runs.family_name(run).removesuffix(family_runs.WITH)
    with manifest.copied(client, uri, called) as folder:
        yield folder, load(folder, family, rows, called)


def load(folder: Path, family: str, rows: pd.DataFrame, called: str) -> Pipeline:
    """The fitted Pipeline of a saved model, once all of the model's folder, a private copy, has been inspected.

    The rows are of its table, with their target, some of each class.

    Raises:
        UserError: There is no such family here, or something in the folder is not what training writes.
    """
    if family not in FAMILIES:
        fix = "add it to understudy/families.py as it was, or train again: python train.py"
        raise UserError(f"{called} is of the family {family}, which this project does not have", fix)
    try:
        with TemporaryDirectory(prefix="understudy-") as written:
            return _inspect(folder, Path(written, "model"), family, rows)
    except Foreign as foreign:
        problem = f"{called} is not what training writes, and could run anything: {foreign}"
        raise UserError(problem, "train again with this project: python train.py") from None


def _inspect(folder: Path, written: Path, family: str, rows: pd.DataFrame) -> Pipeline:
    _check_names(folder)
    table = _table(folder)
    with _naming(f"the table in {scorer.FILE}"):
        enough = reference.some(table, rows)
        known = reference.known(table, enough, FAMILIES[family])
    _check_objects(folder, table, FAMILIES[family], known)
    with _naming(SKOPS):
        pipeline = _pipeline(folder, table)
        model_files.save_model(str(written), Model(), pipeline, enough)
    for name in PACKAGES:
        _check_packages(folder, written, name)
    _check_code(folder, written)
    _check_mlmodel(folder, written)
    _check_scorer(folder, written, table)
    return pipeline


@contextmanager
def _naming(file: str) -> Iterator[None]:
    """Call a file foreign, whatever goes wrong with what is in it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except Foreign:
        raise
    except Exception as error:
        if is_known(error):  # of the disk
            raise
        raise Foreign(f"{file} ({type(error).__name__}: {str(error)[:SHOWN]})") from error


@_naming(scorer.FILE)
def _table(folder: Path) -> Table:
    table = Table.of(json.loads(_text(folder, scorer.FILE))["table"])
    if (table.name, table.identifier, table.target) != (TABLE.name, TABLE.identifier, TABLE.target):
        raise Foreign(f"{scorer.FILE} is of another table than {TABLE.name}, or of another target")
    if _columns(table) > MOST_COLUMNS:
        raise Foreign(f"the table in {scorer.FILE} becomes more than {MOST_COLUMNS} columns")
    return table


def _text(folder: Path, name: str) -> str:
    if (folder / name).stat().st_size > LARGEST[name]:
        raise Foreign(f"{name} has more than {LARGEST[name]} bytes")
    return (folder / name).read_text()


def _columns(table: Table) -> int:
    """How many columns a classifier gets."""
    return sum(len(column.values) if isinstance(column, Category) else 1 for column in table.encoded)


def _check_names(folder: Path) -> None:
    """Every file has a name that training gives, none is missing, and none is a link, a pipe or a socket."""
    names = {path.relative_to(folder).as_posix(): path.is_file() for path in folder.rglob("*") if not path.is_dir()}
    code = {name for name in names if re.fullmatch(rf"{CODE}/(\w+/)?\w+\.py", name)}
    if foreign := [name for name in names if name not in {*code, *FILES, TREES} or not names[name]]:
        raise Foreign(f"{_shown(min(foreign))} is none of its files")
    if missing := FILES - names.keys():
        raise Foreign(f"{min(missing)} is missing")


@_naming(SKOPS)
def _check_objects(folder: Path, table: Table, family: Family, known: frozenset[Place]) -> None:
    """Loading and using the Pipeline makes and calls nothing but what training puts there."""
    if what := reference.foreign(folder / SKOPS, family, known):
        raise Foreign(f"{SKOPS} has something that its family has not: {what}")
    check_trees(folder / SKOPS, _columns(table))


def _pipeline(folder: Path, table: Table) -> Pipeline:
    pipeline: Pipeline = skops.load(folder / SKOPS, trusted=skops.get_untrusted_types(file=folder / SKOPS))
    if pipelines.table(pipeline) != table:
        raise Foreign(f"{SKOPS} and {scorer.FILE} are of two tables")
    return pipeline


def _check_packages(folder: Path, written: Path, name: str) -> None:
    """The packages that are named are the same, in whatever versions."""
    with _naming(name):
        lines = [[VERSION.sub("", line) for line in _text(where, name).splitlines()] for where in (folder, written)]
        if lines[0] != lines[1]:
            raise Foreign(f"{name} names other packages")


def _check_code(folder: Path, written: Path) -> None:
    """Every module is that of this checkout, or of a commit before it."""
    saved, known = _modules(folder / CODE), _modules(written / CODE)
    others = [module for module, content in saved.items() if content != known.get(module)]
    if others and not repository.is_past(folder / CODE, others):
        raise Foreign(f"{CODE}/{min(others)} is not the module of this checkout or of a commit before it")


def _modules(package: Path) -> dict[str, bytes]:
    """The content of each module, by its path in the package."""
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in package.rglob("*.py")}


@_naming(MLMODEL)
def _check_mlmodel(folder: Path, written: Path) -> None:
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(_text(folder, MLMODEL))):
        raise Foreign(f"{MLMODEL} refers to itself")
    saved, known = (yaml.safe_load(_text(where, MLMODEL)) for where in (folder, written))
    for key in OF_ONE_MODEL:
        saved.pop(key, None), known.pop(key, None)
    _compare(saved, known, MLMODEL)


def _compare(saved: object, known: object, place: str) -> None:
    """Refuse whatever differs in more than the number of a version."""
    if isinstance(saved, dict) and isinstance(known, dict):
        for key in saved.keys() ^ known.keys():
            raise Foreign(f"{place}: {_shown(str(key))} is {'not known' if key in saved else 'missing'}")
        for key in known:
            _compare(saved[key], known[key], f"{place}: {key}" if ":" not in place else f"{place}.{key}")
    elif saved != known and not (place.endswith("_version") and re.fullmatch(r"\d+(\.\w+)+", str(saved))):
        raise Foreign(f"{place} is {_shown(repr(saved))} and not {_shown(repr(known))}")


@_naming(scorer.FILE)
def _check_scorer(folder: Path, written: Path, table: Table) -> None:
    """What is served is what the Pipeline becomes here; the figures about training rows are figures."""
    saved, known = (json.loads(_text(where, scorer.FILE)) for where in (folder, written))
    if saved.keys() != known.keys():
        raise Foreign(f"{scorer.FILE} has other keys")
    for key in known:
        if key not in OF_THE_ROWS and json.dumps(saved[key]) != json.dumps(known[key]):
            raise Foreign(f"{scorer.FILE}: {key} is not what {SKOPS} says")
    if not _are_figures(saved.get("mean", []), len(known.get("mean", []))):
        raise Foreign(f"{scorer.FILE}: mean")
    spread = zip(saved["spread"], table.encoded, strict=True)
    if not all(_is_spread(values, shares, column) for (values, shares), column in spread):
        raise Foreign(f"{scorer.FILE}: spread")
    trees = [(where / TREES).read_bytes() if (where / TREES).exists() else None for where in (folder, written)]
    if trees[0] != trees[1]:
        raise Foreign(f"{TREES} is not what {SKOPS} says")
    scorer.load(folder).smoke()


def _is_spread(values: Any, shares: Any, column: Category | Number) -> bool:
    """Whether these are some of a feature's values, NaN where training had none, and numbers for them."""
    counts = {len(model_files.MIDDLES), len(column.values) if isinstance(column, Category) else 0}
    known = [0 if value != value else value for value in values]
    return len(values) in counts and _are_figures(known, len(values)) and _are_figures(shares, len(values))


def _are_figures(values: Any, count: int) -> bool:
    """Whether it is a list of so many finite numbers."""
    if type(values) is not list or len(values) != count:
        return False
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)


def _shown(text: str) -> str:
    return visible(text[:SHOWN])
