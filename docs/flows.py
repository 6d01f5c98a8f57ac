"""Draw the loop of the README and the way to Production, for light and for dark pages: python docs/flows.py.

It writes `loop-light.svg`, `promotion-light.svg` and the two dark ones beside itself, with the same bytes every time.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

WIDTH = 640  # pixels, as all that follows
BOX_WIDTH, BOX_HEIGHT, CORNER = 126, 46, 8
HALF, RISE = BOX_WIDTH // 2, BOX_HEIGHT // 2
COLUMNS = (80, 240, 400, 560)  # centres of the boxes
HEAD = 9  # what an arrow's head adds to its line


@dataclass(frozen=True)
class Step:
    """A box with a name in it, and two lines that say what it does.

    Args:
        name: In the box.
        x: Its centre.
        y: Its centre.
        lines: What it does.
        below: Whether that stands below the box, and not above.
        accent: Whether it stands out.
        optional: Whether it is there only where people want it.
    """

    name: str
    x: int
    y: int
    lines: tuple[str, str]
    below: bool = False
    accent: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Flow:
    """A picture: steps, ways between them, ways that nothing goes by itself, and words at places."""

    title: str
    height: int
    steps: tuple[Step, ...]
    ways: tuple[str, ...]
    by_hand: tuple[str, ...]
    words: tuple[tuple[int, int, str], ...]


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
    .optional {{ stroke-dasharray: 7 5 }}
    path {{ fill: none; stroke: {line}; stroke-width: 2.5; marker-end: url(#head) }}
    .by-hand {{ stroke-dasharray: 7 5 }}
    marker path {{ fill: {line}; stroke: none; marker-end: none }}
  </style>"""
MARKER = (
    '  <marker id="head" viewBox="0 0 10 10" refX="1" refY="5" markerWidth="9" markerHeight="9" '
    'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 10 5 0 10z"/></marker>'
)


def right(y: int, first: int, last: int) -> list[str]:
    """Ways from each box of a row to the next on its right, from one column to another."""
    return [f"M{a + HALF + 3} {y} H{b - HALF - HEAD}" for a, b in pairwise(COLUMNS[first : last + 1])]


def left(y: int) -> list[str]:
    """Ways from each box of a row to the next on its left."""
    return [f"M{b - HALF - 3} {y} H{a + HALF + HEAD}" for a, b in pairwise(COLUMNS)]


def down(x: int, upper: int, lower: int) -> str:
    """A way from a box to the one below it."""
    return f"M{x} {upper + RISE + 3} V{lower - RISE - HEAD}"


def up(x: int, upper: int, lower: int) -> str:
    """A way from a box to the one above it."""
    return f"M{x} {lower - RISE - 3} V{upper + RISE + HEAD}"


def loop() -> Flow:
    """From the table to Production and back."""
    upper, lower = 88, 258
    top = lower - RISE
    rollback = f"M{COLUMNS[1] + 34} {top - 3} v-14 a14 14 0 0 0 -14 -14 h-40 a14 14 0 0 0 -14 14 V{top - HEAD}"
    refused = f"M{COLUMNS[2]} {top - 3} V{top - 26}"
    return Flow(
        title="From the table to Production and back",
        height=346,
        steps=(
            Step("table", COLUMNS[0], upper, ("your rows,", "CSV to SQL")),
            Step("train", COLUMNS[1], upper, ("three families,", "cross-validated")),
            Step("evaluate", COLUMNS[2], upper, ("on held-out rows,", "with intervals")),
            Step("register", COLUMNS[3], upper, ("the best one, with", "each file's digest")),
            Step("serve", COLUMNS[0], lower, ("--live follows it,", "and keeps rows"), below=True),
            Step("Production", COLUMNS[1], lower, ("one version, and", "a record of why"), below=True, accent=True),
            Step("gate", COLUMNS[2], lower, ("new against old, on", "rows new to both"), below=True, accent=True),
            Step("Staging", COLUMNS[3], lower, ("the challenger", "plays along"), below=True),
        ),
        ways=(*right(upper, 0, 3), down(COLUMNS[3], upper, lower), *left(lower), rollback, refused),
        by_hand=(up(COLUMNS[0], upper, lower),),
        words=(
            (COLUMNS[0] + 55, 162, "monitor:"),
            (COLUMNS[0] + 55, 182, "train again"),
            (COLUMNS[1], 194, "rollback"),
            (COLUMNS[2], 168, "or it refuses, and"),
            (COLUMNS[2], 188, "nothing moves"),
        ),
    )


