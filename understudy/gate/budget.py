"""What is left of the error that challengers may spend on a version's held-out rows."""

from mlflow import MlflowClient

from understudy.errors import UserError
from understudy.gate import attempts, checks, comparison
from understudy.registry import records
from understudy.table import TABLE


def left(client: MlflowClient, name: str, number: str) -> str | None:
    """How many challengers were asked about on rows like a version's, and what that leaves; None if none was."""
    try:
        known = records.find(client, name)
        rows, _ = comparison.held_out(client, name, number, None)
    except UserError as error:
        return f"what was asked on the held-out rows of version {number} cannot be told: {error.problem}"
    identifiers = rows[TABLE.row_id]
    another = attempts.Question("", "", deciding=identifiers, beside=identifiers[:0])
    following = attempts.on_such_rows(client, known, another)
    if following == 1:
        return None
    asked = "1 challenger was" if following == 2 else f"{following - 1} challengers were"
    spent, rest = checks.share(following), checks.SPENT / following
    rows_of = f"rows like the {len(rows)} held-out rows of version {number}"
    return f"{asked} asked about on {rows_of}; the next one spends {spent:.2%} of error, of {rest:.2%} that is left"
