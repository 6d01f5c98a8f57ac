"""What a column's name, and its bond with the target, give people reason to ask."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
from sklearn.metrics import roc_auc_score

from understudy.reading.table_rows import Series
from understudy.schema.columns import Category, Declared, Feature, Labels, listed

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
NAMING = {"id", "ids", "key", "uuid", "guid", "rownames", "rowname", "index", "no", "nr"}
SENSITIVE = {"sex", "gender", "female", "male", "race", "ethnicity", "ethnic", "religion", "nationality", "disability"}
PERHAPS = {"age", "birth", "marital", "married", "citizen", "citizenship", "foreign", "country", "language", "black"}
PERHAPS |= {"white", "hispan", "hispanic", "pregnant", "disabled", "orientation", "zip", "postcode"}
CODED = SENSITIVE | NAMING | {"code", "type", "class", "group", "category", "region", "zip", "kind", "status"}
LEAK = 0.99  # the area under the ROC curve from which one column alone says too much


def words(name: str) -> list[str]:
    """The words of a column's name, in lower case: customerID and CUSTOMER_ID are both customer and id."""
    return [word.lower() for word in WORD.findall(name)]


def is_name(name: str) -> bool:
    """Whether a column of this name may well name the things that rows are about."""
    return not NAMING.isdisjoint(words(name))


def is_code(name: str) -> bool:
    """Whether whole numbers in a column of this name are rather codes than amounts."""
    return not CODED.isdisjoint(words(name))


def sensitive(column: Declared) -> tuple[Declared, list[str]]:
    """The column, declared as sensitive if its name leaves little doubt, and what to say about it."""
    named = set(words(column.name))
    if not named & (SENSITIVE | PERHAPS):
        return column, []
    if not isinstance(column, Category):
        return column, ["? Sensitive, and may a model use it? Runs report how groups fare of categories only."]
    if named & SENSITIVE:
        return replace(column, sensitive=True), ["Sensitive by its name: each run reports how its groups fare."]
    return column, ["? Sensitive? With sensitive=True each run reports how its groups fare."]


def leaks(column: Declared, cells: Series, target: str, labels: Labels) -> Iterator[str]:
    """Why a column may say what nobody knows yet when the model is asked."""
    ask = "? Is it known before the outcome is"
    if len(target) > 2 and set(words(target)) <= set(words(column.name)):
        yield f"{ask}? It is called like the target."
    features = pd.Series(Feature(column.name).encoder(column)({column.name: listed(cells)}))
    if isinstance(column, Category):
        scores = pd.Series(labels).groupby(features, dropna=False).transform("mean")
    else:
        scores = features.fillna(features.median())
    area = max(_area(scores, labels), _area(features.isna(), labels))
    if area > LEAK:
        yield f"{ask}? Alone it tells the answers apart with an AUC of {area:.3f}. If not, move it to ignore."


def _area(scores: Series, labels: Labels) -> float:
    area = float(roc_auc_score(labels, scores))
    return max(area, 1 - area)
