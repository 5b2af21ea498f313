"""One attempt from its start to its end, as the watcher sees it.

An attempt ends when its outcome stands in the artifact store. Its process writes it; when the
process is gone without one, it is written here in its place, and the store lets only one of the
two succeed. So an attempt that was given up can never be believed later, nor publish any more.
"""

import contextlib
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.cluster.base import Cluster, Sighting
from service.errors import StateConflict
from service.evidence import Evidence, is_for_memory
from service.feed import Feed
from service.jobs import Attempt, Job, JobState, Reason
from service.jobstore import JobStore
from service.reports import Reports
from service.starting import Starter
from service.verdicts import judge
from workers.artifacts import ArtifactStore
from workers.errors import StoreNotShared
from workers.events import Exit, Outcome, OutcomeReason
from workers.run import StopReason

log = logging.getLogger(__name__)

OUTCOME_PATIENCE_S = 5.0  # an executor that is idle for longer without an outcome has lost it


@dataclass
class _Watch:
    """What is held of a running attempt between two rounds; a restart may forget it."""

    evidence: Evidence
    since: float = field(default_factory=time.monotonic)
    asked_to_stop_at: float | None = None
    asked: StopReason | None = None
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
        self._cluster = cluster
        self._feed = feed
        self._reports = Reports(jobs, artifacts, feed, cache_dir)
        self._starter = Starter(jobs, artifacts, cluster, cache_dir)
        self._cancel_grace_s = cancel_grace_s
        self._start_timeout_s = start_timeout_s
        self._watched: dict[tuple[str, int], _Watch] = {}
        self._sessions = {cluster.session}
        self._service_stops = False

    # --- starting -----------------------------------------------------------------------------

    def start(self, job: Job) -> Job:
        """Store the next attempt of a queued job, then launch it; raises StateConflict."""
        prepared = self._starter.prepare(job)
        if prepared is None:
            return self.settle(
                job,
                JobState.FAILED,
                Reason.TIME_LIMIT,
                "The job's time limit (limits.max_wall_s) was used up by its earlier attempts.",
            )
        attempt, run = prepared
        job = self._jobs.start_attempt(
            job, attempt, Reason.STARTING, "Its process is being started."
        )
        self._feed.notify(job.id, urgent=True)
        self._cluster.launch(attempt.executor_id, run)
        return job

    # --- following ----------------------------------------------------------------------------

    def follow(self, job: Job) -> None:
        """Bring a running job up to date: its events, its wishes, its end."""
        attempt = self._jobs.attempts(job.id)[-1]
        watch = self._watch(job, attempt)
        outcome = self._reports.outcome(attempt)
        readable = self._reports.ingest(attempt)
        if outcome is None and not readable:
            outcome = self._reports.write_outcome(
                attempt, "internal_error", "Its events are unreadable."
            )
        if outcome is None:
            outcome = self._outcome_of_the_lost(job, attempt, watch)
        if outcome is not None:
            self._conclude(job, attempt, outcome)
        elif job.cancel_requested:
            self._press(job, attempt, watch, "cancelled", self._cancel_grace_s)
        elif job.pause_requested or watch.asked == "paused":
            # A stop that was asked for cannot be taken back: a resumed job goes on afterwards.
            self._press(job, attempt, watch, "paused", self._cancel_grace_s)
        elif attempt.first_step_at is not None:
            self.explain(job, Reason.TRAINING, "Training.")

    def _watch(self, job: Job, attempt: Attempt) -> _Watch:
        key = (job.id, attempt.number)
        if key not in self._watched:
            self._watched[key] = _Watch(Evidence(is_here=self._cluster.own))
        return self._watched[key]

    def stop_all(self, grace_s: float) -> None:
        """The service stops: let every attempt publish a checkpoint and end, then end the rest."""
        self._service_stops = True
        while running := self._jobs.running():
            for job in running:
                attempt = self._jobs.attempts(job.id)[-1]
                watch = self._watch(job, attempt)
                with contextlib.suppress(StateConflict):  # another wish: the next look sees it
                    self._press(job, attempt, watch, "service_stopped", grace_s)
                    self.follow(job)
            time.sleep(0.05)

    def settle(
        self,
        job: Job,
        to: JobState,
        reason: Reason,
        message: str,
        outcome: Outcome | None = None,
        backoff_s: float = 0.0,
    ) -> Job:
        """Move a job on, and tell its followers; raises StateConflict."""
        settled = self._jobs.settle(
            job,
            to,
            reason,
            message,
            attempt_reason=None if outcome is None else Reason(outcome.reason),
            attempt_message=None if outcome is None else outcome.message,
            attempt_exit=None if outcome is None else outcome.exit,
            not_before=datetime.now(UTC) + timedelta(seconds=backoff_s) if backoff_s else None,
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

    def _outcome_of_the_lost(self, job: Job, attempt: Attempt, watch: _Watch) -> Outcome | None:
        """The outcome of an attempt whose process is gone, or None while there is hope."""
        self._sessions.add(self._cluster.session)
        if attempt.session != self._cluster.session:
            if attempt.session in self._sessions:
                return self._write_lost(
                    job, attempt, watch, "Ray died, and the attempt with it", "cluster_lost"
                )
            return self._reports.write_outcome(
                attempt,
                "interrupted",
                "The service was restarted, and this attempt ended; the job goes on from its "
                "last checkpoint.",
            )
        sighting = self._cluster.look(attempt.executor_id)
        watch.evidence.see(sighting)
        if sighting.pid is not None and attempt.pid is None:
            self._jobs.note_process(job.id, attempt.number, sighting.pid, sighting.host)
        if sighting.cause == "store_not_shared":  # and it would be so again
            detail = sighting.detail or str(StoreNotShared())
            return self._write_lost(job, attempt, watch, detail, sighting.cause)
        match sighting.state:
            case "gone":
                return self._write_gone(job, attempt, watch, sighting)
            case "pending":
                return self._still_pending(job, attempt, watch)
            case "idle":
                watch.idle_since = watch.idle_since or time.monotonic()
                if time.monotonic() - watch.idle_since > OUTCOME_PATIENCE_S:
                    cause = sighting.detail or "nothing is known of the cause"
                    message = f"It ended without an outcome: {cause}"
                    exit = watch.evidence.of(sighting)
                    return self._write_lost(job, attempt, watch, message, sighting.cause, exit)
            case "running":
                watch.idle_since = None
        return None

    def _write_gone(self, job: Job, attempt: Attempt, watch: _Watch, sighting: Sighting) -> Outcome:
        """The kernel ends a process for want of memory without a word; its count is evidence."""
        cause = sighting.detail or "its process ended without a word"
        exit = watch.evidence.of(sighting)
        message = f"The attempt was lost: {cause}"
        if exit.signal is not None:
            message += f"; the kernel says that {exit.signal} ended it"
        if sighting.cause == "worker_lost" and is_for_memory(exit):
            message += "; the kernel ended a process for want of memory at that time"
            return self._write_lost(job, attempt, watch, message, "out_of_memory", exit)
        return self._write_lost(job, attempt, watch, message, sighting.cause, exit)

    def _still_pending(self, job: Job, attempt: Attempt, watch: _Watch) -> Outcome | None:
        """A joined cluster may make an executor wait; an own one has room, so it must come."""
        waited = time.monotonic() - watch.since
        if waited > self._start_timeout_s:
            if self._cluster.own:
                self._cluster.kill(attempt.executor_id)
                return self._write_lost(
                    job, attempt, watch, f"Its process did not start within {waited:.0f} s"
                )
            if not job.cancel_requested:
                self.explain(
                    job,
                    Reason.WAITING_FOR_CLUSTER,
                    "The Ray cluster has not found room for it yet; others may hold its resources.",
                )
        return None

    def _write_lost(
        self,
        job: Job,
        attempt: Attempt,
        watch: _Watch,
        message: str,
        reason: OutcomeReason = "worker_lost",
        exit: Exit | None = None,
    ) -> Outcome:
        message = f"{message}."
        if job.cancel_requested:
            reason, message = "cancelled", "Cancelled; it had to be ended."
        elif job.pause_requested or watch.asked == "paused":
            reason, message = "paused", "Paused; it had to be ended."
        elif self._service_stops:
            reason = "service_stopped"
            message = (
                "The service was stopped; the job goes on from its last checkpoint when it is "
                "started again."
            )
        return self._reports.write_outcome(attempt, reason, message, exit)

    # --- ending -------------------------------------------------------------------------------

    def _press(
        self, job: Job, attempt: Attempt, watch: _Watch, reason: StopReason, grace_s: float
    ) -> None:
        """Ask the attempt to end; when the grace time is over, end it."""
        if watch.asked_to_stop_at is None:
            self._cluster.request_stop(attempt.executor_id, reason)
            watch.asked_to_stop_at, watch.asked = time.monotonic(), reason
        if reason == "cancelled":
            self.explain(job, Reason.CANCELLING, "Publishing a last checkpoint.")
        elif job.pause_requested:
            self.explain(job, Reason.PAUSING, "Publishing a checkpoint to go on from.")
        elif reason == "paused":
            self.explain(job, Reason.RESUMING, "Goes on as soon as its paused attempt has ended.")
        if time.monotonic() - watch.asked_to_stop_at > grace_s:
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
        self._reports.ingest(self._jobs.attempts(job.id)[-1])
        self._reports.rescue_log(self._jobs.attempts(job.id)[-1], outcome)
        verdict = judge(job, outcome, self._jobs.attempts(job.id))
        self.settle(job, verdict.to, verdict.reason, verdict.message, outcome, verdict.backoff_s)
        if same_session:
            self._cluster.release(attempt.executor_id, reusable=clean)
        watch = self._watched.pop((job.id, attempt.number), None)
        if watch is not None:
            watch.evidence.close()
