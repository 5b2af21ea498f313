"""What the watcher holds of a running attempt between two rounds; a restart may forget it."""

import time
from dataclasses import dataclass, field

from service.cluster.base import Sighting
from service.evidence import Evidence
from service.jobs import Attempt, Job
from workers.errors import StoreError
from workers.run import StopReason

STARTING_S = 10.0  # the first events of an attempt are looked for in every round
LIMIT_GRACE_S = 10.0  # an attempt that can, ends at its time limit by itself


@dataclass
class Watch:
    """Of one attempt. ``wall_s`` are the seconds that the job's time limit leaves it, ``before_s``
    those that it was at work before it was watched here. ``trouble`` is why the store could not be
    asked for it the last time, and ``is_behind`` says that it has more events than were taken in
    then."""

    evidence: Evidence
    wall_s: float | None
    before_s: float = 0.0
    since: float = field(default_factory=time.monotonic)
    asked_to_stop_at: float | None = None
    asked: StopReason | None = None
    working_since: float | None = None
    idle_since: float | None = None
    trouble: StoreError | None = None
    is_behind: bool = False
    _read_at: float = float("-inf")
    _known: tuple[object, ...] = ()

    def see(self, sighting: Sighting) -> None:
        """Take in what is to be seen of the attempt's process."""
        self.evidence.see(sighting)
        now = time.monotonic()
        if sighting.state == "running":
            self.working_since = self.working_since or now
        self.idle_since = (self.idle_since or now) if sighting.state == "idle" else None

    def is_due(self, job: Job, sighting: Sighting | None, interval_s: float) -> bool:
        """Whether the store is to be asked for news of the attempt; this counts as asking.

        It is asked at most so often while the attempt is at work; in every round while it starts,
        while it has more to tell and once its process has ended, and at once when something has
        changed.
        """
        now = time.monotonic()
        state = None if sighting is None else sighting.state
        known = (state, job.cancel_requested, job.pause_requested)
        is_starting = state == "running" and now - (self.working_since or now) < STARTING_S
        has_more = is_starting or self.is_behind
        at_once = known != self._known or state in (None, "idle", "gone") or has_more
        if now - self._read_at < interval_s and (self.trouble is not None or not at_once):
            return False
        self._read_at, self._known = now, known
        return True

    def is_over_time(self) -> bool:
        """Whether the attempt is at work beyond the job's time limit.

        No clock is compared with another one: one that is set, or goes on while the machine
        sleeps, must end no job.
        """
        if self.wall_s is None or self.working_since is None:
            return False
        worked_s = self.before_s + time.monotonic() - self.working_since
        return worked_s > self.wall_s + LIMIT_GRACE_S


def heard_for_s(attempt: Attempt) -> float:
    """Seconds from the attempt's start to its last word so far, both by its worker's clock."""
    if attempt.started_at is None or attempt.heard_at is None:
        return 0.0
    return max((attempt.heard_at - attempt.started_at).total_seconds(), 0.0)
