"""The model card of a version: all nine headings, what is on record and nothing else, and how the gate went."""

import re
from collections.abc import Callable
from dataclasses import replace

import mlflow
import pandas as pd
import pytest
from mlflow.entities.model_registry import ModelVersion

import promote
import register
from tests.conftest import Ended
from understudy.figures import cards
from understudy.registry import registered as versions_of
from understudy.report import card
from understudy.schema.columns import Category, Number
from understudy.table import TABLE

Call = Callable[..., Ended]
HEADINGS = ["Model Details", "Intended Use", "Factors", "Metrics", "Evaluation Data", "Training Data"]
HEADINGS += ["Quantitative Analyses", "Ethical Considerations", "Caveats and Recommendations"]
BARE = card.Recorded("A", "SomeFamily", {}, {"Mean CV score": 0.7, "cv/threshold": 0.5}, {}, (None, None), None)


def described(client: mlflow.MlflowClient, number: str) -> str:
    return str(client.get_model_version(TABLE.name, number).description)


def test_registering_makes_the_card_the_description_and_a_file(client: mlflow.MlflowClient, call: Call) -> None:
    assert call(register).code == 0
    text = described(client, "1")
    assert re.findall("^## (.*)$", text, re.MULTILINE) == HEADINGS
    version = versions_of.versions(client, TABLE.name)[0]
    assert mlflow.artifacts.load_text(f"runs:/{version.run_id}/{card.FILE}") == text
    assert card.NONE_YET in text
    shown = call(promote, "show", "1", "--card")
    assert shown.code == 0
    assert text in shown.out
    assert text in call(promote, "show", "--card").out


def test_every_figure_of_the_card_is_on_record(client: mlflow.MlflowClient, call: Call) -> None:
    assert call(register).code == 0
    text, version = described(client, "1"), versions_of.versions(client, TABLE.name)[0]
    run = client.get_run(str(version.run_id))
    for name, value in cards.headline(run.data.metrics).items():
        assert f"- {name} {value}\n" in text
    batch = client.get_run(run.data.tags["mlflow.parentRunId"])
    slices = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/slices.csv").splitlines()[1:]
    kept = [*run.data.metrics.values(), *(float(cell) for line in slices for cell in line.split(",")[3:] if cell)]
    known = {f"{value:.3f}" for value in kept}
    gaps = set(re.findall(r"a gap of (\d\.\d{3})", text))
    assert set(re.findall(r"\b\d\.\d{3}\b", text)) - gaps <= known
    for tag in ("packages", "seed", "data.path", "data.digest", "mlflow.user"):
        assert run.data.tags[tag] in text
    counts = [given.dataset.profile for given in batch.inputs.dataset_inputs]  # type: ignore[union-attr]
    for count in re.findall(r"([\d,]+) rows", text):
        assert any(f'"num_rows": {count}' in str(profile) for profile in counts)


def test_after_each_gate_the_card_says_how_it_went(in_production: str, client: mlflow.MlflowClient, call: Call) -> None:
    call(promote, "staging", "--version", "2")
    assert call(promote, "production", "--rule", "better").code == 3
    assert call(promote, "production", "--rule", "point", "--reason", "it is\n\nas good").code == 0
    decisions = [line for line in described(client, "2").splitlines() if re.match(r"- \d{4}-\d\d-\d\d .* UTC, ", line)]
    said = [line.partition(": ")[2] for line in decisions]
    assert said[0].startswith("completed: production, version 2 in place of version 1; reason: it is as good; the gate")
    assert said[1].startswith("refused: production, version 2 in place of version 1; too few rows to tell whether")
    assert said[2].startswith("completed: staging, version 2")
    assert said[2].endswith("the gate let it pass by not-worse")
    assert card.NONE_YET not in described(client, "2")


def test_what_a_person_has_written_stays(in_production: str, client: mlflow.MlflowClient, call: Call) -> None:
    client.update_model_version(TABLE.name, "2", "Ours: ask Anna.")
    call(promote, "staging", "--version", "2")
    text = described(client, "2")
    assert text.startswith(f"Ours: ask Anna.\n\n{card.DECISIONS}\n\n- ")
    client.update_model_version(TABLE.name, "2", "x" * card.MOST)
    call(promote, "archive", "--version", "2")
    assert described(client, "2") == "x" * card.MOST


