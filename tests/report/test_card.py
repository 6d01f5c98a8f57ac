"""The model card of a version: all nine headings, what is on record and nothing else, and how the gate went."""

import re
from collections.abc import Callable
from dataclasses import replace

import mlflow
import pytest

import promote
import register
from tests.conftest import Ended
from understudy.figures import cards
from understudy.registry import registered as versions_of
from understudy.report import card
from understudy.schema.columns import Number
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


def test_what_is_said_twice_is_written_once() -> None:
    text = card.with_decision(card.written(TABLE, TABLE, BARE), "once")
    assert card.with_decision(text, "once") == text
    assert text.count("- once") == 1
