"""A registered version in Spark answers as the server does, or refuses in the same words."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.pyfunc import scoring_server

from tests.conftest import SAMPLE
from understudy.reading import table_rows
from understudy.schema.columns import listed
from understudy.table import TABLE
from understudy.verification import manifest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LACKING = ", ".join(
    name for name, place in (("java", shutil.which("java")), ("pyspark", find_spec("pyspark"))) if not place
)
NAMES = [column.name for column in TABLE.columns]
AMOUNTS = ["ApplicantIncome", "CoapplicantIncome", "LoanAmount", "Loan_Amount_Term", "Credit_History"]
KINDS = ["double", "decimal(10,2)"]
SAID = [
    "Gender: unknown category in row 1, 2, ",
    "Education: missing in row 1, 2, ",
    "ApplicantIncome: not a number (is text that says a number) in row 1, 2, ",
    "LoanAmount: out of range in row 1, 2, ",
    "Credit_History: not a number in row 1, 2, ",
]
ASKED: dict[str, Any] = {"string": None, "double": {"output": "probability"}}  # by the type of the answers

pytestmark = [
    pytest.mark.skipif(bool(LACKING), reason=f"Java or requirements-spark.lock is not installed: {LACKING}"),
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator["SparkSession"]:
    from pyspark.sql import SparkSession

    folder = tmp_path_factory.mktemp("spark")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
        monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        session = builder.config("spark.local.dir", folder).config("spark.sql.shuffle.partitions", 2).getOrCreate()
        yield session
        session.stop()


@pytest.fixture(scope="module")
def rows(spark: "SparkSession") -> "DataFrame":
    """The table as Spark reads it, in two parts."""
    return spark.read.csv(str(SAMPLE), header=True, inferSchema=True).repartition(2).cache()


class Version:
    """A registered version, as Spark has it and as the server has it."""

    def __init__(self, spark: "SparkSession", number: str) -> None:
        client = mlflow.MlflowClient()
        with manifest.verified(client, client.get_model_version(TABLE.name, number)) as folder:
            self.udfs = {kind: self._udf(spark, str(folder), kind) for kind in ASKED}
            self.model = mlflow.pyfunc.load_model(str(folder))

    def _udf(self, spark: "SparkSession", folder: str, kind: str) -> Any:
        return mlflow.pyfunc.spark_udf(spark, folder, kind, env_manager="local", params=ASKED[kind])

    def answers(self, rows: "DataFrame", *columns: Any) -> dict[str, tuple[str, float]]:
        """Label and probability of each row by its identifier, from Spark."""
        from pyspark.sql.functions import struct

        asked = [udf(*columns or [struct(*NAMES)]) for udf in self.udfs.values()]
        return {name: (label, probability) for name, label, probability in rows.select(TABLE.row_id, *asked).collect()}

    def invocations(self, **changed: Any) -> dict[str, tuple[str, float]]:
        """The same from MLflow's server."""
        table = table_rows.read(TABLE, SAMPLE)
        columns = {name: listed(table[name]) for name in NAMES} | {n: [c] * len(table) for n, c in changed.items()}
        answers = []
        for params in ASKED.values():
            content = json.dumps({"inputs": columns, "params": params})
            reply = scoring_server.invocations(content, "application/json", self.model, None)  # type: ignore[no-untyped-call]
            answers.append(json.loads(reply.response)["predictions"])
        return dict(zip(table[TABLE.row_id], zip(*answers, strict=True), strict=True))


@pytest.mark.parametrize("number", ["1", "2"])
def test_spark_answers_as_the_server_does_to_the_last_bit(
    number: str, registered: str, spark: "SparkSession", rows: "DataFrame", tmp_path: Any
) -> None:
    from pyspark.sql.functions import lit

    version = Version(spark, number)
    expected = version.invocations()
    assert len(expected) == 614
    rows.write.parquet(str(tmp_path / "rows"))
    frames = {kind: rows.withColumns({name: rows[name].cast(kind) for name in AMOUNTS}) for kind in KINDS}
    frames |= {"CSV": rows, "Parquet": spark.read.parquet(str(tmp_path / "rows"))}
    for kind, frame in frames.items():
        assert version.answers(frame) == expected, kind
    for kind in ("int", "decimal(10,2)", "void"):
        without = rows.withColumns({name: lit(None).cast(kind) for name in ("LoanAmount", "Credit_History")})
        assert version.answers(without) == version.invocations(LoanAmount=None, Credit_History=None), kind


def test_spark_says_why_a_row_is_refused_and_nothing_of_what_is_in_it(
    registered: str, spark: "SparkSession", rows: "DataFrame"
) -> None:
    from pyspark.errors import PythonException
    from pyspark.sql.functions import lit, struct

    version = Version(spark, "1")
    changed = {"Gender": "secret", "Education": None, "LoanAmount": -4711, "ApplicantIncome": "4711"}
    broken = rows.withColumns({name: lit(cell) for name, cell in {**changed, "Credit_History": True}.items()})
    cases: list[tuple[DataFrame, list[Any], list[str]]] = [
        (broken, [], SAID),
        (rows, [*NAMES], ["Gender: column is missing (allowed: Female, Male)"]),
        (rows, [struct("*")], [f"column 12: column is not known (allowed: {', '.join(NAMES)})"]),
    ]
    for refused, columns, faults in cases:
        with pytest.raises(PythonException) as error:
            version.answers(refused, *columns)
        assert not [fault for fault in faults if fault not in str(error.value)]
        assert not re.findall("secret|4711", str(error.value))
