"""Move registered versions through the stages; each move is recorded, and can be taken back.

python promote.py                          what is where, and what happened (the same as show)
python promote.py staging                  the newest version to Staging
python promote.py production               the version in Staging to Production
python promote.py rollback --reason "..."  back to the version that the one in Production replaced
python promote.py check                    whether everything fits together; exit 4 if not
"""

import argparse
import sys
from typing import TYPE_CHECKING

from understudy import errors
from understudy.errors import UserError
from understudy.table import TABLE

if TYPE_CHECKING:
    from mlflow import MlflowClient

SHOWN = 20


def options() -> argparse.ArgumentParser:
    # The name may stand before the verb as well; its default must not replace what stood there.
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--name", help=f"registered model (default: {TABLE.name})")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="", help=f"registered model (default: {TABLE.name})")
    verbs = parser.add_subparsers(dest="action", metavar="VERB")
    parser.set_defaults(action="show", version="", at="")

    def verb(name: str, said: str, version: str, *other: str, reason: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=said, description=said, parents=[shared])
        if version:
            made.add_argument(*other, "--version", dest="version", default="", metavar="N", help=version)
        if reason:
            made.add_argument("--reason", default="", help=reason)
        return made

    show = verb("show", "what is where, and what happened", "that version's lineage", reason="")
    show.add_argument("version", nargs="?", default=argparse.SUPPRESS, help="the same")
    show.add_argument("--at", default="", metavar="TIME", help="what was in Production then: 2026-11-01T12:00")
    staging = verb("staging", "put a version into Staging", "(default: the newest)", reason="why")
    production = verb("production", "put a version into Production", "(default: the one in Staging)", reason="why")
    for one in (staging, production):
        one.add_argument("--force", action="store_true", help="whatever the checks say; needs a --reason")
        one.add_argument("--breaking", action="store_true", help="it may refuse rows that the one before accepts")
    rules = ["better", "not-worse", "point"]
    production.add_argument("--data", default=None, metavar="ADDRESS", help="a table whose held-out rows are to decide")
    production.add_argument("--rule", default="not-worse", choices=rules, help="(default: %(default)s)")
    verb("rollback", "bring back an earlier version", "(default: the one replaced last)", "--to", reason="why; needed")
    verb("archive", "take a version out of use", "which; needed", reason="why")
    check = verb("check", "say what does not fit together", "", reason="")
    check.add_argument("--repair", action="store_true", help="mend what needs no judgement")
    by_hand = "(default: the one in Production)"
    adopt = verb("adopt", "take over what was done by hand in MLflow's UI", by_hand, reason="why; needed")
    adopt.add_argument("--force", action="store_true", help="whatever the checks say")
    return parser


def main() -> None:
    args = options().parse_args()
    for needed in NEEDS.get(args.action, ["reason"] if getattr(args, "force", False) else []):
        if not getattr(args, needed):
            verb = f"{args.action} --force" if getattr(args, "force", False) else args.action
            raise UserError(f"{verb} needs a --{needed}", f'python promote.py {verb} --{needed} "..."')
    # MLflow takes seconds to load, and --help need not wait for it.
    from understudy.registry import registered, stages
    from understudy.tracking import connection

    name = args.name or TABLE.name
    client = connection.connect()
    registered.registered_model(client, name)
    fix = ACTIONS[args.action](client, name, args)
    print(f"next: {fix or _next(stages.aliases(client, name))}" + (f" --name {args.name}" if args.name else ""))
    if fix:
        sys.exit(4)


def show(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.registry import lineage, records, registered, stages

    found, there = records.find(client, name), stages.aliases(client, name)
    if args.at:
        print(f"in Production at {args.at}: {records.told(found, lineage.milliseconds(args.at), there)}")
    elif args.version:
        for said, value in lineage.lineage(client, name, args.version).items():
            print(f"{said}: {value}")
        found = [record for record in found if args.version in (record.version, record.before)]
    else:
        recorded = records.aliases(found)
        for alias, stage in stages.STAGES.items():
            is_other = recorded.get(alias) != there.get(alias)
            said = f" (the records say {registered.called(recorded.get(alias))}: python promote.py check)"
            print(f"{stage}: {f'version {there[alias]}' if alias in there else 'empty'}{said if is_other else ''}")
        versions = registered.versions(client, name)
        print(f"newest: {f'version {versions[-1].version}' if versions else 'none'}")
    for line in lineage.story(found[-SHOWN:] if not args.at else []):
        print(line)


def promote(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.gate import evidence
    from understudy.registry import promotion, stages
    from understudy.registry.records import Record

    version = stages.choose(client, name, args.action, args.version)
    asked = Record(args.action, version, args.action, "", args.reason, args.force, args.breaking)
    decide = evidence.decide(client, name, getattr(args, "rule", "not-worse"), getattr(args, "data", None))
    record = promotion.promote(client, name, asked, decide)
    archived = f", version {record.before} is archived" if record.before else ""
    print(f"{name} version {version} is in {stages.STAGES[args.action]}{archived}")
    if args.action == "production" and record.against not in (None, record.before):
        print(f"compared with version {record.against}, the last in Production whose files are there")


def rollback(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.registry import promotion

    back, gone = promotion.rollback(client, name, args.version, args.reason)
    print(f"{name} version {back} is in Production again{f', version {gone} is archived' if gone else ''}")


def archive(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.registry import promotion

    promotion.archive(client, name, args.version, args.reason)
    print(f"{name} version {args.version} is archived")


def adopt(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.gate import evidence
    from understudy.registry import promotion

    decide = evidence.decide(client, name, "not-worse")
    version, stage = promotion.adopt(client, name, args.version, args.reason, decide, args.force)
    print(f"{name} version {version} is {f'in {stage}, with alias, stage and record' if stage else 'adopted'}")


def check(client: "MlflowClient", name: str, args: argparse.Namespace) -> str:
    from understudy.registry import audit

    for done in audit.repair(client, name) if args.repair else []:
        print(f"mended: {done}")
    wrong = audit.findings(client, name)
    for finding in wrong:
        print(finding)
    print(f"{name}: {f'{len(wrong)} found' if wrong else 'all is well'}")
    return next((audit.MEND for finding in wrong if audit.MEND in finding.fix), wrong[0].fix if wrong else "")


def _next(there: dict[str, str]) -> str:
    if "staging" in there:
        return "python promote.py production"
    return "./serve.sh" if "production" in there else "python promote.py staging"


NEEDS = {"rollback": ["reason"], "archive": ["version"], "adopt": ["reason"]}
ACTIONS = {
    "show": show,
    "staging": promote,
    "production": promote,
    "rollback": rollback,
    "archive": archive,
    "adopt": adopt,
    "check": check,
}

if __name__ == "__main__":
    errors.run(main)
