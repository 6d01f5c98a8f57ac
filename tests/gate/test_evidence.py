"""What the gate is told of two real versions, from what was logged alone."""

import hashlib
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

import promote
import register
import train
from tests.conftest import SAMPLE, Ended, is_refusal
from understudy.gate import attempts, comparison, decision, evidence, live
from understudy.gate.attempts import Question
from understudy.reading import table_rows
from understudy.registry import history, records, registration, stages
from understudy.registry.records import Move, SavedRecord
from understudy.schema.spelling import folded
from understudy.scoring import pipelines
from understudy.table import TABLE
from understudy.tracking import batch_rows, connection, family_runs
from understudy.training import evaluation
from understudy.verification import digests, manifest

NAME = TABLE.name
FORCED = ["--force", "--reason", "because"]
Call = Callable[..., Ended]


def last(client: MlflowClient) -> SavedRecord:
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
    rows = table_rows.read(TABLE, SAMPLE)
    learned = replace(TABLE, split_seed=1).split(rows)[0][TABLE.identifier]
    kept = ~TABLE.split(rows)[1][TABLE.identifier].isin(learned)
    figures = client.get_run(last(client).run_id).data.metrics
    assert (figures["rows"], figures["rows dropped"]) == (kept.sum(), (~kept).sum())
    assert kept.sum() > 30


def test_a_row_that_the_champion_knows_by_a_name_in_another_spelling_is_dropped(
    store: str, call: Call, tmp_path: Path
) -> None:
    lines = SAMPLE.read_text().splitlines()
    spelled = [f"{line.split(',')[0].capitalize()},{line.partition(',')[2]}" for line in lines[1:]]
    (tmp_path / "spelled.csv").write_text("\n".join([lines[0], *spelled]) + "\n")
    for data in (str(SAMPLE), str(tmp_path / "spelled.csv")):
        assert call(train, "--data", data, "--models", "LogisticRegression").code == 0
        assert call(register).code == call(promote, "staging").code == 0
        assert call(promote, "production").code in (0, 3)
    _, held_out = TABLE.split(table_rows.read(TABLE, tmp_path / "spelled.csv"))
    training, _ = TABLE.split(table_rows.read(TABLE, SAMPLE))
    learned = held_out[TABLE.identifier].str.upper().isin(training[TABLE.identifier]).sum()
    figures = MlflowClient(store).get_run(last(MlflowClient(store)).run_id).data.metrics
    assert (figures["rows"], figures["rows dropped"]) == (len(held_out) - learned, learned)
    assert learned > 100


