"""Accepted rows and their answers, kept as Parquet files: `--log FOLDER`.

A worker only puts what it has at hand into a list. A thread passes the list on to a process of its own, which makes
columns of it and writes them: `python -m understudy.serving.row_log FOLDER`, until its standard input ends.
"""

import marshal
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from understudy.serving.following import ServedVersion, tell
from understudy.serving.metrics import DROPPED, LOGGED

ROWS = 100_000  # that wait at most, and of a file
WAIT = 0.25  # seconds between two lists that are passed on
PAUSE = 1.0  # seconds until a writer that has ended is started again
PART = 60.0  # seconds that rows wait at most for a file


class LoggedAnswer(NamedTuple):
    """Rows that were accepted, as columns, and what was answered when by which version."""

    time: float
    version: str
    types: dict[str, dict[str, bool]]
    form: str
    rows: dict[str, list[Any]]
    output: str
    predictions: list[Any]


class RowLog:
    """What a worker passes rows to; it never waits, and counts the rows that there is no room for."""

    def __init__(self, folder: Path) -> None:
        self._command = [sys.executable, "-m", "understudy.serving.row_log", str(folder)]
        self.writer = subprocess.Popen(self._command, stdin=subprocess.PIPE)
        self._waiting: list[LoggedAnswer] = []
        self._rows = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._pass_on)
        self._thread.start()

    def put(self, loaded: ServedVersion, form: str, rows: Any, output: str, predictions: list[Any]) -> None:
        """Keep rows; called by the event loop alone."""
        if self._rows + len(predictions) > ROWS:
            DROPPED.inc(len(predictions))
            return
        self._rows += len(predictions)
        answer = LoggedAnswer(time.time(), loaded.key.number, loaded.types, form, rows, output, predictions)
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
            waiting, self._waiting, self._rows = self._waiting, [], 0
            try:
                self._send(waiting)
            except OSError:
                DROPPED.inc(sum(len(answer.predictions) for answer in waiting))
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
        self.writer = subprocess.Popen(self._command, stdin=subprocess.PIPE)

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
    """The files that one process writes, each of rows of one form."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answers: list[LoggedAnswer] = []
        self._rows = self._number = 0
        self._since = 0.0  # of the first answer

    def add(self, answer: LoggedAnswer) -> None:
        """Keep an answer, and write all there are when they are enough."""
        self._since = self._since if self._answers else time.monotonic()
        self._answers.append(answer)
        self._rows += len(answer.predictions)
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

        forms: dict[tuple[str, str], list[LoggedAnswer]] = defaultdict(list)
        for answer in self._answers:
            forms[answer.form, answer.version].append(answer)  # versions may have tables of their own
        for (name, _), answers in forms.items():
            count = sum(len(answer.predictions) for answer in answers)
            try:
                self._write(name, answers)
                LOGGED.inc(count)
            except (OSError, ArrowException) as error:
                DROPPED.inc(count)
                tell(f"{count} rows could not be logged: {error}")
        self._answers, self._rows = [], 0

    def _write(self, name: str, answers: list[LoggedAnswer]) -> None:
        from pyarrow import parquet

        self._number += 1
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = self._folder / f"{moment}-{os.getpid()}-{self._number}-{name}.parquet"
        new = path.with_suffix(".new")
        try:
            parquet.write_table(table(name, answers), new)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def table(name: str, answers: list[LoggedAnswer]) -> Any:
    """Rows of a form and a version in Arrow: time, version, label and probability where asked for, columns."""
    import pyarrow

    types = answers[0].types[name]
    cells: dict[str, list[Any]] = {key: [] for key in ("time", "version", "label", "probability", *types)}
    for answer in answers:
        count = len(answer.predictions)
        cells["time"] += [datetime.fromtimestamp(answer.time, UTC)] * count
        cells["version"] += [answer.version] * count
        for key in ("label", "probability"):
            cells[key] += [predicted(answer.output, prediction, key) for prediction in answer.predictions]
        for key, is_text in types.items():
            # A whole number that is too long for Arrow was a float to the model.
            column = answer.rows[key]
            cells[key] += column if is_text else [None if cell is None else float(cell) for cell in column]
    text, number = pyarrow.string(), pyarrow.float64()
    kinds = {"time": pyarrow.timestamp("us", "UTC"), "version": text, "label": text, "probability": number}
    kinds |= {key: text if is_text else number for key, is_text in types.items()}
    return pyarrow.table({key: pyarrow.array(cells[key], kinds[key]) for key in cells})


def predicted(output: str, prediction: Any, key: str) -> Any:
    """A prediction's label or probability; None if it was not asked for."""
    if output == "detail":
        return prediction[key]
    return prediction if output == key else None


def read(pipe: IO[bytes], parts: Parts) -> None:
    """Take what a worker passes on, until it has no more."""
    while True:
        try:
            answer = marshal.load(pipe)  # noqa: S302
        except EOFError:
            parts.write()
            return
        if answer is not None:
            parts.add(LoggedAnswer(*answer))
        parts.tick()


if __name__ == "__main__":
    os.umask(0o077)  # these are people's data
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends after the worker, which passes on all it has
    read(sys.stdin.buffer, Parts(Path(sys.argv[1])))
