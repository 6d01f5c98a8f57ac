"""Rows and their answers, kept as Parquet files: `--log FOLDER`; and passed to the shadow before: `--shadow STAGE`.

A worker only puts what it has at hand into a list. A thread passes the list on to a process of its own, which asks the
shadow, makes columns and writes them: `python -m understudy.serving.row_log`, until its standard input ends.
"""

import marshal
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from understudy.schema import logged
from understudy.schema.logged import LoggedAnswer, LoggedVersion
from understudy.scoring.scorer import Answered
from understudy.serving.following import ServedVersion, Settings, tell
from understudy.serving.metrics import DROPPED, LOGGED
from understudy.serving.shadow import BYTES, Shadow

ROWS = 100_000  # that wait at most, and of a file
WAIT = 0.25  # seconds between two lists that are passed on
PAUSE = 1.0  # seconds until a writer that has ended is started again
PART = 60.0  # seconds that rows wait at most for a file
LONG = 20_000  # bytes of a refused request's body from which on the shadow is not asked about it
SHADOW = ("shadow_label", "shadow_probability", "shadow_fault")


class RowLog:
    """What a worker passes rows to; it never waits, and counts the rows that there is no room for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.writer = self._started()
        self._waiting: list[LoggedAnswer] = []
        self._rows = self._bytes = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._pass_on)
        self._thread.start()

    def put(self, loaded: ServedVersion, request: str, scored: Answered) -> None:
        """Keep rows that were accepted; called by the event loop alone."""
        rows: Any = scored.columns
        self._put(
            LoggedAnswer(
                self._version(loaded), time.time(), request, scored.form, rows, scored.ids, scored.probabilities
            )
        )

    def refuse(self, loaded: ServedVersion, request: str, faults: dict[int, str], body: bytes, kind: str) -> None:
        """Keep why rows were refused, by their number, 0 for all of a request's; called by the event loop alone.

        The shadow is asked about a body of this Content-Type, unless it is long.
        """
        is_sent = self._settings.shadow and len(body) <= LONG and self._bytes + len(body) <= BYTES
        self._bytes += len(body) if is_sent else 0
        sent = (body, kind) if is_sent else None
        self._put(LoggedAnswer(self._version(loaded), time.time(), request, faults=faults, sent=sent))

    def _version(self, loaded: ServedVersion) -> tuple[Any, ...]:
        scorer = loaded.scorer
        labels = (scorer.table.negative, scorer.table.positive)
        return (loaded.key.number, self._settings.stage, scorer.threshold, labels, loaded.types)

    def _put(self, answer: LoggedAnswer) -> None:
        if self._rows + answer.size > ROWS:
            DROPPED.inc(answer.size)
            return
        self._rows += answer.size
        self._waiting.append(answer)  # at once, for the other thread exchanges the list

    def close(self) -> None:
        """Pass on what waits, and wait until it is written."""
        self._is_over.set()
        self._thread.join()
        self.writer.wait()

    def _pass_on(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._is_over.wait(WAIT)
            waiting, self._waiting, self._rows, self._bytes = self._waiting, [], 0, 0
            try:
                self._send(waiting)
            except OSError:
                DROPPED.inc(sum(answer.size for answer in waiting))
                if not is_over:
                    self._restart()
        with suppress(OSError):
            self._pipe.close()

    def _restart(self) -> None:
        self._is_over.wait(PAUSE)
        tell("what writes the rows has ended, and is started again")
        with suppress(OSError):
            self._pipe.close()
        self.writer.wait()
        self.writer = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "understudy.serving.row_log"]
        writer = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert writer.stdin is not None  # noqa: S101
        pickle.dump(self._settings, writer.stdin)  # not as arguments: the store's address may hold a password
        return writer

    @property
    def _pipe(self) -> IO[bytes]:
        assert self.writer.stdin is not None  # noqa: S101
        return self.writer.stdin

    def _send(self, waiting: list[LoggedAnswer]) -> None:
        for answer in waiting:  # each by itself, for the other threads have to wait meanwhile
            marshal.dump(tuple(answer), self._pipe)
        marshal.dump(None, self._pipe)  # so that the writer looks at the time even when nothing comes
        self._pipe.flush()


class Parts:
    """The files that one process writes, each of the rows that one version has answered on one day."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answers: list[LoggedAnswer] = []
        self._rows = self._number = 0
        self._since = 0.0  # of the first answer

    def add(self, answer: LoggedAnswer) -> None:
        """Keep an answer, and write all there are when they are enough."""
        self._since = self._since if self._answers else time.monotonic()
        self._answers.append(answer)
        self._rows += answer.size
        if self._rows >= ROWS:
            self.write()

    def tick(self) -> None:
        """Write all answers when it is time."""
        if time.monotonic() - self._since > PART:
            self.write()

    def write(self) -> None:
        """Write all answers; what cannot be written, as on a full disk, is counted and dropped."""
        if not self._answers:
            return
        from pyarrow import ArrowException

        files: dict[tuple[str, str], list[LoggedAnswer]] = defaultdict(list)
        for answer in self._answers:
            day = datetime.fromtimestamp(answer.time, UTC).date().isoformat()
            files[day, answer.version[0]].append(answer)  # versions may have tables of their own
        for (day, _), answers in files.items():
            count = sum(answer.size for answer in answers)
            try:
                self._write(day, answers)
                LOGGED.inc(count)
            except (OSError, ArrowException) as error:
                DROPPED.inc(count)
                tell(f"{count} rows could not be logged: {error}")
        self._answers, self._rows = [], 0

    def close(self) -> None:
        """Write what is left."""
        self.write()

    def _write(self, day: str, answers: list[LoggedAnswer]) -> None:
        from pyarrow import parquet

        self._number += 1
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = self._folder / f"{logged.DAY}={day}" / f"{moment}-{os.getpid()}-{self._number}.parquet"
        path.parent.mkdir(exist_ok=True)
        new = path.with_name(f".{path.name}")  # those who read the folder pass over names with a dot in front
        try:
            parquet.write_table(table(answers), new)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def table(answers: list[LoggedAnswer]) -> Any:
    """The rows of the log that answers of one version make, in Arrow, with the columns that `logged.columns` names."""
    import pyarrow

    version = LoggedVersion(*answers[0].version)
    columns = logged.columns(version.types)
    text, number, moment = pyarrow.string(), pyarrow.float64(), pyarrow.timestamp("us", "UTC")
    schema = pyarrow.schema([(name, text if is_text else number) for name, is_text in columns.items()])
    schema = schema.set(schema.get_field_index(logged.TIME), pyarrow.field(logged.TIME, moment))
    forms: dict[str | None, list[LoggedAnswer]] = defaultdict(list)
    for answer in answers:
        forms[answer.form].append(answer)
    parts = []
    for form, of_form in forms.items():
        cells = {**_common(version, of_form), **(_cells(version.types[form], form, of_form) if form else {})}
        empty = pyarrow.nulls(sum(answer.size for answer in of_form))
        parts.append(
            pyarrow.table(
                [pyarrow.array(cells.get(name, empty), schema.field(name).type) for name in columns], schema=schema
            )
        )
    return pyarrow.concat_tables(parts)


