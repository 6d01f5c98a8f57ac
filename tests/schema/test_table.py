from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import REAL, SAMPLE, needs_real_table
from understudy.errors import UserError
from understudy.schema.columns import Category, Fault
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
        TABLE.read(path)
    return refused.value.problem


@pytest.mark.parametrize("path", TABLES)
def test_a_table_is_read_whole_and_in_order_of_its_identifiers(path: Path) -> None:
    rows = TABLE.read(path)
    assert rows.shape == (614, 13)
    assert rows["Loan_ID"].is_monotonic_increasing
    assert rows["Credit_History"].isna().sum() == 50
    assert TABLE.faults(rows[COLUMNS]) == []


@pytest.mark.parametrize("path", TABLES)
def test_a_table_in_another_order_has_the_same_digest_and_the_same_sides(path: Path, tmp_path: Path) -> None:
    rows = TABLE.read(path)
    shuffled = pd.read_csv(path, dtype=str).sample(frac=1, random_state=1)
    shuffled.to_csv(tmp_path / "shuffled.csv", index=False)
    again = TABLE.read(tmp_path / "shuffled.csv")
    assert TABLE.digest(again) == TABLE.digest(rows)
    pd.testing.assert_frame_equal(TABLE.split(again)[1], TABLE.split(rows)[1])


def test_a_changed_cell_changes_the_digest() -> None:
    rows = TABLE.read(SAMPLE)
    assert TABLE.digest(rows) != TABLE.digest(rows.assign(LoanAmount=rows["LoanAmount"].add(1)))


@pytest.mark.parametrize("path", TABLES)
def test_a_row_keeps_its_side_as_the_table_grows(path: Path) -> None:
    rows = TABLE.read(path)
    few = {*TABLE.split(rows[:200])[1]["Loan_ID"]}
    assert few == {*TABLE.split(rows)[1]["Loan_ID"]} & {*rows["Loan_ID"][:200]}


def test_three_rows_in_ten_are_held_out() -> None:
    many = pd.DataFrame({"Loan_ID": [f"LP{i}" for i in range(20_000)], "Loan_Status": ["Y", "N"] * 10_000})
    training, held_out = TABLE.split(many)
    assert len(training) + len(held_out) == 20_000
    assert 0.29 < len(held_out) / 20_000 < 0.31


def test_a_split_without_enough_rows_of_a_class_is_refused() -> None:
    rows = TABLE.read(SAMPLE)
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
        (b"Loan_ID\n\xff\xfe\n", "is not a CSV file in UTF-8"),
        (b"a,b\n1,2\n1,2,3\n", "is not a CSV file in UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    assert said in refusal(tmp_path / "table.csv")


@pytest.mark.parametrize(("values", "stored"), [((0, 1), int), (("False", "True"), bool)])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_may_be_numbers_or_booleans(values: tuple[str, str], stored: type, kind: str, tmp_path: Path) -> None:
    expected = TABLE.read(SAMPLE)
    approved = expected["Loan_Status"] == "Y"
    rows = expected.assign(Loan_Status=approved.astype(stored))
    path = tmp_path / f"rows.{kind}"
    rows.to_csv(path, index=False) if kind == "csv" else rows.to_parquet(path)
    table = replace(TABLE, target=Category("Loan_Status", values))
    assert table.labels(table.read(path)).tolist() == approved.astype(int).tolist()
    assert set(table.read(path)["Loan_Status"]) == {table.negative, table.positive}


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
