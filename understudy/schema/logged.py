"""The columns of the row log, which the live server writes and the monitor reads; docs/scoring.md says what each is.

Raw and encoded rows have one schema: what every row has, then the cells of raw rows, then those of encoded ones.
"""

from collections.abc import Mapping, Sequence

TIME, DAY = "time", "day"  # when a row was answered, and the day of that, which names the folder that its file is in
TEXTS = (
    "id",
    "request",
    "version",
    "stage",
    "form",
    "label",
    "fault",
    "shadow_version",
    "shadow_label",
    "shadow_fault",
)
COLUMNS = (
    TIME,
    "id",
    "request",
    "version",
    "stage",
    "threshold",
    "form",
    "label",
    "probability",
    "fault",
    "shadow_version",
    "shadow_label",
    "shadow_probability",
    "shadow_fault",
)


def name(form: str, column: str) -> str:
    """What the log calls a cell's column, in rows of the form "raw" or "encoded"."""
    if form == "encoded":
        return f"encoded_{column}"
    return f"row_{column}" if column in (*COLUMNS, DAY) else column


def row_ids(ids: Sequence[str | None] | None, request: str, count: int) -> list[str]:
    """The ids of a request's rows: those that they bring, and for others the request's id and their number from 1 on.

    Args:
        ids: Of each row; None for rows, or for all of them, that bring none.
        request: The request's id.
        count: How many rows there are.
    """
    return [given or f"{request}:{number}" for number, given in enumerate(ids or [None] * count, 1)]


def columns(types: Mapping[str, Mapping[str, bool]]) -> dict[str, bool]:
    """All columns of the log in their order, and whether each holds text.

    Args:
        types: Form to column of a table to whether its cells are text.
    """
    cells = {name(form, column): is_text for form in types for column, is_text in types[form].items()}
    return {column: column in TEXTS for column in COLUMNS} | cells