def test_the_rows_come_from_the_store_and_not_from_the_file(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    (connection.PROJECT / "data" / SAMPLE.name).unlink()
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
        assert (refused.code, stages.aliases(client, NAME)["production"]) == (3, "1")
        assert refused.err.startswith(f"refused: the gate cannot decide: {NAME} version 1 is not what was registered")
        assert "model.skops changed" in refused.err
        assert call(promote, "production", *FORCED).code == 0
    assert "the gate cannot decide" in (last(client).why or "")


def test_a_challenger_whose_files_changed_is_refused_by_force_too(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    with damaged(client, "2"):
        for arguments in [["staging"], ["production", "--version", "2", *FORCED]]:
            refused = call(promote, *arguments)
            assert (refused.code, refused.out) == (2, "")
            assert "version 2 is not what was registered: model.skops changed" in refused.err
    assert stages.aliases(client, NAME) == {"production": "1"}


def test_the_limits_are_those_of_the_checkout_and_not_those_that_a_version_brings(
    registered: str, client: MlflowClient, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with manifest.verified(client, client.get_model_version(NAME, "1")) as folder:
        brought = pipelines.table(manifest.load(folder)[1]).limits
    assert brought.megabytes == 200
    monkeypatch.setattr(evidence, "TABLE", replace(TABLE, limits=replace(brought, megabytes=0.001)))
    refused = call(promote, "staging", "--version", "1")
    assert refused.code == 3
    assert re.fullmatch(r"refused: megabytes of files: [0-9.]+, not at most 0\.001\n", refused.err)


def attempt_in(ended: Ended) -> str:
    """What the gate says of the number of an attempt."""
    [line] = [line.strip() for line in ended.out.splitlines() if "attempt on these rows" in line]
    return " ".join(line.split())


def test_each_other_challenger_on_the_same_rows_has_a_price(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    call(register, "--model", "DecisionTreeClassifier")
    asked = []
    for version in ("2", "2", "3", "2"):
        call(promote, "staging", "--version", version)
        asked.append(call(promote, "production", "--version", version, "--rule", "better"))
    first, again, second, once_more = map(attempt_in, asked)
    assert first == again == once_more == "attempt on these rows 1 2.50% of error spent, 2.50% left"
    assert second == "attempt on these rows 2 0.83% of error spent, 1.67% left"
    kept = [record for record in records.find(client, NAME) if record.rows]
    assert [record.figures["attempt on these rows"] for record in kept] == [1, 1, 2, 1]
    assert len({record.rows for record in kept}) == 1


def test_of_two_that_ask_at_once_not_both_are_the_first(
    in_production: str, client: MlflowClient, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    call(register, "--model", "DecisionTreeClassifier")
    decide = partial(evidence.decide, client, NAME, "better")
    planned = [Move("production", version, "production", "1") for version in ("2", "3")]

    def meanwhile(champion: str, challenger: str) -> live.LiveRows:
        decide()(planned[1])
        nothing = decision.Answers(np.empty(0), np.empty(0, dtype=int))
        names = pd.Series([], dtype=str)
        return live.LiveRows(names, np.empty(0), np.empty(0, dtype=int), nothing, nothing, {}, {})

    decide(pairs=meanwhile)(planned[0])
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if "attempt on these rows" in line]
    assert [line[4:6] for line in shown] == [["1", "2.50%"], ["2", "0.83%"]]
    opened = [(record.version, record.outcome) for record in records.find(client, NAME) if record.rows]
    assert sorted(opened) == [("2", None), ("3", None)]
    decide()(planned[0])
    assert "attempt on these rows     2" in capsys.readouterr().out  # to ask again makes it no cheaper


def test_figures_that_were_shown_count_however_the_process_ends(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    call(register, "--model", "DecisionTreeClassifier")
    call(promote, "staging", "--version", "2")

    def body() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        sys.stdout = os.fdopen(writer, "w", buffering=1)  # nobody listens any more
        evidence.decide(client, NAME, "better")(Move("production", "2", "production", "1"))

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join()
    assert process.exitcode == 1
    client.set_registered_model_alias(NAME, "production", "2")  # by hand, and not by the gate
    assert "mended: closed a record: abandoned: production, version 2" in call(promote, "check", "--repair").out
    assert "version 2 is in Production without a record" in call(promote, "check").out
    client.set_registered_model_alias(NAME, "production", "1")
    call(promote, "staging", "--version", "3")
    assert attempt_in(call(promote, "production", "--rule", "better")).startswith("attempt on these rows 2 0.83%")
    noted = str(client.get_model_version(NAME, "2").description)
    assert "abandoned: production, version 2 in place of version 1; cut off before the gate had decided\n" in noted


def test_new_rows_bring_a_new_budget_and_half_of_the_old_ones_do_not(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    call(promote, "staging", "--version", "2")
    call(promote, "production", "--version", "2", "--rule", "better")
    held_out = registration.kept_rows(client, NAME, "2", batch_rows.HELD_OUT)
    known = records.find(client, NAME)

    def number(identifiers: pd.Series) -> int:
        return attempts.on_such_rows(client, known, Question("3", "1", identifiers, identifiers[:0]))

    old = held_out[TABLE.row_id]
    assert number(old) == number(old.str.lower()) == 2
    assert number(pd.concat([old, "new" + old])) == 2
    assert number(pd.concat([old, "new" + old, "other" + old])) == 1
    assert not {*old} & {*attempts.marks(old).splitlines()}
    [record] = [record for record in known if record.rows]
    of_others = [replace(record, is_earlier=True)]  # the registered model was deleted and made again
    again = Question("2", "1", old, old[:0])
    assert [attempts.on_such_rows(client, asked, again) for asked in (known, of_others)] == [1, 2]
    (Path(str(client.get_run(record.run_id).info.artifact_uri)) / attempts.FILE).unlink()
    assert number("new" + old) == 2  # nobody knows which rows that attempt has seen


@pytest.fixture
def two_champions(in_production: str, prepared: Callable[..., None]) -> str:
    """A store in which version 2 has replaced version 1, and version 3 is in Staging."""
    prepared(
        (register, "--model", "DecisionTreeClassifier"),
        (promote, "staging", "--version", "2"),
        (promote, "production"),
        (promote, "staging", "--version", "3"),
    )
    return in_production


def test_small_losses_count_from_every_champion_since_one_was_better(
    two_champions: str, client: MlflowClient, call: Call
) -> None:
    asked = call(promote, "production")
    assert "ROC AUC less earlier champion's" in asked.out
    price = "attempt by not-worse since one was better 2 0.83% of error spent, 1.67% left"
    assert price in [" ".join(line.split()) for line in asked.out.splitlines()]
    assert last(client).figures["attempt by not-worse since one was better"] == 2
    call(promote, "production", "--force", "--reason", "a person takes the loss")
    assert history.champions_since_better(records.find(client, NAME)) == ["3"]


def test_an_earlier_champion_that_cannot_be_asked_is_left_out_and_named(
    two_champions: str, client: MlflowClient, call: Call
) -> None:
    client.delete_model_version_tag(NAME, "1", registration.rows_tag(batch_rows.TRAINED_ON))
    asked = call(promote, "production")
    why = f"not compared with version 1 (version 1 of {NAME} has no rows on record)"
    assert f"\nnote: {why}\n" in asked.out
    assert asked.err.startswith("refused: too few rows to tell whether ROC AUC less champion's is above -0.050")
    decided = json.loads(mlflow.artifacts.load_text(f"runs:/{last(client).run_id}/gate.json"))
    assert why in [check["note"] for check in decided["checks"]]
    with damaged(client, "1"):
        out = call(promote, "production").out
    assert f"not compared with version 1 ({NAME} version 1 is not what was registered" in out


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
    run = family_runs.families(client, family_runs.get_batch(client, TABLE))[1]
    client.create_registered_model(NAME)
    client.create_model_version(
        NAME, family_runs.model_uri(run), run_id=run.info.run_id, model_id=family_runs.model_id(run)
    )
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


@contextmanager
def forged(
    client: MlflowClient,
    run: Run,
    forge: Callable[[pd.DataFrame], pd.DataFrame],
    name: str = batch_rows.HELD_OUT,
) -> Iterator[None]:
    """Other rows with the batch of a family's run, and their digest: whoever trains may write both."""
    batch = client.get_run(run.data.tags["mlflow.parentRunId"])
    file = Path(str(batch.info.artifact_uri).removeprefix("file://"), batch_rows.ROWS, name)
    kept = file.read_bytes()
    forge(pd.read_parquet(file)).to_parquet(file, index=False)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    client.set_tag(batch.info.run_id, batch_rows.digest_tag(name), digest)
    try:
        yield
    finally:
        file.write_bytes(kept)


def run_of(client: MlflowClient, family: str) -> Run:
    runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
    [run] = [run for run in runs if family_runs.family_name(run) == family]
    return run


def test_a_version_notes_the_rows_it_is_compared_on(registered: str, client: MlflowClient) -> None:
    version = client.get_model_version(NAME, "1")
    run = client.get_run(version.run_id or "")
    for name in (batch_rows.HELD_OUT, batch_rows.TRAINED_ON):
        assert version.tags[registration.rows_tag(name)] == batch_rows.rows_digest(client, run, name)
    assert version.tags[registration.COUNT] == "186"


def test_rows_that_were_forged_after_registering_decide_nothing(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    call(promote, "staging")
    with forged(client, run_of(client, "RandomForestClassifier"), lambda rows: rows.assign(Loan_Status="Y")):
        refused = call(promote, "production")
    assert refused.code == 3
    assert "rows/held_out.parquet of run" in refused.err
    assert "is not what training kept" in refused.err


def test_labels_that_were_forged_before_do_not_count_where_the_table_is_named(
    batch_store: str, client: MlflowClient, call: Call
) -> None:
    """Where the truth is what the tree says and the champion does not, the tree passes as better."""
    call(register, "--model", "LogisticRegression")
    assert call(promote, "staging").code == call(promote, "production").code == 0
    run = run_of(client, "DecisionTreeClassifier")
    tree, champion = (
        mlflow.sklearn.load_model(family_runs.model_uri(run_of(client, family)))
        for family in ("DecisionTreeClassifier", "LogisticRegression")
    )

    def forge(rows: pd.DataFrame) -> pd.DataFrame:
        sides_with_the_tree = 2 * tree.predict_proba(rows)[:, 1] - champion.predict_proba(rows)[:, 1]
        return rows.assign(Loan_Status=np.where(sides_with_the_tree > 0.6, "Y", "N"))

    with forged(client, run, forge):
        assert call(register, "--model", "DecisionTreeClassifier").code == call(promote, "staging").code == 0
        named = call(promote, "production", "--rule", "better", "--data", str(SAMPLE))
        assert named.code == 3
        comparison = "186 held-out rows of the table decide; those that training kept differ: "
        assert re.search(rf"{comparison}\d+ rows that differ \(Loan_Status in \d+\)\n", named.out)
        assert client.get_run(last(client).run_id).data.metrics["rows that differ"] > 10
        assert call(promote, "production", "--rule", "better").code == 0  # see "Whose rows decide" in docs/promotion.md


def test_the_tables_rows_are_those_that_training_kept_where_nobody_forged(in_production: str, call: Call) -> None:
    call(promote, "staging")
    ended = call(promote, "production", "--data", str(SAMPLE))
    assert ended.code == 0
    assert ended.out.startswith("186 held-out rows of the table decide; those that training kept are the same\n")


def repeated(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([rows, rows[:1]])


def learned(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([rows, TABLE.split(table_rows.read(TABLE, SAMPLE))[0][:1]])


@pytest.mark.parametrize(
    ("forge", "problem"),
    [
        (repeated, "repeat a Loan_ID"),
        (learned, "have been trained on"),
        (lambda rows: rows.drop(columns="Loan_ID"), "are none of Loan_prediction"),
        (lambda rows: rows.drop(columns="Gender"), "(KeyError: 'Gender')"),
        (lambda rows: rows[rows["Loan_Status"] == "Y"], "are all of one class"),
    ],
)
def test_rows_that_no_split_gives_are_not_registered(
    forge: Callable[[pd.DataFrame], pd.DataFrame], problem: str, client: MlflowClient, call: Call
) -> None:
    with forged(client, run_of(client, "LogisticRegression"), forge):
        ended = call(register, "--model", "LogisticRegression")
    assert is_refusal(ended)
    assert problem in ended.err
    assert client.search_registered_models() == []


def test_a_batch_that_names_no_rows_that_it_learned_from_is_not_registered(client: MlflowClient, call: Call) -> None:
    run = run_of(client, "LogisticRegression")
    with forged(client, run, lambda rows: rows.drop(columns="Loan_ID"), batch_rows.TRAINED_ON):
        ended = call(register, "--model", "LogisticRegression")
    assert is_refusal(ended)
    assert "rows/trained_on.parquet of run" in ended.err
    assert "has no column Loan_ID" in ended.err


def test_a_batch_that_kept_identifiers_alone_is_registered_promoted_and_compared(
    batch_store: str, client: MlflowClient, call: Call
) -> None:
    """As batches of earlier releases have."""
    training, held_out = TABLE.split(table_rows.read(TABLE, SAMPLE))
    run = run_of(client, "LogisticRegression")
    with forged(client, run, lambda rows: rows[["Loan_ID"]], batch_rows.TRAINED_ON):
        assert call(register, "--model", "LogisticRegression").code == 0
        assert call(promote, "staging").code == call(promote, "production").code == 0
        assert call(train, "--models", "DecisionTreeClassifier").code == 0
        assert call(register, "--model", "DecisionTreeClassifier").code == call(promote, "staging").code == 0
        assert call(promote, "production").code in (0, 3)
        learned = comparison.learned(client, NAME, {"1": "Loan_ID", "2": "Loan_ID"})
    assert learned.tolist() == 2 * training["Loan_ID"].map(folded).tolist()
    figures = client.get_run(last(client).run_id).data.metrics
    assert (figures["rows"], figures["rows dropped"]) == (len(held_out), 0)


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
    assert history.champions(records.find(client, NAME)) == ["1", "3"]


def test_a_refused_adoption_leaves_no_manifest(in_production: str, client: MlflowClient, call: Call) -> None:
    tree = family_runs.families(client, family_runs.get_batch(client, TABLE))[0]
    client.create_model_version(
        NAME, family_runs.model_uri(tree), run_id=tree.info.run_id, model_id=family_runs.model_id(tree)
    )
    client.set_registered_model_alias(NAME, "production", "3")
    assert call(promote, "adopt", "--reason", "I like trees").code == 3
    assert digests.DIGEST not in client.get_model_version(NAME, "3").tags


def test_an_alias_that_somebody_moved_is_not_taken_away(in_production: str, client: MlflowClient, call: Call) -> None:
    call(promote, "staging")
    stages.remove(client, NAME, "staging", "1")
    assert stages.aliases(client, NAME) == {"production": "1", "staging": "2"}
    stages.remove(client, NAME, "staging", "2")
    assert stages.aliases(client, NAME) == {"production": "1"}


def test_a_registered_model_without_versions_is_shown(client: MlflowClient, call: Call) -> None:
    client.create_registered_model(NAME)
    assert "newest: none\n" in call(promote).out
    assert call(register, "--name", "it's").err.startswith('error: "it\'s" cannot name a registered model')
