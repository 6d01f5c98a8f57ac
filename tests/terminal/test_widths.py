"""A table is never wider than the terminal, and no figure of it is cut."""

import re

import pytest
import wcwidth

from tests.terminal.conftest import in_terminal
from understudy import terminal

FAMILIES = """
from understudy import errors, terminal
rows = [
    {"Family": "HistGradientBoostingClassifierOfTheSecondAttempt", "Mean CV score": "0.778",
     "Accuracy": "0.790 (0.731 to 0.844)", "AUC": "0.715 (0.626 to 0.796)", "result": "pass"},
    {"Family": "Short", "Mean CV score": "0.790",
     "Accuracy": "0.785 (0.726 to 0.839)", "AUC": "0.723 (0.638 to 0.809)", "result": ""},
]
print("\\n".join(terminal.table(rows, {"pass": errors.GREEN})))
"""
WIDE = """
from understudy import errors, terminal
rows = [
    {"Family": "勾配ブースティング決定木による分類器", "Accuracy": "0.790 (0.731 to 0.844)", "result": "合格"},
    {"Family": "Ente", "Accuracy": "0.785 (0.726 to 0.839)", "result": "pass"},
]
print("\\n".join(terminal.table(rows, {"合格": errors.GREEN})))
"""
GATE = """
import numpy as np, pandas as pd
from understudy.gate.checks import Check
from understudy.gate.decision import Decision
name = "log loss less champion's, A_column_of_a_table_whose_name_is_long a value that is long too, 1234 rows"
slices = Check(name, 0.123, "at most 0.100, or interval not above 0", False, 0.012, 0.234, "it is worse")
print(Decision((Check("ROC AUC", 0.715, "interval above 0.500", True, 0.626, 0.796),), (slices,)))
"""
FIGURES = {
    FAMILIES: ["0.778", "0.790 (0.731 to 0.844)", "0.715 (0.626 to 0.796)", "0.723 (0.638 to 0.809)"],
    WIDE: ["0.790 (0.731 to 0.844)", "0.785 (0.726 to 0.839)"],
    GATE: ["0.715", "0.626 to 0.796", "interval above 0.500", "0.123", "0.012 to 0.234"],
}
NAMES = ["HistGradientBoostingClassifierOfTheSecondAttempt", "勾配ブースティング決定木による分類器"]
NAMES += ["A_column_of_a_table_whose_name_is_long"]


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("program", FIGURES, ids=["families", "wide", "gate"])
def test_no_line_is_wider_than_the_terminal(program: str, columns: int) -> None:
    written = re.sub(r"\033\[\d+m", "", in_terminal(program, columns=columns))
    assert max(map(wcwidth.width, written.splitlines())) <= columns
    for figure in FIGURES[program]:
        assert figure in written
    joined = re.sub(r"\s+", "", written)
    assert any(name in joined for name in NAMES)


def test_of_a_terminal_that_is_wide_enough_the_cell_has_the_colour() -> None:
    assert "\033[32m  pass\033[0m" in in_terminal(FAMILIES, columns=200)


def test_columns_of_wide_letters_are_aligned() -> None:
    lines = re.sub(r"\033\[\d+m", "", in_terminal(WIDE, columns=200)).splitlines()
    assert len({wcwidth.width(line) for line in lines}) == 1


def test_without_a_terminal_a_table_is_as_wide_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"a": "x" * 200, "number": "1"}, {"a": "y", "number": "22"}]
    assert terminal.table(rows) == [f"{'a':>200} number", f"{'x' * 200}      1", f"{'y':>200}     22"]
