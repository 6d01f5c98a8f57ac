# PYTHON_ARGCOMPLETE_OK
"""Score the rows of files with the version in Production; those that the table does not allow go to OUTPUT.rejected.

python score.py new.csv scores.parquet             a file to a file, CSV or Parquet by its ending
python score.py new/ scores --stage Staging        a folder of files to a folder of Parquet files
python score.py 'new/*.csv.gz' scores.csv --strict  all rows, or none
python score.py 'mysql://host/db#select ...' mysql://host/db#scores
"""

import argparse
import shlex
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy import cluster, errors, terminal
from understudy.table import TABLE
from understudy.terminal import Reply

if TYPE_CHECKING:
    from distributed import Client

SHOWN = 20  # columns, and reasons, that are named


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(**terminal.explained(__doc__))
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
    parser.add_argument("--cluster", default="", help="score on the Dask cluster at tcp://HOST:PORT")
    terminal.add_json(parser)
    return parser


def main() -> None:
    args = terminal.parse(options())

    def work() -> Reply:
        with cluster.connect(args.cluster) if args.cluster else nullcontext() as workers:
            return told(score(args, workers), args.name or TABLE.name)

    terminal.answer(work, args.json)


def told(result: dict[str, Any], name: str) -> Reply:
    """A scoring for people too."""
    called, following = f"{name} version {result['version']}", None
    lines = [f"{result['scored']:,} rows scored with {called} in {result['seconds']:.1f} s: {result['output']}"]
    if result["reasons"]:
        named = some([f"{each['column']}: {each['reason']} ({each['rows']})" for each in result["reasons"]], "; ")
        lines += [errors.visible(f"{result['rejected']:,} rows rejected: {named}")]
        if Path(result["rejected_to"]).is_file():
            following = f"less {shlex.quote(result['rejected_to'])}"
    return Reply(result, lines, following)


def score(args: argparse.Namespace, workers: "Client | None") -> dict[str, Any]:
    """Score the rows, on a cluster's workers if there are some; returns what `--json` prints."""
    # MLflow takes seconds to load, and --help need not wait for it.
    from understudy.batch import inputs, job, outputs, parts, queries, record
    from understudy.reading import reader
    from understudy.registry import registered, stages
    from understudy.scoring import scorer
    from understudy.tracking import connection, experiments, runs
    from understudy.verification import manifest

    name, output, started = args.name or TABLE.name, outputs.named(args.output), time.perf_counter()
    client, keep = connection.connect(), [column for column in args.keep.split(",") if column]
    number = args.version or stages.in_stage(client, name, args.stage.lower())
    version = registered.get_version(client, name, number)
    with parts.claimed(output.folder, output.kind, output.place) as held, manifest.verified(client, version) as folder:
        output.check(held)
        files = queries.fetch(args.input, held.folder) if reader.is_database(args.input) else inputs.find(args.input)
        units, digest, model = inputs.units(files), inputs.digest(files), scorer.load(folder)
        planned = job.plan(files, model, keep, str(version.version), datetime.now(UTC), args.strict)
        asked = record.asked(version, digest, output.place, planned)
        before = held.run_of(asked)
        output.check_columns(planned.schema, asked if before is None else None)
        if planned.ignored:
            print(errors.visible(f"columns that are ignored: {some(planned.ignored)}"))
        tags = record.tags(version, args.input, digest, output.place)
        experiment = experiments.make(client, record.experiment(name), experiments.SCORINGS).experiment_id
        named = reader.name(output.place)
        with runs.inactive(client, experiment, runs.SCORING, named, tags, before) as run_id:
            held.begin(asked, run_id)
            try:
                with terminal.bar(unit=" rows", unit_scale=True) as progress:
                    on_cluster = workers and job.on_cluster(workers, planned, folder, units, held)
                    for rows in on_cluster or job.here(planned, model, units, held):
                        progress.update(rows)
            except errors.UserError:
                held.remove()
                raise
            output.publish(held, planned.schema, asked)
            figures = record.close(client, run_id, args.input, digest, held.total(), time.perf_counter() - started)
        held.remove()
    places = {"output": output.place, "rejected_to": output.rejected if figures["rejected"] else None}
    return {**figures, **places, "version": planned.version, "ignored": planned.ignored, "run": run_id}


def some(texts: Sequence[str], between: str = ", ") -> str:
    """The first texts for people, and how many more there are."""
    more = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return between.join([*texts[:SHOWN], *more])


if __name__ == "__main__":
    errors.run(main)
