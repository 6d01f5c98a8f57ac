"""What a column is, judged by its cells: a category, a number, a date, or nothing that a model can learn from."""

import math
import re
import sys
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import pandas as pd

from understudy.declare import questions
from understudy.reading.table_rows import Series, typed
from understudy.schema.columns import OTHER, Category, Date, Declared, Identifier, Number, is_date
from understudy.schema.spelling import KNOWN_MARKERS, folded, reasons

MOST_VALUES = 20  # of a category that lists them all
LEAST_SHARE, LEAST_ROWS = 0.01, 5  # that a value is in which is listed where there are more
ENOUGH = 100  # rows from which a value that is in one of them is strange
FEW_CODES = 5  # whole numbers up to which people are asked whether they are codes
WORDS = {"none", "nil", "unknown", "missing"}  # markers that may be an answer in a column of text
SENTINELS = {"-1", "-9", "-99", "-999", "-9999", "99", "999", "9999", "99999", "999999"}
EXACT = 2**53  # from here on whole numbers that differ may be one float
LEADING_ZERO = re.compile(r"[-+]?0\d")
OTHER_DATE = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d.*|\d{1,4}[./-]\d{1,2}[./-]\d{1,4}( \d.*)?", re.ASCII)


@dataclass(frozen=True)
class Judged:
    """What a column was taken for.

    Args:
        column: Its declaration, None where no model should see it.
        notes: What people should know of it; those that begin with a question mark are to be answered.
        markers: Texts in it that stand for a missing cell.
    """

    column: Declared | None
    notes: tuple[str, ...] = ()
    markers: frozenset[str] = frozenset()


def as_text(cells: Series) -> Series:
    """The cells as the text that a CSV file would have, without white space around it; NaN where they are missing."""
    return typed(cells, Identifier(str(cells.name)))


def as_numbers(texts: Series) -> "Series | None":
    """Texts that are not missing as finite numbers; None if one is not, is a code such as 00123, or too long a one."""
    if texts.str.match(LEADING_ZERO).any():
        return None
    numbers = typed(texts, Number(str(texts.name), "units", -math.inf, math.inf))
    if not pd.api.types.is_float_dtype(numbers) or not numbers.abs().lt(math.inf).all():
        return None
    is_exact = numbers.abs().max() < EXACT or numbers.nunique() == texts.nunique()
    return numbers if is_exact else None


def judge(texts: Series) -> Judged:
    """What a column is, from its cells as `as_text` gives them."""
    name = str(texts.name)
    if strange := {type(cell).__name__ for cell in texts.dropna() if not isinstance(cell, str)}:
        return Judged(None, (f"Its cells are neither text nor numbers: {', '.join(sorted(strange))}.",))
    markers = _markers(texts)
    present = texts[~texts.isin(markers)].dropna()
    missing = len(present) < len(texts)
    if present.nunique() < 2:
        return Judged(None, ("It says nothing: no row has another value than the others.",))
    if present.map(is_date).all():
        judged = Judged(_date(name, present, missing))
    elif present.str.fullmatch(OTHER_DATE).all():
        judged = Judged(None, ("? Dates are read as 2026-11-01 only; written so, it can be a Date.",))
    elif (numbers := as_numbers(present)) is not None:
        judged = _of_numbers(name, numbers, missing)
    else:
        judged = _of_texts(name, present, missing)
    return Judged(judged.column, judged.notes, markers if judged.column else frozenset())


def _markers(texts: Series) -> frozenset[str]:
    """The texts that stand for a missing cell, unless less than two other values are left."""
    distinct = set(texts.dropna())
    known = {text for text in distinct if folded(text) in KNOWN_MARKERS}
    others = pd.Series(list(distinct - known), name=texts.name, dtype=object)
    if len(others) < 2:
        return frozenset()
    is_text = as_numbers(others) is None and not others.map(is_date).all()
    return frozenset(text for text in known if not (is_text and folded(text) in WORDS))


def _date(name: str, present: Series, missing: bool) -> Date:
    default = Date(name)
    low = default.low if present.min() >= default.low else f"{present.min()[:2]}01-01-01"
    high = default.high if present.max() <= default.high else "9999-12-31"
    return Date(name, low=min(low, present.min()), high=high, missing=missing)


