"""Move registered versions through the stages.

python promote.py              what is where
python promote.py staging      the newest version, or --version N, to Staging
python promote.py production   the version in Staging, or --version N, to Production
python promote.py rollback     back to the version that the one in Production replaced
"""

import argparse

from understudy import errors
from understudy.table import TABLE


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", default="show", choices=["show", "staging", "production", "rollback"])
    parser.add_argument("--version", default="", help="version number (default: see above)")
    parser.add_argument("--name", default="", help=f"registered model (default: {TABLE.name})")
    return parser


def main() -> None:
    args = options().parse_args()
    # MLflow takes seconds to load, and --help need not wait for it.
    from understudy import registry, tracking

    name = args.name or TABLE.name
    client = tracking.connect()
    if args.action == "show":
        there = registry.aliases(client, name)
        for alias, stage in registry.STAGES.items():
            print(f"{stage}: {f'version {there[alias]}' if alias in there else 'empty'}")
        print(f"newest: version {registry.versions(client, name)[-1].version}")
    elif args.action == "rollback":
        back, gone = registry.rollback(client, name)
        print(f"{name} version {back} is in Production again, version {gone} is archived")
    else:
        version = registry.choose(client, name, args.action, args.version)
        replaced = registry.promote(client, name, args.action, version)
        archived = f", version {replaced} is archived" if replaced else ""
        print(f"{name} version {version} is in {registry.STAGES[args.action]}{archived}")
    there = registry.aliases(client, name)
    if "staging" in there:
        following = "python promote.py production"
    else:
        following = "./serve.sh" if "production" in there else "python promote.py staging"
    print(f"next: {following}" + (f" --name {args.name}" if args.name else ""))


if __name__ == "__main__":
    errors.run(main)
