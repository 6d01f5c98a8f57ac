"""Files scored end to end: what is written, what is refused, and that answers are those of the server."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest

import register
import score
from tests.conftest import SAMPLE, Ended, is_refusal
from understudy.families import FAMILIES
from understudy.scoring import scorer
from understudy.scoring.scorer import PROBABILITY
from understudy.serving import request
from understudy.table import TABLE
from understudy.verification import manifest
from understudy.verification.digests import DIGEST

Call = Callable[..., Ended]
RAW = [column.name for column in TABLE.columns]


@pytest.fixture
def scores(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pd.DataFrame]:
    """Scores a file in the test's folder, and returns what was written."""
    monkeypatch.chdir(tmp_path)

    def scores(address: str, output: str, *options: str) -> pd.DataFrame:
        ended = call(score, address, output, *options)
        assert ended.code == 0, ended.err
        return pd.read_csv(output) if output.endswith(".csv") else pd.read_parquet(output)

    return scores


def expected(client: mlflow.MlflowClient, version: str, content: bytes) -> tuple[list[str], list[float]]:
    """What the server answers for a CSV of raw columns."""
    with manifest.verified(client, client.get_model_version(TABLE.name, version)) as folder:
        model = scorer.load(folder)
    rows = request.asked(content, "text/csv", model).rows
    return model.predict(rows), model.predict(rows, PROBABILITY)


@pytest.mark.parametrize("family", [*FAMILIES])
def test_scores_are_those_of_the_server_to_the_last_bit(
    family: str, call: Call, client: mlflow.MlflowClient, scores: Callable[..., pd.DataFrame]
) -> None:
    assert call(register, "--model", family).code == 0
    labels, probabilities = expected(client, "1", pd.read_csv(SAMPLE, dtype=str)[RAW].to_csv(index=False).encode())
    for output in ("scores.parquet", "scores.csv", "folder"):
        written = scores(str(SAMPLE), output, "--version", "1")
        assert [*written] == ["Loan_ID", "label", "probability", "version", "scored_at"]
        assert written["label"].tolist() == labels
        assert written["probability"].tolist() == probabilities
        assert written["Loan_ID"].tolist() == pd.read_csv(SAMPLE)["Loan_ID"].tolist()
        assert set(written["version"].astype(str)) == {"1"}


def test_every_kind_of_file_gets_the_same_scores(
    in_production: str, scores: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    content, typed = SAMPLE.read_bytes(), pd.read_csv(SAMPLE)
    (tmp_path / "a.csv").write_bytes(content)
    (tmp_path / "mark.csv").write_bytes(b"\xef\xbb\xbf" + content.replace(b",", b" ,\t").replace(b" ,", b""))
    (tmp_path / "wide.csv").write_bytes(content.decode().replace(",", ";").encode("utf-16"))
    (tmp_path / "spaces.csv").write_bytes(content.replace(b",", b" , "))
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(content))
    typed.to_parquet(tmp_path / "typed.parquet", row_group_size=100)
    pd.read_csv(SAMPLE, dtype=str).astype({"Gender": "category"}).to_parquet(tmp_path / "text.parquet")
    (tmp_path / "of").mkdir()
    lines = content.splitlines(keepends=True)
    (tmp_path / "of" / "2.csv").write_bytes(b"".join([lines[0], *lines[301:]]))
    (tmp_path / "of" / "1.csv.gz").write_bytes(gzip.compress(b"".join(lines[:301])))
    (tmp_path / "of" / "_SUCCESS").touch()
    first = scores("a.csv", "a.parquet")
    others = ["mark.csv", "wide.csv", "spaces.csv", "packed.csv.gz", "typed.parquet", "text.parquet", "of", "of/[12]*"]
    for number, name in enumerate(others):
        written = scores(name, f"{number}.parquet")
        for column in ("label", "probability"):
            assert written[column].tolist() == first[column].tolist(), name
    assert scores(str(tmp_path / "of" / "*.csv*"), "absolute.parquet")["label"].tolist() == first["label"].tolist()


