import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import REAL, SAMPLE, needs_real_table
from understudy.errors import UserError
from understudy.reading import table_rows
from understudy.schema.columns import Category, Number
from understudy.schema.declaration import Feature, Table
from understudy.schema.faults import Fault
from understudy.scoring import forms
from understudy.table import TABLE

COLUMNS = [column.name for column in TABLE.columns]
TABLES = [SAMPLE, pytest.param(REAL, marks=needs_real_table)]


@pytest.fixture
def lines() -> list[str]:
    return SAMPLE.read_text().splitlines()


def written(folder: Path, lines: list[str]) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        table_rows.read(TABLE, path)
    return refused.value.problem


@pytest.mark.parametrize("path", TABLES)
def test_a_table_is_read_whole_and_in_order_of_its_identifiers(path: Path) -> None:
    rows = table_rows.read(TABLE, path)
    assert rows.shape == (614, 13)
    assert rows["Loan_ID"].is_monotonic_increasing
    assert rows["Credit_History"].isna().sum() == 50
    assert TABLE.faults(rows[COLUMNS]) == []


@pytest.mark.parametrize("path", TABLES)
def test_a_table_in_another_order_has_the_same_digest_and_the_same_sides(path: Path, tmp_path: Path) -> None:
    rows = table_rows.read(TABLE, path)
    shuffled = pd.read_csv(path, dtype=str).sample(frac=1, random_state=1)
    shuffled.to_csv(tmp_path / "shuffled.csv", index=False)
    again = table_rows.read(TABLE, tmp_path / "shuffled.csv")
    assert TABLE.digest(again) == TABLE.digest(rows)
    pd.testing.assert_frame_equal(TABLE.split(again)[1], TABLE.split(rows)[1])


def test_a_changed_cell_changes_the_digest() -> None:
    rows = table_rows.read(TABLE, SAMPLE)
    assert TABLE.digest(rows) != TABLE.digest(rows.assign(LoanAmount=rows["LoanAmount"].add(1)))


@pytest.mark.parametrize("path", TABLES)
def test_a_row_keeps_its_side_as_the_table_grows(path: Path) -> None:
    rows = table_rows.read(TABLE, path)
    few = {*TABLE.split(rows[:200])[1]["Loan_ID"]}
    assert few == {*TABLE.split(rows)[1]["Loan_ID"]} & {*rows["Loan_ID"][:200]}


def test_three_rows_in_ten_are_held_out() -> None:
    many = pd.DataFrame({"Loan_ID": [f"LP{i}" for i in range(20_000)], "Loan_Status": ["Y", "N"] * 10_000})
    training, held_out = TABLE.split(many)
    assert len(training) + len(held_out) == 20_000
    assert 0.29 < len(held_out) / 20_000 < 0.31


def test_a_split_without_enough_rows_of_a_class_is_refused() -> None:
    rows = table_rows.read(TABLE, SAMPLE)
    with pytest.raises(UserError, match="too few rows with Loan_Status N"):
        TABLE.split(pd.concat([rows[rows["Loan_Status"] == "Y"], rows[rows["Loan_Status"] == "N"][:7]]), folds=8)


def test_features_are_codes_numbers_and_logarithms_in_the_old_flows_order() -> None:
    row = {
        "Gender": "Male",
        "Married": "No",
        "Dependents": "3+",
        "Education": "Not Graduate",
        "Self_Employed": None,
        "ApplicantIncome": 3000.0,
        "CoapplicantIncome": 500.0,
        "LoanAmount": 120.0,
        "Loan_Amount_Term": 360.0,
        "Credit_History": 1.0,
        "Property_Area": "Urban",
    }
    assert [column.name for column in TABLE.encoded] == [
        "Gender",
        "Married",
        "Dependents",
        "Education",
        "Self_Employed",
        "LoanAmount",
        "Loan_Amount_Term",
        "Credit_History",
        "Property_Area",
        "TotalIncome",
    ]
    expected = [1, 0, 3, 1, np.nan, np.log(120), 360, 1, 2, np.log(3500)]
    np.testing.assert_array_equal(TABLE.encode(pd.DataFrame([row])), [expected])


