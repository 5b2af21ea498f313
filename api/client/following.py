"""Following a job's events over broken connections."""

from collections.abc import Iterator, Sequence

import httpx2

from api.client.connection import Connection, Event
from api.client.errors import ApiError, Unreachable
from api.client.patience import RETRY_S, Patience

LIVED_S = 20.0  # a stream that was open for longer had a sign of life, or else ends for silence


def events_of(
    connection: Connection,
    job_id: str,
    patience: Patience,
    *,
    after: int = 0,
    kinds: Sequence[str] | None = None,
) -> Iterator[Event]:
    """The events behind the number ``after`` up to the ``end``, or until the deadline of the
    patience.

    A connection that breaks off is taken up where it was. A service is heard by each event, and by
    a connection that ended in order or had lived, however little it had to tell: not by one that
    only opens, as a proxy's does whose service hangs. Raises Unreachable or ApiError when the
    patience is over, and ApiError for a refusal.
    """
    while patience.left_s != 0:
        begun_at = patience.clock()
        try:
            for event in connection.follow(job_id, after, patience.left_s, kinds):
                patience.heard()
                if event.kind == "gap":
                    after = int(event.data["resumed_after"])
                after = event.seq or after
                yield event
                if event.kind == "end":
                    return
        except (Unreachable, ApiError) as error:
            is_silent = isinstance(error.__cause__, httpx2.TimeoutException)
            if patience.clock() - begun_at > LIVED_S and not is_silent:
                patience.heard()
            if patience.left_s != 0:
                patience.bear(error)
        else:
            patience.heard()
            patience.pause(RETRY_S)