def _common(version: LoggedVersion, answers: list[LoggedAnswer]) -> dict[str, list[Any]]:
    """What the log keeps of every row but its cells, by column."""
    cells: dict[str, list[Any]] = defaultdict(list)
    for answer in answers:
        count, probabilities = answer.size, answer.probabilities
        cells[logged.TIME] += [datetime.fromtimestamp(answer.time, UTC)] * count
        cells["request"] += [answer.request] * count
        cells["id"] += logged.row_ids(answer.ids, answer.request, len(probabilities))
        cells["id"] += [f"{answer.request}:{row}" if row else answer.request for row in answer.faults]
        cells["form"] += [answer.form] * count
        cells["label"] += answer.labels or [None] * count
        cells["probability"] += probabilities or [None] * count
        cells["fault"] += list(answer.faults.values()) or [None] * count
        cells["shadow_version"] += [answer.shadow_version] * count
        for name, part in zip(SHADOW, zip(*answer.outcomes or [(None,) * 3] * count, strict=True), strict=True):
            cells[name] += part
    every = {"version": version.number, "stage": version.stage, "threshold": version.threshold}
    return cells | {name: [value] * len(cells["id"]) for name, value in every.items()}


def _cells(types: dict[str, bool], form: str, answers: list[LoggedAnswer]) -> dict[str, list[Any]]:
    """The cells of rows of a form, by what the log calls their columns."""
    cells: dict[str, list[Any]] = {logged.name(form, column): [] for column in types}
    for answer in answers:
        for column, is_text in types.items():
            given = (answer.rows or {})[column]
            # A whole number that is too long for Arrow was a float to the model.
            numbers = given if is_text else [None if cell is None else float(cell) for cell in given]
            cells[logged.name(form, column)] += numbers
    return cells


def read(pipe: IO[bytes], takers: Sequence[Shadow | Parts]) -> None:
    """Give what a worker passes on to the first taker, until it has no more."""
    while True:
        try:
            passed = marshal.load(pipe)  # noqa: S302
        except EOFError:
            break
        if passed is not None:
            takers[0].add(LoggedAnswer(*passed))
            continue
        for taker in takers:
            taker.tick()
    for taker in takers:
        taker.close()


def main() -> None:
    """Write what a worker passes on, as its first message says."""
    os.umask(0o077)  # these are people's data
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # it ends after the worker, which passes on all it has
    settings = pickle.load(sys.stdin.buffer)  # noqa: S301
    takers: list[Shadow | Parts] = [Parts(settings.log)] if settings.log else []
    if settings.shadow:
        takers.insert(0, Shadow(settings, takers[0].add if takers else lambda answer: None))
    read(sys.stdin.buffer, takers)


if __name__ == "__main__":
    main()
