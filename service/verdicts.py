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
    "cluster_lost": JobState.QUEUED,
    "diverged": JobState.FAILED,
    "invalid": JobState.FAILED,
    "data_unavailable": JobState.FAILED,
    "out_of_memory": JobState.FAILED,
    "store_unreachable": JobState.FAILED,
    "time_limit": JobState.FAILED,
    "version_mismatch": JobState.FAILED,
    "internal_error": JobState.FAILED,
}


# A run that takes Ray down with it each time must end; other jobs' falls must not end it.
CLUSTER_LOSSES_PER_ATTEMPT = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state that a job goes to, and why."""

    to: JobState
    reason: Reason
    message: str


def judge(job: Job, outcome: Outcome, attempts: Sequence[Attempt]) -> Verdict:
    """Where a running job goes after an attempt with this outcome.

    A lost attempt is repeated until ``limits.max_attempts`` were lost. One that ended with the
    service does not count; one that ended with Ray is rarely the job's fault, and has a bound of
    its own. ``attempts`` are all of the job, the ended one included.
    """
    to = ENDS[outcome.reason]
    if to is not JobState.QUEUED:
        return Verdict(to, Reason(outcome.reason), outcome.message)
    if job.cancel_requested:
        return Verdict(JobState.CANCELLED, Reason.CANCELLED, "Cancelled.")
    bound = {
        "worker_lost": job.limits.max_attempts,
        "cluster_lost": CLUSTER_LOSSES_PER_ATTEMPT * job.limits.max_attempts,
    }.get(outcome.reason)
    if bound is None:
        return Verdict(JobState.QUEUED, Reason.RECOVERING, outcome.message)
    reason = Reason(outcome.reason)
    lost = 1 + sum(attempt.reason is reason for attempt in attempts)
    if lost >= bound:
        message = f"{outcome.message} It was lost {lost} times so (limits.max_attempts)."
        return Verdict(JobState.FAILED, reason, message)
    message = f"{outcome.message} The job goes on from its last checkpoint."
    return Verdict(JobState.QUEUED, Reason.RECOVERING, message)
