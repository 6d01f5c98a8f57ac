"""What people do by hand to aliases, stages, versions, models and records, and what is decided and said after it."""

import subprocess
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from mlflow import MlflowClient

import promote
import register
from tests.conftest import MARIADB, Ended, is_refusal
from understudy.errors import Refused, UserError
from understudy.registry import audit, history, promotion, records, stages
from understudy.registry.records import Move, SavedRecord, Verdict
from understudy.serving import __main__ as serve
from understudy.table import TABLE
from understudy.tracking import runs
from understudy.tracking.naming import check_name

NAME = TABLE.name
Call = Callable[..., Ended]
FORCED = ["--force", "--reason", "because"]
BACK = ["rollback", "--reason", "complaints"]


def put(client: MlflowClient, version: str) -> None:
    """Promote a version without asking the gate."""
    promotion.promote(client, NAME, Move("production", version, "production", forced=True), lambda _: Verdict())


def named(client: MlflowClient) -> dict[str, str]:
    """The aliases as the store shows them."""
    return {alias: str(version) for alias, version in client.get_registered_model(NAME).aliases.items()}


def stack(client: MlflowClient) -> list[str]:
    return history.champions(records.find(client, NAME))


def last(client: MlflowClient) -> SavedRecord:
    """The record that was opened last."""
    return max(records.find(client, NAME), key=lambda record: record.opened)


def check(client: MlflowClient) -> str:
    """What `check` finds."""
    return "\n".join(str(finding) for finding in audit.findings(client, NAME))


@pytest.fixture
def three(in_production: str, client: MlflowClient, prepared: Callable[..., None]) -> MlflowClient:
    """A store with version 1 in Production, and a tree as version 3, which the gate lets replace neither 1 nor 2."""
    prepared(
        (register, "--model", "DecisionTreeClassifier"), (promote, "staging", "--version", "3"), (promote, "production")
    )
    assert stages.aliases(client, NAME) == {"production": "1", "staging": "3"}
    return client


@pytest.mark.parametrize("backend", [MARIADB], indirect=True)
@pytest.mark.parametrize("spelt", ["Production", "pröduction"])
def test_an_alias_that_the_database_takes_for_production_is_production(
    three: MlflowClient, call: Call, spelt: str
) -> None:
    three.set_registered_model_alias(NAME, spelt, "2")
    assert named(three) == {spelt: "2", "staging": "3"}
    assert f"Production: the alias of version 2 is spelt {spelt}, and not production" in check(three)
    refused = call(promote, "production")
    assert (refused.code, last(three).before, last(three).against) == (3, "2", "2")
    assert call(promote, "check", "--repair").out.startswith("mended: the alias production, which names version 2, is")
    assert named(three) == {"production": "2", "staging": "3"}
    three.set_registered_model_alias(NAME, spelt, "1")
    put(three, "3")
    assert named(three) == {"production": "3"}
    assert last(three).before == "1"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_an_alias_that_only_looks_like_production_is_reported(three: MlflowClient, call: Call) -> None:
    three.set_registered_model_alias(NAME, "Production", "2")
    three.set_registered_model_alias(NAME, "best", "2")
    assert stages.aliases(three, NAME) == {"production": "1", "staging": "3"}
    assert check(three).startswith("Production: the alias Production names version 2, and only production counts\n")
    assert "never in Staging" in call(promote, "production", "--version", "2").err  # another alias is no stage


def test_a_champion_whose_alias_is_gone_is_compared_all_the_same(three: MlflowClient, call: Call) -> None:
    three.delete_registered_model_alias(NAME, "production")
    refused = call(promote, "production")
    assert refused.code == 3
    assert refused.out.startswith("compared with version 1, the last in Production whose files are there\n")
    assert "too few rows to tell whether ROC AUC less champion's" in refused.err
    assert (last(three).before, last(three).against, last(three).by_hand) == (None, "1", True)


