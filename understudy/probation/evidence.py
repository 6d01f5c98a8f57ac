"""What speaks against a version on probation: the signs that the live server's counts and its row log show."""

import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from understudy.probation import counts, looks
from understudy.probation.counts import LoggedRequests, Served, ServerCounts
from understudy.probation.looks import Share, Sign
from understudy.probation.pair import Pair
from understudy.schema import logged


class ServerEvidence:
    """Signs in what the live server counts: answers with 5xx, and slow ones.

    Args:
        counts: What it counts of both versions.
        milliseconds: That an answer may take.
    """

    def __init__(self, counts: ServerCounts, milliseconds: float) -> None:
        self._counts, self._milliseconds, self._made = counts, milliseconds, 0
        self._now = self._before = Served()
        self.signs: list[Sign] = []

    @property
    def rows(self) -> int:
        """How many rows the version has scored."""
        return self._now.rows

    def read(self) -> None:
        """Take in what was counted until now. Raises `ServerAway`."""
        self._now, self._before = self._counts.read()

    def look(self, is_last: bool) -> None:
        """Look if there are enough requests for another look, or for the last time; what was bad once stays so."""
        if looks.is_bad(self.signs):
            return
        now, before = self._now, self._before
        number = max(looks.number(now.requests), self._made) + is_last
        if now.requests and number > self._made:
            self._made = number
            failed, failed_before = (Share(of.failed, of.requests) for of in (now, before))
            slow, slow_before = (Share(of.slow, of.requests) for of in (now, before))
            late = looks.share(looks.SLOW, slow, slow_before, number)
            self.signs = [looks.share(looks.FAILED, failed, failed_before, number), self._by_its_bound(late)]

    def _by_its_bound(self, late: Sign) -> Sign:
        """The sign of slow answers, which says above what they count where that is not the limit."""
        above, limit = self._counts.above, self._milliseconds
        if above == limit:
            return late
        if math.isinf(above):
            return Sign(f"slow: the live server does not tell answers above {limit:,g} ms from others", False)
        return replace(late, text=f"{late.text} (above {above:,g} ms)")


class LogEvidence:
    """Signs in the row log: refused requests, and shifted scores.

    Each look is at the first requests, so it does not matter when it is made, but for what is logged a minute late.

    Args:
        folder: Of the log.
        since: When the version on probation went to Production.
        since_before: From when on requests of the version before count.
        pair: Both versions.
        shift: How far the mean probability may be from what is expected.
    """

    def __init__(self, folder: Path, since: datetime, since_before: datetime, pair: Pair, shift: float) -> None:
        self._folder, self._since, self._since_before = folder, since, since_before
        self._pair, self._shift = pair, shift
        self._requests, self._made = LoggedRequests.of([]), 0
        self.signs: list[Sign] = []

    @property
    def rows(self) -> int:
        """How many rows the version was asked."""
        return int(self._requests.rows.sum())

    def read(self) -> None:
        """Take in what was logged until now."""
        self._requests = counts.logged_requests(self._folder, self._pair.version, self._since)

    def look(self, is_last: bool) -> None:
        """Make the looks for which there are enough requests, up to the first that shows misbehaviour, which stays."""
        if looks.is_bad(self.signs):
            return
        total = len(self._requests.rows)
        sizes = {number: looks.size(number) for number in range(self._made + 1, looks.number(total) + 1)}
        if is_last and total:
            sizes[max(looks.number(total), self._made) + 1] = total
        apart = self._pair.logged(self._folder, self._since) if sizes and self._pair.is_comparable else None
        for number, size in sizes.items():
            self._made, self.signs = number, [self._refused(number, size)]
            if apart is not None:
                first = apart[apart[logged.TIME] <= self._requests.rows.index[size - 1][0]]
                of_request = first.groupby(counts.OF_A_REQUEST).ngroup().to_numpy()
                differences = first["difference"].to_numpy()
                self.signs += [looks.scores(differences, of_request, self._pair.held_out, self._shift, number)]
            else:
                self.signs += [Sign("scores: the version before cannot score these rows", False)]
            if looks.is_bad(self.signs):
                return

    def _refused(self, number: int, size: int) -> Sign:
        refused = self._requests.refused(size)
        if self._pair.breaking:
            # Read again each time, for its last requests are logged a minute late.
            before = counts.logged_requests(self._folder, self._pair.before, self._since_before).refused()
            return looks.share(looks.REFUSED, refused, before, number)
        return Sign(f"refused: {refused}{', as the version before would have' if refused.wrong else ''}", False)
