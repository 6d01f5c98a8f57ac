"""The bodies of requests and answers as JSON Schemas, and examples of them, all from a version's own table."""

import csv
import io
import math
from typing import Any

from understudy.schema.compatibility import row_schema
from understudy.schema.declaration import Table
from understudy.scoring.forms import RowsRefused
from understudy.scoring.scorer import DETAIL, LABEL, OUTPUTS, PROBABILITY, REASONS, Scorer

REFUSED = "x-status"  # of an example that is refused: the status that it gets
TEXT, NUMBER, ANYTHING = {"type": "string"}, {"type": "number"}, {}  # type: ignore[var-annotated]
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
CELLS = {"type": "array", "items": ANYTHING}

Schema = dict[str, Any]


def schema(scorer: Scorer) -> Schema:
    """The JSON Schema of a raw row, with an example of one."""
    return row_schema(scorer.table) | {"examples": [scorer.example()]}


def ref(name: str) -> Schema:
    """What stands for one of the `schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(about: str, optional: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """The schema of an object with these keys and no others."""
    required = [name for name in properties if name not in optional]
    made = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"description": about, **made}


def listed(items: Schema, about: str = "") -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": items, **({"description": about} if about else {})}


def schemas(scorer: Scorer) -> dict[str, Schema]:
    """The schemas that bodies are made of, by name."""
    row = schema(scorer)
    definitions = row.pop("$defs")
    del row["$schema"]
    return {
        "Row": row,
        "EncodedRow": {"description": "a row as the model computes with it", **definitions["encoded"]},
        "Label": definitions["label"],
        **_requests(),
        **_answers(),
        **_pages(),
    }


def _requests() -> dict[str, Schema]:
    either = {"anyOf": [ref("Row"), ref("EncodedRow")]}
    unnamed = listed(ANYTHING, "the encoded columns in their order")
    split = record(
        "rows under the names of their columns",
        ("index",),
        columns=listed(TEXT),
        data=listed(CELLS, "a list of cells for each row"),
        index={**CELLS, "description": "a label for each row, of which nothing is made"},
    )
    columns = {"type": "object", "additionalProperties": CELLS, "description": "columns by name"}
    beside = {
        "params": record("what to answer", ("output",), output=ref("Output")),
        "ids": listed(ref("Id"), "an id for each row"),
    }
    forms = {
        "dataframe_records": listed(either),
        "dataframe_split": split,
        "instances": listed({"anyOf": [*either["anyOf"], unnamed]}),
        "inputs": {"anyOf": [listed({"anyOf": [*either["anyOf"], unnamed]}), columns]},
    }
    rows = record(
        "rows in exactly one of four forms, and perhaps more beside them", (*forms, *beside), **forms, **beside
    )
    output = f"{LABEL} if nothing is said; {PROBABILITY} of the positive label; {DETAIL} for both, and for reasons"
    return {
        "Rows": {**rows, "oneOf": [{"required": [name]} for name in forms]},
        "Output": {"enum": list(OUTPUTS), "description": output},
        "Id": {"type": ["string", "integer", "null"], "description": "names a row, and is no input of the model"},
    }


def _answers() -> dict[str, Schema]:
    moved = record(
        "a column that moved the score, by how much in one of the two units",
        ("log_odds", "probability"),
        column={**TEXT, "description": "a column, or several with + between them"},
        towards=ref("Label"),
        log_odds=NUMBER,
        probability=NUMBER,
    )
    detail = record(
        f"the answer to a row with output {DETAIL}",
        id=TEXT,
        label=ref("Label"),
        probability={**SHARE, "description": "of the positive label"},
        threshold={**SHARE, "description": "the positive label is answered from this probability on"},
        version=TEXT,
        moved={**listed(moved, "what moved the score most, the strongest first"), "maxItems": REASONS},
    )
    kinds = [listed(ref("Label")), listed({**SHARE, "description": "of the positive label"}), listed(ref("Detail"))]
    fault = record(
        "one thing that is wrong with one column",
        ("reason",),
        column=TEXT,
        problem=TEXT,
        allowed=TEXT,
        rows=listed({"type": "integer", "minimum": 1}, "the first rows that have it; 1 is the first"),
        count={"type": "integer", "description": "how many rows have it"},
        reason={**TEXT, "description": "why, where that can be told without the cell"},
    )
    about = "why a request is refused; faults are said of rows that the table does not allow"
    refusal = record(about, ("faults",), error_code=TEXT, message=TEXT, faults=listed(ref("Fault")))
    answer = record("an answer for each row, in their order", predictions={"oneOf": kinds})
    return {"Answer": answer, "Detail": detail, "Refusal": refusal, "Fault": fault}


def _pages() -> dict[str, Schema]:
    return {
        "Alive": record("the process answers", status={"const": "alive"}),
        "Health": record(
            "waiting until there is a first version",
            ("version",),
            status={"enum": ["serving", "waiting"]},
            version=TEXT,
        ),
        "Version": record(
            "which version answers",
            name={**TEXT, "description": "of the registered model"},
            stage=TEXT,
            version=TEXT,
            manifest={**TEXT, "description": "the digest of the version's files"},
            since={"type": "string", "format": "date-time", "description": "when this worker loaded it"},
        ),
    }


def examples(scorer: Scorer) -> dict[str, Any]:
    """Bodies of JSON that can be sent as they are, by name; one that is refused says its status."""
    row = scorer.example()
    columns = {name: [cell] for name, cell in row.items()}
    encoded = [
        None if math.isnan(cells[0]) else cells[0] for cells in (make(columns) for make in scorer.table.encoders())
    ]
    split = {"columns": list(row), "data": [list(row.values())]}
    bodies = {
        LABEL: ("The label of a row", {"dataframe_records": [row]}),
        PROBABILITY: ("A probability", {"dataframe_records": [row], "params": {"output": PROBABILITY}}),
        DETAIL: ("The reasons too", {"dataframe_records": [row], "params": {"output": DETAIL}}),
        "split": ("Names once, and ids", {"dataframe_split": split, "ids": ["A-1"]}),
        "columns": ("Columns by name", {"inputs": columns}),
        "encoded": ("Encoded cells without names", {"inputs": [encoded]}),
    }
    sent: dict[str, Any] = {name: {"summary": about, "value": body} for name, (about, body) in bodies.items()}
    refused = {"dataframe_records": [faulty(scorer)]}
    return {**sent, "refused": {"summary": "A row that is refused with 400", "value": refused, REFUSED: 400}}


def faulty(scorer: Scorer) -> dict[str, Any]:
    """The example with a first cell that no column allows."""
    return scorer.example() | {scorer.table.columns[0].name: True}


def refusal(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """The body that a refused row gets."""
    return RowsRefused(table.faults({name: [cell] for name, cell in row.items()})).body()


def answers(scorer: Scorer, version: str) -> dict[str, Any]:
    """What answers look like, by the names of the requests; their numbers are made up."""
    table = scorer.table
    unit = scorer.predictor.unit
    moved = {"column": " + ".join(table.sources[-1]), "towards": table.positive, unit: 0.25}
    detail = {"id": "A-1", "label": table.positive, "probability": 0.82, "threshold": scorer.threshold}
    bodies = {LABEL: table.positive, PROBABILITY: 0.82, DETAIL: {**detail, "version": version, "moved": [moved]}}
    return {name: {"value": {"predictions": [body]}} for name, body in bodies.items()}


def as_csv(row: dict[str, Any]) -> str:
    """A row as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([row.keys(), row.values()])
    return text.getvalue()
