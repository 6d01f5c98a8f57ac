"""Move registered versions through the stages; each move is recorded, and can be taken back.

python promote.py                          what is where, and what happened (the same as show)
python promote.py staging                  the newest version to Staging
python promote.py production               the version in Staging to Production
python promote.py approve 2 --reason "..." version 2 to Production, which somebody else has asked for
python promote.py rollback --reason "..."  back to the version that the one in Production replaced
python promote.py check                    whether everything fits together; exit 4 if not
python promote.py relocate                 after the project's folder was moved or copied
"""

import argparse
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from understudy import errors
from understudy.errors import UserError
from understudy.table import TABLE
from understudy.tracking import naming

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from understudy.gate.checks import Rule
    from understudy.gate.live import Pairs
    from understudy.registry.records import Move

RECORDS = 20  # that show prints, the latest ones


def options() -> argparse.ArgumentParser:
    # The name may stand before the verb as well; its default must not replace what stood there.
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--name", help=f"registered model (default: {TABLE.name})")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", help=f"registered model (default: {TABLE.name})")
    verbs = parser.add_subparsers(dest="action", metavar="VERB")
    parser.set_defaults(action="show", version=None, at=None, card=False)

    def verb(name: str, purpose: str, version: str | None = None) -> argparse.ArgumentParser:
        parser = verbs.add_parser(name, help=purpose, description=purpose, parents=[shared])
        if version:
            parser.add_argument("--version", metavar="N", help=version)
            parser.add_argument("version", nargs="?", default=argparse.SUPPRESS, help="the same")
        return parser

    show = verb("show", "what is where, and what happened", "that version: its lineage, and what was measured of it")
    show.add_argument("--at", metavar="TIME", help="what was in Production then: 2026-11-01T12:00")
    show.add_argument("--card", action="store_true", help="the model card of that version (default: of the newest)")
    staging = verb("staging", "put a version into Staging", "(default: the newest)")
    production = verb("production", "put a version into Production", "(default: the one in Staging)")
    for promotion in (staging, production):
        promotion.add_argument("--reason", help="why")
        promotion.add_argument("--force", action="store_true", help="whatever the checks say; needs a --reason")
        promotion.add_argument("--breaking", action="store_true", help="it may refuse rows that the one before accepts")
    rules = ["better", "not-worse", "point"]
    production.add_argument("--rule", default="not-worse", choices=rules, help="(default: %(default)s)")
    approve = verb("approve", "put a version into Production that somebody else has asked for", "which; needed")
    approve.add_argument("--reason", help="why; needed")
    for decided in (production, approve):
        decided.add_argument("--data", metavar="ADDRESS", help="a table whose held-out rows are to decide")
        decided.add_argument("--log", metavar="FOLDER", help="the live server's row log; with --labels")
        labels = "what came true of its rows, which decide where they are enough (default of both: the table's `live`)"
        decided.add_argument("--labels", metavar="ADDRESS", help=labels)
    rollback = verb("rollback", "bring back an earlier version")
    rollback.add_argument("--to", "--version", dest="version", metavar="N", help="(default: the one replaced last)")
    rollback.add_argument("--reason", help="why; needed")
    archive = verb("archive", "take a version out of use", "which; needed")
    archive.add_argument("--reason", help="why")
    check = verb("check", "say what does not fit together")
    check.add_argument("--repair", action="store_true", help="mend what needs no judgement")
    verb("relocate", "look for artifacts in this folder, after it was moved or copied")
    adopt = verb("adopt", "take over what was done by hand in MLflow's UI", "(default: the one in Production)")
    adopt.add_argument("--reason", help="why; needed")
    adopt.add_argument("--force", action="store_true", help="whatever the checks say")
    return parser


def main() -> None:
    args = options().parse_args()
    name = args.name or TABLE.name
    is_forced = getattr(args, "force", False)
    needed = NEEDED.get(args.action, ("reason",) if is_forced else ())
    if missing := [option for option in needed if not getattr(args, option)]:
        verb = f"{args.action} --force" if is_forced else args.action
        given = " ".join(f'--{option} "..."' for option in needed)
        raise UserError(f"{verb} needs a --{missing[0]}", f"python promote.py {verb} {given}{naming.option(name)}")
    # MLflow takes seconds to load, and --help need not wait for it.
    from understudy.registry import registered
    from understudy.tracking import connection, experiments

    if args.action == "relocate":
        for line in experiments.relocate(connection.connect(is_moved=True)) or ["the project is where it was"]:
            print(line)
        print("next: python promote.py check")
        return
    client = connection.connect()
    registered.registered_model(client, name)
    fix = ACTIONS[args.action](client, name, args)
    print(f"next: {fix or _next(client, name)}")
    if fix:
        sys.exit(4)


