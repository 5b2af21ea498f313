"""What follows for a job from the way in which its attempt ended: the one table of policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.jobs import FINAL_STATES, Attempt, Job, JobState, Reason
from workers.events import Outcome, OutcomeReason

ENDS: Mapping[OutcomeReason, JobState] = {
    "completed": JobState.SUCCEEDED,
    "stopped_early": JobState.SUCCEEDED,
    "stopped_by_study": JobState.SUCCEEDED,
    "posterior_collapse": JobState.SUCCEEDED,
    "dead_latents": JobState.SUCCEEDED,
    "converged": JobState.SUCCEEDED,
    "iteration_limit": JobState.SUCCEEDED,
    "cancelled": JobState.CANCELLED,
    "paused": JobState.QUEUED,  # unless the wish still stands
    "at_rung": JobState.PAUSED,
    "interrupted": JobState.QUEUED,
    "service_stopped": JobState.QUEUED,
    "worker_lost": JobState.QUEUED,
    "cluster_lost": JobState.QUEUED,
    "out_of_memory": JobState.QUEUED,
    "store_unreachable": JobState.QUEUED,
    "store_full": JobState.QUEUED,
    "diverged": JobState.FAILED,
    "invalid": JobState.FAILED,
    "too_few_rows": JobState.FAILED,
    "too_many_components": JobState.FAILED,
    "constant_columns": JobState.FAILED,
    "rank_deficient": JobState.FAILED,
    "collapsed_component": JobState.FAILED,
    "not_a_number": JobState.FAILED,
    "data_unavailable": JobState.FAILED,
    "extractor_unavailable": JobState.FAILED,
    "time_limit": JobState.FAILED,
    "version_mismatch": JobState.FAILED,
    "store_not_shared": JobState.FAILED,
    "internal_error": JobState.FAILED,
}


# A run that takes Ray down with it each time must end; other jobs' falls must not end it.
CLUSTER_LOSSES_PER_ATTEMPT = 5
_OWN_LOSSES = frozenset(
    {Reason.WORKER_LOST, Reason.OUT_OF_MEMORY, Reason.STORE_UNREACHABLE, Reason.STORE_FULL}
)


@dataclass(frozen=True, slots=True)
class Repeat:
    """How often and after how long a lost attempt is repeated.

    It is lost too often when attempts that ended for one of ``counted`` are ``per_attempt`` times
    ``limits.max_attempts``. The n-th repetition waits first_s · 2^(n−1), at most ``most_s``.
    """

    counted: frozenset[Reason]
    first_s: float
    most_s: float
    per_attempt: int = 1

    def backoff_s(self, lost: int) -> float:
        """Seconds to wait after so many losses, at least one."""
        # The exponent is bounded, so that no number of losses overflows.
        return min(self.first_s * 2.0 ** min(lost - 1, 32), self.most_s)


# Memory, room on a disk and a store that is away come back in their own time; a crash may be over
# at once. After the fall of Ray its start anew is wait enough.
REPEATS: Mapping[OutcomeReason, Repeat] = {
    "worker_lost": Repeat(_OWN_LOSSES, first_s=1, most_s=60),
    "out_of_memory": Repeat(_OWN_LOSSES, first_s=5, most_s=300),
    "store_unreachable": Repeat(_OWN_LOSSES, first_s=5, most_s=300),
    "store_full": Repeat(_OWN_LOSSES, first_s=5, most_s=300),
    "cluster_lost": Repeat(
        frozenset({Reason.CLUSTER_LOST}), 0, 0, per_attempt=CLUSTER_LOSSES_PER_ATTEMPT
    ),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state that a job goes to, and why; a queued one starts after ``backoff_s``."""

    to: JobState
    reason: Reason
    message: str
    backoff_s: float = 0.0


def judge(job: Job, outcome: Outcome, attempts: Sequence[Attempt]) -> Verdict:
    """Where a running job goes after an attempt with this outcome.

    A lost attempt is repeated, with back-off, until ``limits.max_attempts`` were lost. One that
    ended with the service does not count; one that ended with Ray is rarely the job's fault, and
    has a bound of its own. A wish to cancel beats one to pause, and both beat the repetition.
    ``attempts`` are all of the job, the ended one included; those before the last retry do not
    count.
    """
    to, message = ENDS[outcome.reason], outcome.message
    if to in FINAL_STATES:
        return Verdict(to, Reason(outcome.reason), message)
    if job.cancel_requested:
        return Verdict(JobState.CANCELLED, Reason.CANCELLED, "Cancelled.")
    if to is JobState.PAUSED:
        return Verdict(to, Reason(outcome.reason), message)
    backoff_s = 0.0
    if (repeat := REPEATS.get(outcome.reason)) is not None:
        counted = [attempt for attempt in attempts if attempt.number >= job.counts_from]
        lost = 1 + sum(attempt.reason in repeat.counted for attempt in counted)
        if lost >= repeat.per_attempt * job.limits.max_attempts:
            message = f"{message} It was lost {lost} times so (limits.max_attempts)."
            return Verdict(JobState.FAILED, Reason(outcome.reason), message)
        backoff_s = repeat.backoff_s(lost)
    if job.pause_requested:
        message = f"{message} Resume lets the job go on from its last checkpoint."
        return Verdict(JobState.PAUSED, Reason.PAUSED, message)
    if outcome.reason == "paused":
        message = f"{message} Resumed; it goes on from there."
        return Verdict(JobState.QUEUED, Reason.RESUMED, message)
    if repeat is not None:
        when = f" in {backoff_s:g} s" if backoff_s else ""
        message = f"{message} The job goes on from its last checkpoint{when}."
    return Verdict(JobState.QUEUED, Reason.RECOVERING, message, backoff_s)
