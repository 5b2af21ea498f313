"""Waiting for a fact in a way that leaves the cores to what brings it about."""

import time
from collections.abc import Iterator

LEAST_S, MOST_S = 0.01, 0.25


def looks(timeout_s: float) -> Iterator[None]:
    """Time to look, again and again for so long; between two looks is a rest of five times as long
    as the last one took."""
    give_up_at = time.monotonic() + timeout_s
    while (begin := time.monotonic()) < give_up_at:
        yield
        time.sleep(min(max(5 * (time.monotonic() - begin), LEAST_S), MOST_S))
