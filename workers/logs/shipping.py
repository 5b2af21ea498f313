"""From the local file to numbered chunks in the store.

Bounds, all of them per process of an attempt. A runaway of a print in a loop costs what they add
up to, and its first lines, which mostly say why, are still there beside its last ones.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from workers.artifacts import ArtifactStore, log_key, outcome_key
from workers.errors import ArtifactExists, ClaimLost, StoreError
from workers.events import LogRecord
from workers.logs.lines import LogLine, encode_chunk, gap, shortened, split
from workers.logs.local import LocalLog

CHUNK_BYTES = 256 << 10  # read from the file for one chunk
CHUNK_LINES = 20_000
BACKLOG_BYTES = 4 << 20  # what may wait in the file
CAUGHT_UP_BYTES = 256 << 10  # what is left of a longer backlog: its end
HEAD_BYTES = 1 << 20  # of chunks that stay for ever
TAIL_BYTES = 8 << 20  # of the chunks behind them; older ones make room
TAIL_CHUNKS = 20_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where to go on: the number of the next chunk, and the position in the local file."""

    chunk: int = 0
    position: int = 0


class Shipper:
    """Ships one local file; ``announce`` is told of each chunk once it is in the store.

    ``until_outcome`` is for the attempt's own process, which may publish nothing behind it.
    """

    def __init__(
        self,
        store: ArtifactStore,
        prefix: str,
        rank: int,
        file: LocalLog,
        announce: Callable[[LogRecord], object],
        place: Place = Place(),
        *,
        until_outcome: bool = True,
    ) -> None:
        self._until_outcome = until_outcome
        self._store, self._prefix, self._rank = store, prefix, rank
        self._file, self._announce = file, announce
        self._chunk, self._position = place.chunk, place.position
        self._first: list[bytes] | None = None  # put by where a backlog follows them
        self._first_end = 0
        self._dropped: tuple[int | None, int] = (0, 0)  # lines and bytes
        self._head_bytes = 0
        self._tail: deque[tuple[int, int]] = deque()
        self._tail_bytes = 0
        self._doomed: list[str] = []
        self._removed: tuple[int, int] | None = None

    def waiting(self) -> int:
        """Bytes in the file that are not shipped."""
        return self._file.size() - self._position

    def skip_backlog(self, at_most: int = BACKLOG_BYTES) -> None:
        """Give up the middle of what waits, if it is more than ``at_most`` bytes.

        Its end stays, and so do the first lines of all.
        """
        size = self._file.size()
        if self._chunk == 0 and self._first is None and size - self._position > at_most:
            content = self._read()
            self._first, length = split(content, is_last=False)
            self._position = self._first_end = self._position + length
        start = self._position
        begin = self._file.first_data(start) if start < size else size
        if size - begin > at_most:
            begin = self._file.first_data(size - min(CAUGHT_UP_BYTES, at_most))
        if begin == start:
            return
        cut = self._file.read(begin, CHUNK_BYTES).find(b"\n") + 1  # the rest of a cut line
        begin += cut
        lines, dropped = self._dropped
        counted = self._file.count_lines(start, begin)
        total = None if lines is None or counted is None else lines + counted
        self._dropped = (total, dropped + begin - start)
        self._position = begin
        # The first lines stay in the file as well until they are shipped.
        self._file.give_back(self._first_end if self._first else 0, begin)

    def ship(self, at: datetime, *, is_last: bool) -> bool:
        """Write the next chunk, if there are whole lines; whether there were.

        ``at`` is the time of lines that carry none; ``is_last`` also takes an unfinished line.
        Raises ClaimLost once the attempt has an outcome, StoreError, which can be tried again.
        """
        self.skip_backlog()
        if self._first and self._chunk == 0:
            content = encode_chunk(self._first_end, [], self._first, at)
            self._write(content, len(self._first), at)
            self._first = []
            return True
        content = self._read()
        is_end = is_last and self._position + len(content) == self._file.size()
        lines, length = split(content, is_last=is_end)
        if not lines and self._dropped == (0, 0):
            return False
        end = self._position + length
        self._write(encode_chunk(end, self._gaps(at), lines, at), len(lines), at)
        self._dropped, self._position = (0, 0), end
        self._file.give_back(0, end)
        return True

    def ship_gap(self, at: datetime, why: str) -> None:
        """Write a chunk that says that what follows is lost. Raises as :meth:`ship` does."""
        line = gap(at, None, None, why)
        self._write(encode_chunk(self._position, [line], [], at), 0, at)

    def _read(self) -> bytes:
        length = min(CHUNK_BYTES, self._file.first_hole(self._position) - self._position)
        return shortened(self._file.read(self._position, length), CHUNK_LINES)

    def _gaps(self, at: datetime) -> list[LogLine]:
        if self._dropped == (0, 0):
            return []
        why = "came faster than they could be kept, or while the store was away"
        return [gap(at, *self._dropped, why)]

    def _write(self, content: bytes, lines: int, at: datetime) -> None:
        if self._until_outcome and self._store.exists(outcome_key(self._prefix)):
            raise ClaimLost
        try:
            self._store.put(log_key(self._prefix, self._rank, self._chunk), content)
        except ArtifactExists as error:
            raise ClaimLost from error
        self._make_room(len(content))
        record = LogRecord(
            at=min(at, datetime.now(UTC)),
            rank=self._rank,
            chunk=self._chunk,
            lines=lines,
            size_bytes=len(content),
            removed=self._removed,
        )
        self._chunk += 1
        self._announce(record)

    def _make_room(self, size_bytes: int) -> None:
        """Remove the oldest chunks behind the head; one that stays is tried again next time."""
        fits = self._chunk == 0 or self._head_bytes + size_bytes <= HEAD_BYTES
        if not self._tail and fits:
            self._head_bytes += size_bytes
            return
        self._tail.append((self._chunk, size_bytes))
        self._tail_bytes += size_bytes
        while self._tail_bytes > TAIL_BYTES or len(self._tail) > TAIL_CHUNKS:
            oldest, size = self._tail.popleft()
            self._tail_bytes -= size
            first = oldest if self._removed is None else self._removed[0]
            self._removed = (first, oldest + 1)
            self._doomed.append(log_key(self._prefix, self._rank, oldest))
        try:
            self._store.delete_many(self._doomed)
        except StoreError:
            return
        self._doomed = []
