"""Register a model as a version: by default the best of the newest batch by cross-validation.

python register.py                                  the best family
python register.py --model RandomForestClassifier   that family
python register.py --run RUN_ID                     that run
python register.py reproduce 1                      train version 1 again: is it the same? (exit 4 if not)
"""

import argparse
import sys
from typing import TYPE_CHECKING

from understudy import errors
from understudy.errors import UserError
from understudy.table import TABLE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", default="register", choices=["register", "reproduce"])
    # `mlflow run` gives every option, the empty text where a person gave none.
    parser.add_argument("version", nargs="?", default="", help="number of the version to reproduce")
    parser.add_argument("--run", default="", help="run id of a family's run (default: the best of the newest batch)")
    parser.add_argument("--model", default="", help="family, of the newest batch (default: the best)")
    parser.add_argument("--data", default="", help=f"for reproduce: the table's address (default: {TABLE.path})")
    parser.add_argument("--name", default="", help=f"registered model (default: {TABLE.name})")
    parser.add_argument("--fail-fast", action="store_true", help="do not wait for a tracking server that goes away")
    return parser


def main() -> None:
    args = options().parse_args()
    if bool(args.version) != (args.action == "reproduce"):
        raise UserError("reproduce takes the number of a version, and nothing else does", "python register.py --help")
    # MLflow takes seconds to load, and --help need not wait for it.
    from understudy.registry import registered, registration, reproduction
    from understudy.tracking import connection, family_runs, naming, runs

    client, name = connection.connect(args.fail_fast), args.name or TABLE.name
    if args.action == "reproduce":
        version = registered.get_version(client, name, args.version, "register.py reproduce")
        reproduced = reproduction.reproduce(client, version, args.data or None)
        print(reproduced)
        sys.exit(4 if reproduced.differences else 0)
    chosen = args.run or args.model
    run = runs.get_run(client, args.run, runs.FAMILY) if args.run else _of_newest_batch(client, args.model or None)
    version, is_new = registration.register(client, run, TABLE, name)
    state = "registered" if is_new else "was registered already"
    family = errors.visible(family_runs.family_name(run))
    print(f"{version.name} version {version.version} {state}: {family}, {_score(run, is_chosen=not chosen)}")
    print(f"next: python promote.py staging{naming.option(name)}")


def _score(run: "Run", is_chosen: bool) -> str:
    """The mean CV score of a family's run, and if `is_chosen` what made it the best."""
    from understudy.tracking import runs
    from understudy.training import selection

    score = f"mean CV score {runs.metric(run, 'Mean CV score'):.3f}"
    if not is_chosen:
        return score
    value = selection.figure(TABLE.select_by, lambda name: runs.metric(run, name))
    return f"{score}, the best by {TABLE.select_by}{'' if TABLE.select_by == 'accuracy' else f' ({value:.3f})'}"


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