def test_all_faults_of_a_table_are_reported_at_once(tmp_path: Path, lines: list[str]) -> None:
    broken = list(lines)
    for row, column, value in [
        (1, "Gender", "Herr"),
        (2, "ApplicantIncome", "much"),
        (3, "LoanAmount", "-5"),
        (4, "Loan_Status", ""),
        (5, "Education", ""),
        (6, "Loan_ID", lines[7].split(",")[0]),
        (8, "Loan_Amount_Term", "inf"),
    ]:
        cells = lines[row].split(",")
        cells[lines[0].split(",").index(column)] = value
        broken[row] = ",".join(cells)
    problem = refusal(written(tmp_path, broken))
    for said in [
        "Gender: unknown category in row 1 (allowed: Female, Male)",
        "ApplicantIncome: not a number in row 2 (allowed: 0 to 1000000 currency units a month)",
        "LoanAmount: out of range in row 3 (allowed: 1 to 100000 thousand currency units)",
        "Loan_Status: missing in row 4 (allowed: N, Y)",
        "Education: missing in row 5 (allowed: Graduate, Not Graduate)",
        "Loan_ID: repeated in row 7 (allowed: a name of its own in every row)",
        "Loan_Amount_Term: out of range in row 8",
    ]:
        assert said in problem
    assert "Herr" not in problem
    assert "much" not in problem


def test_many_faulty_rows_are_counted_after_the_first_twenty() -> None:
    told = str(Fault("Gender", "unknown category", "Female, Male", tuple(range(1, 31))))
    assert (
        told
        == f"Gender: unknown category in row {', '.join(map(str, range(1, 21)))} and 10 more (allowed: Female, Male)"
    )


def test_missing_extra_and_repeated_columns_are_named(tmp_path: Path, lines: list[str]) -> None:
    header = lines[0].replace("Gender", "Sex").replace("Married", "Education")
    problem = refusal(written(tmp_path, [header, *lines[1:]]))
    assert "Sex: column is not known" in problem
    assert "Gender: column is missing (allowed: Female, Male)" in problem
    assert "Education: column is repeated" in problem


def test_a_table_with_one_class_is_refused(tmp_path: Path, lines: list[str]) -> None:
    only = [line for line in lines if line.endswith((",Y", "Loan_Status"))]
    assert "Loan_Status: one class only (allowed: both N and Y)" in refusal(written(tmp_path, only))


def test_incomes_that_add_up_to_nothing_are_refused(tmp_path: Path, lines: list[str]) -> None:
    cells = lines[1].split(",")
    cells[6] = cells[7] = "0"
    problem = refusal(written(tmp_path, [lines[0], ",".join(cells), *lines[2:]]))
    assert "ApplicantIncome + CoapplicantIncome: out of range in row 1 (allowed: above 0)" in problem


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"Loan_ID\n", "the table: no rows"),
        (b"Loan_ID\n\xff\xfe\n", "is not in UTF-8 from byte 9 on"),
        (b"a,b\n1,2\n1,2,3\n", "is not a CSV file: Error tokenizing data. C error: Expected 2 fields in line 3, saw 3"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    assert said in refusal(tmp_path / "table.csv")


@pytest.mark.parametrize(("values", "stored"), [((0, 1), int), (("False", "True"), bool)])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_may_be_numbers_or_booleans(values: tuple[str, str], stored: type, kind: str, tmp_path: Path) -> None:
    expected = table_rows.read(TABLE, SAMPLE)
    approved = expected["Loan_Status"] == "Y"
    rows = expected.assign(Loan_Status=approved.astype(stored))
    path = tmp_path / f"rows.{kind}"
    rows.to_csv(path, index=False) if kind == "csv" else rows.to_parquet(path)
    table = replace(TABLE, target=Category("Loan_Status", values))
    assert table.labels(table_rows.read(table, path)).tolist() == approved.astype(int).tolist()
    assert set(table_rows.read(table, path)["Loan_Status"]) == {table.negative, table.positive}


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "none.csv")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("total", [-(10**400), 10**400, -1.7e308, float("-inf"), float("nan")])
def test_a_logarithm_has_bounds_too(total: float) -> None:
    _, encoded = forms.forms(TABLE)
    row: dict[str, list[float]] = dict(
        zip(encoded.columns, [[1], [1], [0], [0], [0], [4.79], [360], [1], [2], [total]], strict=True)
    )
    with pytest.raises(forms.RowsRefused, match=r"TotalIncome: (out of range|not a number)"):
        encoded.features(row)


def changed(lines: list[str], column: str, change: Callable[[str], str]) -> list[str]:
    """The table with each cell of a column changed."""
    rows, place = [line.split(",") for line in lines], lines[0].split(",").index(column)
    return [lines[0], *(",".join([*row[:place], change(row[place]), *row[place + 1 :]]) for row in rows[1:])]


