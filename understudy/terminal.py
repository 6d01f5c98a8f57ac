"""How scripts answer: lines for people, or with `--json` one object for programs."""

import argparse
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import wcwidth

from understudy import errors

if TYPE_CHECKING:
    from tqdm import tqdm

INDENT, HARD_SPACE = "    ", "\N{NO-BREAK SPACE}"
SHORT = 2.0  # seconds, for which nobody needs a bar
JSON_HELP = "print the result as one JSON object, see docs/terminal.md"


@dataclass(frozen=True)
class Reply:
    """What came of a verb.

    Args:
        values: What `--json` prints, by names in snake_case; docs/terminal.md says which they are.
        lines: What people read instead.
        next: The command that comes next; None where nothing follows, and after a refusal.
        code: The exit code.
    """

    values: Mapping[str, Any]
    lines: Sequence[str] = ()
    next: str | None = None
    code: int = 0


def explained(text: str) -> dict[str, Any]:
    """What a parser's help says around the options, for `ArgumentParser`: a purpose above them, examples below.

    The text's first paragraph is the purpose, the second one has an example a line: the command, and behind two
    spaces what it does. More paragraphs come last.
    """
    purpose, examples, *more = text.strip().split("\n\n")
    below = "\n\n".join([f"examples:\n{textwrap.indent(examples, '  ')}", *more])
    return {"description": purpose, "epilog": below, "formatter_class": argparse.RawDescriptionHelpFormatter}


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What was typed; where a shell asks how it may go on, that is answered and the process ends."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    return parser.parse_args()


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give a parser the option `--json`, with the parser's own default if it has one."""
    parser.add_argument("--json", action="store_true", default=parser.argument_default or False, help=JSON_HELP)


def answer(work: Callable[[], Reply], as_json: bool) -> None:
    """Do a verb's work and print what came of it, ending with the next command.

    As JSON it is one object on stdout, and what is said while the verb works goes to stderr.

    Raises:
        Refused: It was; the object is printed before.
        SystemExit: The exit code is another one than 0.
    """
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            reply = work()
    except errors.Refused as refused:
        if as_json:
            _print_object({**refused.values, "refused": refused.why, "next": None})
        raise
    if as_json:
        _print_object({**reply.values, "next": reply.next})
    else:
        for line in reply.lines:
            print(line)
        if reply.next:
            print(f"{errors.painted('next:', errors.BOLD)} {reply.next}")
    if reply.code:
        sys.exit(reply.code)


def _print_object(values: Mapping[str, Any]) -> None:
    print(json.dumps(finite(values), allow_nan=False, default=_plain))


def _plain(value: Any) -> Any:
    """A value that JSON has no form for: numpy's numbers as Python's, all else, as a grid may hold, as text."""
    return value.item() if hasattr(value, "item") else str(value)


def table(rows: Sequence[Mapping[Any, str]], styles: Mapping[str, str] | None = None) -> list[str]:
    """The lines of a table, none of them wider than the terminal; where there is none, of any width.

    Where the columns do not fit side by side, the first one gets a line of its own above the others; where these do not
    fit either, they follow each other. No figure is cut.

    Args:
        rows: Column to text, the same columns in each; one row at least.
        styles: Text of a cell to its style, see `errors.painted`.
    """
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    shown = [{errors.visible(name): errors.visible(cell) for name, cell in row.items()} for row in rows]
    shown = [{name: name for name in shown[0]}, *shown]
    widths = {name: max(wcwidth.width(row[name]) for row in shown) for name in shown[0]}
    first, *others = widths
    painted = [{}, *[styles or {}] * len(rows)]  # names of columns are not
    aligned = [
        [errors.painted(wcwidth.rjust(row[name], widths[name]), of.get(row[name], "")) for name in widths]
        for row, of in zip(shown, painted, strict=True)
    ]
    if sum(widths.values()) + len(others) <= room:
        return [" ".join(cells).rstrip() for cells in aligned]
    if len(INDENT) + sum(widths[name] for name in others) + len(others) - 1 <= room:
        below = [[f"{INDENT}{' '.join(cells[1:])}".rstrip()] for cells in aligned]
    else:
        below = [_wrapped(", ".join(_kept(row, others, room)), room, INDENT) for row in shown]
        shown, below = shown[1:], below[1:]
    return [line for row, lines in zip(shown, below, strict=True) for line in [*_wrapped(row[first], room), *lines]]


def _kept(row: Mapping[str, str], names: Sequence[str], room: int) -> list[str]:
    """The cells of a row that say something, each behind its column's name and kept together where a line has room."""
    cells = [f"{name} {row[name]}".strip() for name in names if row[name]]
    return [cell.replace(" ", HARD_SPACE) if wcwidth.width(cell) < room - len(INDENT) else cell for cell in cells]


def _wrapped(text: str, room: int, indent: str = "") -> list[str]:
    lines = wcwidth.wrap(text, room - len(indent), break_on_hyphens=False)
    return [f"{indent}{line.replace(HARD_SPACE, ' ')}" for line in lines]


def bar(items: Iterable[Any] | None = None, **options: Any) -> "tqdm[Any]":
    """A bar on stderr for what takes more than two seconds, gone at its end, and not there where nobody looks on.

    Args:
        items: What is gone through; None to call `update` with what is done.
        options: More of tqdm's.
    """
    from tqdm import tqdm

    return tqdm(items, disable=None, leave=False, delay=SHORT, **options)


def say(line: str) -> None:
    """Print a line while a bar may be shown, which goes on below it."""
    from tqdm import tqdm

    tqdm.write(line)


def finite(value: Any) -> Any:
    """The value as JSON takes it, with None for each number in it that is NaN or infinite."""
    if isinstance(value, Mapping):
        return {key: finite(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [finite(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def utc(milliseconds: int) -> str:
    """Milliseconds since 1970 as a time in ISO 8601."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