def faulty(path: Path) -> None:
    """The sample with faults in rows 2, 5, 6 and 614, a row of 3 cells as its 4th, and one of 20 behind all others."""
    rows = [*csv.reader(SAMPLE.read_text().splitlines())]
    places = {name: place for place, name in enumerate(rows[0])}
    rows[2][places["Gender"]] = "male"
    rows[4] = rows[4][:3]
    rows[5][places["ApplicantIncome"]] = "1e9"
    rows[5][places["Education"]] = ""
    rows[6][places["ApplicantIncome"]] = rows[6][places["CoapplicantIncome"]] = "0"
    rows[614][places["LoanAmount"]] = "secret"
    rows.append(["x"] * 20)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_rows_that_are_not_allowed_are_named_beside_the_output_and_the_rest_is_scored(
    in_production: str, call: Call, tmp_path: Path, client: mlflow.MlflowClient
) -> None:
    faulty(tmp_path / "faulty.csv")
    ended = call(score, str(tmp_path / "faulty.csv"), str(tmp_path / "scores.parquet"), "--keep", "Gender,Education")
    assert ended.code == 0
    assert "columns that are ignored: Loan_Status\n" in ended.out
    assert "609 rows scored" in ended.out
    assert "6 rows rejected: " in ended.out
    assert ended.out.endswith(f"next: less {tmp_path / 'scores.parquet.rejected'}\n")
    with (tmp_path / "scores.parquet.rejected").open() as file:
        rejected = [*csv.DictReader(file)]
    assert {(line["row"], line["column"], line["reason"]) for line in rejected} == {
        ("2", "Gender", "unknown category (differs in case only)"),
        ("4", "the row", "wrong number of values"),
        ("5", "ApplicantIncome", "out of range"),
        ("5", "Education", "missing"),
        ("6", "ApplicantIncome + CoapplicantIncome", "out of range"),
        ("614", "LoanAmount", "not a number"),
        ("615", "the row", "wrong number of values"),
    }
    assert "secret" not in (tmp_path / "scores.parquet.rejected").read_text() + ended.out
    assert {line["allowed"] for line in rejected if line["column"] == "Gender"} == {"Female, Male"}
    scores, sample = pd.read_parquet(tmp_path / "scores.parquet"), pd.read_csv(SAMPLE)
    assert scores["Loan_ID"].tolist() == sample["Loan_ID"].drop([1, 3, 4, 5, 613]).tolist()
    assert scores["Education"].tolist() == sample["Education"].drop([1, 3, 4, 5, 613]).tolist()
    [run] = client.search_runs([client.get_experiment_by_name("Loan_prediction batches").experiment_id])  # type: ignore[union-attr]
    assert {name: run.data.metrics[name] for name in ("rows", "scored", "rejected")} == {
        "rows": 615,
        "scored": 609,
        "rejected": 6,
    }
    assert run.info.status == "FINISHED"
    assert run.data.tags["scoring.version"] == "1"
    assert run.data.tags["scoring.output"].endswith("scores.parquet")
    [dataset] = run.inputs.dataset_inputs  # type: ignore[union-attr]
    assert run.data.tags["scoring.digest"].startswith(dataset.dataset.digest)
    reasons = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/rejected.json"))
    assert {"column": "the row", "reason": "wrong number of values", "rows": 2} in reasons


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"mlflow.db", "mlruns", "data", "plots"}


def test_strict_refuses_all_and_leaves_nothing(in_production: str, call: Call, tmp_path: Path) -> None:
    faulty(tmp_path / "faulty.csv")
    before = left(tmp_path)
    for output in ("scores.parquet", "scores.csv", "scores"):
        ended = call(score, str(tmp_path / "faulty.csv"), str(tmp_path / output), "--strict")
        assert is_refusal(ended)
        assert "Gender: unknown category (differs in case only) in row 2 (allowed: Female, Male)" in ended.err
        assert left(tmp_path) == before
    assert call(score, str(SAMPLE), str(tmp_path / "scores"), "--strict").code == 0


def test_json_says_what_was_done(in_production: str, call: Call, tmp_path: Path) -> None:
    faulty(tmp_path / "faulty.csv")
    ended = call(score, str(tmp_path / "faulty.csv"), str(tmp_path / "scores"), "--json")
    answer = json.loads(ended.out)
    assert (answer["rows"], answer["scored"], answer["rejected"], answer["version"]) == (615, 609, 6, "1")
    assert answer["ignored"] == ["Loan_Status"]
    assert Path(answer["rejected_to"]).exists()


