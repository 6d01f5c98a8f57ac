"""Draw the loop from the table to Production and back, for light and for dark pages: python docs/loop.py.

It writes `loop-light.svg` and `loop-dark.svg` beside itself, with the same bytes every time.
"""

from itertools import pairwise
from pathlib import Path

WIDTH, HEIGHT = 640, 346  # pixels, as all that follows
BOX_WIDTH, BOX_HEIGHT, CORNER = 126, 46, 8
COLUMNS = (80, 240, 400, 560)  # centres of the boxes
UPPER, LOWER = 88, 258
HEAD = 9  # what an arrow's head adds to its line

UPPER_BOXES = {
    "table": ("your rows,", "CSV to SQL"),
    "train": ("three families,", "cross-validated"),
    "evaluate": ("on held-out rows,", "with intervals"),
    "register": ("the best one, with", "each file's digest"),
}
LOWER_BOXES = {
    "serve": ("--live follows it,", "and keeps rows"),
    "Production": ("one version, and", "a record of why"),
    "gate": ("new against old, on", "rows new to both"),
    "Staging": ("the challenger", "plays along"),
}
ACCENTED = ("gate", "Production")

SCHEMES = {
    "light": {"page": "#ffffff", "box": "#f6f8fa", "line": "#59636e", "text": "#1f2328", "accent": "#0969da"},
    "dark": {"page": "#0d1117", "box": "#151b23", "line": "#9198a1", "text": "#f0f6fc", "accent": "#4493f8"},
}
STYLE = """  <style>
    text {{ font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; text-anchor: middle }}
    .note {{ font-size: 16px; fill: {line} }}
    .name {{ font-size: 19px; font-weight: 600; fill: {text} }}
    rect {{ fill: {box}; stroke: {line}; stroke-width: 1.5 }}
    .accent {{ stroke: {accent}; stroke-width: 3 }}
    path {{ fill: none; stroke: {line}; stroke-width: 2.5; marker-end: url(#head) }}
    .by-hand {{ stroke-dasharray: 7 5 }}
    marker path {{ fill: {line}; stroke: none; marker-end: none }}
  </style>"""
MARKER = (
    '  <marker id="head" viewBox="0 0 10 10" refX="1" refY="5" markerWidth="9" markerHeight="9" '
    'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 10 5 0 10z"/></marker>'
)
TITLE = "From the table to Production and back"


def text(x: int, y: int, words: str, kind: str = "note") -> str:
    """A line of text, centred at x, on the baseline y."""
    return f'  <text x="{x}" y="{y}" class="{kind}">{words}</text>'


def box(x: int, y: int, name: str, lines: tuple[str, str], first_line: int) -> list[str]:
    """A step of the loop, with its box centred at (x, y) and what it does in two lines from the baseline given."""
    accent = ' class="accent"' if name in ACCENTED else ""
    corner = f'x="{x - BOX_WIDTH // 2}" y="{y - BOX_HEIGHT // 2}"'
    return [
        f'  <rect {corner} width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="{CORNER}"{accent}/>',
        text(x, y + 6, name, "name"),
        *(text(x, first_line + 20 * number, line) for number, line in enumerate(lines)),
    ]


def arrows() -> list[str]:
    """The way round, and the two ways back."""
    half, rise = BOX_WIDTH // 2, BOX_HEIGHT // 2
    pairs = list(pairwise(COLUMNS))
    right = [f"M{a + half + 3} {UPPER} H{b - half - HEAD}" for a, b in pairs]
    left = [f"M{b - half - 3} {LOWER} H{a + half + HEAD}" for a, b in pairs]
    down = f"M{COLUMNS[3]} {UPPER + rise + 3} V{LOWER - rise - HEAD}"
    up = f"M{COLUMNS[0]} {LOWER - rise - 3} V{UPPER + rise + HEAD}"
    top = LOWER - rise
    rollback = f"M{COLUMNS[1] + 34} {top - 3} v-14 a14 14 0 0 0 -14 -14 h-40 a14 14 0 0 0 -14 14 V{top - HEAD}"
    refused = f"M{COLUMNS[2]} {top - 3} V{top - 26}"
    return [
        *(f'  <path d="{way}"/>' for way in (*right, down, *left, rollback, refused)),
        f'  <path class="by-hand" d="{up}"/>',
    ]


def draw(scheme: dict[str, str]) -> str:
    """The whole picture as SVG, in a scheme's colours."""
    steps = [box(x, UPPER, *step, 28) for x, step in zip(COLUMNS, UPPER_BOXES.items(), strict=True)]
    steps += [box(x, LOWER, *step, 304) for x, step in zip(COLUMNS, LOWER_BOXES.items(), strict=True)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"  <title>{TITLE}</title>",
            STYLE.format(**scheme),
            MARKER,
            f'  <path d="M0 0H{WIDTH}V{HEIGHT}H0z" style="fill: {scheme["page"]}; stroke: none; marker: none"/>',
            *arrows(),
            *(line for step in steps for line in step),
            text(COLUMNS[0] + 55, 162, "monitor:"),
            text(COLUMNS[0] + 55, 182, "train again"),
            text(COLUMNS[1], 194, "rollback"),
            text(COLUMNS[2], 168, "or it refuses, and"),
            text(COLUMNS[2], 188, "nothing moves"),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    for name, scheme in SCHEMES.items():
        (Path(__file__).parent / f"loop-{name}.svg").write_text(draw(scheme))
