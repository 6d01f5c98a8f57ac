"""The shadow: what the version in another stage would have answered, found out off the answers' way.

What writes the row log puts rows in here, and gets them back with the shadow's answers. A process of its own gives
those: `python -m understudy.serving.shadow CACHE NUMBER DIGEST`, until its standard input ends. It may crash, hang or
eat memory: it is ended then, and started again a minute later; meanwhile the rows go on without it.
"""

import marshal
import math
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, TypeAlias

from understudy.schema.logged import Cause, LoggedAnswer, Outcome, first_causes
from understudy.scoring.forms import RowsRefused
from understudy.scoring.scorer import LABEL, OUTPUTS, Answered
from understudy.serving import metrics
from understudy.serving.following import ServedVersion, Settings, ShadowFollower, load, tell
from understudy.serving.request import asked
from understudy.verification.version_cache import VersionCache, VersionKey

LIMIT = 20.0  # seconds to load in, and to answer in
ALARM = LIMIT + 5  # seconds until it ends by itself, if nobody is left who would end it
PAUSE = 60.0  # seconds until a shadow that has failed is started again
MEMORY = 500_000_000  # bytes that it may take besides what it takes when it is loaded
ROWS = 100_000  # that wait for it at most
BYTES = 8_000_000  # of refused requests that wait for it at most
END = 2.0  # seconds for the rows that are left when the server is stopped
NICE = 19  # all else on the machine comes before it

Rows: TypeAlias = dict[str, list[Any]]
# Columns of accepted rows; or a refused body, its Content-Type, and the numbers of the refused rows, 0 for all of them.
Question: TypeAlias = Rows | tuple[bytes, str, list[int]]
Reply: TypeAlias = list[Outcome]


class ShadowFailed(Exception):  # noqa: N818
    """The shadow will not reply; the text says why: "crash", "hang" or "memory"."""


class ShadowProcess:
    """The process that answers for a version, and a thread that waits for it; at first it is asked nothing, to load."""

    def __init__(self, cache: VersionCache, key: VersionKey) -> None:
        self.key = key
        command = [sys.executable, "-m", "understudy.serving.shadow", str(cache.folder), key.number, key.digest]
        # Each process that counts leaves files behind; this one may be started often, and counts nothing.
        env = {name: value for name, value in os.environ.items() if name != metrics.FOLDER}
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._thread = ThreadPoolExecutor(1)
        self._loaded: int | None = None  # bytes
        self.ask([])

    def ask(self, questions: list[Question]) -> None:
        """Let it answer; `replied` tells when it has."""
        self._since = time.monotonic()
        self._replied: Future[list[Reply]] | None = self._thread.submit(self._replies, questions)

    def replied(self) -> list[Reply] | None:
        """What it has replied since the last call; None if it is still at it.

        Raises:
            ShadowFailed: It never will.
        """
        if self._replied is None:
            return []
        if not self._replied.done():
            if self._memory() > (self._loaded or math.inf) + MEMORY:
                raise ShadowFailed("memory")
            if time.monotonic() > self._since + LIMIT:
                raise ShadowFailed("hang")
            return None
        try:
            replies = self._replied.result()
        except (OSError, EOFError):
            raise ShadowFailed("crash") from None
        self._replied, self._loaded = None, self._loaded or self._memory()
        return replies

    def end(self) -> int:
        """End it, whatever it does; returns its exit code."""
        self._process.kill()
        self._thread.shutdown()
        with suppress(OSError), self._process:
            pass
        return self._process.returncode

    def _replies(self, questions: list[Question]) -> list[Reply]:
        pipes: Any = self._process
        pipes.stdin.write(marshal.dumps(questions))
        pipes.stdin.flush()
        replies: list[Reply] = marshal.load(pipes.stdout)  # noqa: S302
        self.seconds = time.monotonic() - self._since
        return replies

    def _memory(self) -> int:
        import psutil  # which the workers, who import this module too, do without

        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:  # it has just ended
            return 0


