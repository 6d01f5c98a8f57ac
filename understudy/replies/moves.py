"""What came of a verb that moves a version: the decision with its checks, whether it was carried out or refused."""

import json
from collections.abc import Callable
from typing import Any

from understudy.errors import Refused
from understudy.registry import records
from understudy.registry.promotion import Judge
from understudy.registry.records import Move, SavedRecord, Verdict
from understudy.report import gate_page
from understudy.terminal import Reply

# What a verb answers that has done nothing yet.
NOTHING = dict.fromkeys(("version", "stage", "before", "refused", "request", "record", "gate")) | {"moved": False}


def reply(
    name: str, judge: Judge, move: Callable[[Judge], SavedRecord | None], line: Callable[[Any], str], **known: Any
) -> Reply:
    """Move a version of a registered model, and say what came of it.

    Args:
        name: The registered model's.
        judge: Decides whether it may.
        move: Moves it, and returns the record of that; None if the version is there already.
        line: Says so for people, of the record.
        known: What the answer has where nothing is decided, since the version is there already.

    Raises:
        Refused: It may not; with what is known of that.
    """
    values: dict[str, Any] = {"name": name, **NOTHING, **known}

    def keep(planned: Move) -> Verdict:
        verdict = judge(planned)
        values.update(version=planned.version, stage=planned.stage, before=planned.before)
        values["gate"] = gate(verdict) if verdict.rule else None
        return verdict

    try:
        record = move(keep)
    except Refused as refused:
        refused.values = values
        raise
    if record:
        values |= {"version": record.version, "moved": bool(record.stage), "record": record.run_id}
    return Reply(values, [line(record)])


def gate(verdict: Verdict) -> dict[str, Any]:
    """What the gate has decided and on what, by names that stay the same."""
    told = json.loads(verdict.files.get(records.GATE, "{}"))
    return {
        "allowed": verdict.why is None,
        "why": verdict.why,
        "rule": verdict.rule,
        "against": verdict.against,
        "decided_by": verdict.decided_by,
        "counts": {name.replace(" ", "_"): count for name, count in told.items() if name not in gate_page.DECIDED},
        "checks": told.get("checks", []),
    }
