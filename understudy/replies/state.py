"""What is in which stage, what happened until now, and what of it does not fit together."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from understudy import errors
from understudy.approval import requests
from understudy.errors import UserError
from understudy.figures import cards
from understudy.gate import budget
from understudy.probation import trials
from understudy.registry import audit, history, records, registered, stages
from understudy.registry.records import SavedRecord
from understudy.schema.declaration import Table
from understudy.terminal import Reply, utc
from understudy.tracking import naming

RECORDS = 20  # that are shown, the latest ones
# Parts of a record that `of_record` leaves out, or has under another name or in another form.
HIDDEN = ("run_id", "opened", "time", "figures", "model", "rows", "is_left")


def show(client: MlflowClient, name: str, table: Table, version: str | None, at: str | None) -> Reply:
    """What is where and what happened; or what is known of a version, or of a time."""
    decisions, aliases = records.find(client, name, latest=RECORDS), stages.aliases(client, name)
    moved = {record.stage for record in history.completed(decisions)}
    is_partial = table.limits.approval or history.aliases(decisions) != aliases or not moved >= stages.STAGES.keys()
    if at or version or is_partial:
        decisions = records.find(client, name)  # a thousand take seconds to read
    following = next_command(client, name, table)
    if at:
        when = history.milliseconds(at)
        text = history.describe_at(decisions, when, aliases)
        of_then = {"at": utc(when), "version": history.champion_at(decisions, when), "text": text}
        return Reply({"name": name, **of_then}, [f"in Production at {at}: {text}"], following)
    if version:
        return _of_version(client, name, version, decisions, following)
    recorded, waiting = history.aliases(decisions), requests.waiting(decisions)
    versions = registered.versions(client, name)
    newest = str(versions[-1].version) if versions else None
    lines = []
    for alias, stage in stages.STAGES.items():
        current, expected = aliases.get(alias), recorded.get(alias)
        differs = f" (the records say {registered.called(expected)}: python promote.py check{naming.option(name)})"
        lines += [f"{stage}: {f'version {current}' if current else 'empty'}{differs if expected != current else ''}"]
    lines += [f"newest: {registered.called(newest)}", *(f"request: {requests.described(each)}" for each in waiting)]
    decisions = decisions[-RECORDS:]
    values: dict[str, Any] = {
        "stages": {alias: {"version": aliases.get(alias), "recorded": recorded.get(alias)} for alias in stages.STAGES},
        "newest": newest,
        "requests": [of_record(request) for request in waiting],
        "records": [of_record(record) for record in decisions],
    }
    return Reply({"name": name, **values}, [*lines, *history.story(decisions)], following)


def card(client: MlflowClient, name: str, table: Table, version: str | None) -> Reply:
    """The model card of a version, of the newest for None."""
    described = registered.with_card(client, name, version)
    text = str(described.description)
    values = {"name": name, "version": str(described.version), "card": text}
    lines = [errors.visible(line) for line in text.splitlines()]
    return Reply(values, lines, next_command(client, name, table))


def _of_version(
    client: MlflowClient, name: str, version: str, decisions: Sequence[SavedRecord], following: str
) -> Reply:
    lineage = history.lineage(client, name, version)
    lines = [f"{label}: {value}" for label, value in lineage.items()]
    decisions = [record for record in decisions if version in (record.version, record.before)][-RECORDS:]
    for record, line in zip(decisions, history.story(decisions), strict=True):
        lines += [line]
        headline = cards.headline(record.figures) if record.version == version else {}
        lines += [errors.visible(f"    {figure}: {value}") for figure, value in headline.items()]
    known = {label.replace(" ", "_"): value for label, value in lineage.items()}
    values = {"version": version, "lineage": known, "records": [of_record(record) for record in decisions]}
    return Reply({"name": name, **values}, lines, following)


def of_record(record: SavedRecord) -> dict[str, Any]:
    """A record as programs read it."""
    values = {key: value for key, value in asdict(record).items() if key not in HIDDEN}
    figures = {name: cards.named(figure) for name, figure in cards.figures(record.figures).items()}
    return {"time": utc(record.time or record.opened), **values, "run": record.run_id, "figures": figures}


def check(client: MlflowClient, name: str, table: Table, is_repair: bool) -> Reply:
    """What does not fit together, after what needs no judgement is mended if that is asked."""
    mended = [*requests.close_gone(client, name), *audit.repair(client, name)] if is_repair else []
    limits, log = table.limits, Path(table.live.log) if table.live.log else None
    findings, decisions = audit.findings(client, name, limits.approval), []
    with suppress(UserError):  # it is among the findings
        decisions = records.find(client, name)
    numbers = [str(version.version) for version in registered.versions(client, name)]
    findings += requests.findings(decisions, name, numbers, limits.approval)
    probation, left, waiting = None, None, requests.waiting(decisions)
    if limits.probation and "production" in stages.aliases(client, name):
        probation, wrong = trials.described(client, name, limits.probation, log)
        findings += wrong
    if numbers:
        left = budget.left(client, name, numbers[-1])
    lines = [f"mended: {each}" for each in mended] + ([f"probation: {probation}"] if probation else [])
    lines += [str(finding) for finding in findings] + [f"request: {requests.described(each)}" for each in waiting]
    lines += [f"budget: {left}"] if left else []
    found, colour = (f"{len(findings)} found", errors.RED) if findings else ("all is well", errors.GREEN)
    lines += [f"{name}: {errors.painted(found, colour)}"]
    values = {
        "name": name,
        "findings": [asdict(finding) for finding in findings],
        "mended": mended,
        "requests": [of_record(request) for request in waiting],
        "probation": probation,
        "budget": left,
    }
    repair, fixes = audit.repair_command(name), [finding.fix for finding in findings]
    fix = repair if any(repair in fix for fix in fixes) else next(iter(fixes), None)
    return Reply(values, lines, fix or next_command(client, name, table), 4 if fix else 0)


def next_command(client: MlflowClient, name: str, table: Table) -> str:
    """The command that follows on what is in which stage now."""
    aliases = stages.aliases(client, name)
    versions = {str(version.version): version for version in registered.versions(client, name)}
    if any(audit.staged_otherwise(name, aliases, versions)):
        verb = "python promote.py check"
    elif table.limits.approval and (waiting := requests.waiting(records.find(client, name))):
        verb = f'python promote.py approve {waiting[-1].version} --reason "..."'
    elif "production" in aliases and "staging" not in aliases:
        verb = "./serve.sh"
    else:
        verb = f"python promote.py {'production' if 'staging' in aliases else 'staging'}"
    return f"{verb}{naming.option(name)}"
