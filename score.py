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

from understudy import errors
from understudy.table import TABLE

SHOWN = 20  # columns, and reasons, that are named


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", help="CSV or Parquet files: one, a folder or a pattern in quotes, by path or in an "
                        "object store; or the table or query of a database")  # fmt: skip
    parser.add_argument("output", help="a .parquet or .csv file, or a folder, that is not there yet; or a database's "
                        "table, which is made or appended to")  # fmt: skip
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
    from tqdm import tqdm

    from understudy.batch import inputs, job, outputs, parts, queries, record
    from understudy.reading import reader
    from understudy.registry import registered, stages
    from understudy.scoring import scorer
    from understudy.tracking import connection, runs
    from understudy.verification import manifest

    name, output, started = args.name or TABLE.name, outputs.named(args.output), time.perf_counter()
    client = connection.connect()
    if args.version:
        version = registered.get_version(client, name, args.version)
    else:
        version = client.get_model_version(name, stages.in_stage(client, name, args.stage.lower()))
    with parts.claimed(output.folder, output.kind, output.place) as held, manifest.verified(client, version) as folder:
        output.check(held)
        files = queries.fetch(args.input, held.folder) if reader.is_database(args.input) else inputs.find(args.input)
        model, keep = scorer.load(folder), [column for column in args.keep.split(",") if column]
        planned = job.plan(files, model, keep, str(version.version), datetime.now(UTC), args.strict)
        digest = inputs.digest(files)
        asked = record.asked(version, digest, output.place, planned)
        output.check_columns(planned.schema, asked)
        before = held.run_of(asked)
        if planned.ignored and not args.json:
            print(errors.visible(f"columns that are ignored: {some(planned.ignored)}"))
        tags = record.tags(version, args.input, digest, output.place)
        with runs.scoring(client, record.experiment(name), reader.name(output.place), tags, before) as run_id:
            held.begin(asked, run_id)
            try:
                with tqdm(unit=" rows", unit_scale=True, disable=None, leave=False) as progress:
                    for number, unit in enumerate(inputs.units(files)):
                        for rows in job.score(planned, model, unit, number, held, job.cores()):
                            progress.update(rows)
            except errors.UserError:
                held.remove()
                raise
            output.publish(held, planned.schema, asked)
            total = held.total()
            figures = record.result(total, time.perf_counter() - started)
            record.close(client, run_id, args.input, digest, total, figures)
        held.remove()
    reasons = record.reasons(total)
    if args.json:
        places = {"output": args.output, "rejected_to": output.rejected if reasons else None}
        found = {"version": str(version.version), "ignored": planned.ignored, "reasons": reasons, "run": run_id}
        print(json.dumps({**figures, **places, **found}))
        return
    seconds = figures["seconds"]
    print(f"{total.scored:,} rows scored with {name} version {version.version} in {seconds:.1f} s: {output.place}")
    if reasons:
        named = some([f"{reason['column']}: {reason['reason']} ({reason['rows']})" for reason in reasons], "; ")
        print(errors.visible(f"{total.rejected:,} rows rejected: {named}"))
        print(f"next: less {shlex.quote(output.rejected)}")


def some(texts: Sequence[str], between: str = ", ") -> str:
    """The first texts for people, and how many more there are."""
    more = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return between.join([*texts[:SHOWN], *more])


if __name__ == "__main__":
    errors.run(main)
