"""The monitor end to end: exit codes, what it prints, what MLflow keeps, and training again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

import monitor
from tests.conftest import MARIADB, PROJECT, SAMPLE, Ended, environment, is_refusal
from tests.monitoring.conftest import ID, TARGET, WrittenLog, drawn
from understudy.monitoring import record
from understudy.registry import records, registration
from understudy.schema.declaration import Limits, Live
from understudy.table import TABLE
from understudy.tracking import runs

Call = Callable[..., Ended]
Answer = Callable[..., pd.DataFrame]
EXPERIMENT = record.experiment(TABLE.name)


@pytest.fixture
def watch(call: Call, log: WrittenLog) -> Callable[..., Ended]:
    """Runs the monitor on the test's log."""
    return lambda *options: call(monitor, "--log", str(log.folder), *options)


def windows(kind: str = runs.MONITORING) -> list[Run]:
    """The runs of the monitor, the first one first."""
    client = mlflow.MlflowClient()
    known = client.get_experiment_by_name(EXPERIMENT)
    query, order = f"tags.`{runs.KIND}` = '{kind}'", ["attributes.start_time ASC"]
    return list(client.search_runs([known.experiment_id], query, order_by=order)) if known else []


def labels_of(rows: pd.DataFrame, path: Path, wrong: bool = False) -> str:
    """Writes the labels of rows, the wrong ones if asked, and returns the path."""
    cells = rows[TARGET].map({"Y": "N", "N": "Y"}) if wrong else rows[TARGET]
    pd.DataFrame({"id": rows[ID], "label": cells}).to_csv(path, index=False)
    return str(path)


def test_rows_like_those_of_training_end_with_0(answer: Answer, watch: Call, tmp_path: Path) -> None:
    rows = answer(drawn(500))
    ended = watch("--labels", labels_of(rows, tmp_path / "labels.csv"))
    assert (ended.code, ended.err) == (0, "")
    for said in (
        "Loan_prediction version 1: 500 rows from the first one to ",
        "beside the 428 rows that it was trained on:",
        "labels: 500 answered rows have one, ",
        "verdict: nothing has drifted, and no outcome is worse\n",
    ):
        assert said in ended.out
    assert "next:" not in ended.out


