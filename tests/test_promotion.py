"""Registering, and moving versions through the stages."""

import json
from collections.abc import Callable

import mlflow
from mlflow import MlflowClient

import promote
import register
from tests.conftest import Ended
from understudy import registry, tracking
from understudy.table import TABLE

NAME = TABLE.name
Call = Callable[..., Ended]


def where(client: MlflowClient) -> tuple[dict[str, str], dict[str, str | None]]:
    """Alias to version, and version to stage."""
    stages = {str(v.version): v.current_stage for v in registry.versions(client, NAME)}
    return registry.aliases(client, NAME), stages


def test_the_best_by_cross_validation_is_registered_once(client: MlflowClient, call: Call) -> None:
    runs = tracking.families(client, tracking.get_batch(client, TABLE))
    best = max(runs, key=lambda run: run.data.metrics["Mean CV score"])
    first, second = call(register), call(register)
    assert first.out.startswith(f"{NAME} version 1 registered: {best.info.run_name}, mean CV score 0.")
    assert first.out.endswith("next: python promote.py staging\n")
    assert second.out.startswith(f"{NAME} version 1 was registered already")
    assert (first.err, second.err) == ("", "")
    [version] = registry.versions(client, NAME)
    assert version.run_id == best.info.run_id


def test_a_test_score_never_decides_what_is_best(client: MlflowClient) -> None:
    runs = tracking.families(client, tracking.get_batch(client, TABLE))
    worst = min(runs[:3], key=lambda run: run.data.metrics["Mean CV score"])
    worst.data.metrics["Accuracy"] = worst.data.metrics["AUC"] = 1.0
    assert registry.best_family(runs) is not worst


def test_of_equal_scores_the_lowest_log_loss_is_best_and_never_the_floor(client: MlflowClient) -> None:
    runs = tracking.families(client, tracking.get_batch(client, TABLE))
    for number, run in enumerate(runs):
        run.data.metrics.update({"Mean CV score": 0.8, "cv/log loss": 0.5 - number / 100})
    assert tracking.family_name(registry.best_family(runs)) == "RandomForestClassifier"


def test_a_version_says_what_it_is_and_where_it_comes_from(client: MlflowClient, call: Call) -> None:
    call(register, "--model", "RandomForestClassifier")
    version = registry.versions(client, NAME)[0]
    run = client.get_run(version.run_id or "")
    for said in ["RandomForestClassifier", "`Loan_Status`", "- Gender: Female, Male, or missing", "AUC 0.", f"{NAME}@"]:
        assert said in (version.description or "")
    for tag in ["data.digest", "understudy.family"]:
        assert version.tags[tag] == run.data.tags[tag]
    model = client.get_logged_model(tracking.model_id(run))
    assert model.tags["mlflow.modelVersions"] == json.dumps([{"name": NAME, "version": 1}])
    assert mlflow.pyfunc.load_model(f"models:/{NAME}/1").metadata.run_id == version.run_id


def test_a_run_and_a_name_can_be_chosen(client: MlflowClient, call: Call) -> None:
    runs = tracking.families(client, tracking.get_batch(client, TABLE))
    ended = call(register, "--run", runs[1].info.run_id, "--name", "Prediction_model_LR")
    assert ended.out.endswith("next: python promote.py staging --name Prediction_model_LR\n")
    assert registry.versions(client, "Prediction_model_LR")[0].run_id == runs[1].info.run_id
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
            ["rollback"],
            "version 1 is in Production again, version 2 is archived",
            {"production": "1"},
            {"1": "Production", "2": "Archived"},
        ),
    ]
    for arguments, said, aliases, stages in steps:
        ended = call(promote, *arguments)
        assert (ended.code, ended.err) == (0, "")
        assert said in ended.out
        assert where(client) == (aliases, stages)
    shown = call(promote)
    assert shown.out == "Staging: empty\nProduction: version 1\nnewest: version 2\nnext: ./serve.sh\n"
    assert call(promote, "rollback").err.startswith(f"error: version 1 of {NAME} replaced none")


def test_rolling_back_twice_goes_two_back(in_production: str, client: MlflowClient, call: Call) -> None:
    call(register, "--model", "RandomForestClassifier")
    call(promote, "production", "--version", "2")
    call(promote, "production", "--version", "3")
    call(promote, "rollback")
    call(promote, "rollback")
    assert where(client) == ({"production": "1"}, {"1": "Production", "2": "Archived", "3": "Archived"})


def test_doing_it_again_changes_nothing(in_production: str, client: MlflowClient, call: Call) -> None:
    before = where(client)
    assert call(promote, "production", "--version", "1").out.startswith(f"{NAME} version 1 is in Production\n")
    assert where(client) == before
    assert call(promote, "rollback").code == 2


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
        assert (call(promote, action).code, call(promote, action).err) == (2, no_model)
    call(register)
    for action, said in [
        ("production", f"error: no version of {NAME} is in Staging\nfix: python promote.py staging\n"),
        ("rollback", f"error: no version of {NAME} is in Production\nfix: python promote.py production\n"),
    ]:
        assert (call(promote, action).code, call(promote, action).err) == (2, said)


def test_the_version_in_production_does_not_go_to_staging(in_production: str, client: MlflowClient, call: Call) -> None:
    before = where(client)
    assert call(promote, "staging", "--version", "1").err.startswith(f"error: version 1 of {NAME} is in Production")
    assert call(promote, "staging", "--version", "7").err.startswith(f"error: {NAME} has no version 7\nfix: choose")
    assert where(client) == before