@pytest.mark.parametrize("column", ["Loan_ID", "Loan_Status", "Gender", "LoanAmount", "Credit_History"])
def test_white_space_around_cells_and_names_changes_nothing(column: str, tmp_path: Path, lines: list[str]) -> None:
    expected = table_rows.read(TABLE, SAMPLE)
    padded = changed(lines, column, lambda cell: f" {cell}\u3000\t")
    padded[0] = padded[0].replace(column, f"\xa0{column} ")
    pd.read_csv(written(tmp_path, padded), dtype=str, keep_default_na=False).to_parquet(tmp_path / "typed")
    for path in (tmp_path / "table.csv", tmp_path / "typed"):
        rows = table_rows.read(TABLE, path)
        pd.testing.assert_frame_equal(rows, expected)
        assert TABLE.digest(rows) == TABLE.digest(expected)
        pd.testing.assert_frame_equal(TABLE.split(rows)[1], TABLE.split(expected)[1])


def test_identifiers_that_only_spaces_tell_apart_are_repeated(tmp_path: Path, lines: list[str]) -> None:
    twice = [*lines, lines[1].replace(",", " ,", 1)]
    assert f"Loan_ID: repeated in row {len(lines)}" in refusal(written(tmp_path, twice))


@pytest.mark.parametrize(
    ("name", "other", "is_near"),
    [
        ("LP001002", "lp001002", True),
        ("LP001002", "\uff2cP001002", True),  # in full width
        ("A\u200b1", "A1", True),  # a space that has no width
        ("a  1", "A 1", True),
        ("1", "1.0", True),
        ("1", "01", True),
        ("1", "+1.", True),
        ("1.5", "01.50", True),
        ("0", "-0.0", False),
        ("1", "-1", False),
        ("10", "1", False),
        ("1.05", "1.5", False),
        ("LP1", "LP01", False),
    ],
)
def test_near_duplicates_are_said_and_trained_on(
    name: str, other: str, is_near: bool, tmp_path: Path, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    few = [
        lines[0],
        *(",".join([new, *line.split(",")[1:]]) for line, new in zip(lines[8:11], (name, "X", other), strict=True)),
    ]
    path = written(tmp_path, [*few, *lines[20:]])
    assert {name, other} <= {*table_rows.read(TABLE, path)["Loan_ID"]}
    said = "Loan_ID has near-duplicates, which only case, width or the form of a number tells apart, in row 1, 3"
    assert capsys.readouterr().out == (f"{path}: {said}\n" if is_near else "")


MISSING = replace(TABLE, missing=("NA", "-", "-99"))


def test_a_declared_marker_is_a_missing_cell_and_an_undeclared_one_is_a_fault(tmp_path: Path, lines: list[str]) -> None:
    expected = table_rows.read(TABLE, SAMPLE)
    marked = lines
    for column, marker in [
        ("Gender", "NA"),
        ("LoanAmount", " -"),
        ("Credit_History", "-99"),
        ("Loan_Amount_Term", "-99.0"),
    ]:
        marked = changed(marked, column, lambda cell, marker=marker: cell or marker)  # type: ignore[misc]
    path = written(tmp_path, marked)
    pd.testing.assert_frame_equal(table_rows.read(MISSING, path), expected)
    with pytest.raises(UserError) as refused:
        table_rows.read(TABLE, path)
    assert "Gender: unknown category (looks like a missing marker) in row" in refused.value.problem
    assert "LoanAmount: not a number (looks like a missing marker) in row" in refused.value.problem
    assert "Credit_History: unknown category in row" in refused.value.problem
    assert refused.value.fix.endswith('what is allowed, as missing=("NA",)')
    assert "-99" not in refused.value.problem


def test_what_a_column_allows_is_no_marker_there(tmp_path: Path, lines: list[str]) -> None:
    table = replace(TABLE, missing=("Male", "360", "0", "Urban"))
    padded = lines
    for column in ("Gender", "Dependents", "Loan_Amount_Term", "Property_Area"):
        padded = [lines[0], *changed(padded[:2], column, lambda cell: f"{cell} ")[1:], *padded[2:]]
    pd.testing.assert_frame_equal(table_rows.read(table, written(tmp_path, padded)), table_rows.read(TABLE, SAMPLE))
    assert Table.of(json.loads(json.dumps(table.as_dict()))) == table


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("Gender", "mALE", "differs in case only"),
        ("Education", "Not  Graduate", "differs in case, width, spaces or the form of a number only"),
        ("Dependents", "2.0", "differs in case, width, spaces or the form of a number only"),
        ("Property_Area", "\uff35rban", "differs in case, width, spaces or the form of a number only"),
        ("Loan_Status", "y", "differs in case only"),
        *(("Gender", marker, "looks like a missing marker") for marker in ("NA", "n/a", "null", "-", "?", "None")),
        *(("LoanAmount", marker, "looks like a missing marker") for marker in ("NaN", "#N/A", "-", ".")),
        ("LoanAmount", "5'000", "has a thousands separator"),
        ("LoanAmount", "1 234 000.5", "has a thousands separator"),
        ("LoanAmount", "1_000", "has a thousands separator"),
        ("LoanAmount", "$5000", "has a currency sign"),
        ("LoanAmount", "50 \u20ac", "has a currency sign"),
        ("LoanAmount", "50 %", "has a percent sign"),
        ("Loan_Amount_Term", "360 months", "has letters behind the number"),
        ("LoanAmount", "\uff15\uff10", "has digits of another script or width"),
        ("LoanAmount", "much", None),
        ("Gender", "Herr", None),
    ],
)
def test_the_reason_of_a_fault_is_said_and_the_cell_is_not(
    column: str, cell: str, reason: str | None, tmp_path: Path, lines: list[str]
) -> None:
    path = written(tmp_path, [*changed(lines[:2], column, lambda _: cell), *lines[2:]])
    problem = refusal(path).partition(": ")[2]
    said = re.fullmatch(rf"{column}: (not a number|unknown category)( \((.+)\))? in row 1 \(allowed: [^()]+\)", problem)
    assert said, problem
    assert said[3] == reason
    assert len(cell) == 1 or cell not in problem