class Shadow:
    """Takes rows and what was answered, and passes them on, with the shadow's answers if it gives any in time."""

    def __init__(self, settings: Settings, pass_on: Callable[[LoggedAnswer], None]) -> None:
        self._pass_on = pass_on
        self._tally = metrics.ShadowTally()
        self._waiting: list[LoggedAnswer] = []
        self._asked: list[LoggedAnswer] = []
        self._rows = self._bytes = 0  # that wait; bytes of refused requests
        self._process: ShadowProcess | None = None
        self._failed: tuple[VersionKey | None, float] = (None, 0.0)  # the version that failed last, and when
        self._follower = ShadowFollower(settings)
        self._follower.start()

    def add(self, answer: LoggedAnswer) -> None:
        """Take the rows of a request."""
        size = len(answer.sent[0]) if answer.sent else 0
        is_asked = answer.sent or not answer.faults
        if not is_asked or self._rows + answer.size > ROWS or self._bytes + size > BYTES:
            self._go_on_without([answer])
            return
        self._waiting.append(answer)
        self._rows += answer.size
        self._bytes += size

    def tick(self) -> None:
        """See what the shadow has replied, and ask it about the rows that wait; called again and again, never waits."""
        if self._process and self._is_busy(self._process):
            return
        key, (failed, since) = self._follower.key, self._failed
        if self._process and self._process.key != key:
            self._process.end()
            self._process = None
        if self._process and self._waiting:
            self._asked, self._waiting = self._waiting, []
            self._rows = self._bytes = 0
            self._process.ask([question(answer) for answer in self._asked])
        if self._process is None and (key != failed or time.monotonic() > since + PAUSE):
            with suppress(OSError):  # where the system has no room for a process; tried again soon
                self._process = ShadowProcess(self._follower.cache, key) if key else None
        if self._process is None:
            self._give_up()

    def close(self) -> None:
        """Pass on all rows that are left, and end."""
        deadline = time.monotonic() + END
        while (self._waiting or self._asked) and time.monotonic() < deadline:
            self.tick()
            time.sleep(0.01)
        if self._process:
            self._process.end()
        self._give_up()

    def _is_busy(self, process: ShadowProcess) -> bool:
        """Whether it has not replied yet. If it has, its rows are passed on, and if it never will, too."""
        try:
            replies = process.replied()
        except ShadowFailed as failure:
            self._fail(process, str(failure))
            return False
        if replies is None:
            return True
        for answer, reply in zip(self._asked, replies, strict=True):
            answer = answer._replace(sent=None, shadow_version=process.key.number, outcomes=reply)
            self._tally.compare(answer)
            self._pass_on(answer)
        if self._asked:
            self._tally.flush(process.seconds)
        self._asked = []
        return False

    def _fail(self, process: ShadowProcess, reason: str) -> None:
        code = process.end()
        self._process, self._failed = None, (process.key, time.monotonic())
        metrics.SHADOW_ERRORS.labels(reason).inc()
        tell(f"the shadow has failed ({reason}, exit code {code}), and is started again after {PAUSE:.0f} seconds")
        self._go_on_without(self._asked)
        self._asked = []

    def _give_up(self) -> None:
        self._go_on_without(self._asked + self._waiting)
        self._asked, self._waiting = [], []
        self._rows = self._bytes = 0

    def _go_on_without(self, answers: list[LoggedAnswer]) -> None:
        """Pass rows on without the shadow's answers, and count them if there is a version that could give some."""
        if self._follower.key:
            metrics.SHADOW_MISSED.inc(sum(answer.size for answer in answers))
        for answer in answers:
            self._pass_on(answer._replace(sent=None))


def question(answer: LoggedAnswer) -> Question:
    """What the shadow is asked about an answer."""
    return (*answer.sent, list(answer.faults)) if answer.sent else answer.rows or {}