def test_a_champion_that_is_deleted_gives_way_to_the_one_before_it(three: MlflowClient, call: Call) -> None:
    put(three, "2")
    three.delete_model_version(NAME, "2")
    assert "the records say version 2, the alias names none, and the version is deleted" in check(three)
    assert call(promote, "production").code == 3
    assert last(three).against == "1"
    forced = call(promote, "production", *FORCED)
    assert "compared with version 1, the last in Production whose files are there\n" in forced.out
    assert "compared with version 1, forced" in call(promote).out
    assert stack(three) == ["1", "2", "3"]
    assert "version 1 is in Production again" in call(promote, *BACK).out


def test_where_nothing_is_left_to_compare_with_force_is_needed(three: MlflowClient, call: Call) -> None:
    three.delete_model_version(NAME, "1")
    assert "and the version is deleted\n  fix: python promote.py production --version N --force" in check(three)
    refused = call(promote, "production")
    assert refused.code == 3
    assert "version 1 was in Production, and nothing is left to compare with; --force --reason" in refused.err
    assert call(promote, "production", *FORCED).code == 0


def test_records_of_an_earlier_registered_model_count_for_nothing(three: MlflowClient, call: Call) -> None:
    put(three, "2")
    three.delete_registered_model(NAME)
    call(register, "--model", "DummyClassifier")
    assert "version 1 of Loan_prediction was never in Staging" in call(promote, "production", "--version", "1").err
    assert is_refusal(call(promote, *BACK, "--to", "1"))
    assert f"no version of {NAME} is in Production" in call(promote, *BACK).err
    assert call(promote, "staging").code == 0
    refused = call(promote, "production")
    assert refused.code == 3
    assert "version 2 of an earlier registered model of that name was in Production" in refused.err
    assert "of an earlier registered model\n" in call(promote).out
    call(register, "--model", "LogisticRegression")
    put(three, "2")
    assert stack(three) == ["2"]
    assert "was never in Production" in call(promote, *BACK, "--to", "1").err
    assert "is in Production without a record" not in check(three)


def test_records_of_old_count_from_the_models_creation_on(three: MlflowClient) -> None:
    made = three.get_registered_model(NAME).creation_timestamp
    for record in records.find(three, NAME):
        assert record.model == made
        three.delete_tag(record.run_id, records.TAGS["model"])
    assert {record.is_earlier for record in records.find(three, NAME)} == {False}
    time.sleep(0.01)
    three.delete_registered_model(NAME)
    three.create_registered_model(NAME)
    assert {record.is_earlier for record in records.find(three, NAME)} == {True}


def test_a_version_that_was_put_back_by_hand_is_what_a_rollback_leads_to(three: MlflowClient, call: Call) -> None:
    put(three, "2")
    three.set_registered_model_alias(NAME, "production", "1")
    assert "version 1 is in Production without a record, the records say version 2" in check(three)
    assert "version 1 of Loan_prediction replaced none" in call(promote, *BACK).err
    put(three, "3")
    assert stack(three) == ["1", "3"]
    assert "  a person had put version 1 there by hand, forced\n" in call(promote).out
    assert "version 1 is in Production again" in call(promote, *BACK).out
    assert "version 1 of Loan_prediction replaced none" in call(promote, *BACK).err
    three.set_registered_model_alias(NAME, "production", "2")
    assert "version 1 is in Production again" in call(promote, *BACK).out
    assert check(three) == ""