def test_thousands_with_a_comma_and_decimal_commas_are_told_apart(tmp_path: Path, lines: list[str]) -> None:
    for cell, reason in [('"5,000"', "has a thousands separator"), ('"5,5"', "has a decimal comma")]:
        broken = [lines[0], *changed([lines[0], *lines[1:2]], "LoanAmount", lambda _, cell=cell: cell)[1:], *lines[2:]]  # type: ignore[misc]
        assert f"LoanAmount: not a number ({reason}) in row 1" in refusal(written(tmp_path, broken))


def test_a_column_that_differs_in_case_only_says_so(tmp_path: Path, lines: list[str]) -> None:
    problem = refusal(written(tmp_path, [lines[0].replace("Married", "MARRIED"), *lines[1:]]))
    assert "MARRIED: column is not known (differs from Married in case, width or spaces only)" in problem
    assert "Married: column is missing" in problem


def test_rows_are_named_with_their_lines_where_these_are_not_theirs_plus_one(tmp_path: Path, lines: list[str]) -> None:
    def broken(path: Path) -> str:
        path.write_text(path.read_text().replace(f"{lines[3].split(',')[0]},Male", f"{lines[3].split(',')[0]},Herr"))
        return refusal(path)

    lines[3] = lines[3].replace(",Female,", ",Male,")
    assert "Gender: unknown category in row 3 (allowed" in broken(written(tmp_path, lines))
    for spoilt, line in [
        (["", " \t", *lines], 6),
        ([*lines[:2], "", "", *lines[2:]], 6),
        ([*lines[:2], "," * 12, *lines[2:]], 5),
        ([lines[0].replace("Gender", '"Gender\n"'), *lines[1:]], 5),
    ]:
        assert f"Gender: unknown category in row 3 (line {line}) (allowed" in broken(written(tmp_path, spoilt))


def test_values_that_are_declared_with_spaces_keep_them(tmp_path: Path, lines: list[str]) -> None:
    spaced = replace(TABLE.categories[0], values=(" Female", " Male"))
    table = replace(TABLE, columns=(spaced, *TABLE.columns[1:]))
    path = written(tmp_path, changed(lines, "Gender", lambda cell: f" {cell}"))
    assert {*table_rows.read(table, path)["Gender"].dropna()} == {" Female", " Male"}


def test_a_sum_that_is_not_above_0_is_named_beside_the_faults_of_other_rows() -> None:
    x, y = Number("x", "m", 0, 5), Number("y", "m", 0, 5)
    table = Table("t", "t.csv", "id", Category("target", ("no", "yes")), (x, y), (Feature("s", ("x", "y"), log=True),))
    faults = table.faults({"x": [0, 9, 1], "y": [0, 1, 1]})
    assert [(fault.column, fault.rows) for fault in faults] == [("x", (2,)), ("x + y", (1,))]
