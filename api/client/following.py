"""Following a job's events over broken connections."""

import time
from collections.abc import Iterator, Sequence

import httpx2

from api.client.connection import TIMEOUT_S, Connection, Event
from api.client.errors import ApiError, Unreachable

RECONNECT_S = 0.5


def events_of(
    connection: Connection,
    job_id: str,
    *,
    timeout_s: float | None = None,
    patience_s: float = TIMEOUT_S,
    after: int = 0,
    kinds: Sequence[str] | None = None,
) -> Iterator[Event]:
    """The events behind the number ``after`` up to the ``end``, or until ``timeout_s`` are over.

    A connection that breaks off is taken up where it was. Raises Unreachable when nothing answered
    for ``patience_s``, and ApiError for a refusal.
    """
    now = time.monotonic()
    deadline = None if timeout_s is None else now + timeout_s
    heard_at = now
    while deadline is None or now < deadline:
        cause: Exception | None = None
        try:
            left = None if deadline is None else max(deadline - now, 0.001)
            for event in connection.follow(job_id, after, left, kinds):
                heard_at = time.monotonic()
                if event.kind == "gap":
                    after = int(event.data["resumed_after"])
                after = event.seq or after
                yield event
                if event.kind == "end":
                    return
        except httpx2.TransportError as error:
            cause = error
        except ApiError as error:
            if not error.problem.retryable:
                raise
            cause = error
        now = time.monotonic()
        if now - heard_at > patience_s and cause is not None:
            raise Unreachable(connection.url, cause) from cause
        if deadline is None or now < deadline:
            time.sleep(RECONNECT_S)
            now = time.monotonic()
