"""Registering, and moving versions through the stages."""

import json
import os
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import mlflow
import pytest
import sqlalchemy
from mlflow import MlflowClient

import promote
import register
from tests.conftest import Ended
from understudy.errors import Refused
from understudy.gate import checks
from understudy.registry import audit, history, promotion, records, registered, stages
from understudy.registry.records import Move, Record, SavedRecord, Verdict
from understudy.table import TABLE
from understudy.tracking import batch_rows, experiments, family_runs, provenance, runs
from understudy.training import selection

NAME = TABLE.name
Call = Callable[..., Ended]
FORCED = ["--force", "--reason", "because"]
BACK = ["rollback", "--reason", "complaints"]


def where(client: MlflowClient) -> tuple[dict[str, str], dict[str, str | None]]:
    """Alias to version, and version to stage."""
    staged = {str(v.version): v.current_stage for v in registered.versions(client, NAME)}
    return stages.aliases(client, NAME), staged


def test_the_best_by_cross_validation_is_registered_once(client: MlflowClient, call: Call) -> None:
    runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
    best = max(runs, key=lambda run: run.data.metrics["Mean CV score"])
    first, second = call(register), call(register)
    assert first.out.startswith(f"{NAME} version 1 registered: {best.info.run_name}, mean CV score 0.")
    assert first.out.endswith("next: python promote.py staging\n")
    assert second.out.startswith(f"{NAME} version 1 was registered already")
    assert (first.err, second.err) == ("", "")
    [version] = registered.versions(client, NAME)
    assert version.run_id == best.info.run_id


def test_a_batch_of_0_2_is_registered_whose_digests_of_rows_have_other_names(client: MlflowClient, call: Call) -> None:
    batch = family_runs.get_batch(client, TABLE)
    for name in (batch_rows.HELD_OUT, batch_rows.TRAINED_ON):
        tag = batch_rows.digest_tag(name)
        client.set_tag(batch.info.run_id, tag.removeprefix(runs.OURS), batch.data.tags[tag])
        client.delete_tag(batch.info.run_id, tag)
    assert call(register).code == 0


def test_a_test_score_never_decides_what_is_best(client: MlflowClient) -> None:
    runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
    worst = min(runs[:3], key=lambda run: run.data.metrics["Mean CV score"])
    worst.data.metrics["Accuracy"] = worst.data.metrics["AUC"] = 1.0
    assert selection.best_family(runs) is not worst


def test_of_equal_scores_the_lowest_log_loss_is_best_and_never_the_floor(client: MlflowClient) -> None:
    runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
    for number, run in enumerate(runs):
        run.data.metrics.update({"Mean CV score": 0.8, "cv/log loss": 0.5 - number / 100})
    assert family_runs.family_name(selection.best_family(runs)) == "RandomForestClassifier"


def test_a_version_says_what_it_is_and_where_it_comes_from(client: MlflowClient, call: Call) -> None:
    call(register, "--model", "RandomForestClassifier")
    version = registered.versions(client, NAME)[0]
    run = client.get_run(version.run_id or "")
    for text in [
        "RandomForestClassifier",
        "Loan_Status, N",
        "- Gender: Female, Male, or missing",
        "AUC 0.",
        f"{NAME}@",
    ]:
        assert text in (version.description or "")
    for tag in ["data.digest", "understudy.family"]:
        assert version.tags[tag] == run.data.tags[tag]
    model = client.get_logged_model(family_runs.model_id(run))
    assert model.tags["mlflow.modelVersions"] == json.dumps([{"name": NAME, "version": 1}])
    assert mlflow.pyfunc.load_model(f"models:/{NAME}/1").metadata.run_id == version.run_id


