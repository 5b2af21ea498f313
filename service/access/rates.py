"""How many requests a key makes: a bucket of tokens for each, in this process alone."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

BURST_S = 5.0  # so many seconds' requests may come at once after a silence


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rates:
    """Counts requests by key; ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key_id: str, per_s: float) -> float:
        """Count a request; 0, or the seconds after which it would be allowed."""
        most = max(1.0, per_s * BURST_S)
        with self._lock:
            now = self._clock()
            bucket = self._buckets.setdefault(key_id, _Bucket(most, now))
            bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * per_s)
            bucket.at = now
            if bucket.tokens < 1.0:
                return (1.0 - bucket.tokens) / per_s
            bucket.tokens -= 1.0
            return 0.0
