"""Following a job's events over broken connections."""

from collections.abc import Iterator, Sequence

from api.client.connection import Connection, Event
from api.client.errors import ApiError, Unreachable
from api.client.patience import RETRY_S, Patience


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

    A connection that breaks off is taken up where it was; one that is open is a service that is
    heard. Raises Unreachable or ApiError when the patience is over, and ApiError for a refusal.
    """
    while patience.left_s != 0:
        try:
            for event in connection.follow(job_id, after, patience.left_s, kinds, patience.heard):
                if event.kind == "gap":
                    after = int(event.data["resumed_after"])
                after = event.seq or after
                yield event
                if event.kind == "end":
                    return
        except (Unreachable, ApiError) as error:
            if patience.left_s != 0:
                patience.bear(error)
        else:
            patience.pause(RETRY_S)