def test_a_run_and_a_name_can_be_chosen(client: MlflowClient, call: Call) -> None:
    runs = family_runs.families(client, family_runs.get_batch(client, TABLE))
    ended = call(register, "--run", runs[1].info.run_id, "--name", "Prediction_model_LR")
    assert ended.out.endswith("next: python promote.py staging --name Prediction_model_LR\n")
    assert registered.versions(client, "Prediction_model_LR")[0].run_id == runs[1].info.run_id
    assert call(promote, "staging", "--name", "Prediction_model_LR").code == 0


def test_versions_move_through_the_stages_and_back(registered: str, client: MlflowClient, call: Call) -> None:
    steps: list[tuple[list[str], str, dict[str, str], dict[str, str]]] = [
        (["staging", "--version", "1"], "version 1 is in Staging", {"staging": "1"}, {"1": "Staging", "2": "None"}),
        (["production"], "version 1 is in Production", {"production": "1"}, {"1": "Production", "2": "None"}),
        (
            ["staging"],
            "version 2 is in Staging",
            {"production": "1", "staging": "2"},
            {"1": "Production", "2": "Staging"},
        ),
        (
            ["production"],
            "version 2 is in Production, version 1 is archived",
            {"production": "2"},
            {"1": "Archived", "2": "Production"},
        ),
        (
            ["rollback", "--reason", "complaints"],
            "version 1 is in Production again, version 2 is archived",
            {"production": "1"},
            {"1": "Production", "2": "Archived"},
        ),
    ]
    for arguments, text, aliases, staged in steps:
        ended = call(promote, *arguments)
        assert (ended.code, ended.err) == (0, "")
        assert text in ended.out
        assert ("check value" in " ".join(ended.out.split())) == (arguments[0] != "rollback")
        assert where(client) == (aliases, staged)
    shown = call(promote)
    assert shown.out.startswith("Staging: empty\nProduction: version 1\nnewest: version 2\n")
    assert shown.out.endswith('"complaints"\nnext: ./serve.sh\n')
    assert call(promote, *BACK).err.startswith(f"error: version 1 of {NAME} replaced none")
    lines = call(promote, "show", "2").out.splitlines()
    assert sum(
        re.fullmatch(r"metrics: AUC 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\), Accuracy .*", line) is not None for line in lines
    )
    [compared] = [line for line in lines if line.startswith("    ROC AUC less champions: ")]
    assert compared.endswith(")")
    assert len([line for line in lines if line == "    breaks of the contract: 0"]) == 2
    assert not any("slice" in line or "cv/" in line for line in lines)


def test_rolling_back_twice_goes_two_back(in_production: str, client: MlflowClient, call: Call) -> None:
    call(register, "--model", "DecisionTreeClassifier")
    call(promote, "production", "--version", "2", *FORCED)
    call(promote, "production", "--version", "3", *FORCED)
    assert "version 2 is in Production again" in call(promote, *BACK).out
    assert "version 1 is in Production again" in call(promote, *BACK).out
    assert where(client) == ({"production": "1"}, {"1": "Production", "2": "Archived", "3": "Archived"})
    assert "version 3 is in Production again" in call(promote, *BACK, "--to", "3").out
    assert call(promote, "check").code == 0


def test_doing_it_again_changes_nothing(in_production: str, client: MlflowClient, call: Call) -> None:
    before = where(client)
    assert call(promote, "production", "--version", "1").out.startswith(f"{NAME} version 1 is in Production\n")
    assert where(client) == before
    assert len(records.find(client, NAME)) == 2
    assert call(promote, *BACK).code == 2


def test_production_and_staging_can_be_loaded_by_stage_and_by_alias(in_production: str, call: Call) -> None:
    call(promote, "staging")
    numbers = {}
    for address in ["/Production", "/Staging", "@production", "@staging", "/1", "/2"]:
        numbers[address] = mlflow.pyfunc.load_model(f"models:/{NAME}{address}").metadata.run_id
    assert numbers["/Production"] == numbers["@production"] == numbers["/1"]
    assert numbers["/Staging"] == numbers["@staging"] == numbers["/2"]


