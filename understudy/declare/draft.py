"""A whole table's declaration, drafted from its rows and the name of the column to predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from understudy.declare import kinds, questions
from understudy.declare.kinds import Judged
from understudy.errors import UserError
from understudy.reading.table_rows import Series, typed
from understudy.schema.columns import Category, Labels, repeated
from understudy.schema.declaration import Table
from understudy.schema.spelling import KNOWN_MARKERS, folded

RARE = 0.05  # the share of the rarer answer below which accuracy says little
FEW = 50  # rows with the rarer answer below which models cannot be told apart
MOST_SHOWN = 50  # names in a message
POSITIVE = {"yes", "y", "true", "positive", "pos", "bad", "died", "dead", "default", "defaulted", "fraud", "spam"}
POSITIVE |= {"churn", "churned", "malignant", "failed", "fail", "sick", "ill", "left"}
NEGATIVE = {"no", "n", "false", "0", "-1", "negative", "neg", "good", "alive", "survived", "paid", "ham", "benign"}
NEGATIVE |= {"passed", "pass", "healthy", "stayed", "none", "normal"}


@dataclass(frozen=True)
class Draft:
    """A declaration, and what to say about it.

    Args:
        table: The declaration.
        settings: Notes on the table's own settings, by their names.
        columns: Notes on columns, by their names.
    """

    table: Table
    settings: Mapping[str, Sequence[str]]
    columns: Mapping[str, Sequence[str]]


def draft(rows: pd.DataFrame, name: str, path: str, target: str, positive: str | None) -> Draft:
    """The declaration of a table.

    Args:
        rows: As `reader.read` gives them.
        name: Of the table.
        path: That it declares.
        target: The column to predict.
        positive: The answer to call positive; None to guess it.

    Raises:
        UserError: The target is no column of two values, or no other column is of use.
    """
    _check(rows, path, target)
    texts = {str(column): kinds.as_text(rows[column]) for column in rows}
    answer, why = _target(texts.pop(target), positive)
    labels = (typed(rows[target], answer) == answer.values[1]).to_numpy().astype(int)
    naming = [column for column, cells in texts.items() if _names_rows(column, cells)]
    identifier = max(naming, key=questions.is_name) if naming else _together(texts)
    for column in [identifier] if isinstance(identifier, str) else identifier:
        del texts[column]
    spare = Judged(None, ("It names the rows as well.",))
    judged = {column: spare if column in naming else kinds.judge(cells) for column, cells in texts.items()}
    missing = sorted(frozenset[str]().union(*(judgement.markers for judgement in judged.values())))
    asked = {column: _asked(judged[column], rows[column], missing, target, labels) for column in judged}
    columns = tuple(judgement.column for judgement in asked.values() if judgement.column)
    if not columns:
        raise UserError(f"{path} has no column beside {target} that a model can learn from", "give it one")
    table = Table(
        name=name,
        path=path,
        identifier=identifier,
        target=answer,
        columns=columns,
        select_by="AUC" if _rarer(labels) < RARE * len(labels) else "accuracy",
        ignore=tuple(column for column, judgement in asked.items() if not judgement.column),
        missing=tuple(missing),
    )
    settings = _settings(rows.map(repr), identifier, why, labels)
    return Draft(table, settings, {column: judgement.notes for column, judgement in asked.items()})


def _settings(
    rows: pd.DataFrame, identifier: str | tuple[str, ...], why: str, labels: Labels
) -> dict[str, Sequence[str]]:
    """What to say about the table's own settings, where it has them."""
    rarer = _rarer(labels)
    few = f"? Only {rarer} rows have the rarer answer: too few to tell models apart."
    return {
        "identifier": [_about_identifier(identifier), *_about_equal_rows(rows, identifier)],
        "target": [why, few] if rarer < FEW else [why],
        "select_by": [f"The rarer answer has {rarer / len(labels):.1%} of the rows, of which accuracy says little."],
        "missing": ["These texts stand for a missing cell where a column does not list them as a value."],
    }


def _rarer(labels: Labels) -> int:
    """In how many rows the rarer answer is."""
    return int(min(labels.sum(), len(labels) - labels.sum()))


def _asked(judgement: Judged, cells: Series, missing: Sequence[str], target: str, labels: Labels) -> Judged:
    """The judgement with what the column's name, and its bond with the target, give reason to ask."""
    if not judgement.column:
        return judgement
    column, notes = questions.sensitive(judgement.column)
    cells = typed(cells, column, {"", *missing})
    # What is a marker because of another column may be among the rare values that this one does not list.
    column = replace(column, missing=column.missing or bool(cells.isna().any()))
    return replace(
        judgement, column=column, notes=(*judgement.notes, *notes, *questions.leaks(column, cells, target, labels))
    )