def replies_to(questions: Sequence[Question], loaded: ServedVersion) -> list[Reply]:
    """What a version replies; rows of the same columns are scored together."""
    replies: list[Reply] = [[]] * len(questions)
    alike: dict[tuple[str, ...], list[tuple[int, Rows]]] = defaultdict(list)
    for place, question in enumerate(questions):
        if isinstance(question, dict):
            alike[tuple(question)].append((place, question))
        else:
            replies[place] = reply_to_refused(*question, loaded)
    for names, placed in alike.items():
        rows = {name: list(chain.from_iterable(rows[name] for _, rows in placed)) for name in names}
        outcomes = iter(score(rows, len(rows[names[0]]), loaded))
        for place, part in placed:
            replies[place] = list(islice(outcomes, len(part[names[0]])))
    return replies


def score(rows: Rows, count: int, loaded: ServedVersion) -> Reply:
    """What a version says of so many rows; it scores those that it does not refuse."""
    try:
        return scored(loaded.scorer.answer(rows, LABEL, ""))
    except RowsRefused as refused:
        causes = causes_of(refused, loaded)
    outcomes: Reply = [(None, None, causes.get(row, causes.get(0))) for row in range(1, count + 1)]
    left = [place for place, (_, _, fault) in enumerate(outcomes) if fault is None]
    if left:
        others = score({name: [cells[place] for place in left] for name, cells in rows.items()}, len(left), loaded)
        for place, outcome in zip(left, others, strict=True):
            outcomes[place] = outcome
    return outcomes


def reply_to_refused(body: bytes, content_type: str, refused_rows: list[int], loaded: ServedVersion) -> Reply:
    """What a version says of the rows that another one has refused in a body; it scores none if it refuses some too."""
    try:
        rows, output, ids = asked(body, content_type, loaded.scorer)
        outcomes = scored(loaded.scorer.answer(rows, LABEL if output in OUTPUTS else output, "", None, ids))
    except RowsRefused as refused:
        causes = causes_of(refused, loaded)
        return [(None, None, causes.get(row, causes.get(0)) if row else causes[min(causes)]) for row in refused_rows]
    of_all = outcomes[0] if len(outcomes) == 1 else (None, None, None)
    return [outcomes[row - 1] if row else of_all for row in refused_rows]


def scored(rows: Answered) -> Reply:
    """The outcomes of rows that were answered with labels."""
    return [(label, number, None) for label, number in zip(rows.predictions, rows.probabilities, strict=True)]


def causes_of(refused: RowsRefused, loaded: ServedVersion) -> dict[int, str]:
    """For each row that a version refuses, 0 for all rows, why it does."""
    return first_causes(Cause.of(fault, loaded.scorer.table) for fault in refused.faults)


def serve(questions: IO[bytes], answers: IO[bytes], loaded: ServedVersion) -> None:
    """Reply to each batch of questions, until there are no more."""
    while True:
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            batch = marshal.load(questions)  # noqa: S302
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, ALARM)
        answers.write(marshal.dumps(replies_to(batch, loaded)))
        answers.flush()


def main() -> None:
    """Load a version that a cache holds, and serve."""
    folder, number, digest = sys.argv[1:]
    signal.setitimer(signal.ITIMER_REAL, ALARM)
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)  # it ends with what has started it
    with suppress(OSError):  # on Linux: where memory is short, this process ends first
        Path("/proc/self/oom_score_adj").write_text("1000")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a model's library may print
    cache, key = VersionCache(Path(folder)), VersionKey(number, digest)
    if not cache.holds(key):
        sys.exit(f"version {number} is not in {folder} as it was registered")
    loaded = load(key, cache.files(key))
    os.nice(NICE)  # not before, or on a busy machine it would not be loaded in time
    serve(sys.stdin.buffer, answers, loaded)


if __name__ == "__main__":
    main()
