"""What the workers of one run tell each other beside training: why one of them gave up.

A worker other than 0 leaves its reason in the artifact store before it closes its connections. By
the loss of these worker 0 learns that somebody gave up, and then looks for the reason there. A
worker that was killed leaves none.
"""

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime

from workers.artifacts import ArtifactStore, failure_key, failures_prefix
from workers.errors import ArtifactExists, ClaimLost, PeerLost, StoreError
from workers.events import Outcome, OutcomeReason, read_outcome
from workers.failures import Ending, failed
from workers.ledger import put_patiently

PATIENCE_S = 2.0  # for those that survived the loss of another one to say so
LOOK_INTERVAL_S = 0.05
_LOST: OutcomeReason = "worker_lost"


def leave_failure(store: ArtifactStore, prefix: str, rank: int, ending: Ending) -> None:
    """Tell worker 0 why this one gives up; raises StoreError if it cannot."""
    failure = Outcome(
        reason=ending.reason,
        message=ending.message,
        step=ending.step,
        at=datetime.now(UTC),
        detail=ending.detail,
    )
    content = failure.model_dump_json().encode()
    with contextlib.suppress(ClaimLost, ArtifactExists):  # nobody waits for it any more
        put_patiently(store, prefix, failure_key(prefix, rank), content)


def failures(store: ArtifactStore, prefix: str) -> dict[int, Outcome]:
    """Why workers have given up, by their ranks; those that only miss another one too."""
    found = {}
    for stored in store.list(failures_prefix(prefix)):
        rank = int(stored.key.rsplit("/", 1)[1].removesuffix(".json"))
        found[rank] = read_outcome(store.get(stored.key))
    return found


def has_failed(store: ArtifactStore, prefix: str) -> bool:
    """Whether a worker has given up for a reason of its own."""
    return any(failure.reason != _LOST for failure in failures(store, prefix).values())


def cause_of_loss(store: ArtifactStore, prefix: str, size: int, error: PeerLost) -> Ending:
    """Why worker 0 has lost its peers: the reason that one left, or who left none.

    A worker that was killed drags the others with it, and these say so; who stays silent is it.
    """
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            told = failures(store, prefix)
        except StoreError as unreachable:
            return failed(unreachable)
        for rank, failure in sorted(told.items()):
            if failure.reason != _LOST:
                message = f"Worker {rank}: {failure.message}"
                return Ending(failure.reason, message, failure.step, failure.detail)
        silent = [rank for rank in range(1, size) if rank not in told]
        if len(silent) <= 1 or time.monotonic() > give_up_at:
            break
        time.sleep(LOOK_INTERVAL_S)
    if not silent:
        return Ending(_LOST, "The workers lost the connections between them.")
    names = " and ".join(f"worker {rank}" for rank in silent)
    known = "its process ended, or it does not answer." if str(error) == PeerLost.__doc__ else error
    return Ending(_LOST, f"Of {size} workers, {names} was lost without a word: {known}")


def at_most_every(interval_s: float, look: Callable[[], None]) -> Callable[[], None]:
    """The same look, taken at most so often."""
    looked_at = float("-inf")

    def paced() -> None:
        nonlocal looked_at
        if time.monotonic() - looked_at >= interval_s:
            looked_at = time.monotonic()
            look()

    return paced