def show(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.approval import requests
    from understudy.figures import cards
    from understudy.registry import history, records, registered, stages

    decisions, aliases = records.find(client, name, latest=RECORDS), stages.aliases(client, name)
    moved = {record.stage for record in history.completed(decisions)}
    is_partial = TABLE.limits.approval or history.aliases(decisions) != aliases or not moved >= stages.STAGES.keys()
    if args.at or args.version or is_partial:
        decisions = records.find(client, name)  # a thousand take seconds to read
    if args.card:
        print(*map(errors.visible, registered.card_of(client, name, args.version).splitlines()), sep="\n")
        return
    if args.at:
        print(f"in Production at {args.at}: {history.describe_at(decisions, history.milliseconds(args.at), aliases)}")
        return
    if args.version:
        for label, value in history.lineage(client, name, args.version).items():
            print(f"{label}: {value}")
        decisions = [record for record in decisions if args.version in (record.version, record.before)]
    else:
        recorded = history.aliases(decisions)
        for alias, stage in stages.STAGES.items():
            current, expected = aliases.get(alias), recorded.get(alias)
            differs = f" (the records say {registered.called(expected)}: python promote.py check{naming.option(name)})"
            print(f"{stage}: {f'version {current}' if current else 'empty'}{differs if expected != current else ''}")
        versions = registered.versions(client, name)
        print(f"newest: {f'version {versions[-1].version}' if versions else 'none'}")
        for request in requests.waiting(decisions):
            print(f"request: {requests.described(request)}")
    decisions = decisions[-RECORDS:]
    for record, line in zip(decisions, history.story(decisions), strict=True):
        print(line)
        for figure, value in cards.headline(record.figures).items() if record.version == args.version else ():
            print(errors.visible(f"    {figure}: {value}"))


def promote(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.registry import stages
    from understudy.registry.records import Move

    version = stages.choose(client, name, args.action, args.version)
    planned = Move(args.action, version, args.action, None, args.reason, args.force, args.breaking)
    move(client, name, args, planned, getattr(args, "rule", "not-worse"))


def move(client: "MlflowClient", name: str, args: argparse.Namespace, planned: "Move", rule: "Rule") -> None:
    from understudy.gate import evidence
    from understudy.registry import promotion, stages

    judge = evidence.decide(client, name, rule, getattr(args, "data", None), live_rows(client, name, args))
    record = promotion.promote(client, name, planned, judge)
    archived = f", version {record.before} is archived" if record and record.before else ""
    print(f"{name} version {planned.version} is in {stages.STAGES[planned.stage]}{archived}")


def live_rows(client: "MlflowClient", name: str, args: argparse.Namespace) -> "Pairs | None":
    """What finds the live rows that champion and challenger both answered; None where none are asked for.

    Raises:
        UserError: A person has named the log or the labels, and nothing says where the other is.
    """
    if "log" not in args:
        return None
    log, address = args.log or TABLE.live.log, args.labels or TABLE.live.labels
    if not (log and address):
        if not (args.log or args.labels):
            return None
        problem = f"live rows are taken from --log and --labels, and --{'labels' if log else 'log'} is missing"
        fix = f"python promote.py {args.action} --log FOLDER --labels ADDRESS{naming.option(name)}"
        raise UserError(problem, fix)
    from understudy.monitoring import labels

    return partial(labels.of_both, client, name, Path(log), address)


def production(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    (ask if TABLE.limits.approval else promote)(client, name, args)


def ask(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.approval import requests
    from understudy.registry import stages
    from understudy.registry.records import Move

    if rows := [option for option in ("data", "labels", "log") if getattr(args, option, None)]:
        problem = f"the gate decides when somebody approves, and --{rows[0]} says on which rows"
        raise UserError(problem, f"leave --{rows[0]} out, and let promote.py approve have it")
    version = stages.choose(client, name, "production", args.version)
    planned = Move("production", version, "production", None, args.reason, args.force, args.breaking, args.rule)
    request = requests.ask(client, name, planned)
    print(f"{name} {requests.described(request) if request else f'version {version} is in Production'}")


def approve(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.approval import requests

    planned = requests.approve(client, name, args.version, args.reason)
    rule = cast("Rule", planned.rule)
    terms = f"{rule}{', forced' if planned.forced else ''}{', breaking' if planned.breaking else ''}"
    print(f"{planned.asker} has asked for version {planned.version} by the rule {terms}")
    move(client, name, args, planned, rule)


def rollback(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.registry import promotion

    judge = promotion.scores_a_row(client, name)
    record = promotion.rollback(client, name, args.version, args.reason, judge)
    archived = f", version {record.before} is archived" if record.before else ""
    print(f"{name} version {record.version} is in Production again{archived}")


def archive(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.registry import promotion

    promotion.archive(client, name, args.version, args.reason)
    print(f"{name} version {args.version} is archived")


def adopt(client: "MlflowClient", name: str, args: argparse.Namespace) -> None:
    from understudy.approval import requests
    from understudy.gate import evidence
    from understudy.registry import promotion, stages

    judge = evidence.decide(client, name, "not-worse")
    if TABLE.limits.approval:
        judge = requests.approved_first(client, name, judge)
    record = promotion.adopt(client, name, args.version, args.reason, judge, args.force)
    place = f"in {stages.STAGES[record.stage]}, with alias, stage and record" if record.stage else "adopted"
    print(f"{name} version {record.version} is {place}")


def check(client: "MlflowClient", name: str, args: argparse.Namespace) -> str | None:
    from understudy.approval import requests
    from understudy.gate import budget
    from understudy.probation import trials
    from understudy.registry import audit, records, registered, stages

    for repaired in [*requests.close_gone(client, name), *audit.repair(client, name)] if args.repair else []:
        print(f"mended: {repaired}")
    findings, decisions = audit.findings(client, name, TABLE.limits.approval), []
    with suppress(UserError):  # it is among the findings
        decisions = records.find(client, name)
    numbers = [str(version.version) for version in registered.versions(client, name)]
    findings += requests.findings(decisions, name, numbers, TABLE.limits.approval)
    if TABLE.limits.probation and "production" in stages.aliases(client, name):
        log = Path(TABLE.live.log) if TABLE.live.log else None
        line, finding = trials.described(client, name, TABLE.limits.probation, log)
        print(f"probation: {line}")
        findings += [finding] if finding else []
    for finding in findings:
        print(finding)
    for line in map(requests.described, requests.waiting(decisions)):
        print(f"request: {line}")
    if numbers and (left := budget.left(client, name, numbers[-1])):
        print(f"budget: {left}")
    print(f"{name}: {f'{len(findings)} found' if findings else 'all is well'}")
    repair, fixes = audit.repair_command(name), [finding.fix for finding in findings]
    return repair if any(repair in fix for fix in fixes) else next(iter(fixes), None)


def _next(client: "MlflowClient", name: str) -> str:
    from understudy.approval import requests
    from understudy.registry import audit, records, registered, stages

    aliases = stages.aliases(client, name)
    versions = {str(version.version): version for version in registered.versions(client, name)}
    if any(audit.staged_otherwise(name, aliases, versions)):
        verb = "python promote.py check"
    elif TABLE.limits.approval and (waiting := requests.waiting(records.find(client, name))):
        verb = f'python promote.py approve {waiting[-1].version} --reason "..."'
    elif "production" in aliases and "staging" not in aliases:
        verb = "./serve.sh"
    else:
        verb = f"python promote.py {'production' if 'staging' in aliases else 'staging'}"
    return f"{verb}{naming.option(name)}"


NEEDED = {"approve": ("version", "reason"), "rollback": ("reason",), "archive": ("version",), "adopt": ("reason",)}
ACTIONS = {
    "show": show,
    "staging": promote,
    "production": production,
    "approve": approve,
    "rollback": rollback,
    "archive": archive,
    "adopt": adopt,
    "check": check,
}

if __name__ == "__main__":
    errors.run(main)
