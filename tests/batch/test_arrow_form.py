"""One declaration has two readers: the check of lists, and that of Arrow arrays. They agree on any table and cells."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.batch.arrow_form import ArrowForm
from understudy.schema.columns import Category, Date, Declared, Feature, Number
from understudy.schema.declaration import Table
from understudy.scoring import forms
from understudy.scoring.forms import Form, RowsRefused

TARGET = Category("target", ("no", "yes"))
MARKERS = st.sampled_from([(), ("NA",), ("NA", "-9"), ("0",), ("b", "nan", "1.0"), ("inf", "?", "2000-01-01")])
NUMBERS = st.sampled_from([-9.0, -1.5, 0.0, 1.0, 2.0, 3.75, 5.0, 1e-300, 1e300, math.inf, -math.inf])
WORDS = st.sampled_from(
    ["a", "b", "c", "A", " a", "b ", "other", "NA", " NA ", "-9", "0", "1", "?", "é", "\u00a0a", ""]
)
SPELLINGS = [
    "1",
    "1.0",
    "+1",
    " 1",
    "1 ",
    "1e0",
    "01",
    ".5",
    "5.",
    "-0",
    "1_0",
    "0x1",
    "1e",
    "1,5",
    "--1",
    "inf",
    "nan",
]
SPELLINGS += ["-inf", "Infinity", "1e999", "\u0661", "\uff11", "1\n", "e1", ".", "+", "5e-324", "0.1234567890123456789"]
DATES = ["2000-01-01", "2004-02-29", "2003-02-29", "1999-12-31", "2011-01-01", " 2005-05-05 ", "2005-5-5", "20050505"]
TEXTS = st.one_of(
    WORDS,
    st.sampled_from([*SPELLINGS, *DATES]),
    st.floats(-10, 10).map(repr),
    st.integers(-3, 7).map(str),
    st.text(max_size=3),
)
INTEGERS = st.one_of(st.integers(-3, 7), st.sampled_from([2**53, 2**53 + 1, -(2**62)]))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    missing = [draw(st.booleans()) for _ in range(5)]
    low, high = sorted(draw(st.lists(NUMBERS.filter(lambda n: n < math.inf), min_size=2, max_size=2)))
    columns: list[Declared] = [
        Number("x", "m", low, high, missing[0]),
        Number("y", "m", draw(st.sampled_from([-1, 0, 1])), draw(st.sampled_from([5, 2**60, math.inf])), missing[1]),
        Category(
            "c", draw(st.sampled_from([("a", "b"), ("0", "1", "b"), ("NA",)])), missing[2], other=draw(st.booleans())
        ),
        Category("n", draw(st.sampled_from([(0, 1), (2, -9), (1, 3)])), missing[3], other=draw(st.booleans())),
        Date("d", "days since 1970-01-01", "2000-01-01", "2010-12-31", missing[4]),
    ]
    logs: list[Feature] = []
    if high > 0:
        logs.append(Feature("log x", ("x",), log=True))
    if high > -5:
        logs.append(Feature("log s", ("y", "x"), log=True))
    features = (*map(Feature, "xycnd"), Feature("sum", ("x", "y")), *draw(st.sampled_from([(), tuple(logs)])))
    return Table("t", "t.csv", "id", TARGET, tuple(columns), features, missing=draw(MARKERS))


def arrays(values: st.SearchStrategy[Any], kind: pa.DataType, size: int) -> st.SearchStrategy[pa.Array]:
    cells = st.lists(st.none() | values, min_size=size, max_size=size)
    return cells.map(
        lambda some: pa.array(some, pa.string()).dictionary_encode() if kind is None else pa.array(some, kind)
    )


@st.composite
def batches(draw: st.DrawFn, table: Table) -> pa.RecordBatch:
    """Rows of which many cells are allowed, as text or as numbers where a file may have those."""
    size, cells = draw(st.integers(1, 6)), {}
    for column in table.columns:
        likely = (
            st.just(str(column.example)) if column.is_text else st.sampled_from([*map(str, (column.example, 1, 2))])
        )
        if isinstance(column, Category):
            likely = st.sampled_from([*map(str, column.values)])
        kinds = [
            arrays(likely | TEXTS, pa.string(), size),
            arrays(likely | TEXTS, None, size),
            arrays(likely, pa.string(), size),
        ]
        kinds += [st.just(pa.nulls(size)), arrays(TEXTS, pa.large_string(), size)]
        if not column.is_text:
            kinds += [arrays(INTEGERS, pa.int64(), size), arrays(NUMBERS | st.just(math.nan), pa.float64(), size)]
            kinds += [arrays(st.floats(width=32), pa.float32(), size), arrays(st.booleans(), pa.bool_(), size)]
        cells[column.name] = draw(st.one_of(kinds))
    return pa.RecordBatch.from_pydict(cells)


def as_sent(column: Declared, cell: Any) -> Any:
    """A cell as the server would get it: text as in CSV, else as in JSON."""
    if isinstance(cell, str):
        return forms.from_text([cell], column)[0]
    return None if cell is None or cell != cell else cell


def one_by_one(form: Form, rows: list[dict[str, Any]]) -> tuple[list[list[float]], list[bool], set[tuple[Any, ...]]]:
    features, is_allowed, faults = [], [], set()
    for number, row in enumerate(rows):
        try:
            _, made = form.features({name: [as_sent(form.columns[name], cell)] for name, cell in row.items()})
        except RowsRefused as refused:
            faults |= {(number, fault.column, fault.problem, fault.reason, fault.allowed) for fault in refused.faults}
            is_allowed.append(False)
        else:
            features.append([cells[0] for cells in made])
            is_allowed.append(True)
    return features, is_allowed, faults


def agree(table: Table, form: Form, rows: pa.RecordBatch) -> None:
    features, is_allowed, faults = ArrowForm(table, form).features(rows)
    expected = one_by_one(form, rows.to_pylist())
    assert is_allowed.tolist() == expected[1]
    found = {(row, fault.column, fault.problem, fault.reason, fault.allowed) for fault in faults for row in fault.rows}
    assert found == expected[2]
    as_listed = np.array(expected[0], dtype=float).reshape(features.shape)
    assert (features.view(np.int64) == as_listed.view(np.int64))[~np.isnan(as_listed)].all()
    assert (np.isnan(features) == np.isnan(as_listed)).all()


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.data())
def test_both_readers_agree_on_raw_rows(data: st.DataObject) -> None:
    table = data.draw(tables())
    agree(table, forms.forms(table)[0], data.draw(batches(table)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_both_readers_agree_on_rows_of_the_encoded_form(data: st.DataObject) -> None:
    table = data.draw(tables())
    form, size = forms.forms(table)[1], data.draw(st.integers(1, 5))
    numbers = arrays(NUMBERS, pa.float64(), size) | arrays(TEXTS, pa.string(), size)
    agree(table, form, pa.RecordBatch.from_pydict({name: data.draw(numbers) for name in form.columns}))


def test_the_logarithm_of_arrow_is_that_of_python() -> None:
    numbers = np.random.default_rng(0).uniform(0, 1e6, 200_000) ** 2
    assert pc.ln(pa.array(numbers)).to_pylist() == [math.log(number) for number in numbers.tolist()]
