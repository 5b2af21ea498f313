"""An attempt's event log, in numbered chunks, and writing to a store that may be away."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from workers.artifacts import ArtifactStore, chunk_key, outcome_key
from workers.errors import ArtifactExists, ArtifactNotFound, ClaimLost, StoreError
from workers.events import ProgressRecord, Record
from workers.memory import peak_rss_bytes

FLUSH_INTERVAL_S = 1.0
STORE_PATIENCE_S = 60.0  # a store that is away for longer ends the attempt
T = TypeVar("T")


class Ledger:
    """The attempt's event log: appended to in memory, written in chunks at most once a second.

    A chunk is written if its key is free; a taken key, or an outcome that somebody else wrote,
    means that the service has given this attempt up: ``check`` then raises ClaimLost.
    ``on_record`` is told of each record that is appended, by the thread that appends it.
    """

    on_record: Callable[[Record], None] | None = None

    def __init__(self, store: ArtifactStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._pending: list[Record] = []
        self._appended = 0
        self._hurry = False
        self._progress: ProgressRecord | None = None
        self._chunk = 0
        self._wake = threading.Condition()
        self._closing = False
        self.written = 0
        self.last_step = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._writing = self._thread.submit(self._write_chunks)
        self._writing.add_done_callback(self._tell_the_end)

    def append(self, record: Record) -> int:
        """Add a record to the next chunk; it is durable once ``written`` is the number returned."""
        if self.on_record is not None:
            self.on_record(record)
        with self._wake:
            self._pending.append(record)
            self._appended += 1
            self._wake.notify_all()
            return self._appended

    def progress(self, record: ProgressRecord) -> None:
        """Note how far training is; only the last note before a flush is written."""
        self.last_step = record.step
        with self._wake:
            self._progress = record
            self._wake.notify_all()

    def check(self) -> None:
        """Raise what ended the writing, if it has ended: ClaimLost, StoreError, or a defect's."""
        if self._writing.done():
            self._writing.result()

    def flush(self) -> None:
        """Write what there is now and wait until it is durable. Raises as ``check`` does."""
        with self._wake:
            self._hurry = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: self.written == self._appended or self._writing.done())
            self._hurry = False
        self.check()

    def close(self) -> int:
        """Write what is left; returns the number of chunks. Raises ClaimLost, StoreError.

        A defect is ``check``'s to tell: the outcome that says so must still be written.
        """
        self._end()
        if isinstance(error := self._writing.exception(), ClaimLost | StoreError):
            raise error
        return self._chunk

    def abandon(self) -> None:
        """Stop without writing any more."""
        with self._wake:
            self._pending.clear()
            self._progress = None
        self._end()

    def _end(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.shutdown(wait=True)

    def _tell_the_end(self, _: Future[None]) -> None:
        with self._wake:
            self._wake.notify_all()

    def _take(self) -> tuple[list[Record], int] | None:
        """The records of the next chunk and how many were appended with them, or None at the end;
        waits while there are none."""
        with self._wake:
            while not self._pending and self._progress is None:
                if self._closing:
                    return None
                self._wake.wait()
            records, self._pending = self._pending, []
            if self._progress is not None:
                peak = {"peak_rss_bytes": peak_rss_bytes()}  # once a flush, not at every step
                records.append(self._progress.model_copy(update=peak))
                self._progress = None
            return records, self._appended

    def _write_chunks(self) -> None:
        while (taken := self._take()) is not None:
            records, appended = taken
            content = "".join(record.model_dump_json() + "\n" for record in records)
            self._write(content.encode())
            with self._wake:
                self.written = appended
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._closing or self._hurry, timeout=FLUSH_INTERVAL_S)

    def _write(self, content: bytes) -> None:
        key = chunk_key(self._prefix, self._chunk)
        try:
            put_patiently(self._store, self._prefix, key, content)
        except ArtifactExists as error:
            # An answer lost after a completed write looks like a foreign writer: compare.
            if patiently(lambda: self._store.get(key)) != content:
                raise ClaimLost from error
        self._chunk += 1


def patiently(work: Callable[[], T], about: type[StoreError] = StoreError) -> T:
    """What ``work`` returns; it is done again while the store fails so.

    Raises ArtifactExists and ArtifactNotFound at once, since these are answers, and any other
    StoreError when the store was away for ``STORE_PATIENCE_S``.
    """
    give_up_at = time.monotonic() + STORE_PATIENCE_S
    while True:
        try:
            return work()
        except (ArtifactExists, ArtifactNotFound):
            raise
        except about:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(FLUSH_INTERVAL_S)


def put_patiently(store: ArtifactStore, prefix: str, key: str, content: bytes | Path) -> None:
    """Write an object of the attempt with this prefix, and wait for a store that is away.

    A path stands for the content of its file.

    Raises ClaimLost once the attempt has an outcome, ArtifactExists for a taken key, and
    StoreError when the store was away for ``STORE_PATIENCE_S``.
    """

    def put() -> None:
        if store.exists(outcome_key(prefix)):
            raise ClaimLost
        if isinstance(content, Path):
            store.put_file(key, content)
        else:
            store.put(key, content)

    patiently(put)