def test_without_an_identifier_the_rows_are_numbered(
    in_production: str, scores: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    rows = pd.read_csv(SAMPLE, dtype=str)[RAW]
    (tmp_path / "of").mkdir()
    rows.to_csv("of/a.csv", index=False)
    rows[:5].to_parquet("of/b.parquet")
    assert scores("of/a.csv", "a.parquet")["row"].tolist() == [*range(1, 615)]
    both = scores("of", "both.parquet")
    assert both["row"].tolist() == [*range(1, 615), *range(1, 6)]
    assert set(both["file"]) == {"of/a.csv", "of/b.parquet"}


def test_rows_of_the_encoded_form_are_scored_too(
    in_production: str, scores: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    rows = pd.read_csv(SAMPLE, dtype={"Dependents": str}).astype(object)
    encoded = TABLE.encode(rows.where(rows.notna(), None))
    pd.DataFrame(encoded, columns=[column.name for column in TABLE.encoded]).to_parquet("encoded.parquet")
    raw = scores(str(SAMPLE), "raw.parquet")
    assert scores("encoded.parquet", "encoded_scores.parquet")["probability"].tolist() == raw["probability"].tolist()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"a,b\n1,2\n", "has no column Gender, Married"),
        (b"PK\x03\x04", "a workbook or a zip archive"),
        (b"PAR1 and no more", "is broken Parquet"),
        (b"\x1f\x8b and no more", "is broken gzip"),
        (SAMPLE.read_bytes().replace(b"Married", b"Gender", 1), "has two columns Gender"),
        (SAMPLE.read_bytes().replace(b",Y\n", b',"Y\n', 1), "has a quotation mark that is not closed"),
        (SAMPLE.read_bytes() + b"LP9,\xff" + b"," * 11 + b"\n", "cannot be read as CSV in UTF-8"),
        (gzip.compress(SAMPLE.read_bytes())[:-200], "is broken gzip"),
        (gzip.compress(SAMPLE.read_bytes() * 9)[:-200], "cannot be read as CSV"),
    ],
)
def test_files_that_cannot_be_read_are_refused_and_leave_nothing(
    content: bytes, said: str, in_production: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(content)
    before = left(tmp_path)
    ended = call(score, str(tmp_path / "x"), str(tmp_path / "scores.parquet"))
    assert is_refusal(ended)
    assert said in ended.err
    assert left(tmp_path) == before


def test_what_cannot_be_scored_is_refused(in_production: str, call: Call, tmp_path: Path) -> None:
    (tmp_path / "taken.parquet.rejected").touch()
    pd.read_csv(SAMPLE).rename(columns={"Loan_Status": "label"}).to_csv(tmp_path / "label.csv", index=False)
    for arguments, said in [
        ((str(tmp_path / "none*.csv"), "x.parquet"), "there is no file"),
        ((str(SAMPLE), "x.xlsx"), "nothing here writes .xlsx files"),
        ((str(SAMPLE), "nowhere/x.csv"), "there is no folder"),
        ((str(SAMPLE), "taken.parquet"), "taken.parquet.rejected is there already"),
        ((str(SAMPLE), "x", "--keep", "Age"), "has no column Age"),
        ((str(SAMPLE), "x", "--version", "7"), "has no version 7"),
        ((str(SAMPLE), "x", "--stage", "Staging"), "no version of Loan_prediction is in Staging"),
        ((str(tmp_path / "label.csv"), "x", "--keep", "label"), "two columns of the output would be called label"),
    ]:
        address, output, *options = arguments
        ended = call(score, address, str(tmp_path / output), *options)
        assert is_refusal(ended)
        assert said in ended.err


def test_a_version_whose_files_changed_scores_nothing(
    in_production: str, call: Call, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    before = left(tmp_path)
    client.set_model_version_tag(TABLE.name, "1", DIGEST, "0" * 64)
    ended = call(score, str(SAMPLE), str(tmp_path / "scores.parquet"))
    assert is_refusal(ended)
    assert "is not what was registered" in ended.err
    assert left(tmp_path) == before


def test_a_folder_gets_another_file_after_so_many_rows(
    in_production: str, scores: Callable[..., pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.batch.parts.ROWS", 250)
    monkeypatch.setattr("understudy.batch.csv_rows.BLOCK", 9_000)
    scores(str(SAMPLE), "folder")
    assert [path.name for path in sorted(Path("folder").iterdir())] == [f"part-00000-0000{n}.parquet" for n in range(3)]
