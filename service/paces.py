"""How fast jobs were here: measured on attempts that trained, never assumed.

Two jobs are alike when a step of both is the same work on the same share of a machine: the same
data, networks, batch, samples, precision and resources. Spread, rates and epochs may differ.
"""

import statistics
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from service.jobs import Attempt, Job, JobState
from service.jobstore import JobStore
from workers.kinds import AnySpec, epochs, is_open_ended

LOOKED_AT = 50  # attempts, the latest
TAKEN = 5  # of those that are alike
KEPT_S = 2.0
SILENCE_S = 15.0  # a process that trains tells its step every second
_NO_WORK = frozenset(
    {
        *("optimizer", "epochs", "early_stopping", "best_metric", "log_std_bound"),
        *("evaluate_every_epochs", "grid_every_epochs", "warm_up_epochs", "spread", "observation"),
        *("quality", "repetitions", "first_repetition"),
    }
)

_Work = tuple[object, ...]  # what makes two jobs alike


@dataclass(frozen=True, slots=True)
class Pace:
    """What attempts of like jobs took: medians over ``attempts`` of them.

    ``start_s`` is from the attempt's beginning to its first step. A run that ends when it has
    converged counts as one epoch.
    """

    attempts: int
    steps_per_s: float
    start_s: float
    steps_per_epoch: float

    def trained_s(self, spec: AnySpec) -> float:
        """Seconds that all steps of a run take."""
        return epochs(spec) * self.steps_per_epoch / self.steps_per_s

    def duration_s(self, spec: AnySpec, done: int = 0) -> float:
        """Seconds from the start to the end of a run of which ``done`` steps are done."""
        left = max(epochs(spec) * self.steps_per_epoch - done, 0.0)
        return self.start_s + left / self.steps_per_s


class Paces:
    """Looks at the last attempts of all jobs; what it saw lasts for two seconds."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._seen_at = float("-inf")
        self._seen: list[tuple[_Work, Job, Attempt]] = []

    def of_its_like(self, spec: AnySpec, but: str | None = None) -> Pace | None:
        """The pace of jobs like this, the job ``but`` left out; None where none was measured."""
        found = [
            (job, attempt, rate)
            for job, attempt in self.like(spec, but)
            if (rate := steps_per_s(attempt)) is not None
        ][:TAKEN]
        if not found:
            return None
        starts = [
            (attempt.first_step_at - attempt.created_at).total_seconds()
            for _, attempt, _ in found
            if attempt.first_step_at is not None
        ]
        of_epoch = [
            job.progress.total_steps / epochs(job.spec)
            for job, _, _ in found
            if job.progress is not None
            and (job.state is JobState.SUCCEEDED or not is_open_ended(job.spec))
        ]
        if not of_epoch:
            return None
        return Pace(
            attempts=len(found),
            steps_per_s=statistics.median(rate for _, _, rate in found),
            start_s=statistics.median(starts),
            steps_per_epoch=statistics.median(of_epoch),
        )

    def usual_start_s(self) -> tuple[float, int] | None:
        """Median seconds from an attempt's beginning to its first step, and of how many."""
        starts = [
            (attempt.first_step_at - attempt.created_at).total_seconds()
            for _, _, attempt in self._lately()
            if attempt.first_step_at is not None
        ]
        return (statistics.median(starts), len(starts)) if starts else None

    def like(self, spec: AnySpec, but: str | None = None) -> list[tuple[Job, Attempt]]:
        """The latest attempts of jobs like this."""
        work = _work(spec)
        return [
            (job, attempt)
            for its_work, job, attempt in self._lately()
            if job.id != but and job.progress is not None and its_work == work
        ]

    def _lately(self) -> list[tuple["_Work", Job, Attempt]]:
        with self._lock:
            if time.monotonic() - self._seen_at > KEPT_S:
                self._seen = [
                    (_work(job.spec), job, attempt)
                    for job, attempt in self._jobs.turns.lately_trained(LOOKED_AT)
                ]
                self._seen_at = time.monotonic()
            return self._seen


def steps_per_s(attempt: Attempt) -> float | None:
    """The attempt's mean pace behind its first step; None before it has one."""
    if attempt.first_step_at is None or attempt.heard_at is None or attempt.last_step is None:
        return None
    steps = attempt.last_step - (attempt.resumed_from_step or 0) - 1
    seconds = (attempt.heard_at - attempt.first_step_at).total_seconds()
    return steps / seconds if steps > 0 and seconds > 0 else None


def remaining_s(job: Job, attempt: Attempt) -> float | None:
    """Seconds to the end of a running job at its own pace; None where that cannot be told."""
    if job.state is not JobState.RUNNING or job.cancel_requested or job.pause_requested:
        return None
    if is_open_ended(job.spec):
        return None
    rate = steps_per_s(attempt)
    if rate is None or job.progress is None or attempt.heard_at is None:
        return None
    silence_s = (datetime.now(UTC) - attempt.heard_at).total_seconds()
    if silence_s > SILENCE_S:
        return None
    left = job.progress.total_steps - (attempt.last_step or 0)
    return max(left / rate - silence_s, 0.0)


def _work(spec: AnySpec) -> _Work:
    return (
        spec.dataset,
        spec.resources,
        tuple(sorted(spec.trainer.model_dump(mode="json", exclude=set(_NO_WORK)).items(), key=str)),
    )
