import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from understudy.schema.columns import Category, Date, Declared, Number
from understudy.schema.compatibility import breaking_changes
from understudy.schema.declaration import Feature, Limits, Table
from understudy.schema.faults import Fault, find_faults
from understudy.table import TABLE


def changed(column: str, /, **values: Any) -> Table:
    columns = (replace(each, **values) if each.name == column else each for each in TABLE.columns)
    return replace(TABLE, columns=tuple(columns))


def small(columns: tuple[Declared, ...], *features: Feature) -> Table:
    return Table("t", "t.csv", "id", Category("target", ("no", "yes")), columns, features)


def test_the_same_table_breaks_nothing_and_neither_does_a_wider_one() -> None:
    wider = [
        TABLE,
        changed("LoanAmount", low=0.5, high=200_000),
        changed("Education", missing=True),
        changed("Dependents", values=("0", "1", "2", "3+", "unknown")),
        replace(TABLE, columns=TABLE.columns[::-1], held_out=0.2, limits=Limits(margin=0.01)),
    ]
    for table in wider:
        assert breaking_changes(TABLE, table) == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (TABLE.without_sensitive(), "Gender: is not accepted any more"),
        (
            replace(TABLE, columns=(*TABLE.columns, Number("Age", "years", 0, 99))),
            "Age: is asked for, and was not before",
        ),
        (changed("Dependents", values=("0", "1", "2")), "Dependents: takes 0, 1, 2 instead of 0, 1, 2, 3+"),
        (
            changed("Loan_Amount_Term", low=12),
            "Loan_Amount_Term: takes 12 to 600 months instead of 1 to 600 months",
        ),
        (changed("Loan_Amount_Term", high=599), "encoded rows: Loan_Amount_Term: takes 1 to 599 months instead of"),
        (changed("Gender", missing=False), "Gender: may not be missing any more"),
        (changed("Gender", missing=False), "encoded rows: Gender: may not be missing any more"),
        (changed("Credit_History", values=("0", "1")), "Credit_History: takes text instead of numbers"),
        (changed("Married", values=(0, 1)), "Married: takes numbers instead of text"),
        (changed("LoanAmount", unit="currency units"), "LoanAmount: is in currency units instead of thousand"),
        (changed("Married", values=("Yes", "No")), "encoded rows: Married: its codes stand for Yes, No instead of"),
        (replace(TABLE, identifier="Case"), "Loan_ID: does not name rows any more"),
        (replace(TABLE, target=Category("Paid", ("N", "Y"))), "predicts Paid instead of Loan_Status"),
        (replace(TABLE, target=Category("Loan_Status", ("Y", "N"))), "negative and positive label are Y, N instead"),
        (replace(TABLE, features=TABLE.features[::-1]), "encoded rows: their order is TotalIncome, Property_Area"),
        (
            replace(TABLE, features=(*TABLE.features[:-1], Feature("TotalIncome", ("ApplicantIncome",)))),
            "encoded rows: TotalIncome: stands for ApplicantIncome instead of ApplicantIncome + CoapplicantIncome",
        ),
        (
            replace(TABLE, features=(*TABLE.features, Feature("Income", ("ApplicantIncome",), log=True))),
            "ApplicantIncome: has to be above 0",
        ),
    ],
)
def test_what_breaks_is_named(table: Table, said: str) -> None:
    assert [text for text in breaking_changes(TABLE, table) if text.startswith(said)], breaking_changes(TABLE, table)


def test_a_marker_of_a_missing_cell_may_come_and_may_not_go() -> None:
    more, less = replace(TABLE, missing=("-", "NA")), replace(TABLE, missing=("NA",))
    assert breaking_changes(less, more) == []
    assert breaking_changes(more, less) == ["'-' does not stand for a missing cell any more"]


X, Y, Z = (Number(name, "m", 0, 5) for name in "xyz")
BELOW = replace(Y, low=-5, high=-1)
OPEN = replace(BELOW, missing=True)
XY, YZ = (Feature("s", tuple(names), log=True) for names in ("xy", "yz"))
U, V, W, BOTH = (Number(name, "m", -5, 5) for name in "uvwb")
UV, W_BOTH, ALL = (Feature(names, tuple(names), log=True) for names in ("uv", "wb", "uvwb"))


