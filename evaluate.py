# PYTHON_ARGCOMPLETE_OK
"""Score a batch's models on the held-out rows: metrics with intervals, plots and a comparison, onto the same runs.

python evaluate.py                  the newest batch, on the project's own table
python evaluate.py --data FILE      the same on the file that it was trained on
python evaluate.py --batch RUN_ID   another one
"""

import argparse
from dataclasses import replace

from understudy import errors, terminal
from understudy.table import TABLE
from understudy.terminal import Reply


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(**terminal.explained(__doc__))
    parser.add_argument("--batch", default="", help="run id of a batch (default: the newest)")
    parser.add_argument("--data", default="", help=f"file, URL or database of the table (default: {TABLE.path})")
    parser.add_argument("--fail-fast", action="store_true", help="do not wait for a tracking server that goes away")
    terminal.add_json(parser)
    return parser


def main() -> None:
    args = terminal.parse(options())
    terminal.answer(lambda: evaluate(args), args.json)


def evaluate(args: argparse.Namespace) -> Reply:
    """Evaluate a batch."""
    # MLflow takes seconds to load, and --help need not wait for it.
    from understudy.reading import table_rows
    from understudy.tracking import connection, family_runs, provenance
    from understudy.training import evaluation

    client = connection.connect(args.fail_fast)
    batch = family_runs.get_batch(client, TABLE, args.batch or None)
    address = provenance.recorded_address(batch, TABLE.path, args.data or None, "python evaluate.py")
    return replace(evaluation.evaluate(client, batch, table_rows.read(TABLE, address)), next="python register.py")


if __name__ == "__main__":
    errors.run(main)
