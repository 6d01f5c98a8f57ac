# PYTHON_ARGCOMPLETE_OK
"""Move registered versions through the stages; each move is recorded, and can be taken back.

python promote.py                            what is where, and what happened (the same as show)
python promote.py staging                    the newest version to Staging
python promote.py production                 the version in Staging to Production
python promote.py approve 2 --reason "..."   version 2 to Production, which somebody else has asked for
python promote.py rollback --reason "..."    back to the version that the one in Production replaced
python promote.py check                      whether everything fits together; exit 4 if not
python promote.py relocate                   after the project's folder was moved or copied
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from understudy import errors, terminal
from understudy.errors import Refused, UserError
from understudy.table import TABLE
from understudy.terminal import Reply
from understudy.tracking import naming

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from understudy.gate.checks import Rule
    from understudy.gate.live import Pairs
    from understudy.registry.promotion import Judge
    from understudy.registry.records import Move, SavedRecord

EXAMPLES = {
    "show": """python promote.py show             the stages, and the latest decisions
python promote.py show 2           where version 2 comes from, and what was decided about it
python promote.py show --at 2026-11-01T12:00""",
    "staging": """python promote.py staging          the newest version
python promote.py staging 2 --reason "it knows the new district\"""",
    "production": """python promote.py production       the version in Staging, if it is not worse
python promote.py production --rule better --data new.csv
python promote.py production 2 --force --reason "the champion is broken\"""",
    "approve": """python promote.py approve 2 --reason "the card reads well\"""",
    "rollback": """python promote.py rollback --reason "complaints"        to the version before
python promote.py rollback --to 1 --reason "complaints"  to version 1""",
    "archive": """python promote.py archive 2 --reason "trained on half of the table\"""",
    "check": """python promote.py check            exit 4 if something does not fit together
python promote.py check --repair   mends what needs no judgement""",
    "relocate": "python promote.py relocate",
    "adopt": """python promote.py adopt --reason "moved in the UI while I was away"
python promote.py adopt 3 --reason "registered by hand\"""",
}


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(**terminal.explained(__doc__))
    # Both may stand before the verb as well; their defaults behind it must not replace what stood there.
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for of in (parser, shared):
        of.add_argument("--name", help=f"registered model (default: {TABLE.name})")
        terminal.add_json(of)
    verbs = parser.add_subparsers(dest="action", metavar="VERB")
    parser.set_defaults(action="show", version=None, at=None, card=False)

    def verb(name: str, purpose: str, version: str | None = None) -> argparse.ArgumentParser:
        around = terminal.explained(f"{purpose[0].upper()}{purpose[1:]}.\n\n{EXAMPLES[name]}")
        parser = verbs.add_parser(name, help=purpose, parents=[shared], **around)
        if version:
            parser.add_argument("--version", metavar="N", help=version)
            parser.add_argument("version", nargs="?", default=argparse.SUPPRESS, help="the same as --version")
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
    args = terminal.parse(options())
    name = args.name or TABLE.name
    is_forced = getattr(args, "force", False)
    needed = NEEDED.get(args.action, ("reason",) if is_forced else ())
    if missing := [option for option in needed if not getattr(args, option)]:
        verb = f"{args.action} --force" if is_forced else args.action
        given = " ".join(f'--{option} "..."' for option in needed)
        raise UserError(f"{verb} needs a --{missing[0]}", f"python promote.py {verb} {given}{naming.option(name)}")
    terminal.answer(lambda: reply(name, args), args.json)


def reply(name: str, args: argparse.Namespace) -> Reply:
    """Do what a verb says."""
    # MLflow takes seconds to load, and --help need not wait for it.
    from understudy.registry import registered
    from understudy.replies import state
    from understudy.tracking import connection, experiments

    if args.action == "relocate":
        done = experiments.relocate(connection.connect(is_moved=True))
        return Reply({"done": done}, done or ["the project is where it was"], "python promote.py check")
    client = connection.connect()
    registered.registered_model(client, name)
    if args.action == "show" and args.card:
        return state.card(client, name, TABLE, args.version)
    if args.action == "show":
        return state.show(client, name, TABLE, args.version, args.at)
    if args.action == "check":
        return state.check(client, name, TABLE, args.repair)
    return replace(ACTIONS[args.action](client, name, args), next=state.next_command(client, name, TABLE))