def test_a_version_without_a_description_is_said_in_two_lines(
    registered: str, client: mlflow.MlflowClient, call: Call
) -> None:
    client.update_model_version(TABLE.name, "2", "")
    ended = call(promote, "show", "2", "--card")
    assert (ended.code, len(ended.err.splitlines())) == (2, 2)


def test_a_card_says_where_nothing_is_on_record() -> None:
    text = card.written(TABLE, TABLE, BARE)
    assert text.count(card.NOTHING) == 6
    for said in ("It has not been evaluated", "without a commit on record", "Held out: not evaluated yet"):
        assert said in text


@pytest.mark.parametrize("count", [1, 40, 3_000])
def test_a_card_of_any_table_fits_and_leaves_room_for_decisions(count: int) -> None:
    wide = replace(TABLE, features=(), columns=tuple(Number(f"measured_{n}", "metres", 0, 1) for n in range(count)))
    text = card.written(wide, wide, replace(BARE, tags={"data": "select " + "a, " * 900}))
    assert len(text) <= card.ROOM
    assert ("more, which the version's schema lists" in text) == (count > 40)
    for number in range(60):
        text = card.with_decision(text, f"decision {number}: {'because ' * number}")
    assert len(text) <= card.MOST
    assert "- decision 59: " in text
    assert "- decision 0: " not in text
    assert re.findall("^## (.*)$", text, re.MULTILINE) == HEADINGS


def test_a_card_with_many_sensitive_columns_fits_and_says_the_largest_gaps_first() -> None:
    groups = ("group one of the people", "group two of the people")
    columns = tuple(Category(f"sensitive_{n}", groups, sensitive=True) for n in range(40))
    wide = replace(TABLE, features=(), columns=columns)
    rows = [
        (column.name, group, 100, 0.5 + number * place / 100)
        for number, column in enumerate(columns)
        for place, group in enumerate(groups)
    ]
    slices = pd.DataFrame(rows, columns=["column", "value", "rows", "positive rate"]).assign(accuracy=0.7)
    text = card.written(wide, wide, replace(BARE, slices=slices))
    assert len(text) <= card.ROOM
    shown = re.findall(r"^- Share of positive answers, sensitive_(\d+): ", text, re.MULTILINE)
    assert shown == [str(39 - place) for place in range(len(shown))]
    assert f"- and {40 - len(shown)} more, which slices.csv of its run lists\n" in text
    assert "more, which the version's schema lists" in text


def test_what_is_on_record_is_shown_as_it_is_and_makes_no_heading_or_link() -> None:
    region = Category("region", ("a\n# Fake", "*b* [c](d) <i> `e` _f_ g_h"))
    odd = replace(TABLE, features=(), columns=(region,))
    text = card.written(odd, odd, replace(BARE, family="A\n# B", tags={"data": "x\n\n# Fake"}))
    text = card.with_decision(text, "refused: because\n# of *all*")
    assert re.findall("^#+ (.*)$", text, re.MULTILINE) == [
        "Model card: A, A # B",
        *HEADINGS[:7],
        "Decisions",
        *HEADINGS[7:],
    ]
    assert r"\*b\* \[c\](d) \<i> \`e\` \_f\_ g_h" in text
    assert r"- refused: because # of \*all\*" in text


def test_of_two_who_write_at_once_neither_decision_is_lost(registered: str, client: mlflow.MlflowClient) -> None:
    theirs = card.with_decision(described(client, "1"), "theirs")

    class Beside(mlflow.MlflowClient):
        """Somebody else, who read the description at the same time, writes theirs after the first one."""

        writes = 0

        def update_model_version(self, name: str, version: str, description: str | None = None) -> ModelVersion:
            self.writes += 1
            super().update_model_version(name, version, description)
            return super().update_model_version(name, version, theirs if self.writes == 1 else description)

    versions_of.note(Beside(registered), TABLE.name, "1", "ours")
    assert "- ours\n- theirs\n" in described(client, "1")


def test_what_is_said_twice_is_written_once() -> None:
    text = card.with_decision(card.written(TABLE, TABLE, BARE), "once")
    assert card.with_decision(text, "once") == text
    assert text.count("- once") == 1
