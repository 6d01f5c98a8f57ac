"""What the gate is told of two real versions, from what was logged alone."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

import promote
import register
import train
from tests.conftest import SAMPLE, Ended
from understudy import evaluation, manifest, records, registry, tracking
from understudy.records import Record
from understudy.table import TABLE

NAME = TABLE.name
FORCED = ["--force", "--reason", "because"]
Call = Callable[..., Ended]


def last(client: MlflowClient) -> Record:
    """The record that was opened last."""
    return max(records.find(client, NAME), key=lambda record: record.opened)


@contextmanager
def damaged(client: MlflowClient, number: str) -> Iterator[None]:
    """A version whose model file has another last byte."""
    source = str(client.get_model_version(NAME, number).source).removeprefix("models:/")
    file = Path(client.get_logged_model(source).artifact_location, "model.skops")
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + b"?")
    try:
        yield
    finally:
        file.write_bytes(kept)


def test_rows_that_the_champion_has_learned_from_are_dropped_and_counted(
    store: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(store)
    with monkeypatch.context() as other_split:
        for module in (train, evaluation):
            other_split.setattr(module, "TABLE", replace(TABLE, split_seed=1))
        assert call(train, "--models", "LogisticRegression").code == 0
    assert call(register).code == call(promote, "staging").code == call(promote, "production").code == 0
    call(train, "--models", "LogisticRegression")
    assert call(register).code == call(promote, "staging").code == 0
    assert call(promote, "production").code in (0, 3)
    rows = TABLE.read(SAMPLE)
    learned = replace(TABLE, split_seed=1).split(rows)[0][TABLE.identifier]
    kept = ~TABLE.split(rows)[1][TABLE.identifier].isin(learned)
    figures = client.get_run(last(client).run_id).data.metrics
    assert (figures["rows"], figures["rows dropped"]) == (kept.sum(), (~kept).sum())
    assert kept.sum() > 30


def test_the_rows_come_from_the_store_and_not_from_the_file(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    (tracking.PROJECT / "data" / SAMPLE.name).unlink()
    call(promote, "staging")
    assert call(promote, "production").code == 0
    assert client.get_run(last(client).run_id).data.metrics["rows"] == 186


def test_a_model_that_says_the_same_to_every_row_stays_out_of_production(registered: str, call: Call) -> None:
    call(register, "--model", "DummyClassifier")
    assert call(promote, "staging").code == 0
    refused = call(promote, "production")
    assert refused.code == 3
    assert refused.err == "refused: ROC AUC is 0.500, not above 0.500, and more rows like these would not help\n"


def test_a_champion_that_cannot_be_loaded_is_reported_and_needs_force(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    call(promote, "staging")
    with damaged(client, "1"):
        refused = call(promote, "production")
        assert (refused.code, registry.aliases(client, NAME)["production"]) == (3, "1")
        assert refused.err.startswith(f"refused: the gate cannot decide: {NAME} version 1 is not what was registered")
        assert "model.skops changed" in refused.err
        assert call(promote, "production", *FORCED).code == 0
    assert "the gate cannot decide" in last(client).why


def test_a_challenger_whose_files_changed_is_refused_by_force_too(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    with damaged(client, "2"):
        for arguments in [["staging"], ["production", "--version", "2", *FORCED]]:
            refused = call(promote, *arguments)
            assert (refused.code, refused.out) == (2, "")
            assert "version 2 is not what was registered: model.skops changed" in refused.err
    assert registry.aliases(client, NAME) == {"production": "1"}


def test_a_version_that_takes_other_rows_needs_breaking(in_production: str, client: MlflowClient, call: Call) -> None:
    call(train, "--models", "LogisticRegression", "--without-sensitive")
    call(register)
    refused = call(promote, "staging")
    assert refused.code == 3
    assert "Gender: is not accepted any more" in refused.err
    assert call(promote, "staging", "--breaking").code == 0
    assert last(client).breaking
    assert call(promote, "production").code == 3
    assert call(promote, "production", "--breaking").code in (0, 3)
    decided = json.loads(mlflow.artifacts.load_text(f"runs:/{last(client).run_id}/gate.json"))
    [contract] = [check for check in decided["checks"] if check["name"] == "breaks of the contract"]
    assert (contract["limit"], contract["passed"]) == ("waived by --breaking", True)
    assert contract["value"] >= 2


def test_a_version_made_by_hand_is_adopted_and_then_one_of_ours(
    batch_store: str, client: MlflowClient, call: Call
) -> None:
    run = tracking.families(client, tracking.get_batch(client, TABLE))[1]
    client.create_registered_model(NAME)
    client.create_model_version(NAME, tracking.model_uri(run), run_id=run.info.run_id, model_id=tracking.model_id(run))
    refused = call(promote, "staging")
    assert refused.err.startswith(f"error: {NAME} version 1 has no manifest")
    assert "fix: python promote.py adopt --version 1 --reason" in refused.err
    assert "version 1 is adopted\n" in call(promote, "adopt", "--version", "1", "--reason", "made in the UI").out
    assert call(promote, "staging").code == call(promote, "production").code == call(promote, "check").code == 0


def test_adopting_again_does_not_trust_changed_files(in_production: str, client: MlflowClient, call: Call) -> None:
    with damaged(client, "1"):
        refused = call(promote, "adopt", "--version", "1", "--reason", "it looks fine")
        assert (refused.code, "model.skops changed" in refused.err) == (2, True)
        assert call(promote, "check").code == 4


def test_rows_that_somebody_changed_decide_nothing(in_production: str, client: MlflowClient, call: Call) -> None:
    run = client.get_run(client.get_model_version(NAME, "2").run_id or "")
    batch = client.get_run(run.data.tags["mlflow.parentRunId"])
    file = Path(str(batch.info.artifact_uri).removeprefix("file://"), tracking.ROWS, tracking.HELD_OUT)
    kept = file.read_bytes()
    call(promote, "staging")
    try:
        pd.read_parquet(file).assign(Loan_Status="Y").to_parquet(file)
        refused = call(promote, "production")
    finally:
        file.write_bytes(kept)
    assert refused.code == 3
    assert "rows/held_out.parquet of run" in refused.err
    assert "is not what training kept" in refused.err


def test_what_took_its_place_by_hand_is_compared_when_it_is_adopted(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    call(register, "--model", "DecisionTreeClassifier")
    client.set_registered_model_alias(NAME, "production", "3")
    refused = call(promote, "adopt", "--reason", "I like trees")
    assert refused.code == 3
    assert "too few rows to tell whether ROC AUC less champion's is above -0.050" in refused.err
    assert (last(client).version, last(client).before) == ("3", "1")
    assert call(promote, "adopt", "--reason", "I like trees", "--force").code == 0
    assert records.history(records.find(client, NAME)) == ["1", "3"]


def test_a_refused_adoption_leaves_no_manifest(in_production: str, client: MlflowClient, call: Call) -> None:
    tree = tracking.families(client, tracking.get_batch(client, TABLE))[0]
    client.create_model_version(
        NAME, tracking.model_uri(tree), run_id=tree.info.run_id, model_id=tracking.model_id(tree)
    )
    client.set_registered_model_alias(NAME, "production", "3")
    assert call(promote, "adopt", "--reason", "I like trees").code == 3
    assert manifest.DIGEST not in client.get_model_version(NAME, "3").tags


def test_an_alias_that_somebody_moved_is_not_taken_away(in_production: str, client: MlflowClient, call: Call) -> None:
    call(promote, "staging")
    registry.remove(client, NAME, "staging", "1")
    assert registry.aliases(client, NAME) == {"production": "1", "staging": "2"}
    registry.remove(client, NAME, "staging", "2")
    assert registry.aliases(client, NAME) == {"production": "1"}


def test_a_registered_model_without_versions_is_shown(client: MlflowClient, call: Call) -> None:
    client.create_registered_model(NAME)
    assert "newest: none\n" in call(promote).out
    assert call(register, "--name", "it's").err.startswith('error: "it\'s" cannot name a registered model')