def test_the_table_says_where_log_and_labels_are(
    answer: Answer, log: WrittenLog, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Live(log=str(log.folder), labels=labels_of(answer(drawn(100)), tmp_path / "labels.csv"))
    monkeypatch.setattr(monitor, "TABLE", replace(TABLE, live=places))
    ended = call(monitor)
    assert (ended.code, ended.err) == (0, "")
    assert "labels: 100 answered rows have one, " in ended.out


def test_a_column_that_has_drifted_ends_with_5(answer: Answer, watch: Call) -> None:
    answer(drawn(500, ApplicantIncome=lambda cells: cells * 1.5))
    ended = watch()
    assert (ended.code, ended.err) == (5, "")
    [line] = [line for line in ended.out.splitlines() if line.split()[-1:] == ["values"]]
    assert line.split()[0] == "ApplicantIncome"
    assert "verdict: the rows have drifted: ApplicantIncome" in ended.out
    assert "estimate: Accuracy 0." in ended.out
    assert ended.out.endswith("next: python train.py\n")


def test_cells_that_go_missing_end_with_5(answer: Answer, watch: Call) -> None:
    answer(drawn(500, LoanAmount=lambda cells: cells.where(cells.index % 5 != 0)))
    ended = watch("--json")
    [column] = [of for of in json.loads(ended.out)["columns"] if of["alarm"]]
    assert (ended.code, column["column"]) == (5, "LoanAmount")
    assert column["p"] > column["level"] > column["missing_p"]
    assert column["missing"] > column["missing_before"]


def test_scores_that_move_alone_end_with_5(log: WrittenLog, answer: Answer, watch: Call) -> None:
    rows = drawn(500)
    log.answer(rows, [0.4 + 0.0001 * number for number in range(500)])
    ended = watch("--json")
    assert (ended.code, json.loads(ended.out)["verdict"]) == (5, "the rows have drifted: the scores")


def test_columns_that_only_together_tell_end_with_5(answer: Answer, watch: Call) -> None:
    rows = drawn(600)
    order = rows["LoanAmount"].rank(method="first", na_option="bottom").astype(int) - 1
    incomes = rows["ApplicantIncome"].sort_values(ascending=False, ignore_index=True)
    answer(rows.assign(ApplicantIncome=incomes[order].to_numpy()))  # large loans for small incomes
    ended = watch("--json")
    result = json.loads(ended.out)
    assert not any(column["alarm"] for column in result["columns"])
    assert (ended.code, result["together"]["raw"]["alarm"]) == (5, True)


def test_a_worse_outcome_ends_with_6_whether_or_not_rows_have_drifted(
    answer: Answer, watch: Call, tmp_path: Path
) -> None:
    first = answer(drawn(300))
    second = answer(drawn(300, 1, ApplicantIncome=lambda cells: cells * 2))
    wrong = labels_of(pd.concat([first, second]), tmp_path / "wrong.csv", wrong=True)
    ended = watch("--labels", wrong)
    assert (ended.code, ended.err) == (6, "")
    assert "the outcome is worse than at promotion: Accuracy, AUC, Log loss; the rows have drifted:" in ended.out
    [of] = windows()
    assert of.data.metrics["exit code"] == 6
    assert of.data.metrics["interval/change AUC high"] < 0 < of.data.metrics["interval/change Log loss low"]


def test_an_estimate_alone_never_ends_with_6(log: WrittenLog, answer: Answer, watch: Call) -> None:
    log.answer(drawn(300), [0.5] * 300)
    ended = watch("--json")
    assert (ended.code, json.loads(ended.out)["outcome"]) == (5, None)
    assert json.loads(ended.out)["estimate"]["expected"] == {"Accuracy": 0.5, "AUC": 0.5}


def test_too_few_labels_decide_nothing(answer: Answer, watch: Call, tmp_path: Path) -> None:
    rows = answer(drawn(400))
    ended = watch("--labels", labels_of(rows[:20], tmp_path / "few.csv", wrong=True))
    assert ended.code == 0
    assert "outcome: too few labels to tell, at least 30, and 10 of each label are needed" in ended.out


def test_each_window_begins_where_the_last_one_ended(answer: Answer, watch: Call) -> None:
    answer(drawn(300, 1), days=3)
    answer(drawn(200, 2), days=2)
    assert json.loads(watch("--json").out)["rows"]["accepted"] == 500
    ended = watch()
    assert is_refusal(ended)
    assert "no rows of version 1 after" in ended.err
    answer(drawn(250, 3), days=1)
    assert json.loads(watch("--json").out)["rows"]["accepted"] == 250
    assert json.loads(watch("--json", "--since", "60h").out)["rows"]["accepted"] == 450
    assert [of.data.tags[record.NUMBER] for of in windows()] == ["1", "2", "3"]


def test_labels_of_rows_before_the_window_are_late_and_count(answer: Answer, watch: Call, tmp_path: Path) -> None:
    before = answer(drawn(300, 1), days=3)
    watch()
    rows = pd.concat([before, answer(drawn(200, 2))])
    path = labels_of(rows, tmp_path / "labels.csv")
    result = json.loads(watch("--json", "--labels", path).out)
    assert (result["outcome"]["rows"], result["labels"]["late"]) == (500, 300)
    since = json.loads(watch("--json", "--labels", path, "--since", "2d").out)
    assert (since["outcome"]["rows"], since["labels"]["late"], since["labels"]["unknown"]) == (200, 0, 300)


def test_mlflow_keeps_each_window_and_the_course_of_a_version(answer: Answer, watch: Call, tmp_path: Path) -> None:
    client = mlflow.MlflowClient()
    for number in (1, 2):
        answer(drawn(300, number, ApplicantIncome=lambda cells: cells * number), days=3 - number)  # noqa: B023
        assert watch().code == (0, 5)[number - 1]
    first, second = windows()
    assert second.data.tags[record.SINCE] == first.data.tags[record.UNTIL]
    assert second.data.tags[record.ROWS] == "300"
    assert second.data.tags[record.VERDICT].startswith("the rows have drifted: ApplicantIncome")
    assert second.data.metrics["p/ApplicantIncome"] < 1e-9 < first.data.metrics["p/ApplicantIncome"]
    assert {"psi/Gender", "missing/Gender", "scores/p", "expected/AUC"} <= {*second.data.metrics}
    [course] = windows(record.COURSE)
    points = client.get_metric_history(course.info.run_id, "p/ApplicantIncome")
    assert [(point.step, point.value) for point in points] == [
        (1, first.data.metrics["p/ApplicantIncome"]),
        (2, second.data.metrics["p/ApplicantIncome"]),
    ]
    ends = [int(pd.Timestamp(of.data.tags[record.UNTIL]).timestamp() * 1000) for of in (first, second)]
    assert [point.timestamp for point in points] == ends
    files = {file.path for file in client.list_artifacts(second.info.run_id)}
    assert {"columns.csv", "columns.png", "report.json", "report.html"} <= files
    kept = pd.read_csv(mlflow.artifacts.download_artifacts(run_id=second.info.run_id, artifact_path="columns.csv"))
    assert kept.set_index("column")["alarm"]["ApplicantIncome"]
    assert {of.info.status for of in (first, second, course)} == {"FINISHED"}


@pytest.mark.parametrize("backend", [MARIADB], indirect=True)
def test_a_database_server_keeps_the_same(answer: Answer, watch: Call, tmp_path: Path) -> None:
    test_mlflow_keeps_each_window_and_the_course_of_a_version(answer, watch, tmp_path)


def test_a_monitor_that_failed_or_was_killed_is_not_the_last_one(
    answer: Answer, watch: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(drawn(300, 1), days=3)
    assert watch().code == 0
    answer(drawn(200, 2), days=2)
    with monkeypatch.context() as broken:
        broken.setattr(record.WindowRun, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            watch()
    assert [of.info.status for of in windows()] == ["FINISHED", "FAILED"]
    assert json.loads(watch("--json").out)["rows"]["accepted"] == 200
    assert [of.data.tags[record.NUMBER] for of in windows()] == ["1", "2", "2"]


def test_a_monitor_that_was_killed_is_closed_by_the_next(answer: Answer, log: WrittenLog, watch: Call) -> None:
    answer(drawn(300, 1), days=3)
    program = (
        "import os, signal, sys, monitor\n"
        "from understudy.monitoring import record\n"
        "record.WindowRun.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.argv = ['monitor.py', '--log', sys.argv[1]]\n"
        "monitor.main()\n"
    )
    settings = environment(PYTHONPATH=str(PROJECT), MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"])
    killed = subprocess.run([sys.executable, "-c", program, log.folder], env=settings, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [of.info.status for of in windows()] == ["RUNNING"]
    ended = watch()
    assert (ended.code, ended.out.splitlines()[0]) == (0, "version 1, window 1: was killed, and says so now")
    assert "300 rows from the first one" in ended.out
    assert [of.info.status for of in windows()] == ["KILLED", "FINISHED"]


def test_rows_at_an_address_are_a_window_too(in_production: str, call: Call, tmp_path: Path) -> None:
    ended = call(monitor, "--data", str(SAMPLE), "--version", "2", "--labels", str(SAMPLE), "--json")
    result = json.loads(ended.out)
    assert (ended.code, result["version"], result["rows"]["accepted"]) == (0, "2", 614)
    assert result["outcome"]["rows"] == 614
    rows = pd.read_csv(SAMPLE, dtype=str).assign(Gender="X")
    rows.to_csv(tmp_path / "wrong.csv", index=False)
    ended = call(monitor, "--data", str(tmp_path / "wrong.csv"))
    assert is_refusal(ended)
    assert "all 614 rows were refused, 614 for Gender: unknown category" in ended.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "the rows come from --log or from --data"),
        (("--log", "a", "--data", "b"), "the rows come from --log or from --data"),
        (("--data", "a", "--since", "7d"), "--since says nothing of them"),
        (("--log", "none"), "there is no folder none"),
        (("--log", "none", "--since", "soon"), "'soon' is no time"),
        (("--log", "none", "--labels", "none.csv"), "there is no file none.csv"),
        (("--log", "none", "--version", "7"), "has no version 7"),
        (("--log", "none", "--name", "Other"), "there is no registered model Other"),
    ],
)
def test_what_cannot_be_monitored_is_refused(
    options: tuple[str, ...], said: str, in_production: str, call: Call
) -> None:
    ended = call(monitor, *options)
    assert is_refusal(ended)
    assert said in ended.err
    assert mlflow.MlflowClient().get_experiment_by_name(EXPERIMENT) is None


def test_a_shadow_and_refused_rows_are_counted(
    answer: Answer, log: WrittenLog, watch: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(drawn(300))
    log.refuse(["Gender: unknown category"] * 4)
    for path in log.folder.glob("day=*/*.parquet"):
        rows = pd.read_parquet(path)
        is_asked = rows["fault"].isna() & (rows.index < 100)
        rows.loc[is_asked, ["shadow_version", "shadow_label"]] = ["2", "Y"]
        rows.loc[is_asked, "shadow_probability"] = rows["probability"] - 0.25
        is_refused = is_asked & (rows.index < 10)
        rows.loc[is_refused, ["shadow_label", "shadow_probability", "shadow_fault"]] = [
            None,
            None,
            "LoanAmount: missing",
        ]
        rows.to_parquet(path, index=False)
    result = json.loads(watch("--json").out)
    answered = int((pd.read_parquet(log.folder)["shadow_label"] == pd.read_parquet(log.folder)["label"]).sum())
    assert result["shadows"] == [
        {"version": "2", "rows": 100, "refused": 10, "agreeing": answered, "apart": pytest.approx(0.25)}
    ]
    assert result["faults"] == {"Gender: unknown category": 4}
    assert windows()[0].data.metrics["shadow/agreement with version 2"] == pytest.approx(answered / 90)


def test_versions_of_earlier_releases_are_compared_with_the_held_out_rows(
    answer: Answer, watch: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_rows = registration.kept_rows

    def identifiers_alone(client: mlflow.MlflowClient, name: str, number: str, file: str) -> pd.DataFrame:
        rows = kept_rows(client, name, number, file)
        return rows if file.startswith("held_out") else rows[[ID]]

    monkeypatch.setattr(registration, "kept_rows", identifiers_alone)
    answer(drawn(300))
    assert "beside the 186 held-out rows, since training kept no others:" in watch().out


@pytest.fixture
def grown(tmp_path: Path) -> None:
    """The project's table has new rows."""
    rows = pd.read_csv(tmp_path / "data" / "loans.csv", dtype=str)
    more = rows[:200].assign(**{ID: [f"NEW{number}" for number in range(200)]})
    pd.concat([rows, more]).to_csv(tmp_path / "data" / "loans.csv", index=False)


@pytest.fixture
def drifted(answer: Answer) -> None:
    answer(drawn(500, ApplicantIncome=lambda cells: cells * 1.5))


def test_drift_trains_again_and_goes_to_staging_alone(drifted: None, grown: None, watch: Call) -> None:
    client = mlflow.MlflowClient()
    ended = watch("--retrain")
    assert (ended.code, ended.err) == (5, "")
    assert "version 3 is in Staging" in ended.out
    assert ended.out.endswith("next: python promote.py production\n")
    aliases = client.get_registered_model(TABLE.name).aliases
    assert {alias: str(number) for alias, number in aliases.items()} == {"production": "1", "staging": "3"}
    [moved] = [of for of in records.find(client, TABLE.name) if of.version == "3"]
    [window] = windows()
    assert moved.reason == f"{window.data.tags[record.VERDICT]} (monitoring run {window.info.run_id})"


def test_a_retrained_version_that_the_gate_refuses_ends_with_3_and_is_not_made_twice(
    drifted: None, grown: None, watch: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.gate.evidence.TABLE", replace(TABLE, limits=Limits(megabytes=0)))
    refused = watch("--retrain", "--json")
    answer = json.loads(refused.out)
    assert (refused.code, answer["exit"], answer["staged"]) == (3, 5, None)
    assert refused.err.endswith(f"refused: {answer['refused']}\n")
    assert "version 3 registered" in refused.err
    again = watch("--retrain", "--json", "--since", "3d")
    assert (again.code, json.loads(again.out)["staged"]) == (5, None)
    assert "not trained again: the table is the one that version 3 was trained on" in again.err


def test_nothing_is_trained_where_nothing_has_changed(answer: Answer, watch: Call, grown: None) -> None:
    answer(drawn(500))
    assert watch("--retrain").code == 0
    assert len(mlflow.MlflowClient().search_model_versions(f"name = '{TABLE.name}'")) == 2
