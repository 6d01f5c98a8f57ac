"""Rows per second of a registered version in Spark beside `score.py`, in turn, from CSV to Parquet on this machine.

python -m bench.spark                        1,000,000 rows, 3 rounds, each family
python -m bench.spark --rows 10000000 --rounds 1
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.batch import FAMILIES, generate, run
from understudy.table import TABLE


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=1_000_000, type=int, help="(default: %(default)s)")
    parser.add_argument("--rounds", default=3, type=int, help="of both in turn (default: %(default)s)")
    parser.add_argument("--spark", nargs=3, help=argparse.SUPPRESS)  # what a process of its own runs
    return parser


def main() -> None:
    args = options().parse_args()
    if args.spark:
        score_with_spark(*args.spark)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = folder / "rows.csv"
        generate(rows, args.rows, faults=0)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
        run(folder, "train.py", "--models", ",".join(FAMILIES))
        for number, family in enumerate(FAMILIES, start=1):
            run(folder, "register.py", "--model", family)
            seconds: dict[str, list[float]] = {"score.py": [], "Spark": []}
            for turn in range(args.rounds):
                output = str(folder / f"{family}{turn}")
                scored = run(folder, "score.py", str(rows), f"{output}.parquet", "--version", str(number))
                seconds["score.py"].append(scored[0])
                seconds["Spark"].append(run(folder, "-m", "bench.spark", "--spark", str(rows), output, str(number))[0])
            for called, times in seconds.items():
                middle = statistics.median(times)
                spread = f"{min(times):.1f} to {max(times):.1f}"
                print(f"{family:>22} {called:>8}: {middle:6.1f} s ({spread}), {args.rows / middle:>9,.0f} rows/s")


def score_with_spark(rows: str, output: str, number: str) -> None:
    """What docs/scale.md shows."""
    import mlflow
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import struct

    from understudy.verification import manifest

    os.environ["PYSPARK_PYTHON"] = sys.executable
    started = time.perf_counter()
    spark = SparkSession.builder.master("local[*]").config("spark.ui.enabled", "false").getOrCreate()
    client, names = mlflow.MlflowClient(), [column.name for column in TABLE.columns]
    with manifest.verified(client, client.get_model_version(TABLE.name, number)) as folder:
        probability = mlflow.pyfunc.spark_udf(spark, str(folder), "double", params={"output": "probability"})
    table = spark.read.csv(rows, header=True, inferSchema=True)
    print(f"Spark has started and read the types of columns in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    table.select(TABLE.row_id, probability(struct(*names)).alias("probability")).write.parquet(output)
    spark.stop()


if __name__ == "__main__":
    main()
