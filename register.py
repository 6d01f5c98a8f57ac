# PYTHON_ARGCOMPLETE_OK
"""Register a model as a version: by default the best of the newest batch by cross-validation.

python register.py                                  the best family
python register.py --model RandomForestClassifier   that family
python register.py --run RUN_ID                     that run
python register.py reproduce 1                      train version 1 again: is it the same? (exit 4 if not)
"""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from understudy import errors, terminal
from understudy.errors import UserError
from understudy.table import TABLE
from understudy.terminal import Reply

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(**terminal.explained(__doc__))
    parser.add_argument("action", nargs="?", default="register", choices=["register", "reproduce"])
    # `mlflow run` gives every option, the empty text where a person gave none.
    parser.add_argument("version", nargs="?", default="", help="number of the version to reproduce")
    parser.add_argument("--run", default="", help="run id of a family's run (default: the best of the newest batch)")
    parser.add_argument("--model", default="", help="family, of the newest batch (default: the best)")
    parser.add_argument("--data", default="", help=f"for reproduce: the table's address (default: {TABLE.path})")
    parser.add_argument("--name", default="", help=f"registered model (default: {TABLE.name})")
    parser.add_argument("--fail-fast", action="store_true", help="do not wait for a tracking server that goes away")
    terminal.add_json(parser)
    return parser


def main() -> None:
    args = terminal.parse(options())
    if bool(args.version) != (args.action == "reproduce"):
        raise UserError("reproduce takes the number of a version, and nothing else does", "python register.py --help")
    terminal.answer(lambda: reproduce(args) if args.action == "reproduce" else register(args), args.json)


def reproduce(args: argparse.Namespace) -> Reply:
    """Train a version again, and compare."""
    # MLflow takes seconds to load, and --help need not wait for it.
    from understudy.registry import registered, reproduction
    from understudy.tracking import connection

    client, name = connection.connect(args.fail_fast), args.name or TABLE.name
    version = registered.get_version(client, name, args.version, "register.py reproduce")
    reproduced = reproduction.reproduce(client, version, args.data or None)
    differences = reproduced.differences
    values = {"name": name, "version": args.version, "same": not differences, **asdict(reproduced)}
    return Reply({**values, "differences": differences}, [str(reproduced)], code=4 if differences else 0)


def register(args: argparse.Namespace) -> Reply:
    """Register the run that is asked for, or the best."""
    from understudy.registry import registration
    from understudy.tracking import connection, family_runs, naming, runs
    from understudy.training import selection

    client, name = connection.connect(args.fail_fast), args.name or TABLE.name
    is_chosen = not (args.run or args.model)
    run = runs.get_run(client, args.run, runs.FAMILY) if args.run else _of_newest_batch(client, args.model or None)
    version, is_new = registration.register(client, run, TABLE, name)
    score, family = runs.metric(run, "Mean CV score"), family_runs.family_name(run)
    state = "registered" if is_new else "was registered already"
    line = f"{version.name} version {version.version} {state}: {errors.visible(family)}, mean CV score {score:.3f}"
    figure = selection.figure(TABLE.select_by, lambda name: runs.metric(run, name)) if is_chosen else None
    if is_chosen:
        line += f", the best by {TABLE.select_by}{'' if TABLE.select_by == 'accuracy' else f' ({figure:.3f})'}"
    values = {
        "name": version.name,
        "version": str(version.version),
        "is_new": is_new,
        "family": family,
        "run": run.info.run_id,
        "mean_cv_score": score,
        "selected_by": TABLE.select_by if is_chosen else None,
        "figure": figure,
    }
    return Reply(values, [line], f"python promote.py staging{naming.option(name)}")


def _of_newest_batch(client: "MlflowClient", family: str | None) -> "Run":
    """The run of a family of the newest batch, by default of the best."""
    from understudy.tracking import family_runs
    from understudy.training import selection

    candidates = family_runs.families(client, family_runs.get_batch(client, TABLE))
    if family is None:
        return selection.best_family(candidates)
    named = {family_runs.family_name(run): run for run in candidates}
    if family not in named:
        raise UserError(f"the newest batch has no {family}", f"choose from {', '.join(named)} with --model")
    return named[family]


if __name__ == "__main__":
    errors.run(main)
