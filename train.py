# PYTHON_ARGCOMPLETE_OK
"""Train every model family on the table and evaluate it: one batch of MLflow runs.

python train.py                          the quick grid on the project's own table
python train.py --grid book --data FILE  the textbook's grid on another file
"""

import argparse
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from understudy import cluster, errors, terminal
from understudy.table import TABLE
from understudy.terminal import Reply

if TYPE_CHECKING:
    from distributed import Client

NO_PARAMS = ("experiment_name", "fail_fast", "json")  # options that change nothing of what is trained


def whole_number(text: str) -> int:
    """An integer; `mlflow run` knows floats only, so 1.0 is one too."""
    return int(text.removesuffix(".0"))


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(**terminal.explained(__doc__))
    parser.add_argument("--models", default="all", help="families by name, with commas between (default: all)")
    parser.add_argument("--grid", default="quick", choices=["quick", "book"], help="values to search (default: quick)")
    parser.add_argument("--data", default="", help=f"file, URL or database of the table (default: {TABLE.path})")
    parser.add_argument("--seed", default=0, type=whole_number, help="of the folds and the models (default: 0)")
    parser.add_argument("--jobs", default=-1, type=whole_number, help="processes, -1 for one per core (default: -1)")
    parser.add_argument(
        "--cluster", default="", help="search on the Dask cluster at tcp://HOST:PORT, on all its threads"
    )
    parser.add_argument(
        "--without-sensitive", action="store_true", help="hide sensitive columns, and say what it costs"
    )
    parser.add_argument("--fail-fast", action="store_true", help="do not wait for a tracking server that goes away")
    parser.add_argument(
        "--experiment-name", help=f"(default: MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID, or else {TABLE.name})"
    )
    terminal.add_json(parser)
    return parser


def main() -> None:
    args = terminal.parse(options())

    def work() -> Reply:
        with cluster.connect(args.cluster) if args.cluster else nullcontext() as workers:
            return train(args, workers)

    terminal.answer(work, args.json)


def train(args: argparse.Namespace, workers: "Client | None") -> Reply:
    """Train and evaluate, with the searches on a cluster's workers if there are some."""
    # MLflow takes seconds to load, and --help need not wait for it.
    from understudy import families
    from understudy.reading import reader, table_rows
    from understudy.scoring import pipelines
    from understudy.tracking import batch_rows, connection, experiments, family_runs, provenance, runs
    from understudy.training import evaluation, search, selection
    from understudy.verification import reference

    names = search.choose(args.models)
    address = provenance.table_path(TABLE.path, args.data or None)
    rows = table_rows.read(TABLE, address)
    training, held_out = TABLE.split(rows, folds=pipelines.FOLDS)
    client = connection.connect(args.fail_fast)
    for killed in runs.close_killed(client):
        print(f"{errors.visible(killed)}: was killed, and says so now")
    experiments.choose(client, args.experiment_name, TABLE.name)
    tags = provenance.tags(TABLE, address, TABLE.digest(rows), args.seed)
    inputs = provenance.datasets(TABLE, address, training, held_out)
    seen = TABLE.without_sensitive() if args.without_sensitive else TABLE
    plan = [(name, runs.FAMILY, seen) for name in names]
    if args.without_sensitive:
        plan += [(f"{name}{family_runs.WITH}", runs.REFERENCE, TABLE) for name in names[:-1]]
    results = {}
    with runs.run(f"{reader.name(address)} {args.grid}", runs.BATCH, tags) as batch_id:
        params = {name: value for name, value in vars(args).items() if name not in NO_PARAMS}
        family_runs.log_batch(client, batch_id, {**params, "data": reader.shown(args.data)}, inputs)
        batch_rows.log_rows(client, batch_id, held_out, training[[column.name for column in seen.labelled]])
        progress = terminal.bar(plan, unit="family")
        for name, kind, table in progress:
            progress.set_description(name)
            family = families.FAMILIES[name.removesuffix(family_runs.WITH)]
            with runs.run(name, kind, {**tags, family_runs.FAMILY_NAME: name}) as run_id:
                started = time.perf_counter()
                grid = getattr(family, args.grid)
                result = search.search(table, training, family, grid, args.seed, args.jobs, workers)
                spent = {"training/seconds": time.perf_counter() - started, "training/rows": len(training)}
                trained = family_runs.TrainedFamily(
                    name, result.pipeline, training, result.params, result.metrics | spent, result.thresholds, inputs
                )
                reference.check_trained(name.removesuffix(family_runs.WITH), result.pipeline, table, held_out)
                is_converted = family_runs.log_family(client, run_id, trained)
            results[name] = result
            best = ", ".join(f"{key} {value}" for key, value in result.params.items())
            terminal.say(f"{name}: mean CV score {result.metrics['Mean CV score']:.3f} ({best or 'nothing to search'})")
            if not is_converted and name != families.FLOOR:
                milliseconds = pipelines.seconds_a_row(result.pipeline, training) * 1000
                terminal.say(f"{name}: served by its own library, about {milliseconds:.1f} ms a row")
        evaluated = evaluation.evaluate(client, client.get_run(batch_id), rows, results)
    warnings = [*selection.doubts(TABLE, {name: result.metrics for name, result in results.items()})]
    searched = [{**family, "params": results[family["name"]].params} for family in evaluated.values["families"]]
    values = {**evaluated.values, "families": searched, "warnings": warnings}
    lines = [*evaluated.lines, *(f"warning: {doubt}" for doubt in warnings)]
    return Reply(values, lines, "python register.py")


if __name__ == "__main__":
    errors.run(main)
