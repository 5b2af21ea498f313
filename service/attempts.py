"""One attempt from its start to its end, as the watcher sees it.

An attempt ends when its outcome stands in the artifact store. Its process writes it; when the
process is gone without one, it is written here in its place, and the store lets only one of the
two succeed. So an attempt that was given up can never be believed later, nor publish any more.
"""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_never

from service.cluster.base import Cluster, Sighting
from service.evidence import Evidence, is_for_memory
from service.feed import Feed
from service.jobs import BY_STUDY, Attempt, Job, JobState, Reason
from service.jobstore import JobStore
from service.log_lines import about
from service.measures import Measures
from service.reports import Reports
from service.starting import Starter
from service.verdicts import ENDS, judge
from service.watch import Watch, heard_for_s
from workers.artifacts import ArtifactStore
from workers.errors import StoreError, StoreNotShared
from workers.events import Exit, Outcome, OutcomeReason
from workers.run import StopReason, StudyStop
from workers.tracing import OFF, Span, Tracing

log = logging.getLogger(__name__)

STORE_INTERVAL_S = 1.0  # an attempt writes at most so often
INGEST_S = 0.5  # for the events of one attempt in one round, after an outage there are thousands
NEVER_TOLD = "it was not told to begin, as when the service is killed while it starts an attempt"
OUTCOME_PATIENCE_S = 5.0  # an executor that is idle for longer without an outcome has lost it


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
        store_interval_s: float = STORE_INTERVAL_S,
        fid_weights: str = "",
        measures: Measures | None = None,
        tracing: Tracing = OFF,
    ) -> None:
        self._tracing = tracing
        measures = measures or Measures()
        self._measures = measures.progress
        self._jobs = jobs
        self._cluster = cluster
        self._feed = feed
        self._reports = Reports(jobs, artifacts, feed, cache_dir, measures)
        self._starter = Starter(jobs, artifacts, cluster, cache_dir, fid_weights)
        self._cancel_grace_s = cancel_grace_s
        self._start_timeout_s = start_timeout_s
        self._store_interval_s = store_interval_s
        self._watched: dict[tuple[str, int], Watch] = {}
        self._sessions = {cluster.session}
        self._service_stops = False

    # --- starting -----------------------------------------------------------------------------

    def start(self, job: Job, until_epoch: int | None = None) -> Job:
        """Store the next attempt of a queued job, then launch it; raises StateConflict.

        It pauses after ``until_epoch``, where one is given.
        """
        with self._tracing.span(
            "start attempt", job.traceparent, "producer", spreadtrain__job=job.id
        ) as span:
            return self._start(job, until_epoch, span)

    def _start(self, job: Job, until_epoch: int | None, span: Span) -> Job:
        prepared = self._starter.prepare(job, until_epoch)
        if prepared is None:
            return self.settle(
                job,
                JobState.FAILED,
                Reason.TIME_LIMIT,
                "The job's time limit (limits.max_wall_s) was used up by its earlier attempts.",
            )
        attempt, run = prepared
        span.set(spreadtrain__attempt=attempt.number)
        traced = {"tracing": self._tracing.location, "traceparent": span.traceparent}
        job = self._jobs.start_attempt(
            job, attempt, Reason.STARTING, "Its process is being started."
        )
        self._measures.moved(job.state, job.reason)
        self._feed.notify(job.id, urgent=True)
        with about(job=job.id, attempt=attempt.number):
            log.info("%s: attempt %d is started", job.id, attempt.number)
            self._cluster.launch(attempt.executor_id, run.model_copy(update=traced))
        return job

    # --- following ----------------------------------------------------------------------------

    def follow(self, job: Job) -> None:
        """Bring a running job up to date: its events, its wishes, its end.

        Wishes are carried out while the store is away, too. Raises StateConflict, StoreError.
        """
        attempts = self._jobs.attempts(job.id)
        attempt = attempts[-1]
        watch = self._watch(job, attempts)
        sighting = self._look(attempt, watch)
        try:
            outcome = self._outcome(job, attempt, watch, sighting)
            if outcome is not None:
                self._conclude(job, attempt, outcome)
                return
        except StoreError as error:
            watch.trouble = error
            self._heed(job, attempt, watch, sighting)
            raise
        self._heed(job, attempt, watch, sighting)

    def heed(self, job: Job) -> None:
        """Carry out what is wished of a running job, without asking the store."""
        attempts = self._jobs.attempts(job.id)
        watch = self._watch(job, attempts)
        self._heed(job, attempts[-1], watch, self._look(attempts[-1], watch))

    def stop(self, job: Job, grace_s: float) -> None:
        """The service stops: let the attempt publish a checkpoint and end; then end it."""
        self._service_stops = True
        attempts = self._jobs.attempts(job.id)
        watch = self._watch(job, attempts)
        self._press(job, attempts[-1], watch, "service_stopped", grace_s)
        self.follow(job)

    def stop_trial(self, job: Job, reason: StudyStop = "stopped_by_study") -> None:
        """Its study wants no more of a trial: it publishes a checkpoint, and has succeeded."""
        if job.state is not JobState.RUNNING:
            message = "Stopped by its study while it waited; its checkpoints are kept."
            self.settle(job, JobState.SUCCEEDED, Reason(reason), message)
            return
        attempts = self._jobs.attempts(job.id)
        if attempts[-1].session == self._cluster.session:
            watch = self._watch(job, attempts)
            self._press(job, attempts[-1], watch, reason, self._cancel_grace_s)

    def forget(self) -> None:
        """Another service follows the attempts now; what this one knows of them grows old."""
        for watch in self._watched.values():
            watch.evidence.close()
        self._watched.clear()
        self._measures.forget()

    def store_trouble(self) -> StoreError | None:
        """Why the store could not be asked for one of the running attempts the last time."""
        troubles = (watch.trouble for watch in self._watched.values())
        return next((trouble for trouble in troubles if trouble is not None), None)

    def _watch(self, job: Job, attempts: Sequence[Attempt]) -> Watch:
        key = (job.id, attempts[-1].number)
        if key not in self._watched:
            wall_s = self._starter.wall_left_s(job, attempts[:-1])
            before_s = heard_for_s(attempts[-1])
            self._watched[key] = Watch(Evidence(is_here=self._cluster.own), wall_s, before_s)
        return self._watched[key]

    def _look(self, attempt: Attempt, watch: Watch) -> Sighting | None:
        """What is to be seen of the attempt's process; None of one of another session."""
        self._sessions.add(self._cluster.session)
        if attempt.session != self._cluster.session:
            return None
        sighting = self._cluster.look(attempt.executor_id)
        watch.see(sighting)
        if sighting.pid is not None and attempt.pid is None:
            self._jobs.note_process(attempt.job_id, attempt.number, sighting.pid, sighting.host)
        return sighting

    def _outcome(
        self, job: Job, attempt: Attempt, watch: Watch, sighting: Sighting | None
    ) -> Outcome | None:
        """How the attempt has ended, or None while it goes on or nobody has looked; takes in its
        events."""
        if not watch.is_due(job, sighting, self._store_interval_s):
            return None
        outcome = self._reports.outcome(attempt)
        taken = self._reports.ingest(job, attempt, INGEST_S)
        watch.trouble, watch.is_behind = None, taken == "some"
        if watch.is_behind:  # nothing follows from what is known of it so far
            return None
        if outcome is None and taken == "unreadable":
            return self._reports.write_outcome(
                attempt, "internal_error", "Its events are unreadable."
            )
        return outcome or self._outcome_of_the_lost(job, attempt, watch, sighting)

    def _heed(self, job: Job, attempt: Attempt, watch: Watch, sighting: Sighting | None) -> None:
        if sighting is None:  # nobody is there to hear it
            return
        if job.cancel_requested:
            self._press(job, attempt, watch, "cancelled", self._cancel_grace_s)
        elif job.pause_requested or watch.asked == "paused":
            # A stop that was asked for cannot be taken back: a resumed job goes on afterwards.
            self._press(job, attempt, watch, "paused", self._cancel_grace_s)
        elif watch.is_over_time():
            self._press(job, attempt, watch, "time_limit", self._cancel_grace_s)
        elif attempt.first_step_at is not None:
            self.explain(job, Reason.TRAINING, "Training.")

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
        self._measures.moved(to, reason)
        with about(job=job.id, attempt=job.attempt or None):
            log.info("%s is %s (%s): %s", job.id, to, reason, message)
        if outcome is not None:
            self._measures.attempt_ended(job.id, job.attempt, outcome.reason)
        self._feed.notify(job.id, urgent=True)
        return settled

    def explain(self, job: Job, reason: Reason, message: str) -> None:
        """Say why a job is in its state; followers hear of a new reason at once."""
        if (job.reason, job.message) == (reason, message):
            return
        self._jobs.explain(job, reason, message)
        if job.reason is not reason:
            self._feed.notify(job.id, urgent=True)

    def _outcome_of_the_lost(
        self, job: Job, attempt: Attempt, watch: Watch, sighting: Sighting | None
    ) -> Outcome | None:
        """The outcome of an attempt whose process is gone, or None while there is hope."""
        if sighting is None:
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
        if sighting.cause == "store_not_shared":  # and it would be so again
            detail = sighting.detail or str(StoreNotShared())
            return self._write_lost(job, attempt, watch, detail, sighting.cause)
        match sighting.state:
            case "gone":
                return self._write_gone(job, attempt, watch, sighting)
            case "pending":
                return self._still_pending(job, attempt, watch)
            case "idle":
                since = watch.idle_since or time.monotonic()
                if time.monotonic() - since > OUTCOME_PATIENCE_S:
                    cause = sighting.detail or (
                        "nothing is known of the cause" if attempt.started_at else NEVER_TOLD
                    )
                    message = f"It ended without an outcome: {cause}"
                    exit = watch.evidence.of(sighting)
                    return self._write_lost(job, attempt, watch, message, sighting.cause, exit)
            case "running":
                pass
            case _:
                assert_never(sighting.state)
        return None

    def _write_gone(self, job: Job, attempt: Attempt, watch: Watch, sighting: Sighting) -> Outcome:
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

    def _still_pending(self, job: Job, attempt: Attempt, watch: Watch) -> Outcome | None:
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
        watch: Watch,
        message: str,
        reason: OutcomeReason = "worker_lost",
        exit: Exit | None = None,
    ) -> Outcome:
        message = f"{message}."
        if job.cancel_requested:
            reason, message = "cancelled", "Cancelled; it had to be ended."
        elif job.pause_requested or watch.asked == "paused":
            reason, message = "paused", "Paused; it had to be ended."
        elif watch.asked in BY_STUDY:
            reason, message = watch.asked, "Stopped by its study; it had to be ended."
        elif watch.asked == "time_limit":
            reason = "time_limit"
            message = (
                "The time limit (limits.max_wall_s) is used up; its process did not end by "
                "itself and was ended."
            )
        elif self._service_stops:
            reason = "service_stopped"
            message = (
                "The service was stopped; the job goes on from its last checkpoint when it is "
                "started again."
            )
        return self._reports.write_outcome(attempt, reason, message, exit)

    # --- ending -------------------------------------------------------------------------------

    def _press(
        self, job: Job, attempt: Attempt, watch: Watch, reason: StopReason, grace_s: float
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
        clean = ENDS[outcome.reason] in (JobState.SUCCEEDED, JobState.PAUSED)
        # No gang is used again, and each of its workers may still be at work on its log.
        is_gang = job.spec.resources.workers > 1
        if same_session and (is_gang or not clean):
            self._cluster.kill(attempt.executor_id)
            if self._cluster.look(attempt.executor_id).state != "gone":
                return
        attempts = self._jobs.attempts(job.id)
        self._reports.take_in_rest(job, attempts[-1], outcome)
        verdict = judge(job, outcome, attempts)
        self.settle(job, verdict.to, verdict.reason, verdict.message, outcome, verdict.backoff_s)
        if same_session:
            self._cluster.release(attempt.executor_id, reusable=clean)
        watch = self._watched.pop((job.id, attempt.number), None)
        if watch is not None:
            watch.evidence.close()
