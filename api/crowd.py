"""How many requests are answered at one time, so that none of them takes all the room."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

PROBES_AT_ONCE = 32  # which answer without a key, so they get no more than they need


class Lane(StrEnum):
    """What a request competes with."""

    PROBE = "probe"
    REQUEST = "request"
    STREAM = "stream"


class Crowded(Exception):
    """There is no place for another request now.

    ``is_own`` says that the key has too many itself.
    """

    def __init__(self, message: str, *, is_own: bool) -> None:
        super().__init__(message)
        self.is_own = is_own


class Crowd:
    """Counts the requests of a process that are being answered, by lane and by key."""

    def __init__(self, max_requests: int, max_followers: int) -> None:
        self._most = {
            Lane.PROBE: PROBES_AT_ONCE,
            Lane.REQUEST: max_requests,
            Lane.STREAM: max_followers,
        }
        self._lock = threading.Lock()
        self._all: Counter[Lane] = Counter()
        self._own: Counter[tuple[Lane, str]] = Counter()

    @contextmanager
    def place(self, key_id: str | None, lane: Lane) -> Iterator[None]:
        """A place for one request, of which a key has half at most; raises Crowded."""
        with self._lock:
            self._require(key_id, lane)
            self._all[lane] += 1
            if key_id is not None:
                self._own[lane, key_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._all[lane] -= 1
                if key_id is not None:
                    self._own[lane, key_id] -= 1
                    if not self._own[lane, key_id]:
                        del self._own[lane, key_id]

    def _require(self, key_id: str | None, lane: Lane) -> None:
        most = self._most[lane]
        what = "event streams are open" if lane is Lane.STREAM else "requests are being answered"
        if self._all[lane] >= most:
            raise Crowded(f"{most} {what} by this process already; try again soon", is_own=False)
        share = max(1, most // 2)
        if key_id is not None and self._own[lane, key_id] >= share:
            raise Crowded(f"{share} {what} for this key already; end some", is_own=True)
