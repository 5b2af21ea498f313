"""The log of the attempt that this process runs, or a thread of it."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from workers.artifacts import ArtifactStore, log_end_key, outcome_key
from workers.errors import ArtifactExists, ClaimLost, StoreError
from workers.events import LogRecord, Record
from workers.logs.capture import CapturedOutput, flush_python
from workers.logs.lines import Level, marked
from workers.logs.local import LocalLog
from workers.logs.shipping import Shipper
from workers.logs.words import sentence

trouble = logging.getLogger(__name__)

SHIP_INTERVAL_S = 1.0
LOOK_INTERVAL_S = 0.25
HASTE_INTERVAL_S = 0.02  # while output comes so fast that it must be given up in time
HASTE_BYTES = 1 << 20
UNFINISHED_S = 2.0  # a line without an end is shipped when nothing follows for so long
RETRY_MAX_S = 10.0
CLOSE_PATIENCE_S = 5.0
LINES_OF_ONE_RECORD = 200


class AttemptLog:
    """Collects an attempt's lines in a local file and ships them from a thread of its own.

    ``whole_process`` says that this process works on nothing else: everything that it or a child
    writes is the attempt's, Python's warnings included. Otherwise only what the thread that made
    this logs. Nothing here raises: a log that cannot be kept must not cost the run.
    """

    def __init__(
        self,
        store: ArtifactStore,
        prefix: str,
        path: Path,
        announce: Callable[[LogRecord], object],
        *,
        rank: int = 0,
        whole_process: bool = False,
    ) -> None:
        self._file: LocalLog | None = None
        self._output: CapturedOutput | None = None
        self._lost = False
        self._store, self._prefix, self._rank = store, prefix, rank
        self._closing = threading.Event()
        try:
            self._file = LocalLog.create(path)
        except OSError as error:
            trouble.warning("no log is kept: %s: %s", path, error.strerror)
            return
        self._shipper = Shipper(store, prefix, rank, self._file, announce)
        if whole_process:
            self._output = CapturedOutput(self._file.descriptor)
        self._handler = _Handler(self._file, None if whole_process else threading.get_ident())
        self._whole_process = whole_process
        # Other libraries speak from WARNING on, as the root logger's level says.
        logging.getLogger("workers").setLevel(logging.INFO)
        _source(whole_process).addHandler(self._handler)
        if whole_process:
            logging.captureWarnings(True)
        self._thread = threading.Thread(
            target=self._ship, args=(self._file,), name="log", daemon=True
        )
        self._thread.start()

    def say(self, level: Level, text: str) -> None:
        """A line of our own, from any thread."""
        if self._file is not None:
            _append(self._file, marked(level, datetime.now(UTC), text, LINES_OF_ONE_RECORD))

    def record(self, record: Record) -> None:
        """The line of a record, if it has one."""
        said = sentence(record)
        if said is not None:
            self.say(*said)

    def close(self) -> None:
        """Ship what is left, if the store lets it within ``CLOSE_PATIENCE_S``, and end.

        The local file stays if something of it could not be shipped: the service comes for it.
        """
        file, self._file = self._file, None
        if file is None:
            return
        _source(self._whole_process).removeHandler(self._handler)
        if self._whole_process:
            logging.captureWarnings(False)
        if self._output is not None:
            self._output.release()
        self._closing.set()
        self._thread.join(CLOSE_PATIENCE_S)
        if self._thread.is_alive():  # inside a call to a store that hangs; it ends after that
            return
        if not self._lost and self._ship_rest(file):
            file.remove()
        file.close()

    def _ship_rest(self, file: LocalLog) -> bool:
        """Whether all of it is in the store now."""
        give_up_at = time.monotonic() + CLOSE_PATIENCE_S
        while time.monotonic() < give_up_at:
            try:
                if not self._shipper.ship(file.written_at(), is_last=True):
                    self._say_that_this_was_all()
                    return True
            except (StoreError, OSError):
                time.sleep(LOOK_INTERVAL_S)
            except ClaimLost:
                return False
        return False

    def _say_that_this_was_all(self) -> None:
        """Worker 0 has its outcome for that, and ends after the others."""
        if self._rank > 0 and not self._store.exists(outcome_key(self._prefix)):
            with contextlib.suppress(ArtifactExists):  # an answer that was lost
                self._store.put(log_end_key(self._prefix, self._rank), b"{}")

    def _ship(self, file: LocalLog) -> None:
        """Look after the file until the end; ship at most once a second."""
        pace = _Pace()
        while not self._closing.wait(pace.look_s):
            try:
                if self._output is not None:
                    flush_python()
                waiting = self._shipper.waiting()
                self._shipper.skip_backlog()
                if pace.is_due(waiting):
                    finish = pace.is_unfinished_for_long()
                    self._shipper.ship(file.written_at(), is_last=finish)
                    pace.shipped(self._shipper.waiting())
            except ClaimLost:
                self._lost = True
                return
            except (StoreError, OSError):
                pace.failed()


class _Pace:
    """When to look at the file, and when to ship."""

    def __init__(self) -> None:
        self.look_s = LOOK_INTERVAL_S
        self._waiting = 0
        self._changed_at = self._next_at = time.monotonic()
        self._retry_s = SHIP_INTERVAL_S

    def is_due(self, waiting: int) -> bool:
        """Whether to ship now, with so many bytes in the file."""
        now = time.monotonic()
        is_fast = waiting - self._waiting > HASTE_BYTES
        self.look_s = HASTE_INTERVAL_S if is_fast else LOOK_INTERVAL_S
        if waiting != self._waiting:
            self._waiting, self._changed_at = waiting, now
        return waiting > 0 and now >= self._next_at

    def is_unfinished_for_long(self) -> bool:
        """Whether a line has been without an end for long."""
        return time.monotonic() - self._changed_at > UNFINISHED_S

    def shipped(self, waiting: int) -> None:
        """So many bytes are left."""
        if waiting != self._waiting:
            self._waiting, self._changed_at = waiting, time.monotonic()
            self._next_at = time.monotonic() + SHIP_INTERVAL_S
        self._retry_s = SHIP_INTERVAL_S

    def failed(self) -> None:
        """The store is away: longer and longer pauses."""
        self._next_at = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)


class _Handler(logging.Handler):
    """Writes log records into the local file; with ``thread`` only those of that thread."""

    def __init__(self, file: LocalLog, thread: int | None) -> None:
        super().__init__()
        self._file, self._thread = file, thread
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """See :meth:`logging.Handler.emit`."""
        if self._thread is not None and record.thread != self._thread:
            return
        try:
            text = self.format(record)
        except (TypeError, ValueError):  # arguments that do not fit the message
            text = f"{record.name}: {record.msg!r}"
        level = logging.getLevelName(record.levelno).lower()
        if level not in ("debug", "info", "warning", "error", "critical"):
            level = "info"
        at = datetime.fromtimestamp(record.created, UTC)
        _append(self._file, marked(level, at, text, LINES_OF_ONE_RECORD))


def _source(whole_process: bool) -> logging.Logger:
    return logging.getLogger() if whole_process else logging.getLogger("workers")


def _append(file: LocalLog, content: bytes) -> None:
    with contextlib.suppress(OSError):  # the disk is full, or the attempt is over
        file.append(content)