def promote(client: "MlflowClient", name: str, args: argparse.Namespace) -> Reply:
    from understudy.registry import stages
    from understudy.registry.records import Move

    version = stages.choose(client, name, args.action, args.version)
    planned = Move(args.action, version, args.action, None, args.reason, args.force, args.breaking)
    return move(client, name, args, planned, getattr(args, "rule", "not-worse"))


def move(client: "MlflowClient", name: str, args: argparse.Namespace, planned: "Move", rule: "Rule") -> Reply:
    from understudy.gate import evidence
    from understudy.registry import promotion, stages
    from understudy.replies import moves

    def line(record: "SavedRecord | None") -> str:
        archived = f", version {record.before} is archived" if record and record.before else ""
        return f"{name} version {planned.version} is in {stages.STAGES[planned.stage]}{archived}"

    judge = evidence.decide(client, name, rule, getattr(args, "data", None), live_rows(client, name, args))
    known = {"version": planned.version, "stage": planned.stage}
    return moves.reply(name, judge, lambda judge: promotion.promote(client, name, planned, judge), line, **known)


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


def production(client: "MlflowClient", name: str, args: argparse.Namespace) -> Reply:
    return (ask if TABLE.limits.approval else promote)(client, name, args)


def ask(client: "MlflowClient", name: str, args: argparse.Namespace) -> Reply:
    from understudy.approval import requests
    from understudy.registry import stages
    from understudy.registry.records import Move
    from understudy.replies import moves, state

    if rows := [option for option in ("data", "labels", "log") if getattr(args, option, None)]:
        problem = f"the gate decides when somebody approves, and --{rows[0]} says on which rows"
        raise UserError(problem, f"leave --{rows[0]} out, and let promote.py approve have it")
    version = stages.choose(client, name, "production", args.version)
    planned = Move("production", version, "production", None, args.reason, args.force, args.breaking, args.rule)
    request = requests.ask(client, name, planned)
    line = f"{name} {requests.described(request) if request else f'version {version} is in Production'}"
    values = {"version": version, "stage": "production", "request": state.of_record(request) if request else None}
    return Reply({"name": name, **moves.NOTHING, **values}, [line])


def approve(client: "MlflowClient", name: str, args: argparse.Namespace) -> Reply:
    from understudy.approval import requests

    planned = requests.approve(client, name, args.version, args.reason)
    rule = cast("Rule", planned.rule)
    terms = f"{rule}{', forced' if planned.forced else ''}{', breaking' if planned.breaking else ''}"
    print(f"{planned.asker} has asked for version {planned.version} by the rule {terms}")
    return move(client, name, args, planned, rule)


def rollback(client: "MlflowClient", name: str, args: argparse.Namespace) -> Reply:
    from understudy.registry import promotion
    from understudy.replies import moves

    def line(record: "SavedRecord") -> str:
        archived = f", version {record.before} is archived" if record.before else ""
        return f"{name} version {record.version} is in Production again{archived}"

    def go_back(judge: "Judge") -> "SavedRecord":
        return promotion.rollback(client, name, args.version, args.reason, judge)

    return moves.reply(name, promotion.scores_a_row(client, name), go_back, line)


def archive(client: "MlflowClient", name: str, args: argparse.Namespace) -> Reply:
    from understudy.registry import promotion

    values = {"name": name, "version": args.version}
    try:
        promotion.archive(client, name, args.version, args.reason)
    except Refused as refused:
        refused.values = values
        raise
    return Reply({**values, "refused": None}, [f"{name} version {args.version} is archived"])


def adopt(client: "MlflowClient", name: str, args: argparse.Namespace) -> Reply:
    from understudy.approval import requests
    from understudy.gate import evidence
    from understudy.registry import promotion, stages
    from understudy.replies import moves

    def line(record: "SavedRecord") -> str:
        place = f"in {stages.STAGES[record.stage]}, with alias, stage and record" if record.stage else "adopted"
        return f"{name} version {record.version} is {place}"

    def take_over(judge: "Judge") -> "SavedRecord":
        return promotion.adopt(client, name, args.version, args.reason, judge, args.force)

    judge = evidence.decide(client, name, "not-worse")
    judge = requests.approved_first(client, name, judge) if TABLE.limits.approval else judge
    return moves.reply(name, judge, take_over, line)


NEEDED = {"approve": ("version", "reason"), "rollback": ("reason",), "archive": ("version",), "adopt": ("reason",)}
ACTIONS = {
    "staging": promote,
    "production": production,
    "approve": approve,
    "rollback": rollback,
    "archive": archive,
    "adopt": adopt,
}

if __name__ == "__main__":
    errors.run(main)
