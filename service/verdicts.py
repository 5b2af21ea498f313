"""What follows for a job from the way in which its attempt ended: the one table of policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.jobs import Attempt, Job, JobState, Reason
from workers.events import Outcome, OutcomeReason

ENDS: Mapping[OutcomeReason, JobState] = {
    "completed": JobState.SUCCEEDED,
    "stopped_early": JobState.SUCCEEDED,
    "cancelled": JobState.CANCELLED,
    "interrupted": JobState.QUEUED,
    "service_stopped": JobState.QUEUED,
    "worker_lost": JobState.QUEUED,
    "diverged": JobState.FAILED,
    "invalid": JobState.FAILED,
    "data_unavailable": JobState.FAILED,
    "out_of_memory": JobState.FAILED,
    "store_unreachable": JobState.FAILED,
    "time_limit": JobState.FAILED,
    "version_mismatch": JobState.FAILED,
    "internal_error": JobState.FAILED,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state that a job goes to, and why."""

    to: JobState
    reason: Reason
    message: str


def judge(job: Job, outcome: Outcome, attempts: Sequence[Attempt]) -> Verdict:
    """Where a running job goes after an attempt with this outcome.

    A lost attempt is repeated until ``limits.max_attempts`` were lost; one that ended with the
    service does not count. ``attempts`` are all of the job, the ended one included.
    """
    to = ENDS[outcome.reason]
    if to is not JobState.QUEUED:
        return Verdict(to, Reason(outcome.reason), outcome.message)
    if job.cancel_requested:
        return Verdict(JobState.CANCELLED, Reason.CANCELLED, "Cancelled.")
    if outcome.reason != "worker_lost":
        return Verdict(JobState.QUEUED, Reason.RECOVERING, outcome.message)
    lost = 1 + sum(attempt.reason is Reason.WORKER_LOST for attempt in attempts)
    if lost >= job.limits.max_attempts:
        message = f"{outcome.message} That was the last of {lost} attempts (limits.max_attempts)."
        return Verdict(JobState.FAILED, Reason.WORKER_LOST, message)
    message = f"{outcome.message} The job goes on from its last checkpoint."
    return Verdict(JobState.QUEUED, Reason.RECOVERING, message)