def _of_numbers(name: str, numbers: Series, missing: bool) -> Judged:
    distinct = sorted(numbers.unique())
    is_whole = all(value.is_integer() for value in distinct)
    codes = tuple(map(int, distinct)) if is_whole and len(distinct) <= MOST_VALUES else ()
    if len(codes) == 2 or (codes and questions.is_code(name)):
        return Judged(Category(name, codes, missing))
    if is_whole and questions.is_name(name):
        return Judged(None, (_named(name, len(distinct), len(numbers)),))
    notes = [f"? Codes and no amounts? Then it is Category(..., {codes})."] if 0 < len(codes) <= FEW_CODES else []
    for place, value in ((0, distinct[0]), (-1, distinct[-1])):
        others = distinct[1:] if place == 0 else distinct[:-1]
        if f"{value:.0f}" in SENTINELS and abs(value - others[place]) > others[-1] - others[0]:
            times = int((numbers == value).sum())
            notes.append(
                f"? {value:.0f} (in {times:,} of {len(numbers):,} rows) may stand for a missing cell: then say "
                f'missing=("{value:.0f}",) in the table and missing=True here, with a range that does not have it.'
            )
    low, high = _range(distinct[0], distinct[-1])
    return Judged(Number(name, "units", low, high, missing), tuple(notes))


def _range(least: float, most: float) -> tuple[float, float]:
    """What was seen, with half of its width on each side, rounded outward; what is not below 0 stays so."""
    low, high = Decimal(str(least)), Decimal(str(most))
    air = (high - low) / 2
    step = Decimal(1).scaleb(air.adjusted())
    bottom = ((low - air) / step).to_integral_value(ROUND_FLOOR) * step
    top = ((high + air) / step).to_integral_value(ROUND_CEILING) * step
    bottom = max(bottom, Decimal(0)) if low >= 0 else bottom
    top = min(top, Decimal(0)) if high <= 0 else top
    largest = sys.float_info.max
    return max(_number(bottom), -largest), min(_number(top), largest)


def _number(value: Decimal) -> float:
    return int(value) if value == value.to_integral_value() and abs(value) < 10**15 else float(value)


def _of_texts(name: str, present: Series, missing: bool) -> Judged:
    counts, rows = present.value_counts(), len(present)
    if len(counts) <= MOST_VALUES and len(counts) <= rows / 2:
        return Judged(Category(name, tuple(sorted(counts.index)), missing), tuple(_of_values(counts)))
    frequent = counts[counts >= max(rows * LEAST_SHARE, LEAST_ROWS)].drop(OTHER, errors="ignore")
    share = 1 - frequent.sum() / rows
    if len(frequent) >= 2 and share <= 0.5:
        notes = (
            f"What is rarer ({len(counts) - len(frequent):,} values, in {share:.1%} of the rows) counts as other.",
            *_of_values(frequent),
        )
        return Judged(Category(name, tuple(sorted(frequent.index)), missing, other=True), notes)
    is_number = pd.to_numeric(present, errors="coerce").notna()
    if 0.5 < is_number.mean() < 1 and not present.str.match(LEADING_ZERO).any():
        return Judged(None, (_unreadable(present[~is_number]),))
    return Judged(None, (_named(name, len(counts), rows),))


def _of_values(counts: Series) -> list[str]:
    """Notes on the values of a category."""
    alike: dict[str, list[str]] = {}
    for value in sorted(counts.index):
        alike.setdefault(folded(value), []).append(value)
    notes = [
        f"? {' and '.join(map(repr, values))} may be meant as one value." for values in alike.values() if values[1:]
    ]
    for value, rows in counts.items():
        if folded(str(value)) in WORDS:
            notes.append(f'? {value!r} is a value here; or does it mean missing, missing=("{value}",)?')
        elif rows == 1 and counts.sum() >= ENOUGH:
            notes.append(f"? {value!r} is in one row only: a mistake?")
    return notes


def _named(name: str, values: int, rows: int) -> str:
    if questions.is_name(name):
        return (
            f"? {rows:,} rows are of {values:,} cases by its name. A model that is tested on other rows of the cases "
            "that it was trained on looks better than it is: would one row of each do?"
        )
    return f"{values:,} values in {rows:,} rows: names or free text, from which nothing here can learn."


def _unreadable(texts: Series) -> str:
    reason = reasons((), is_text=False)
    why = next((f", which {text}" for text in map(reason, texts) if text), "")
    return f"? {len(texts):,} cells are no numbers, such as {texts.iloc[0]!r}{why}. Correct them, and it is a Number."