def test_a_version_that_was_replaced_at_once_and_later_set_by_hand_is_history(
    three: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = records.now

    def meanwhile() -> int:
        monkeypatch.setattr(records, "now", clock)
        put(three, "3")
        return clock()

    monkeypatch.setattr(records, "now", meanwhile)
    with pytest.raises(Refused, match="took the place of version 2 at once"):
        put(three, "2")
    assert stack(three) == ["1", "3"]
    three.set_registered_model_alias(NAME, "production", "2")
    put(three, "1")
    assert stack(three) == ["1", "3", "2", "1"]


def test_adopting_what_was_put_back_by_hand_goes_back(three: MlflowClient) -> None:
    put(three, "2")
    three.set_registered_model_alias(NAME, "production", "1")
    promotion.adopt(three, NAME, None, "it is better", lambda _: Verdict(), forced=True)
    assert (last(three).before, stack(three), check(three)) == ("2", ["1"], "")


def test_a_version_that_was_taken_out_by_hand_is_missed_and_brought_back(three: MlflowClient, call: Call) -> None:
    put(three, "2")
    three.delete_registered_model_alias(NAME, "production")
    three.delete_registered_model_alias(NAME, "staging")
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        for version in ("2", "3"):
            three.transition_model_version_stage(NAME, version, "Archived")
    checked = call(promote, "check")
    assert checked.code == 4
    assert (
        "Production: the records say version 2, the alias names none\n  fix: python promote.py rollback" in checked.out
    )
    assert "Staging: the records say version 3, the alias names none\n" in checked.out
    assert "Production: empty (the records say version 2: python promote.py check)\n" in call(promote).out
    assert "2099-01-01: version 2, or already none, by hand" in call(promote, "show", "--at", "2099-01-01").out
    assert "version 2 is in Production again\n" in call(promote, *BACK).out
    assert call(promote, "archive", "--version", "3", "--reason", "taken out").code == 0
    assert call(promote, "check").code == 0
    assert stack(three) == ["1", "2"]


def test_a_move_that_was_cut_off_goes_before_the_one_that_has_followed_it(three: MlflowClient) -> None:
    cut_off = records.start(three, NAME, Move("production", "2", "production", "1"), Verdict())
    three.set_registered_model_alias(NAME, "production", "2")
    time.sleep(0.01)
    put(three, "3")  # as from another host, which cannot know whether the process of the first one is gone
    assert (last(three).before, last(three).by_hand, stack(three)) == ("2", False, ["1", "3"])
    gone = subprocess.Popen(["true"])
    gone.wait()
    three.set_tag(cut_off.run_id, runs.PID, str(gone.pid))
    assert "a record was cut off" in check(three)
    audit.recover(three, NAME)
    assert (stack(three), check(three)) == (["1", "2", "3"], "")
    assert [record.version for record in history.production_moves(records.find(three, NAME))] == ["1", "2", "3"]


def test_a_clock_that_was_ahead_is_put_right_by_the_next_record(
    three: MlflowClient, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = records.now
    with monkeypatch.context() as ahead:
        ahead.setattr(records, "now", lambda: clock() + 3_600_000)
        put(three, "2")
    between = datetime.now() + timedelta(seconds=0.001)
    time.sleep(0.01)
    put(three, "3")
    assert stack(three) == ["1", "2", "3"]
    assert check(three) == ""
    moves = history.production_moves(records.find(three, NAME))
    assert [move.number for move in moves] == sorted({move.number or 0 for move in moves})
    assert history.champion_at(moves, moves[-1].time or 0) == "3"
    assert history.champion_at(moves, (moves[-1].time or 0) - 1) == "1"
    assert f"{between.isoformat()}: version 1\n" in call(promote, "show", "--at", between.isoformat()).out


def test_a_deleted_record_counts_and_is_missed(three: MlflowClient, call: Call) -> None:
    put(three, "2")
    record = last(three)
    three.delete_run(record.run_id)
    assert stack(three) == ["1", "2"]
    assert f"is deleted: completed: production, version 2 in place of version 1, forced\n  fix: {restore(record)}" in (
        check(three)
    )
    assert "its run is deleted\n" in call(promote).out
    three.restore_run(record.run_id)
    assert check(three) == ""


def restore(record: SavedRecord) -> str:
    return f"mlflow runs restore --run-id {record.run_id}"


def test_records_that_are_gone_for_good_are_missed_and_noted(three: MlflowClient, call: Call) -> None:
    put(three, "2")
    put(three, "1")
    gone = next(record for record in history.production_moves(records.find(three, NAME)) if record.version == "2")
    three.delete_tag(gone.run_id, runs.KIND)  # no search for records finds it any more, as after mlflow gc
    assert f"the last record of version 2, run {gone.run_id}, is not in {NAME} promotions" in check(three)
    assert f"the record at place {gone.number:.0f} is gone for good" in check(three)
    call(promote, "check", "--repair")
    assert "is gone for good" not in check(three)
    assert call(promote, "adopt", "--version", "2", "--reason", "its record is gone").code == 0
    assert check(three) == ""


def test_where_all_records_are_gone_no_champion_is_taken_for_granted(three: MlflowClient, call: Call) -> None:
    for record in records.find(three, NAME):
        three.delete_tag(record.run_id, runs.KIND)
    three.delete_registered_model_alias(NAME, "production")
    refused = call(promote, "production")
    assert refused.code == 3
    assert "is gone, and nobody knows what was in Production; --force" in refused.err


def test_a_deleted_batch_is_missed(three: MlflowClient, call: Call) -> None:
    run = three.get_run(three.get_model_version(NAME, "3").run_id or "")
    batch = run.data.tags["mlflow.parentRunId"]
    three.delete_run(batch)
    assert f"the batch of version 3 is deleted\n  fix: mlflow runs restore --run-id {batch}" in check(three)
    three.delete_experiment(run.info.experiment_id)
    assert f"fix: mlflow experiments restore --experiment-id {run.info.experiment_id}\n" in check(three)
    three.restore_experiment(run.info.experiment_id)
    assert check(three) == ""
    three.set_tag(run.info.run_id, "mlflow.parentRunId", "0" * 32)
    assert f"the batch of version 3, run {'0' * 32}, is not there" in check(three)
    assert f"run {'0' * 32}, which kept rows/held_out.parquet, is gone" in call(promote, "production").err


def test_a_deleted_experiment_of_records_stops_every_verb(three: MlflowClient, call: Call) -> None:
    kept = three.get_experiment_by_name(f"{NAME} promotions")
    assert kept
    three.delete_experiment(kept.experiment_id)
    fix = f"mlflow experiments restore --experiment-id {kept.experiment_id}"
    two_lines = f"error: experiment {NAME} promotions is deleted\nfix: {fix}\n"
    for verb in (["staging"], ["production"], BACK, ["archive", "--version", "2"], ["adopt", "--reason", "x"], []):
        ended = call(promote, *verb)
        assert (ended.code, ended.err) == (2, two_lines), verb
    checked = call(promote, "check")
    assert (checked.code, "adopt" in checked.out) == (4, False)
    assert f"experiment {NAME} promotions is deleted\n  fix: {fix}\n" in checked.out
    three.restore_experiment(kept.experiment_id)
    assert call(promote, "check").code == 0


@pytest.mark.parametrize("name", ["a/b", "a:b", "..", " ", ".", "it's", "x" * 201])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a registered model"):
        check_name(name)


def test_every_verb_refuses_what_cannot_be_a_name(registered: str, call: Call) -> None:
    scripts = [(promote, ["show"]), (promote, ["staging"]), (promote, ["check"]), (register, [])]
    for script, arguments in [*scripts, (register, ["reproduce", "1"]), (serve, []), (serve, ["--live"])]:
        ended = call(script, *arguments, "--name", "it's")
        assert is_refusal(ended), (arguments, ended.err)
        assert "cannot name a registered model" in ended.err


@pytest.mark.parametrize("backend", [MARIADB], indirect=True)
def test_a_name_that_the_database_takes_for_another_is_refused(in_production: str, call: Call) -> None:
    other = NAME.lower()
    for script, arguments in [(promote, ["show"]), (promote, ["staging"]), (register, []), (serve, [])]:
        ended = call(script, *arguments, "--name", other)
        assert ended.err == f"error: there is no registered model {other!r}, but {NAME!r}\nfix: --name {NAME}\n"


def test_a_fix_names_the_option_that_the_verb_has(in_production: str, call: Call) -> None:
    assert call(promote, *BACK, "--to", "9").err.endswith("fix: choose from 1, 2 with --to\n")
    assert call(promote, "staging", "--version", "9").err.endswith("fix: choose from 1, 2 with --version\n")
    assert "register.py reproduce" in call(register, "reproduce", "9").err
