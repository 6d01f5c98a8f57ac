# PYTHON_ARGCOMPLETE_OK
"""Print the declaration of a table, for understudy/table.py. It trains as it is, and asks what only you can answer.

python -m understudy.declare data.csv --target COLUMN > understudy/table.py
python -m understudy.declare 'sqlite:///file.db#table' --target COLUMN --positive yes --name Default_risk
"""

import argparse
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

from understudy import errors, terminal

PROJECT = Path(__file__).resolve().parents[2]


def options() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m understudy.declare", **terminal.explained(__doc__))
    parser.add_argument("data", help="file, URL or database of the table, as train.py --data takes it")
    parser.add_argument("--target", required=True, metavar="COLUMN", help="the column to predict, of two values")
    parser.add_argument("--positive", metavar="VALUE", help="the positive one (default: a guess, which is said)")
    parser.add_argument("--name", help="of the registered model and the experiment (default: the data's)")
    return parser


def main() -> None:
    """Print the declaration once it is whole."""
    args = terminal.parse(options())
    # They load pandas, for which --help need not wait.
    from understudy.declare import source
    from understudy.declare.draft import draft
    from understudy.reading import reader

    with redirect_stdout(sys.stderr):  # what it says of a file is no part of the module
        rows = reader.read(args.data)
    name = args.name or re.sub(r"\W+", "_", reader.name(args.data)).strip("_") or "Table"
    print(source.source(draft(rows, name, _path(reader.shown(args.data)), args.target, args.positive)), end="")


def _path(address: str) -> str:
    """The address as the declaration has it: a path from the project's folder on, or else in full."""
    if "://" in address:
        return address
    path = Path(address).resolve()
    return path.relative_to(PROJECT).as_posix() if path.is_relative_to(PROJECT) else str(path)


if __name__ == "__main__":
    errors.run(main)
