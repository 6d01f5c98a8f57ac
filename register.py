"""Register a model as a version: by default the best of the newest batch by cross-validation.

python register.py                                  the best family
python register.py --model RandomForestClassifier   that family
python register.py --run RUN_ID                     that run
python register.py reproduce 1                      train version 1 again: is it the same? (exit 4 if not)
"""

import argparse
import sys

from understudy import errors
from understudy.errors import UserError
from understudy.table import TABLE


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", default="register", choices=["register", "reproduce"])
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
    from understudy.registry import registered, reproduction
    from understudy.tracking import connection, family_runs, runs

    client = connection.connect(args.fail_fast)
    if args.action == "reproduce":
        name = args.name or TABLE.name
        version = registered.get_version(client, name, args.version, "register.py reproduce")
        found = reproduction.reproduce(client, version, args.data)
        print(found)
        sys.exit(4 if found.differences else 0)
    if args.run:
        run = runs.get_run(client, args.run, runs.FAMILY)
    else:
        batch = family_runs.families(client, family_runs.get_batch(client, TABLE))
        named = {family_runs.family_name(run): run for run in batch}
        if args.model and args.model not in named:
            raise UserError(f"the newest batch has no {args.model}", f"choose from {', '.join(named)} with --model")
        run = named[args.model] if args.model else registered.best_family(batch)
    version, new = registered.register(client, run, TABLE, args.name or TABLE.name)
    state = "registered" if new else "was registered already"
    score = runs.metric(run, "Mean CV score")
    family = errors.visible(family_runs.family_name(run))
    print(f"{version.name} version {version.version} {state}: {family}, mean CV score {score:.3f}")
    print("next: python promote.py staging" + (f" --name {args.name}" if args.name else ""))


if __name__ == "__main__":
    errors.run(main)