def promotion() -> Flow:
    """From Staging to Production, with all that decides on the way."""
    upper, lower = 118, 228
    refused = f"M{COLUMNS[2]} {upper - RISE - 3} V{upper - RISE - 26}"
    return Flow(
        title="From Staging to Production",
        height=314,
        steps=(
            Step("Staging", COLUMNS[0], upper, ("the challenger,", "newly registered")),
            Step("approval", COLUMNS[1], upper, ("one person asks,", "another approves"), optional=True),
            Step("gate", COLUMNS[2], upper, ("", ""), accent=True),
            Step("Production", COLUMNS[3], upper, ("in the place of", "the champion"), accent=True),
            Step("shadow", COLUMNS[0], lower, ("answers what the", "champion is asked"), below=True),
            Step("labels", COLUMNS[1], lower, ("what came true,", "weeks later"), below=True),
            Step("evidence", COLUMNS[2], lower, ("if they are enough,", "else held-out rows"), below=True),
            Step("probation", COLUMNS[3], lower, ("it stands, or the", "champion is back"), below=True, optional=True),
        ),
        ways=(
            *right(upper, 0, 3),
            *right(lower, 0, 2),
            down(COLUMNS[0], upper, lower),
            up(COLUMNS[2], upper, lower),
            down(COLUMNS[3], upper, lower),
            refused,
        ),
        by_hand=(),
        words=(
            (COLUMNS[2], 24, "or it refuses, and"),
            (COLUMNS[2], 44, "nothing moves"),
        ),
    )


def text(x: int, y: int, words: str, kind: str = "note") -> str:
    """A line of text, centred at x, on the baseline y."""
    return f'  <text x="{x}" y="{y}" class="{kind}">{words}</text>'


def box(step: Step) -> list[str]:
    """A step with its box and what it does."""
    kind = ' class="accent"' if step.accent else ' class="optional"' if step.optional else ""
    corner = f'x="{step.x - HALF}" y="{step.y - RISE}"'
    first = step.y + 46 if step.below else step.y - 60
    return [
        f'  <rect {corner} width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="{CORNER}"{kind}/>',
        text(step.x, step.y + 6, step.name, "name"),
        *(text(step.x, first + 20 * number, line) for number, line in enumerate(step.lines) if line),
    ]


def draw(flow: Flow, scheme: dict[str, str]) -> str:
    """The whole picture as SVG, in a scheme's colours."""
    page = f'd="M0 0H{WIDTH}V{flow.height}H0z" style="fill: {scheme["page"]}; stroke: none; marker: none"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {flow.height}" role="img">',
            f"  <title>{flow.title}</title>",
            STYLE.format(**scheme),
            MARKER,
            f"  <path {page}/>",
            *(f'  <path d="{way}"/>' for way in flow.ways),
            *(f'  <path class="by-hand" d="{way}"/>' for way in flow.by_hand),
            *(line for step in flow.steps for line in box(step)),
            *(text(*words) for words in flow.words),
            "</svg>\n",
        ]
    )


FLOWS = {"loop": loop(), "promotion": promotion()}

if __name__ == "__main__":
    for flow in FLOWS:
        for name, scheme in SCHEMES.items():
            (Path(__file__).parent / f"{flow}-{name}.svg").write_text(draw(FLOWS[flow], scheme))
