"""What an attempt has left in the artifact store: its events and its outcome."""

import logging
import math
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from service.feed import Feed
from service.jobs import Attempt, Job
from service.jobstore import JobStore
from service.logs import rescue_log
from service.measures import Measures
from workers.artifacts import ArtifactStore, attempt_prefix, chunk_key, outcome_key
from workers.errors import ArtifactExists, ArtifactNotFound
from workers.events import RECORD, Exit, Outcome, OutcomeReason, read_outcome

log = logging.getLogger(__name__)

Taken = Literal["all", "some", "unreadable"]
"""What was taken in of an attempt's events: all, some while there may be more, or all before an
unreadable one."""


class Reports:
    """Reads attempts' events into the database, and their outcomes.

    ``cache_dir`` is where processes on this machine keep what they said until it is shipped.
    """

    def __init__(
        self,
        jobs: JobStore,
        artifacts: ArtifactStore,
        feed: Feed,
        cache_dir: Path,
        measures: Measures,
    ) -> None:
        self._measures = measures.progress
        self._jobs = jobs
        self._artifacts = artifacts
        self._feed = feed
        self._cache_dir = cache_dir

    def ingest(self, job: Job, attempt: Attempt, within_s: float = math.inf) -> Taken:
        """Take in new chunks of an attempt's events: all there are, or no further one after so
        many seconds, so that a long backlog holds up nobody for long."""
        return self._take_in(job, attempt, within_s)[0]

    def take_in_rest(self, job: Job, attempt: Attempt, outcome: Outcome) -> None:
        """Take in all that an ended attempt has left; what its process has said and could not ship
        is shipped first."""
        _, chunk = self._take_in(job, attempt)
        attempt = replace(attempt, next_chunk=chunk)
        rescue_log(self._jobs, self._artifacts, self._cache_dir, job, attempt, outcome)
        self._take_in(job, attempt)

    def _take_in(self, job: Job, attempt: Attempt, within_s: float = math.inf) -> tuple[Taken, int]:
        """What was taken in, and the number of the next chunk."""
        chunk = attempt.next_chunk
        prefix = attempt_prefix(attempt.job_id, attempt.number)
        stop_at = time.monotonic() + within_s
        while True:
            try:
                lines = self._artifacts.get(chunk_key(prefix, chunk)).splitlines()
                records = [RECORD.validate_json(line) for line in lines]
            except ArtifactNotFound:
                return "all", chunk
            except ValidationError:
                log.exception("%s: chunk %d is unreadable", prefix, chunk)
                return "unreadable", chunk
            self._jobs.ingest(attempt.job_id, attempt.number, chunk, records)
            self._measures.took_in(job, attempt.number, records)
            self._feed.notify(attempt.job_id, urgent=False)
            chunk += 1
            if time.monotonic() >= stop_at:
                return "some", chunk

    def outcome(self, attempt: Attempt) -> Outcome | None:
        """How the attempt has ended, or None while that is not written."""
        key = outcome_key(attempt_prefix(attempt.job_id, attempt.number))
        try:
            return read_outcome(self._artifacts.get(key))
        except ArtifactNotFound:
            return None

    def write_outcome(
        self, attempt: Attempt, reason: OutcomeReason, message: str, exit: Exit | None = None
    ) -> Outcome:
        """End an attempt in its process's place; returns the outcome that stands."""
        key = outcome_key(attempt_prefix(attempt.job_id, attempt.number))
        outcome = Outcome(reason=reason, message=message, at=datetime.now(UTC), exit=exit)
        try:
            self._artifacts.put(key, outcome.model_dump_json().encode())
        except ArtifactExists:
            return read_outcome(self._artifacts.get(key))
        return outcome
