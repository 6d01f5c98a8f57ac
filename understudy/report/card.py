"""The model card of a version as Markdown, from what is on record alone.

Source:
    Mitchell et al., Model Cards for Model Reporting (FAT* 2019, arXiv 1810.03993), for the headings and their order.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from understudy.figures import cards
from understudy.report import findings
from understudy.schema.declaration import Table

FILE = "card.md"
MOST = 5_000  # letters that a description has in MLflow's stores
ROOM = 3_900  # of these for all but the decisions, which are added one by one
MOST_OF_A_LINE = 240  # letters
MARKUP = re.compile(r"[\\`*\[\]<]|(?<![^\W_])_|_(?![^\W_])")  # what Markdown takes for more than a letter within a line
DECISIONS = "### Decisions"  # the part that grows, in `Quantitative Analyses`
NONE_YET = "- None yet."
NOTHING = "nothing is on record"


@dataclass(frozen=True)
class Recorded:
    """What is on record of a version.

    Args:
        name: Of the registered model.
        family: That was trained.
        params: The best values of its grid.
        metrics: All of its run.
        tags: Those of its run, by the names that people read: trained by, data, data digest, commit, ...
        rows: How many were trained on, and held out; None where that is not on record.
        slices: As `metrics.slices` gives them; None where there are none.
    """

    name: str
    family: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    rows: tuple[int | None, int | None]
    slices: pd.DataFrame | None


def written(table: Table, seen: Table, known: Recorded) -> str:
    """The card of a version about which nothing has been decided.

    Args:
        table: Declares the rows.
        seen: The same as far as the model sees it.
        known: What is on record.
    """
    columns = [f"{each.name}: {each.allowed}{', or missing' if each.missing else ''}" for each in seen.columns]
    encoded = ", ".join(column.name for column in seen.encoded)
    left = ROOM - len(_text(table, known, [], [], encoded))
    gaps = _fitting(_gaps(table, known.slices), left // 2, "which slices.csv of its run lists")
    left -= sum(len(line) + 1 for line in gaps)
    return _text(table, known, _fitting(columns, left, "which the version's schema lists"), gaps, encoded)


def with_decision(text: str, line: str) -> str:
    """A card, or what a person has made of it, with one more decision; the latest comes first and the oldest go."""
    entry = _entry(line)
    if entry in text:
        return text
    before, found, rest = text.partition(f"{DECISIONS}\n\n")
    decisions, gap, after = rest.partition("\n\n")
    kept = [entry, *(each for each in decisions.splitlines() if each != NONE_YET)] if found else [entry]
    head = before if found else f"{text.rstrip()}\n\n"
    while len(kept) > 1 and len(_joined(head, kept, f"{gap}{after}")) > MOST:
        kept.pop()
    whole = _joined(head, kept, f"{gap}{after}" if found else "\n")
    return whole if len(whole) <= MOST else text


def _joined(before: str, decisions: Sequence[str], after: str) -> str:
    return "\n".join([f"{before}{DECISIONS}\n", *decisions]) + after


def _fitting(lines: Sequence[str], letters: int, where: str) -> list[str]:
    """Entries for as many lines as fit, and how many more there are, and where."""
    shown: list[str] = []
    for entry in map(_entry, lines):
        if sum(len(each) + 1 for each in [*shown, entry]) > letters - 70:
            return [*shown, f"- and {len(lines) - len(shown):,} more, {where}"]
        shown.append(entry)
    return shown


def _entry(text: str) -> str:
    """An entry of a list that says what is on record, as it is on record."""
    return _line(f"- {text}")


def _line(text: str) -> str:
    """A line that shows a text, whatever letters are in it."""
    flat = " ".join(text.split())
    return MARKUP.sub(r"\\\g<0>", flat if len(flat) <= MOST_OF_A_LINE else f"{flat[: MOST_OF_A_LINE - 1]}…")


def _text(table: Table, known: Recorded, columns: Sequence[str], gaps: Sequence[str], encoded: str) -> str:
    params = ", ".join(f"{key} {value}" for key, value in sorted(known.params.items())) or "nothing to search"
    details = {"Trained by": "trained by", "Code": "commit", "Uncommitted changes": "uncommitted changes"}
    details |= {"Packages": "packages", "Seed": "seed", "Run": "run"}
    sensitive = _sensitive(table)
    groups = ", ".join(column.name for column in table.categories)
    trained, held_out = (NOTHING if count is None else f"{count:,} rows" for count in known.rows)
    positive, negative, target = map(_line, (table.positive, table.negative, table.target.name))
    data = f"{known.tags.get('data', NOTHING)}, digest {known.tags.get('data digest', NOTHING)}"
    threshold = known.metrics.get("cv/threshold")
    return "\n".join(
        [
            _line(f"# Model card: {known.name}, {known.family}") + "\n",
            "## Model Details\n",
            _entry(f"{known.family} ({params})"),
            *(_entry(f"{label}: {known.tags[tag]}") for label, tag in details.items() if tag in known.tags),
            "\n## Intended Use\n",
            f"It predicts {target}, {negative} or {positive}, one row at a time"
            f"{'' if threshold is None else f': {positive} from a probability of {threshold:.2f} on'}. "
            f"For whom it is meant, and for what it is not: {NOTHING}.\n",
            *(["It takes these columns:\n", *columns, ""] if columns else []),
            _line(f"Or the encoded form, by name or in this order: {encoded}."),
            "\n" + _call(known.name),
            "\n## Factors\n",
            _line(f"Measured by group of: {groups or 'no column'}. Sensitive: {', '.join(sensitive) or 'none'}."),
            "\n## Metrics\n",
            "The metrics of `train.py` on rows that were held out, with 95 % intervals by the bootstrap. A wrong "
            f"{positive} costs {table.false_positive_cost:g}, a wrong {negative} {table.false_negative_cost:g}.",
            "\n## Evaluation Data\n",
            _line(f"Held out by a hash of {table.row_id}: {held_out}, from {data}."),
            f"\n## Training Data\n\nThe rest of that table: {trained}.",
            "\n## Quantitative Analyses\n",
            *_measured(known),
            f"\n{DECISIONS}\n\n{NONE_YET}",
            "\n## Ethical Considerations\n",
            *_ethics(sensitive, gaps),
            "\n## Caveats and Recommendations\n",
            *_caveats(known),
        ]
    )


def _call(name: str) -> str:
    uri = shlex.quote(f"models:/{name}@production")
    return (
        f"`mlflow models serve -m {uri} --env-manager local --port 1234` serves it; POST "
        '`{"dataframe_records": [{...}]}` to `/invocations`, with `"params": {"output": "probability"}` for '
        "probabilities."
    )


def _measured(known: Recorded) -> list[str]:
    figures = cards.headline(known.metrics)
    lines = [f"- {name} {value}" for name, value in figures.items()]
    rest = [] if len(figures) > 1 else ["- Held out: not evaluated yet"]
    return [*lines, *rest, *map(_entry, findings.gap_sentences(known.slices))]


def _sensitive(table: Table) -> list[str]:
    return [column.name for column in table.categories if column.sensitive]


def _gaps(table: Table, slices: pd.DataFrame | None) -> list[str]:
    """How uneven the answers are by each sensitive column, the largest gap first."""
    of_these = slices if slices is None else slices[slices["column"].isin(_sensitive(table))]
    return [f"Share of positive answers, {gap}" for gap in reversed(findings.gaps(of_these, "positive rate"))]


def _ethics(sensitive: Sequence[str], gaps: Sequence[str]) -> list[str]:
    if not sensitive:
        return ["The table declares no sensitive column. Of harms and of the people concerned nothing is on record."]
    named = _line(f"Sensitive columns: {', '.join(sensitive)}.")
    return [named, "Of harms and of the people concerned nothing is on record.\n", *gaps]


def _caveats(known: Recorded) -> list[str]:
    lines = []
    if known.tags.get("uncommitted changes") == "true":
        lines.append("- It was trained on code with uncommitted changes, so the commit alone does not make it again.")
    if "commit" not in known.tags:
        lines.append("- It was trained without a commit on record, so nobody can tell what code made it.")
    if len(cards.headline(known.metrics)) <= 1:
        lines.append("- It has not been evaluated: run `python evaluate.py` first.")
    return [
        *lines,
        "- The figures hold for rows like those held out; `python monitor.py` tells whether rows still are.",
    ]