def _check(rows: pd.DataFrame, path: str, target: str) -> None:
    """Refuse a table without rows or with a column twice, and a target that is not there or not always there."""
    names = [str(name) for name in rows]
    if not len(rows):
        raise UserError(f"{path} has no rows", "give a table with some")
    if twice := repeated(names):
        raise UserError(f"{path} has two columns {twice[0]}", "rename one of them")
    if target not in names:
        more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
        raise UserError(f"{path} has no column {target}", f"choose --target from {', '.join(names[:MOST_SHOWN])}{more}")


def _target(texts: Series, positive: str | None) -> tuple[Category, str]:
    """The column to predict, with the positive answer last, and why it is that one."""
    name, counts = str(texts.name), texts.value_counts()
    answers = [value for value in counts.index if len(counts) <= 2 or folded(value) not in KNOWN_MARKERS]
    if len(answers) != 2:
        raise _not_two(name, texts.dropna())
    if empty := int((~texts.isin(answers)).sum()):
        raise UserError(
            f"{name} says neither {answers[0]} nor {answers[1]} in {empty:,} of {len(texts):,} rows",
            f'leave these out, with pandas as in rows = rows[rows["{name}"].isin({answers})], and try again',
        )
    if positive is not None and positive not in counts.index:
        raise UserError(f"{name} is never {positive}", f"choose --positive from {', '.join(sorted(counts.index))}")
    chosen, why = (positive, "as --positive says") if positive is not None else _positive(counts)
    values = [next(value for value in counts.index if value != chosen), chosen]
    numbers = kinds.as_numbers(pd.Series(values, name=name, dtype=object))
    whole = numbers is not None and all(number.is_integer() for number in numbers)
    answer = Category(name, tuple(int(float(value)) for value in values) if whole else tuple(values))
    share = counts[chosen] / len(texts)
    return answer, f"{chosen} is the positive answer, {why}, in {share:.1%} of {len(texts):,} rows. Or swap the two."


def _not_two(name: str, texts: Series) -> UserError:
    values = sorted(texts.unique())
    numbers = kinds.as_numbers(texts)
    if len(values) > kinds.MOST_VALUES and numbers is not None:
        split = f'rows["{name}"] > {numbers.median():g}'
    else:
        split = f'rows["{name}"] == "{values[0]}"'
    shown = ", ".join(values[:5]) + (", ..." if len(values) > 5 else "")
    fix = f'make two of them, with pandas as in rows["{name}"] = {split}, and try again'
    return UserError(f"{name} has {len(values):,} values ({shown}), and a target has two", fix)


def _positive(counts: Series) -> tuple[str, str]:
    """Which of two answers is the positive one: by its name, else the rarer one, else the later one."""
    first, second = sorted(counts.index)
    for chosen, other in ((first, second), (second, first)):
        for_it = {folded(chosen) in POSITIVE, folded(other) in NEGATIVE}
        if True in for_it and folded(other) not in POSITIVE and folded(chosen) not in NEGATIVE:
            return chosen, "by its name"
    rarer = first if counts[first] < counts[second] else second
    return rarer, "as the rarer one" if counts[first] != counts[second] else "as the later one in the alphabet"


def _names_rows(name: str, cells: Series) -> bool:
    """Whether each row has a value of its own, and the column is called so, counts, or has text in one word."""
    if not cells.is_unique or not _is_full(cells):
        return False
    numbers = kinds.as_numbers(cells)
    if numbers is None:
        in_one_word = not cells.str.contains(r"\s|,|^\d+\D\d+\D\d").any()  # as in text, amounts and dates
        return questions.is_name(name) or in_one_word
    counts = numbers.max() - numbers.min() == len(numbers) - 1
    return bool(numbers.map(float.is_integer).all() and (questions.is_name(name) or counts))


def _together(texts: Mapping[str, Series]) -> tuple[str, ...]:
    """The columns that are called as if they named something, if together they name each row."""
    named = {name: cells for name, cells in texts.items() if questions.is_name(name) and _is_full(cells)}
    is_enough = len(named) > 1 and not pd.DataFrame(named).duplicated().any()
    return tuple(named) if is_enough else ()


def _is_full(cells: Series) -> bool:
    """Whether all cells are text, and none is a marker of a missing cell."""
    return bool(cells.map(lambda cell: isinstance(cell, str) and folded(cell) not in KNOWN_MARKERS).all())


def _about_identifier(identifier: str | tuple[str, ...]) -> str:
    if isinstance(identifier, str):
        return "It has a value of its own in every row, which alone decides on which side of the split the row is."
    if identifier:
        return "Together they name a row, and decide on which side of the split it is."
    return (
        "? No column names a row, so the digest of its cells does: a row that is corrected counts as another one, and "
        "may change to the other side of the split. Is there a column that could name it?"
    )


def _about_equal_rows(rows: pd.DataFrame, identifier: str | tuple[str, ...]) -> list[str]:
    equal = int(rows.drop(columns=[identifier] if isinstance(identifier, str) else [*identifier]).duplicated().sum())
    where = "in all else, and may be on the other side of the split" if identifier else "in every column"
    return [f"? {equal:,} rows are like an earlier one {where}. Are they other cases?"] if equal else []
