"""Requests for a move to Production: left by one account, approved by another, and told from the records.

Who is who is the word of a tracking server with accounts. docs/decisions/0026-approval.md says what that stops.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from mlflow import MlflowClient

from understudy.errors import UserError
from understudy.registry import audit, history, promotion, records, registered, stages
from understudy.registry.audit import Finding
from understudy.registry.promotion import Judge
from understudy.registry.records import Move, Record, SavedRecord, Verdict
from understudy.tracking import connection, naming


def ask(client: MlflowClient, name: str, planned: Move) -> SavedRecord | None:
    """Leave a request for a move to Production; returns the request, or the open one if that asks for the same.

    None if the version is in Production already.

    Raises:
        UserError: The server cannot tell who asks, or the version was never in Staging and is not forced.
    """
    account = _account()
    audit.recover(client, name)
    if stages.aliases(client, name).get("production") == planned.version:
        return None
    promotion.check_was_staged(client, name, planned)
    for request in waiting(records.find(client, name)):
        if _terms(request) == _terms(planned):
            return request
    rule, forced, breaking = planned.rule, planned.forced, planned.breaking
    asked = Record(records.REQUEST, planned.version, None, None, planned.reason, forced, breaking, who=account)
    return records.close(client, name, records.start(client, name, asked, Verdict(rule=rule)), records.COMPLETED)


def _terms(asked: Record) -> tuple[object, ...]:
    return asked.version, asked.rule, asked.forced, asked.breaking


def approve(client: MlflowClient, name: str, version: str, reason: str) -> Move:
    """The move that the newest open request of a version asks for; its rule is the one to judge it by.

    Raises:
        UserError: The server cannot tell who approves, nobody has asked, or the same account has.
    """
    account = _account()
    audit.recover(client, name)
    registered.get_version(client, name, version)
    requests = {request.version: request for request in waiting(records.find(client, name))}
    if (request := requests.get(version)) is None:
        problem = f"nobody asks for version {version} of {name} to go to Production"
        raise UserError(problem, f"python promote.py production --version {version}{naming.option(name)}")
    if request.who == account:
        problem = f"{account} has asked for version {version} of {name}, and another account has to approve it"
        raise UserError(problem, "let somebody else do that, with an account of their own")
    move = Move("production", version, "production", None, reason, request.forced, request.breaking, request.rule)
    return replace(move, who=account, request=request.run_id, asker=request.who)


def _account() -> str:
    account = connection.account()
    if account is None:
        place = f"the server at {naming.uri()}" if connection.is_server() else "a store without a server"
        problem = f"a second person has to approve what goes to Production, and {place} cannot tell who is who"
        fix = "use a server with accounts, see docs/operations.md, or take approval out of the limits of the table"
        raise UserError(problem, fix)
    return account


def waiting(known: Sequence[SavedRecord]) -> list[SavedRecord]:
    """The newest request of each version of this registered model that nothing has answered yet, in their order.

    A move of the version to Production answers it, completed or refused, and so does archiving the version.

    Args:
        known: All records, in their order.
    """
    requests: dict[str | None, SavedRecord] = {}
    closed = {record.request for record in known if record.action == records.REPAIR}
    for record in known:
        if record.is_earlier or record.outcome in (None, records.ABANDONED):
            continue
        if record.action in (records.REQUEST, records.ARCHIVE) or record.stage == "production":
            requests.pop(record.version, None)
        if record.action == records.REQUEST and record.run_id not in closed:
            requests[record.version] = record
    return [*requests.values()]


def described(request: SavedRecord) -> str:
    """An open request, for people."""
    asked = history.clock(request.time or request.opened)
    return f"version {request.version} waits for a second person to approve it: {request.who} asked at {asked}"


def approved_first(client: MlflowClient, name: str, judge: Judge) -> Judge:
    """A judge of what was done by hand that lets nothing stay in Production.

    Raises:
        UserError: By what is returned: the version would stay there.
    """

    def judge_others(planned: Move) -> Verdict:
        if planned.stage != "production":
            return judge(planned)
        is_named = stages.aliases(client, name).get("production") == planned.version
        undo = 'rollback --reason "..."' if is_named else "check --repair"
        commands = [undo, f"production --version {planned.version}"]
        problem = f"version {planned.version} of {name} goes to Production only if a second person approves it"
        raise UserError(problem, "; ".join(f"python promote.py {verb}{naming.option(name)}" for verb in commands))

    return judge_others


def findings(known: Sequence[SavedRecord], name: str, versions: Collection[str], is_needed: bool) -> list[Finding]:
    """Requests for versions that are gone, and a move in Production that needed an approval and has none.

    Args:
        known: All records, in their order.
        name: The registered model's.
        versions: The numbers of those that are there.
        is_needed: Whether a second person has to approve what goes to Production.
    """
    repair = audit.repair_command(name)
    wrong = [
        Finding(f"version {request.version}, which {request.who} has asked for, is deleted", repair)
        for request in waiting(known)
        if request.version not in versions
    ]
    if is_needed and (move := _unapproved(known)):
        what = f"{move.who} has put version {move.version} into Production, and no second person has approved it"
        wrong.append(Finding(what, f'python promote.py rollback --reason "..."{naming.option(name)}, then ask for it'))
    return wrong


def _unapproved(known: Sequence[SavedRecord]) -> SavedRecord | None:
    """The move that put the version in Production there, if it needed an approval and the records show none.

    It is needed from the first request on. A rollback needs none of its own, only its version had to come by a move.
    """
    requests = [record for record in history.completed(known) if record.action == records.REQUEST]
    moves = history.production_moves(known)
    since = history.production_moves(known[known.index(requests[0]) :] if requests else ())
    if not since:
        return None
    put = [move for move in moves if move.version == since[-1].version and move.action != records.ROLLBACK]
    last = put[-1] if put else since[-1]
    asked = {request.run_id: request for request in requests}.get(str(last.request))
    is_approved = asked and asked.version == last.version and asked.who != last.who
    return None if is_approved or last not in since else last


def close_gone(client: MlflowClient, name: str) -> list[str]:
    """Close the requests for versions that are gone, each with a record; returns what was done, for people."""
    versions = {str(version.version) for version in registered.versions(client, name)}
    done = []
    for request in waiting(records.find(client, name)):
        if request.version not in versions:
            reason = f"version {request.version}, which {request.who} had asked for, is deleted"
            closing = Record(records.REPAIR, reason=reason, request=request.run_id)
            records.close(client, name, records.start(client, name, closing, Verdict()), records.COMPLETED)
            done.append(f"closed a request: {reason}")
    return done
