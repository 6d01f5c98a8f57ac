"""Watches a version on probation until it has stood, has gone back, or is no longer in Production.

All that it goes by is in the records, the row log and the live server's counts, so it may be ended at any time, and
started again it goes on.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import dropwhile
from pathlib import Path

from mlflow import MlflowClient, MlflowException

from understudy import errors
from understudy.errors import Refused, UserError
from understudy.probation import looks, trials
from understudy.probation.counts import ServerAway, ServerCounts
from understudy.probation.evidence import LogEvidence, ServerEvidence
from understudy.probation.looks import Sign
from understudy.probation.pair import Pair
from understudy.probation.trials import Trial
from understudy.registry import audit, promotion, records, registered, stages
from understudy.registry.records import Move, Record, Verdict
from understudy.schema.limits import Limits, Probation
from understudy.tracking import connection, naming, waiting

EVERY = 10.0  # seconds between two looks at the alias, the live server and the log
TELL = 60.0  # seconds between two lines that say how far it is, and two marks that say that it is watched
BEFORE = timedelta(days=7)  # of the log of the version before that count


def watch(client: MlflowClient, name: str, trial: Trial, limits: Limits, server: str, log: Path | None) -> str:
    """Watch a version until its probation is over, with lines for people; returns how it has ended, see `trials`.

    Args:
        client: Of the store, with an account that may promote.
        name: The registered model's.
        trial: The version.
        limits: How long it is watched, and what it is held against.
        server: The live server's address.
        log: The folder of its row log; None to go by its counts alone.

    Raises:
        UserError: A version's files are not what was registered, there is no such log, or the server is another's.
    """
    watcher = Watcher(client, name, trial, limits, server, log)
    while (outcome := watcher.step()) is None:
        time.sleep(EVERY)
    return outcome


class Watcher:
    """Watches as `watch` does, one step after the other."""

    def __init__(
        self, client: MlflowClient, name: str, trial: Trial, limits: Limits, server: str, log: Path | None
    ) -> None:
        self._client, self._name, self._trial = client, name, trial
        self._probation = limits.probation or Probation()
        versions = (trial.version, trial.before)
        counts = ServerCounts(server, name, versions, limits.milliseconds, trial.is_again)
        self._server = ServerEvidence(counts, limits.milliseconds)
        self._log = self._evidence(log) if log else None
        self._told, self._told_at, self._is_going_back = "", -TELL, False
        trials.mark(client, trial)  # fails for whom may not promote, and step would wait
        self._marked_at = time.monotonic()

    def _evidence(self, folder: Path) -> LogEvidence:
        trial, shift = self._trial, self._probation.shift
        made = registered.get_version(self._client, self._name, trial.before).creation_timestamp
        since = max(trial.since - BEFORE, datetime.fromtimestamp(made / 1000, UTC))
        pair = Pair(self._client, self._name, trial.version, trial.before)
        return LogEvidence(folder, trial.since, since, pair, shift)

    def step(self) -> str | None:
        """Look once at everything, and do what follows; returns how the probation has ended once it is over."""
        try:
            current = stages.aliases(self._client, self._name).get("production")
            if current != self._trial.version:
                return self._end(current)
            if time.monotonic() - self._marked_at >= TELL:
                trials.mark(self._client, self._trial)
                self._marked_at = time.monotonic()
            return self._judge()
        except MlflowException as error:
            mistake = errors.known(error)
            if not (mistake or waiting.is_undone(error) or error.error_code == connection.DATABASE_AWAY):
                raise
            self._wait(mistake.problem if mistake else "the tracking store is busy or away")
            return None

    def _judge(self) -> str | None:
        """Go back, record that the version has stood, or tell how far it is."""
        minutes = (datetime.now(UTC) - self._trial.since) / timedelta(minutes=1)
        away, evidence = None, [each for each in (self._log, self._server) if each]
        try:
            for each in evidence:
                each.read()
        except ServerAway as error:
            away = str(error)
        rows = evidence[0].rows
        is_over = minutes >= self._probation.minutes and rows >= self._probation.rows and not away
        for each in evidence:
            each.look(is_over)
        signs = [sign for each in evidence for sign in each.signs]
        figures = {"minutes": minutes, "rows": float(rows)}
        figures |= {naming.metric(figure): value for sign in signs for figure, value in sign.figures.items()}
        if looks.is_bad(signs):
            return self._go_back([sign for sign in signs if sign.is_bad], figures)
        if is_over:
            return self._stand(signs, figures)
        if away:
            self._wait(away)
        else:
            self._tell_how_far(minutes, rows, signs)
        return None

    def _go_back(self, bad: Sequence[Sign], figures: Mapping[str, float]) -> str | None:
        """Bring back the version before, unless somebody has moved the alias meanwhile."""
        client, name, trial = self._client, self._name, self._trial
        verify = promotion.scores_a_row(client, name)

        def judge(planned: Move) -> Verdict:
            if planned.before != trial.version:
                raise Refused("somebody has moved the alias meanwhile")
            return replace(verify(planned), metrics=figures)

        self._is_going_back = True
        try:
            promotion.rollback(client, name, trial.before, _reason(bad), judge, records.PROBATION)
        except (Refused, UserError):
            if stages.aliases(client, name).get("production") == trial.version:
                raise
            self._is_going_back = False
            return None
        for sign in bad:
            self._print(sign.text)
        return self._end(trial.before)

    def _end(self, current: str | None) -> str:
        """Tell which version is in Production now, and why, since the one on probation is not."""
        if self._is_going_back and current == self._trial.before:
            self._print(
                f"{self._name} version {current} is in Production again, version {self._trial.version} is archived"
            )
            return trials.GONE_BACK
        decisions = records.find(self._client, self._name)
        later = [*dropwhile(lambda record: record.run_id != self._trial.move, decisions)][1:]
        moves = [record for record in later if (record.stage, record.version) == ("production", current)]
        why = records.sentence(moves[-1]) if moves else "no record says why"
        over = f"{registered.called(current)} is in Production now: the probation of {self._called} is over"
        self._print(f"{over} ({why})")
        is_back = bool(moves) and moves[-1].action == records.ROLLBACK
        return trials.GONE_BACK if is_back else trials.REPLACED

    def _stand(self, signs: Sequence[Sign], figures: Mapping[str, float]) -> str:
        reason = f"{figures['minutes']:,.0f} minutes, {figures['rows']:,.0f} rows; {_reason(signs)}"
        planned = Record(records.PROBATION, self._trial.version, reason=reason, by=records.PROBATION)
        audit.recover(self._client, self._name)
        record = records.start(self._client, self._name, planned, Verdict(metrics=figures))
        records.close(self._client, self._name, record, records.COMPLETED)
        self._print(f"{self._called} has stood its probation: {reason}")
        return trials.STOOD

    def _tell_how_far(self, minutes: float, rows: int, signs: Sequence[Sign]) -> None:
        if time.monotonic() - self._told_at >= TELL or self._told:
            far = f"{minutes:,.0f} of {self._probation.minutes:g} minutes, {rows:,} of {self._probation.rows:,} rows"
            self._print("; ".join([f"{self._called}: {far}", *(sign.text for sign in signs)]))
            self._told, self._told_at = "", time.monotonic()

    def _wait(self, why: str) -> None:
        """Say once that nothing can be told now."""
        if why != self._told:
            self._print(f"waiting: {why}")
        self._told = why

    @property
    def _called(self) -> str:
        return f"{self._name} version {self._trial.version}"

    def _print(self, line: str) -> None:
        print(errors.visible(line), flush=True)


def _reason(signs: Sequence[Sign]) -> str:
    return "; ".join(sign.text for sign in signs)
