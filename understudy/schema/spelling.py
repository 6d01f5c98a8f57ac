"""How people write the same in different ways: numbers, identifiers, missing cells; and what gives a fault away."""

import math
import re
import unicodedata
from collections.abc import Callable, Iterable

# What other programs write for a missing cell. Nothing is made of it, unless a table declares it.
KNOWN_MARKERS = {"na", "n/a", "#n/a", "<na>", "nan", "null", "none", "nil", "missing", "unknown", "-", "--", "?", "."}
MARKER = "looks like a missing marker"
NUMBER = re.compile(r"\+?(-?)0*([0-9]+)(\.[0-9]*?)?0*")
MISSPELLED_NUMBERS = {
    r"[-+]?\d{1,3}([,'_\s]\d{3})+(\.\d+)?": "has a thousands separator",
    r"[-+]?[\d.]*,\d+": "has a decimal comma",
    r"[-+]?[$£€¥₹]\s?[-+]?\d.*|[-+]?\d.*[$£€¥₹]": "has a currency sign",
    r"[-+]?\d[\d.,]*\s?%": "has a percent sign",
    r"[-+]?\d[\d.,]*\s?[a-zA-Z]+": "has letters behind the number",
}


def number(text: str) -> float | str:
    """The number that a text says; the text if it says none."""
    # Python also reads digits of every script, _ between them, and nan; pandas, which reads for training, does not.
    bare = text.strip()
    try:
        value = float(bare) if bare.isascii() and "_" not in bare else math.nan
    except ValueError:
        return text
    return text if math.isnan(value) else value


def folded(text: str) -> str:
    """The text without what people overlook: case, width, spaces, characters that do not show, the form of a number."""
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKC", text) if c.isprintable() or c.isspace())
    text = " ".join(text.casefold().split())
    form = NUMBER.fullmatch(text)
    return f"{form[1]}{form[2]}{(form[3] or '').rstrip('.')}" if form else text


def reasons(values: Iterable[object], is_text: bool) -> Callable[[object], str | None]:
    """What tells why a cell is none of the values, or no number, as far as that can be said without the cell."""
    cases, forms = ({fold(str(value)) for value in values} for fold in (str.casefold, folded)) if is_text else ((), ())

    def reason(cell: object) -> str | None:
        if not isinstance(cell, str):
            return None
        if cell.casefold() in cases:
            return "differs in case only"
        if folded(cell) in forms:
            return "differs in case, width, spaces or the form of a number only"
        if folded(cell) in KNOWN_MARKERS:
            return MARKER
        if is_text:
            return None
        if number(cell) != cell:
            return "is text that says a number"
        fits = (text for pattern, text in MISSPELLED_NUMBERS.items() if re.fullmatch(pattern, cell, re.ASCII))
        return next(fits, "has digits of another script or width" if number(folded(cell)) != folded(cell) else None)

    return reason
