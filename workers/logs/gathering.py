"""Chunks of logs that no event names yet, and how worker 0 finds those of the other workers.

An attempt's events have one writer, worker 0, so the others cannot announce what they ship. Their
chunks are numbered and appear in order, so worker 0 asks for the next one of each now and then.
When it is gone, the service does so in its place.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from workers.artifacts import ArtifactStore, log_end_key, log_key, logs_prefix
from workers.errors import ArtifactNotFound, StoreError
from workers.events import LogRecord
from workers.logs.lines import LogLine, decode_chunk

LOOK_INTERVAL_S = 0.25
GATHER_INTERVAL_S = 1.0  # doubled while a worker is silent, as a question costs a request
SILENT_INTERVAL_S = 8.0
END_PATIENCE_S = 5.0


def unannounced(
    store: ArtifactStore, prefix: str, rank: int, chunk: int, *, over_holes: bool = True
) -> Iterator[tuple[LogRecord, bytes]]:
    """The chunks of a worker from ``chunk`` on that are in the store, each with its record.

    Chunks that made room before anybody had named them are one record of no lines; to find what
    is behind them, ``over_holes``, takes a listing. Raises StoreError.
    """
    while True:
        try:
            content = store.get(log_key(prefix, rank, chunk))
        except ArtifactNotFound:
            later = _next_stored(store, prefix, rank, chunk) if over_holes else None
            if later is None:
                return
            hole = LogRecord(
                at=datetime.now(UTC),
                rank=rank,
                chunk=chunk,
                lines=0,
                size_bytes=0,
                removed=(chunk, later),
            )
            yield hole, b""
            chunk = later
        else:
            yield _record_of(rank, chunk, content), content
            chunk += 1


def _next_stored(store: ArtifactStore, prefix: str, rank: int, chunk: int) -> int | None:
    keys = (stored.key for stored in store.list(logs_prefix(prefix, rank)))
    names = (key.rsplit("/", 1)[1].removesuffix(".jsonl") for key in keys)
    return min((int(name) for name in names if name.isdigit() and int(name) > chunk), default=None)


def _record_of(rank: int, chunk: int, content: bytes) -> LogRecord:
    lines: list[LogLine] = []
    with contextlib.suppress(ValueError):
        lines = decode_chunk(content)
    return LogRecord(
        at=lines[-1].at if lines else datetime.now(UTC),
        rank=rank,
        chunk=chunk,
        lines=sum(line.level != "gap" for line in lines),
        size_bytes=len(content),
    )


@dataclass
class _Peer:
    """How far another worker's log is announced, and when to ask again."""

    chunk: int = 0
    interval_s: float = GATHER_INTERVAL_S
    due_at: float = 0.0


class PeerLogs:
    """Announces what the workers 1 to ``size`` − 1 have shipped, from a thread of its own.

    Nothing here raises: what is not announced when worker 0 ends, the service announces.
    """

    def __init__(
        self,
        store: ArtifactStore,
        prefix: str,
        size: int,
        announce: Callable[[LogRecord], object],
    ) -> None:
        self._store, self._prefix, self._announce = store, prefix, announce
        self._peers = {rank: _Peer() for rank in range(1, size)}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peer logs", daemon=True)
        if self._peers:
            self._thread.start()

    def finish(self) -> None:
        """Wait until the others have shipped all that they had to say, for a few seconds at most,
        and announce it; they must be about to end."""
        self.close()
        give_up_at = time.monotonic() + END_PATIENCE_S
        is_free = not self._thread.is_alive()  # or it is inside a call to a store that hangs
        while is_free and self._peers and time.monotonic() < give_up_at:
            for rank in tuple(self._peers):
                with contextlib.suppress(StoreError):
                    has_ended = self._store.exists(log_end_key(self._prefix, rank))
                    self._gather(rank, over_holes=has_ended)
                    if has_ended:
                        del self._peers[rank]
            if self._peers:
                time.sleep(LOOK_INTERVAL_S)

    def close(self) -> None:
        """Announce nothing more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(END_PATIENCE_S)

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_INTERVAL_S):
            for rank, peer in self._peers.items():
                now = time.monotonic()
                if now < peer.due_at:
                    continue
                found = False
                with contextlib.suppress(StoreError):
                    is_slow = peer.interval_s >= SILENT_INTERVAL_S
                    found = self._gather(rank, over_holes=is_slow)
                longer = min(2 * peer.interval_s, SILENT_INTERVAL_S)
                peer.interval_s = GATHER_INTERVAL_S if found else longer
                peer.due_at = now + peer.interval_s

    def _gather(self, rank: int, *, over_holes: bool) -> bool:
        """Announce what is new of one worker; whether there was something."""
        peer = self._peers[rank]
        before = peer.chunk
        found = unannounced(self._store, self._prefix, rank, before, over_holes=over_holes)
        for record, _ in found:
            self._announce(record)
            peer.chunk = record.chunk + 1 if record.removed is None else record.removed[1]
        return peer.chunk != before
