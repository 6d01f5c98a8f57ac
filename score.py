"""Score the rows of files with the version in Production; those that the table does not allow go to OUTPUT.rejected.

python score.py new.csv scores.parquet             a file to a file, CSV or Parquet by its ending
python score.py new/ scores --stage Staging        a folder of files to a folder of Parquet files
python score.py 'new/*.csv.gz' scores.csv --strict  all rows, or none
"""

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from understudy import errors
from understudy.table import TABLE

SHOWN = 20  # columns, and reasons, that are named


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", help="a CSV or Parquet file, plain or gzip, a folder of them, or a pattern in quotes")
    parser.add_argument("output", help="a .parquet or .csv file, or a folder, that is not there yet")
    parser.add_argument("--version", default="", help="number of the version (default: the one in --stage)")
    parser.add_argument(
        "--stage", default="Production", choices=["Staging", "Production"], help="(default: %(default)s)"
    )
    parser.add_argument("--name", default="", help=f"registered model (default: {TABLE.name})")
    parser.add_argument("--keep", default="", help="columns to copy to the output, with commas between")
    parser.add_argument("--strict", action="store_true", help="write nothing if a row is not allowed")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main() -> None:
    args = options().parse_args()
    # MLflow takes seconds to load, and --help need not wait for it.
    from understudy.batch import inputs, job, outputs, record
    from understudy.registry import registered, stages
    from understudy.scoring import scorer
    from understudy.tracking import connection, runs
    from understudy.verification import manifest

    name, output, started = args.name or TABLE.name, Path(args.output), time.perf_counter()
    outputs.check(output)
    files = inputs.find(args.input)
    client = connection.connect()
    if args.version:
        version = registered.get_version(client, name, args.version)
    else:
        version = client.get_model_version(name, stages.in_stage(client, name, args.stage.lower()))
    with manifest.verified(client, version) as folder:
        model = scorer.load(folder)
        planned = job.plan(files, model, [column for column in args.keep.split(",") if column])
        digest = inputs.digest(files)
        tags = record.tags(version, args.input, digest, output)
        if planned.ignored and not args.json:
            print(errors.visible(f"columns that are ignored: {some(planned.ignored)}"))
        with runs.scoring(client, record.experiment(name), output.name, tags) as run_id:
            with outputs.open_output(output, planned.schema) as written:
                job.score(model, str(version.version), planned, written, datetime.now(UTC), args.strict)
                written.complete()
            figures = record.result(written, time.perf_counter() - started)
            record.close(client, run_id, args.input, digest, written, figures)
    reasons = record.reasons(written)
    if args.json:
        places = {"output": args.output, "rejected_to": str(written.rejected) if reasons else None}
        found = {"version": str(version.version), "ignored": planned.ignored, "reasons": reasons, "run": run_id}
        print(json.dumps({**figures, **places, **found}))
        return
    scored, seconds = int(figures["scored"]), figures["seconds"]
    print(f"{scored:,} rows scored with {name} version {version.version} in {seconds:.1f} s: {args.output}")
    if reasons:
        named = some([f"{reason['column']}: {reason['reason']} ({reason['rows']})" for reason in reasons], "; ")
        print(errors.visible(f"{int(figures['rejected']):,} rows rejected: {named}"))
        print(f"next: less {shlex.quote(str(written.rejected))}")


def some(texts: Sequence[str], between: str = ", ") -> str:
    """The first texts for people, and how many more there are."""
    more = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return between.join([*texts[:SHOWN], *more])


if __name__ == "__main__":
    errors.run(main)
