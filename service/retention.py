"""How long jobs are kept, and deleting them: by hand, and when their time is over.

Deleting is two steps. A mark in the database, and the job is gone for everybody who asks. Then its
artifacts go, piece by piece, and after them its rows; the mark is the last. So what was cut off
anywhere is found again by its mark, and goes on.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Set
from datetime import datetime, timedelta
from itertools import islice

from service.feed import Feed
from service.jobs import FINAL_STATES, Job, Retention
from service.jobstore import JobStore
from workers.artifacts import ArtifactStore, job_prefix
from workers.errors import StoreAway, StoreError

log = logging.getLogger(__name__)

EXPIRED_AT_ONCE = 100
DOOMED_AT_ONCE = 100
OBJECTS_AT_ONCE = 200  # in one request to the store


class KeepingRules:
    """The installation's answer to how long a job is kept, where the job has none of its own."""

    def __init__(self, default: Retention) -> None:
        self.seconds = {state: default.of(state) for state in FINAL_STATES}

    def expires_at(self, job: Job) -> datetime | None:
        """When an ended job will be deleted; None for one that goes on, or is kept for ever or as
        long as its study."""
        if job.ended_at is None or job.state not in FINAL_STATES or job.study_id is not None:
            return None
        own = job.retention.of(job.state)
        seconds = self.seconds[job.state] if own is None else own
        return None if seconds is None else job.ended_at + timedelta(seconds=seconds)


class Deletions:
    """Marks jobs as deleted, and removes what they have left.

    ``led`` is the store for what only the leader of several services does: what follows from time,
    and the removal. ``forget`` is told of each job that is gone, so that nothing of it stays in
    memory. ``deleted`` and ``reclaimed_bytes`` count since the start of the service, and ``denied``
    is what the store would not remove the last time.
    """

    def __init__(
        self,
        jobs: JobStore,
        artifacts: ArtifactStore,
        feed: Feed,
        rules: KeepingRules,
        forget: Callable[[str], None],
        led: JobStore | None = None,
    ) -> None:
        self._jobs = jobs
        self._led = led or jobs
        self._artifacts = artifacts
        self._feed = feed
        self._rules = rules
        self._forget = forget
        self.news = threading.Event()
        self.deleted = 0
        self.reclaimed_bytes = 0
        self.denied: str | None = None

    def expires_at(self, job: Job) -> datetime | None:
        """See :meth:`KeepingRules.expires_at`."""
        return self._rules.expires_at(job)

    def delete(self, job_id: str, expected_version: int | None) -> None:
        """Delete a job that has ended; raises JobNotFound, StateConflict, VersionConflict."""
        self._jobs.delete(job_id, expected_version)
        self._is_gone(job_id)

    def delete_study(self, study_id: str, expected_version: int | None) -> None:
        """Delete a study that has ended, with the jobs that are its trials.

        Raises StudyNotFound, StudyStateConflict, StudyChanged.
        """
        for job_id in self._jobs.studies.delete(study_id, expected_version):
            self._is_gone(job_id)

    def delete_expired(self) -> None:
        """Delete every job whose time is over."""
        while expired := self._led.delete_expired(self._rules.seconds, EXPIRED_AT_ONCE):
            for job_id in expired:
                log.info("%s has been kept for its time and is deleted", job_id)
                self._is_gone(job_id)

    def _is_gone(self, job_id: str) -> None:
        self._forget(job_id)
        self._feed.notify(job_id, urgent=True)
        self.deleted += 1
        self.news.set()

    def remove(self) -> Iterator[None]:
        """Remove what deleted jobs have left, in steps of well under a second each.

        What the store denies of one job, holds up no other: that job waits for the next call, and
        ``denied`` names the first. Raises StoreAway, NotReady; what is left is removed by the next
        call.
        """
        self.denied = None
        waiting: set[str] = set()
        while doomed := self._doomed_but(waiting):
            for job_id in doomed:
                try:
                    yield from self._remove(job_id)
                except StoreAway:
                    raise
                except StoreError as error:
                    waiting.add(job_id)
                    self.denied = self.denied or f"{job_id} cannot be removed: {error}"
                    yield

    def _doomed_but(self, waiting: Set[str]) -> list[str]:
        """The next deleted jobs that do not wait; the waiting ones must not take their places."""
        found = self._jobs.doomed(DOOMED_AT_ONCE + len(waiting))
        return [job_id for job_id in found if job_id not in waiting]

    def _remove(self, job_id: str) -> Iterator[None]:
        prefix = job_prefix(job_id)
        # An outcome tells an attempt that was given up that it must not write: it goes last.
        yield from self._remove_objects(prefix, lambda key: not key.endswith("/outcome.json"))
        yield from self._remove_objects(prefix, lambda key: True)
        self._artifacts.prune(prefix)
        yield
        while not self._led.purge(job_id):
            yield

    def _remove_objects(self, prefix: str, chosen: Callable[[str], bool]) -> Iterator[None]:
        found = (stored for stored in self._artifacts.list(prefix) if chosen(stored.key))
        while batch := list(islice(found, OBJECTS_AT_ONCE)):
            self._artifacts.delete_many([stored.key for stored in batch])
            self.reclaimed_bytes += sum(stored.size_bytes for stored in batch)
            yield