def test_every_step_is_refused_when_there_is_nothing_to_take(batch_store: str, call: Call) -> None:
    no_model = f"error: there is no registered model {NAME}\nfix: python register.py\n"
    for action in ["show", "staging", "production", "rollback"]:
        ended = call(promote, action, *(BACK[1:] if action == "rollback" else []))
        assert (ended.code, ended.err) == (2, no_model)
    call(register)
    for action, refusal in [
        ("production", f"error: no version of {NAME} is in Staging\nfix: python promote.py staging\n"),
        ("rollback", f"error: no version of {NAME} is in Production\nfix: python promote.py production\n"),
    ]:
        ended = call(promote, action, *(BACK[1:] if action == "rollback" else []))
        assert (ended.code, ended.err) == (2, refusal)


def test_the_version_in_production_does_not_go_to_staging(in_production: str, client: MlflowClient, call: Call) -> None:
    before = where(client)
    assert call(promote, "staging", "--version", "1").err.startswith(f"error: version 1 of {NAME} is in Production")
    assert call(promote, "staging", "--version", "7").err.startswith(f"error: {NAME} has no version 7\nfix: choose")
    assert where(client) == before


def by_hand(client: MlflowClient, version: str, stage: str) -> None:
    """What a click in MLflow's UI does."""
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        client.transition_model_version_stage(NAME, version, stage)


def last(client: MlflowClient) -> SavedRecord:
    """The record that was opened last."""
    return max(records.find(client, NAME), key=lambda record: record.opened)


def test_what_is_refused_is_recorded_and_moves_nothing(in_production: str, client: MlflowClient, call: Call) -> None:
    client.set_registered_model_alias(NAME, "staging", "2")
    by_hand(client, "2", "Staging")
    before = where(client)
    ended = call(promote, "production", "--rule", "better")
    assert ended.code == 3
    assert ended.out.splitlines()[0].split() == ["check", "value", "interval", "limit", "result"]
    assert [line.split()[-1] for line in ended.out.splitlines() if checks.DIFFERENCE in line] == ["fail"]
    assert ended.err.startswith("refused: too few rows to tell whether ROC AUC less champion's is above 0.000")
    assert ended.err.count("\n") == 1
    assert where(client) == before
    assert (last(client).outcome, last(client).rule) == ("refused", "better")
    assert call(promote, "rollback", "--reason", "it was no promotion").code == 2