@pytest.mark.parametrize(
    ("old", "new", "breaks"),
    [
        (small((X, Y)), small((X, Y), XY), True),
        (small((X, Y), XY), small((X, Y), XY), False),
        (small((X, Y, Z), XY), small((X, Y, Z), Feature("s", ("x", "y", "z"), log=True)), False),
        (small((X, Y, Z), Feature("s", ("x", "y", "z"), log=True)), small((X, Y, Z), XY), True),
        (small((X, Y, Z), XY), small((X, Y, Z), YZ), True),
        # y below 0 and x + y above it say that x is too, unless y is missing.
        (small((X, BELOW), XY), small((X, BELOW), Feature("x", log=True)), False),
        (small((X, OPEN), XY), small((X, OPEN), Feature("x", log=True)), True),
        # What two logarithms say together is not worked out, and so a sum is named that cannot be 0.
        (small((U, V, W, BOTH), UV, W_BOTH), small((U, V, W, BOTH), ALL), True),
        # What the range refuses is no matter of the logarithm.
        (small((X, replace(Y, low=-3, high=-1))), small((X, Y), XY), False),
        (small((replace(X, low=0.001),)), small((replace(X, low=0.001),), Feature("x", log=True)), False),
    ],
)
def test_a_logarithm_breaks_only_what_reaches_zero(old: Table, new: Table, breaks: bool) -> None:
    assert any("has to be above 0" in text for text in breaking_changes(old, new)) == breaks


MEANINGS = ("is in", "label", "stand", "order is")


def drawn(rng: np.random.Generator) -> Table:
    def either(*values: Any) -> Any:
        return values[0 if rng.random() < 0.8 else rng.integers(len(values))]

    columns: list[Declared] = [
        Number("x", either("m", "km"), either(0, 1, 0.5), either(5, 4, 6), either(True, False)),
        Number("y", "m", either(0, 2, -1), either(5, 9), either(False, True)),
        Category(
            "c", either(("a", "b"), ("b", "a"), ("a", "b", "c"), ("a",)), either(True, False), other=either(False, True)
        ),
        Date("d", low=either("2000-01-01", "1999-01-01", "2001-01-01"), high=either("2010-12-31", "2009-01-01")),
        either(Category("n", (0, 1)), Category("n", (0, 1, 2)), Category("n", (2, 0)), Number("n", "", 0, 1)),
    ]
    logs = either((Feature("s", ("x", "y"), log=True),), (), (Feature("s", ("x",), log=True),))
    return small(tuple(columns), *logs, *map(Feature, either("ycnd", "cynd", "cn")))


def corners(columns: list[Declared]) -> pd.DataFrame:
    """Rows of every combination of bounds, of numbers between them, of values and of gaps."""
    cells: dict[str, list[Any]] = {
        column.name: [None, 0.5, "zz"] + [1e-9, -99] * (not column.is_text) for column in columns
    }
    for column in columns:
        bounds = column.values if isinstance(column, Category) else [column.low, column.high]
        cells[column.name] += [value for value in bounds if value != -np.inf and value not in cells[column.name]]
    return pd.DataFrame(list(itertools.product(*cells.values())), columns=list(cells))


def encoded(table: Table) -> Callable[[pd.DataFrame], list[Fault]]:
    return lambda rows: list(find_faults(rows, table.encoded))


def accepted(faults: Callable[[pd.DataFrame], list[Fault]], rows: pd.DataFrame) -> pd.DataFrame:
    while found := faults(rows):
        refused = {row - 1 for fault in found for row in fault.rows}
        rows = rows.drop(index=list(refused)).reset_index(drop=True)
    return rows


def test_numbers_become_a_category_only_where_they_are_its_values() -> None:
    category, one, range_ = Category("n", (0, 1)), Number("n", "", 1, 1), Number("n", "", 0, 1)
    assert breaking_changes(small((one,)), small((category,))) == []
    assert breaking_changes(small((category,)), small((range_,))) == []
    assert breaking_changes(small((range_,)), small((category,)))[0] == "n: takes 0, 1 instead of 0 to 1 "


@pytest.mark.parametrize("seed", range(60))
def test_it_speaks_where_and_only_where_a_row_is_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    old, new = drawn(rng), drawn(rng)
    refusals = [text for text in breaking_changes(old, new) if not any(meaning in text for meaning in MEANINGS)]
    forms = [
        (False, accepted(old.faults, corners([*old.columns, *new.columns])), new.faults),
        (True, accepted(encoded(old), corners([*old.encoded])), encoded(new)),
    ]
    for is_encoded, rows, faults in forms:
        texts = [text for text in refusals if text.startswith("encoded rows") == is_encoded]
        assert bool(texts) == bool(faults(rows)), (old, new, texts)
