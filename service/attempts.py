"""One attempt from its start to its end, as the watcher sees it.

An attempt ends when its outcome stands in the artifact store. Its process writes it; when the
process is gone without one, it is written here in its place, and the store lets only one of the
two succeed. So an attempt that was given up can never be believed later, nor publish any more.
"""

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from service.cluster.base import Cluster
from service.feed import Feed
from service.jobs import Attempt, Job, JobState, Reason
from service.jobstore import JobStore
from service.logs import rescue_log
from service.verdicts import judge
from workers.artifacts import ArtifactStore, attempt_prefix, chunk_key, outcome_key
from workers.errors import ArtifactExists, ArtifactNotFound
from workers.events import RECORD, Outcome, OutcomeReason, read_outcome
from workers.publish import KeptCheckpoint
from workers.run import Run, StopReason

log = logging.getLogger(__name__)

OUTCOME_PATIENCE_S = 5.0  # an executor that is idle for longer without an outcome has lost it


@dataclass
class _Watch:
    """What is held of a running attempt between two rounds; a restart may forget it."""

    since: float = field(default_factory=time.monotonic)
    asked_to_stop_at: float | None = None
    idle_since: float | None = None


class Attempts:
    """Starts attempts and follows them to their end."""

    def __init__(
        self,
        jobs: JobStore,
        artifacts: ArtifactStore,
        cluster: Cluster,
        feed: Feed,
        cache_dir: Path,
        *,
        cancel_grace_s: float,
        start_timeout_s: float,
    ) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._cluster = cluster
        self._feed = feed
        self._cache_dir = cache_dir
        self._cancel_grace_s = cancel_grace_s
        self._start_timeout_s = start_timeout_s
        self._watched: dict[tuple[str, int], _Watch] = {}
        self._sessions = {cluster.session}
        self._service_stops = False

    # --- starting -----------------------------------------------------------------------------

    def start(self, job: Job) -> Job:
        """Store the next attempt of a queued job, then launch it."""
        earlier = self._jobs.attempts(job.id)
        wall_s = self._wall_left_s(job, earlier)
        if wall_s is not None and wall_s <= 0:
            return self.settle(
                job,
                JobState.FAILED,
                Reason.TIME_LIMIT,
                "The job's time limit (limits.max_wall_s) was used up by its earlier attempts.",
            )
        attempt = Attempt(
            job_id=job.id,
            number=job.attempt + 1,
            executor_id=self._cluster.reserve(job.spec.resources),
            session=self._cluster.session,
            created_at=datetime.now(UTC),
        )
        run = self._run(job, attempt, wall_s)
        job = self._jobs.start_attempt(
            job, attempt, Reason.STARTING, "Its process is being started."
        )
        self._feed.notify(job.id, urgent=True)
        self._cluster.launch(attempt.executor_id, run)
        return job

    def _wall_left_s(self, job: Job, earlier: list[Attempt]) -> float | None:
        if job.limits.max_wall_s is None:
            return None
        return job.limits.max_wall_s - sum(self._trained_s(attempt) for attempt in earlier)

    def _trained_s(self, attempt: Attempt) -> float:
        """Seconds that the attempt was at work: one that was lost was so until its last word, not
        until somebody noticed."""
        if attempt.started_at is None or attempt.ended_at is None:
            return 0.0
        ended_at = attempt.ended_at
        if attempt.reason in (Reason.INTERRUPTED, Reason.WORKER_LOST, Reason.CLUSTER_LOST):
            last = self._jobs.last_record_at(attempt.job_id, attempt.number)
            ended_at = min(ended_at, last or attempt.started_at)
        return (ended_at - attempt.started_at).total_seconds()

    def _run(self, job: Job, attempt: Attempt, wall_s: float | None) -> Run:
        kept = tuple(
            KeptCheckpoint(
                id=checkpoint.id,
                prefix=checkpoint.prefix,
                step=checkpoint.step,
                is_best=checkpoint.is_best,
                is_named=checkpoint.epoch in job.spec.checkpoint_at_epochs,
                has_train_state=checkpoint.has_train_state,
            )
            for checkpoint in self._jobs.checkpoints(job.id)
        )
        resumable = [
            checkpoint
            for checkpoint in kept
            if checkpoint.has_train_state
            and self._artifacts.exists(f"{checkpoint.prefix}/manifest.json")
            and self._artifacts.exists(f"{checkpoint.prefix}/train_state.safetensors")
        ]
        return Run(
            job_id=job.id,
            attempt=attempt.number,
            spec=job.spec,
            artifacts_uri=self._artifacts.uri,
            cache_dir=self._cache_dir,
            resume_from=resumable[-1].prefix if resumable else None,
            earlier=kept,
            wall_s=wall_s,
        )

    # --- following ----------------------------------------------------------------------------

    def follow(self, job: Job) -> None:
        """Bring a running job up to date: its events, its wishes, its end."""
        attempt = self._jobs.attempts(job.id)[-1]
        watch = self._watched.setdefault((job.id, attempt.number), _Watch())
        outcome = self._outcome(attempt)
        readable = self._ingest(attempt)
        if outcome is None and not readable:
            outcome = self._write_outcome(attempt, "internal_error", "Its events are unreadable.")
        if outcome is None:
            outcome = self._outcome_of_the_lost(job, attempt, watch)
        if outcome is not None:
            self._conclude(job, attempt, outcome)
        elif job.cancel_requested:
            self._press(job, attempt, watch, "cancelled", self._cancel_grace_s)
        elif attempt.first_step_at is not None:
            self.explain(job, Reason.TRAINING, "Training.")

    def stop_all(self, grace_s: float) -> None:
        """The service stops: let every attempt publish a checkpoint and end, then end the rest."""
        self._service_stops = True
        while running := self._jobs.running():
            for job in running:
                attempt = self._jobs.attempts(job.id)[-1]
                watch = self._watched.setdefault((job.id, attempt.number), _Watch())
                self._press(job, attempt, watch, "service_stopped", grace_s)
                self.follow(job)
            time.sleep(0.05)

    def settle(
        self, job: Job, to: JobState, reason: Reason, message: str, outcome: Outcome | None = None
    ) -> Job:
        """Move a job on, and tell its followers."""
        settled = self._jobs.settle(
            job,
            to,
            reason,
            message,
            attempt_reason=None if outcome is None else Reason(outcome.reason),
            attempt_message=None if outcome is None else outcome.message,
        )
        self._feed.notify(job.id, urgent=True)
        return settled

    def explain(self, job: Job, reason: Reason, message: str) -> None:
        """Say why a job is in its state; followers hear of a new reason at once."""
        if (job.reason, job.message) == (reason, message):
            return
        self._jobs.explain(job, reason, message)
        if job.reason is not reason:
            self._feed.notify(job.id, urgent=True)

    def _ingest(self, attempt: Attempt) -> bool:
        """Take in new chunks of events; returns whether they could be read."""
        chunk = attempt.next_chunk
        prefix = attempt_prefix(attempt.job_id, attempt.number)
        while True:
            try:
                lines = self._artifacts.get(chunk_key(prefix, chunk)).splitlines()
                records = [RECORD.validate_json(line) for line in lines]
            except ArtifactNotFound:
                return True
            except ValidationError:
                log.exception("%s: chunk %d is unreadable", prefix, chunk)
                return False
            self._jobs.ingest(attempt.job_id, attempt.number, chunk, records)
            self._feed.notify(attempt.job_id, urgent=False)
            chunk += 1

    def _outcome(self, attempt: Attempt) -> Outcome | None:
        key = outcome_key(attempt_prefix(attempt.job_id, attempt.number))
        try:
            return read_outcome(self._artifacts.get(key))
        except ArtifactNotFound:
            return None

    def _write_outcome(self, attempt: Attempt, reason: OutcomeReason, message: str) -> Outcome:
        """End an attempt in its process's place; returns the outcome that stands."""
        key = outcome_key(attempt_prefix(attempt.job_id, attempt.number))
        outcome = Outcome(reason=reason, message=message, at=datetime.now(UTC))
        try:
            self._artifacts.put(key, outcome.model_dump_json().encode())
        except ArtifactExists:
            return read_outcome(self._artifacts.get(key))
        return outcome

    def _outcome_of_the_lost(self, job: Job, attempt: Attempt, watch: _Watch) -> Outcome | None:
        """The outcome of an attempt whose process is gone, or None while there is hope."""
        self._sessions.add(self._cluster.session)
        if attempt.session != self._cluster.session:
            if attempt.session in self._sessions:
                return self._write_lost(
                    job, attempt, "Ray died, and the attempt with it", "cluster_lost"
                )
            return self._write_outcome(
                attempt,
                "interrupted",
                "The service was restarted, and this attempt ended; the job goes on from its "
                "last checkpoint.",
            )
        sighting = self._cluster.look(attempt.executor_id)
        if sighting.pid is not None and attempt.pid is None:
            self._jobs.note_process(job.id, attempt.number, sighting.pid, sighting.host)
        match sighting.state:
            case "gone":
                cause = sighting.detail or "its process ended without a word"
                return self._write_lost(job, attempt, f"The attempt was lost: {cause}")
            case "pending":
                return self._still_pending(job, attempt, watch)
            case "idle":
                watch.idle_since = watch.idle_since or time.monotonic()
                if time.monotonic() - watch.idle_since > OUTCOME_PATIENCE_S:
                    cause = sighting.detail or "nothing is known of the cause"
                    return self._write_lost(job, attempt, f"It ended without an outcome: {cause}")
            case "running":
                watch.idle_since = None
        return None

    def _still_pending(self, job: Job, attempt: Attempt, watch: _Watch) -> Outcome | None:
        """A joined cluster may make an executor wait; an own one has room, so it must come."""
        waited = time.monotonic() - watch.since
        if waited > self._start_timeout_s:
            if self._cluster.own:
                self._cluster.kill(attempt.executor_id)
                return self._write_lost(
                    job, attempt, f"Its process did not start within {waited:.0f} s"
                )
            if not job.cancel_requested:
                self.explain(
                    job,
                    Reason.WAITING_FOR_CLUSTER,
                    "The Ray cluster has not found room for it yet; others may hold its resources.",
                )
        return None

    def _write_lost(
        self, job: Job, attempt: Attempt, message: str, reason: OutcomeReason = "worker_lost"
    ) -> Outcome:
        if job.cancel_requested:
            return self._write_outcome(attempt, "cancelled", "Cancelled; it had to be ended.")
        if self._service_stops:
            return self._write_outcome(
                attempt,
                "service_stopped",
                "The service was stopped; the job goes on from its last checkpoint when it is "
                "started again.",
            )
        return self._write_outcome(attempt, reason, f"{message}.")

    # --- ending -------------------------------------------------------------------------------

    def _press(
        self, job: Job, attempt: Attempt, watch: _Watch, reason: StopReason, grace_s: float
    ) -> None:
        """Ask the attempt to end; when the grace time is over, end it."""
        if watch.asked_to_stop_at is None:
            self._cluster.request_stop(attempt.executor_id, reason)
            watch.asked_to_stop_at = time.monotonic()
            if reason == "cancelled":
                self.explain(job, Reason.CANCELLING, "Publishing a last checkpoint.")
        elif time.monotonic() - watch.asked_to_stop_at > grace_s:
            self._cluster.kill(attempt.executor_id)

    def _conclude(self, job: Job, attempt: Attempt, outcome: Outcome) -> None:
        """Settle the job; unless the attempt ended cleanly, only once its process is gone."""
        if outcome.detail is not None:
            log.error("%s attempt %d:\n%s", job.id, attempt.number, outcome.detail)
        same_session = attempt.session == self._cluster.session
        clean = outcome.reason in ("completed", "stopped_early")
        if same_session and not clean:
            self._cluster.kill(attempt.executor_id)
            if self._cluster.look(attempt.executor_id).state != "gone":
                return
        self._ingest(self._jobs.attempts(job.id)[-1])
        ended = self._jobs.attempts(job.id)[-1]
        rescue_log(self._jobs, self._artifacts, self._cache_dir, ended, outcome)
        self._ingest(ended)
        verdict = judge(job, outcome, self._jobs.attempts(job.id))
        self.settle(job, verdict.to, verdict.reason, verdict.message, outcome)
        if same_session:
            self._cluster.release(attempt.executor_id, reusable=clean)
        self._watched.pop((job.id, attempt.number), None)