def test_a_forced_promotion_says_so_and_a_record_holds_what_it_rests_on(
    in_production: str, client: MlflowClient, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    assert call(promote, "production", "--version", "2", "--force").code == 2
    assert call(promote, "production", "--version", "2", "--rule", "better", *FORCED).code == 0
    version = client.get_model_version(NAME, "2")
    run = client.get_run(version.tags[records.LATEST])
    record = last(client)
    assert (record.version, record.before, record.who, record.reason) == ("2", "1", "anna", "because")
    assert (record.forced, record.outcome, record.run_id) == (True, "completed", run.info.run_id)
    assert (record.why or "").startswith("too few rows to tell whether ROC AUC less champion's is above 0.000")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["rows"] == 186
    assert run.data.metrics["rows dropped"] == 0
    figures = [run.data.metrics[f"ROC AUC less champions{bound}"] for bound in (" low", "", " high")]
    assert figures == sorted(figures)
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"gate.json", "difference.png", "rows.txt", "report.html"}
    kept = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/gate.json"))
    assert kept["checks"][1]["name"] == checks.DIFFERENCE
    assert kept["checks"][1]["value"] == figures[1]
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == f"{NAME} promotions"
    assert run.info.start_time <= (record.time or 0) <= run.info.end_time
    assert run.data.tags["mlflow.user"] == "anna"
    shown = datetime.strptime(run.data.tags[records.WHEN], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    assert shown.timestamp() == (record.time or 0) // 1000
    read_by_the_project = [tag for tag in run.data.tags if tag.startswith(runs.OURS)]
    assert sorted(tag for tag in run.data.tags if not tag.startswith("mlflow."))[-len(read_by_the_project) :] == sorted(
        read_by_the_project
    )


def test_a_version_that_was_never_in_staging_needs_force(in_production: str, client: MlflowClient, call: Call) -> None:
    refused = call(promote, "production", "--version", "2")
    assert refused.err.startswith(f"error: version 2 of {NAME} was never in Staging\nfix: python promote.py staging")
    call(promote, "staging", "--version", "2")
    call(register, "--model", "DecisionTreeClassifier")
    call(promote, "staging", "--version", "3")  # takes the place of version 2, which was there
    assert call(promote, "production", "--version", "2").code == 0


def test_nothing_moves_when_the_alias_moved_after_the_decision(in_production: str, client: MlflowClient) -> None:
    def meanwhile(planned: Move) -> Verdict:
        client.set_registered_model_alias(NAME, "production", "2")
        return Verdict()

    client.create_model_version(NAME, "s3://nowhere/model", await_creation_for=0)
    with pytest.raises(Refused, match="has changed meanwhile: it had version 1, it has version 2 now"):
        promotion.promote(client, NAME, Move("production", "3", "production", forced=True), meanwhile)
    assert stages.aliases(client, NAME)["production"] == "2"
    assert (last(client).outcome, last(client).version) == ("refused", "3")


def test_a_promotion_that_lasted_no_moment_says_so_and_is_no_history(
    in_production: str, client: MlflowClient, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = records.now

    def meanwhile() -> int:
        monkeypatch.setattr(records, "now", clock)
        promotion.promote(client, NAME, Move("production", "3", "production", forced=True), lambda planned: Verdict())
        return clock()

    call(register, "--model", "DecisionTreeClassifier")
    monkeypatch.setattr(records, "now", meanwhile)
    ended = call(promote, "production", "--version", "2", *FORCED)
    assert (ended.code, ended.err) == (3, f"refused: version 3 of {NAME} took the place of version 2 at once\n")
    assert history.champions(records.find(client, NAME)) == ["1", "3"]
    assert where(client) == ({"production": "3"}, {"1": "Archived", "2": "Archived", "3": "Production"})
    assert call(promote, "check").code == 0


def moves(*decided: tuple[str, str, str | None]) -> list[SavedRecord]:
    return [
        SavedRecord(action, version, "production", before, outcome="completed", time=time, run_id="a", opened=time)
        for time, (action, version, before) in zip(count(100, 100), decided, strict=False)
    ]


def test_history_is_a_stack() -> None:
    up = [("production", "1", None), ("production", "2", "1"), ("production", "3", "2")]
    assert history.champions(moves(*up)) == ["1", "2", "3"]
    assert history.champions(moves(*up, ("rollback", "2", "3"))) == ["1", "2"]
    assert history.champions(moves(*up, ("rollback", "1", "3"), ("production", "4", "1"))) == ["1", "4"]
    assert history.champions(moves(*up, ("rollback", "2", "3"), ("rollback", "3", "2"))) == ["1", "3"]
    assert history.champions(moves(("production", "2", "1"), ("production", "2", "1"))) == ["1", "2"]
    assert history.champions(moves(("production", "1", None), ("rollback", "1", "9"))) == ["1"]
    elsewhere = SavedRecord("staging", "2", "staging", outcome="superseded", time=150, run_id="b", opened=150)
    by_hand = [*moves(("production", "1", None)), elsewhere, *moves(("production", "3", "2"))]
    assert history.champions(by_hand) == ["1", "2", "3"]


def test_a_version_that_was_forced_and_taken_back_does_not_forgive_small_losses() -> None:
    up = [("production", "1", None), ("production", "2", "1"), ("production", "3", "2"), ("production", "5", "3")]
    *kept, last = moves(*up)
    forced = replace(last, forced=True)
    assert history.after_better([*kept, forced]) == [forced]
    back = [*kept, forced, replace(moves(("rollback", "3", "5"))[0], time=500)]
    assert (history.after_better(back), history.champions_since_better(back)) == (back, ["1", "2", "3"])
    again = [*back, replace(moves(("production", "5", "3"))[0], time=600)]  # by `not-worse`, unlike the first time
    assert (history.after_better(again), history.champions_since_better(again)) == (again, ["1", "2", "3", "5"])


def test_what_was_in_production_at_a_time_is_known() -> None:
    decisions = moves(("production", "2", "1"), ("production", "3", "2"), ("rollback", "2", "3"))
    assert [history.champion_at(decisions, when) for when in (50, 100, 199, 200, 1000)] == ["1", "2", "2", "3", "2"]
    assert history.champion_at([], 100) is None


def test_show_says_what_was_when_and_where_a_version_comes_from(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    time.sleep(0.01)
    between = datetime.now().isoformat()
    call(promote, "production", "--version", "2", *FORCED)
    assert f"in Production at {between}: version 1\n" in call(promote, "show", "--at", between).out
    assert "2099-01-01: version 2\n" in call(promote, "show", "--at", "2099-01-01").out
    assert call(promote, "show", "--at", "yesterday").code == 2
    shown = call(promote, "show", "2").out
    run = client.get_run(client.get_model_version(NAME, "2").run_id or "")
    for tag in [provenance.DATA_DIGEST, "mlflow.source.git.commit", "lock.digest", "seed", family_runs.MODEL_DIGEST]:
        assert run.data.tags[tag] in shown
    assert f"run: {run.info.run_id}\n" in shown
    assert f"{records.LATEST}: {last(client).run_id}\n" in shown
    assert '"because"; forced' in shown
    tags = [line.partition(":")[0] for line in shown.splitlines() if line.startswith(("data.digest", "understudy."))]
    assert len(tags) > 3
    assert tags == sorted(tags)  # databases give them in any order
    assert call(promote, "show", "7").code == 2


def test_a_version_that_cannot_be_scored_is_never_rolled_back_to(
    in_production: str, client: MlflowClient, call: Call, tmp_path: Path, files: Callable[[str], Path]
) -> None:
    call(promote, "production", "--version", "2", *FORCED)
    model = client.get_logged_model(str(client.get_model_version(NAME, "1").source).removeprefix("models:/"))
    folder, kept = files(model.artifact_location), tmp_path / "kept"
    shutil.move(folder, kept)
    before = where(client)
    try:
        ended = call(promote, *BACK)
        assert (ended.code, ended.out) == (2, "")
        assert call(promote, "check").code == 4
        shutil.copytree(kept, folder)
        (folder / "model.skops").write_bytes(b"damaged")
        assert "version 1 is not what was registered: model.skops changed" in call(promote, *BACK).err
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(kept, folder)
    assert where(client) == before
    assert call(promote, *BACK).code == 0


def test_a_rollback_needs_a_reason_and_goes_only_where_production_was(in_production: str, call: Call) -> None:
    needed = 'error: rollback needs a --reason\nfix: python promote.py rollback --reason "..."\n'
    assert call(promote, "rollback").err == needed
    assert "version 2 of Loan_prediction was never in Production" in call(promote, *BACK, "--to", "2").err
    assert "version 1 of Loan_prediction is in Production already" in call(promote, *BACK, "--to", "1").err
    assert "has no version 9" in call(promote, *BACK, "--to", "9").err


def test_archive_takes_a_version_out_of_staging_and_never_out_of_production(
    in_production: str, client: MlflowClient, call: Call
) -> None:
    assert call(promote, "archive", "--version", "1").err.startswith(f"error: version 1 of {NAME} is in Production")
    call(promote, "staging")
    assert call(promote, "archive", "--version", "2", "--reason", "old").code == 0
    assert where(client) == ({"production": "1"}, {"1": "Production", "2": "Archived"})
    assert (last(client).action, last(client).outcome) == ("archive", "completed")
    assert call(promote, "check").out == f"{NAME}: all is well\nnext: ./serve.sh\n"


def test_what_was_done_by_hand_is_found_left_alone_and_adopted(
    registered: str, client: MlflowClient, call: Call
) -> None:
    by_hand(client, "1", "Production")
    assert "no version of" in call(promote, "rollback", "--reason", "no alias").err
    checked = call(promote, "check", "--repair")
    assert checked.code == 4
    assert "Production: the alias names none, the stage shows version 1" in checked.out
    call(promote, "staging")
    assert where(client) == ({"staging": "2"}, {"1": "Production", "2": "Staging"})
    adopted = call(promote, "adopt", "--reason", "set up by hand")
    assert f"\n{NAME} version 1 is in Production, with alias, stage and record\n" in adopted.out
    assert where(client) == ({"production": "1", "staging": "2"}, {"1": "Production", "2": "Staging"})
    assert call(promote, "check").code == 0
    client.set_registered_model_alias(NAME, "production", "2")
    assert "version 2 is in Production without a record" in call(promote, "check").out
    assert call(promote, "adopt", "--reason", "by alias").code == 0
    assert call(promote, "check").code == 0
    assert "version 1 is in Production again" in call(promote, *BACK).out


def test_adopt_asks_which_when_the_ui_has_put_two_there(in_production: str, client: MlflowClient, call: Call) -> None:
    call(register, "--model", "DecisionTreeClassifier")
    by_hand(client, "2", "Production")
    by_hand(client, "3", "Production")
    text = call(promote, "check").out
    assert "Production: the alias names version 1, the stage shows version 1, 2, 3" in text
    assert call(promote, "adopt", "--reason", "x").code == 2
    assert call(promote, "adopt", "--version", "3", "--reason", "the newest").code == 3
    assert call(promote, "adopt", "--version", "3", "--reason", "the newest", "--force").code == 0
    assert where(client)[1] == {"1": "Archived", "2": "Archived", "3": "Production"}
    assert history.champions(records.find(client, NAME)) == ["1", "3"]


def test_check_repairs_stages_by_the_alias_and_records_it(in_production: str, client: MlflowClient, call: Call) -> None:
    by_hand(client, "2", "Production")
    checked = call(promote, "check")
    assert checked.code == 4
    assert checked.out.endswith("next: python promote.py check --repair\n")
    mended = call(promote, "check", "--repair")
    assert mended.out.startswith("mended: version 2 is in the stage Archived\n")
    assert where(client) == ({"production": "1"}, {"1": "Production", "2": "Archived"})
    assert (last(client).action, last(client).reason) == ("repair", "version 2 is in the stage Archived")
    assert call(promote, "check").code == 0


def test_check_finds_versions_without_what_is_behind_them(in_production: str, client: MlflowClient) -> None:
    assert audit.findings(client, NAME) == []
    made = client.create_model_version(NAME, "s3://nowhere/model", await_creation_for=0)
    source = client.get_model_version(NAME, "2")
    model = client.get_logged_model(str(source.source).removeprefix("models:/"))
    client.delete_model_version(NAME, "2")
    client.delete_run(client.get_model_version(NAME, "1").run_id or "")
    findings = "\n".join(finding.what for finding in audit.findings(client, NAME))
    assert f"version {made.version} has no run behind it" in findings
    assert f"model {model.model_id} says it is version 2, which is not there" in findings
    assert "the run of version 1 is deleted" in findings
    client.delete_logged_model(str(client.get_model_version(NAME, "1").source).removeprefix("models:/"))
    assert "version 1 has no model behind it" in [finding.what for finding in audit.findings(client, NAME)]


def test_the_story_without_stages(
    registered: str, client: MlflowClient, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "KEEP_STAGES", False)
    for arguments in [["staging", "--version", "1"], ["production"], ["staging"], ["production"], BACK, ["check"]]:
        assert call(promote, *arguments).code == 0, arguments
    assert where(client) == ({"production": "1"}, {"1": "None", "2": "None"})
    assert call(promote, "production", "--version", "2").code == 0
    call(promote, *BACK)
    client.set_registered_model_alias(NAME, "staging", "1")
    assert call(promote, "check").code == 4
    assert call(promote, "check", "--repair").code == 0


def copied(store: str, run_id: str, count: int) -> None:
    """Insert copies of a run with its tags, each a millisecond older than the next, all older than the run itself."""
    engine, tables = sqlalchemy.create_engine(store), sqlalchemy.MetaData()
    with engine.begin() as connection:
        tables.reflect(connection, only=["runs", "tags"])
        runs, tags = tables.tables["runs"], tables.tables["tags"]
        [run] = connection.execute(runs.select().where(runs.c.run_uuid == run_id)).mappings()
        of_run = connection.execute(tags.select().where(tags.c.run_uuid == run_id)).mappings().all()
        ids = [f"{number:032x}" for number in range(count)]
        times = [run["start_time"] - count + number for number in range(count)]
        rows = [{**run, "run_uuid": other, "start_time": when} for other, when in zip(ids, times, strict=True)]
        connection.execute(runs.insert(), rows)
        connection.execute(tags.insert(), [{**tag, "run_uuid": other} for other in ids for tag in of_run])


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_all_records_are_read_however_many_there_are(in_production: str, client: MlflowClient) -> None:
    newest = last(client)
    client.delete_tag(newest.run_id, records.TAGS["number"])
    copied(in_production, newest.run_id, 10_001)
    client.set_tag(newest.run_id, records.TAGS["version"], "2")
    decisions = records.find(client, NAME)
    assert len(decisions) == 10_003
    assert history.aliases(decisions)["production"] == "2"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_newest_batch_is_found_among_many_experiments(registered: str, client: MlflowClient, call: Call) -> None:
    batch = family_runs.get_batch(client, TABLE)
    engine, tables = sqlalchemy.create_engine(registered), sqlalchemy.MetaData()
    with engine.begin() as connection:
        tables.reflect(connection, only=["experiments"])
        rows = tables.tables["experiments"]
        [row] = connection.execute(rows.select().where(rows.c.experiment_id == batch.info.experiment_id)).mappings()
        later = [{"experiment_id": 1000 + n, "name": f"later {n}", "creation_time": 2 * 10**12} for n in range(1500)]
        connection.execute(rows.insert(), [{**row, **other} for other in later])
    assert len(experiments.all_ids(client)) > 1500
    assert family_runs.get_batch(client, TABLE).info.run_id == batch.info.run_id
    assert len(family_runs.linked_models(client)) == 2
    assert call(promote, "check").code == 0


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_place_is_behind_records_of_clocks_that_are_late(
    in_production: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "RECENT", 2)  # the new record, and the one that seems to be later
    first, second = records.find(client, NAME)
    engine, tables = sqlalchemy.create_engine(in_production), sqlalchemy.MetaData()
    with engine.begin() as connection:
        tables.reflect(connection, only=["runs"])
        rows = tables.tables["runs"]
        connection.execute(rows.update().where(rows.c.run_uuid == second.run_id).values(start_time=first.opened - 1))
    record = records.start(client, NAME, Record(records.REPAIR, reason="a test"), Verdict())
    assert records.place(client, NAME, record).number == 3


def test_training_does_not_close_records_of_killed_promotions(in_production: str, client: MlflowClient) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    process = {runs.HOST: runs.host(), runs.PID: str(gone.pid), runs.STARTED: "1"}
    experiment = client.get_run(last(client).run_id).info.experiment_id
    run = client.create_run(experiment, tags={**process, runs.KIND: runs.RECORD})
    assert runs.close_killed(client) == []
    assert client.get_run(run.info.run_id).info.status == "RUNNING"


def test_a_container_without_a_user_name_promotes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["MLFLOW_TRACKING_USERNAME", "LOGNAME", "USER", "LNAME", "USERNAME"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    assert provenance.who() == "987654"
