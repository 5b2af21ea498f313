"""Where a waiting job stands, and when it will start as far as that was measured.

The queue is strict: higher priority first, then the earlier submission, and nobody overtakes a job
that does not fit. A job that waits for its back-off takes its turn when that is over. The estimate
plays this rule through, with the measured pace of those that run and of the like of those that
wait. What was not measured is never guessed: then there is no estimate, and a reason.
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.cluster.base import Capacity, Cluster, ClusterDown
from service.jobs import Job, JobState
from service.jobstore import JobStore
from service.paces import Paces, remaining_s
from service.studies.allotment import of_one_trial, places
from service.studies.ledger import Study
from workers.kinds import AnySpec
from workers.spec import Resources

PLAYED = 50  # queued jobs that are played through; behind more of them nothing is said
_NOBODY = "~"  # behind every id
_TOO_MANY = f"More than {PLAYED} queued jobs may start before it: too many to tell."


@dataclass(frozen=True, slots=True)
class Standing:
    """A queued job's place: how many start before it, and when it starts.

    ``starts_at`` is None where nobody can tell; ``basis`` says what it rests on, or why not.
    """

    ahead: int
    not_before: datetime | None
    starts_at: datetime | None
    basis: str


@dataclass(frozen=True, slots=True)
class Holder:
    """A running job, or a study with all its trials, and what it holds; ``left_s`` is None where
    its end cannot be told. ``study_id`` is a study's, and ``job_id`` is then the same."""

    job_id: str
    resources: Resources
    since: datetime
    left_s: float | None
    is_ending: bool
    has_process: bool
    study_id: str | None = None


@dataclass(frozen=True, slots=True)
class Waiter:
    """A queued job in its turn. It may start ``due_s`` from now, and then runs for ``runs_s``."""

    job_id: str
    resources: Resources
    due_s: float = 0.0
    runs_s: float | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """When a job starts: ``in_s`` seconds from now, or None and ``why`` not."""

    in_s: float | None
    why: str = ""


class Queueing:
    """Looks at the queue, the running jobs and their paces."""

    def __init__(self, jobs: JobStore, cluster: Cluster) -> None:
        self._jobs = jobs
        self._cluster = cluster
        self.paces = Paces(jobs)

    def standing(self, job: Job) -> Standing:
        """Where a queued job stands."""
        studies = self.studies_before(job.priority, job.created_at, job.id)
        ahead, now = self._jobs.ahead_of(job) + len(studies), datetime.now(UTC)
        due_s = 0.0
        if job.not_before is not None and job.not_before > now:
            due_s = (job.not_before - now).total_seconds()
        not_before = job.not_before if due_s else None
        if ahead > PLAYED:
            return Standing(ahead, not_before, None, _TOO_MANY)
        if due_s:
            # Those behind it, that need not wait, start before it.
            others = self._jobs.turns.first(PLAYED + 1)
        else:
            others = self._jobs.turns.sooner(job.priority, job.created_at, job.id, PLAYED + 1)
        asks = Waiter(job.id, job.spec.resources, due_s)
        starts_at, basis = self._start(asks, others, studies, now)
        return Standing(ahead, not_before, starts_at, basis)

    def standing_of_a_new_one(self, spec: AnySpec, priority: int) -> Standing:
        """Where a job would stand that was submitted now."""
        now = datetime.now(UTC)
        studies = self.studies_before(priority, now, _NOBODY)
        ahead = self._jobs.turns.ahead_of_a_new_one(priority) + len(studies)
        if ahead > PLAYED:
            return Standing(ahead, None, None, _TOO_MANY)
        others = self._jobs.turns.sooner(priority, now, _NOBODY, PLAYED + 1)
        starts_at, basis = self._start(Waiter("", spec.resources), others, studies, now)
        return Standing(ahead, None, starts_at, basis)

    def studies_before(self, priority: int, created_at: datetime, job_id: str) -> list[Study]:
        """The queued studies whose turn is before that of such a job; they have priority 0."""
        mine = (-priority, created_at, job_id)
        queued = self._jobs.ledger.in_state(JobState.QUEUED)
        return [study for study in queued if (0, study.created_at, study.id) < mine]

    def holders(self) -> list[Holder]:
        """The running jobs, which hold what they asked for, and the running studies, which hold
        places for their trials."""
        jobs = [self._holder(job) for job in self._jobs.running()]
        studies = self._jobs.ledger.in_state(JobState.RUNNING)
        return [*jobs, *(self._study(study) for study in studies)]

    def _study(self, study: Study) -> Holder:
        return Holder(
            job_id=study.id,
            resources=self._held_by(study),
            since=study.created_at,
            left_s=None,
            is_ending=study.cancel_requested or study.pause_requested,
            has_process=False,
            study_id=study.id,
        )

    def _held_by(self, study: Study) -> Resources:
        """All places of a study; not validated as a spec's own, whose bounds are those of a job."""
        one = of_one_trial(study.request)
        try:
            count = places(study.request, self._cluster.capacity())
        except ClusterDown:
            count = study.request.concurrency
        return one.model_copy(update={"workers": one.workers * count})

    def _holder(self, job: Job) -> Holder:
        attempt = self._jobs.attempts(job.id)[-1]
        left_s = remaining_s(job, attempt)
        like = None
        if left_s is None and attempt.first_step_at is None and not _is_ending(job):
            like = self.paces.of_its_like(job.spec, job.id)
        if like is not None:
            done = job.progress.step if job.progress is not None else 0
            waited_s = (datetime.now(UTC) - attempt.created_at).total_seconds()
            left_s = max(like.duration_s(job.spec, done) - waited_s, 0.0)
        return Holder(
            job_id=job.id,
            resources=job.spec.resources,
            since=attempt.created_at,
            left_s=left_s,
            is_ending=_is_ending(job),
            has_process=attempt.pid is not None,
        )

    def _start(
        self, asks: Waiter, others: Sequence[Job], studies: Sequence[Study], now: datetime
    ) -> tuple[datetime | None, str]:
        if len(others) > PLAYED:
            return None, _TOO_MANY
        try:
            ceiling = self._cluster.capacity()
        except ClusterDown:
            return None, "Ray does not answer, so nobody knows what is free."
        if not ceiling.fits(asks.resources):
            return None, "It asks for more than the cluster has now."
        turns = [(-job.priority, job.created_at, job.id) for job in others]
        waiters = [asks if job.id == asks.job_id else self._waiter(job, now) for job in others]
        for study in studies:
            at = bisect(turns, (0, study.created_at, study.id))
            turns.insert(at, (0, study.created_at, study.id))
            waiters.insert(at, Waiter(study.id, self._held_by(study)))
        if asks not in waiters:
            waiters.append(asks)
        holders = self.holders()
        start = play(ceiling, holders, waiters, asks)
        if start.in_s is None:
            return None, start.why
        return now + timedelta(seconds=start.in_s), _basis(holders, len(waiters) - 1)

    def _waiter(self, job: Job, now: datetime) -> Waiter:
        like = self.paces.of_its_like(job.spec, None)
        done = job.progress.step if job.progress is not None else 0
        runs_s = None if like is None else like.duration_s(job.spec, done)
        due_s = 0.0
        if job.not_before is not None:
            due_s = max((job.not_before - now).total_seconds(), 0.0)
        return Waiter(job.id, job.spec.resources, due_s, runs_s)


def holders_in_words(jobs: int, studies: int) -> str:
    """How many there are that hold something of the cluster; nothing where there are none."""
    parts = [f"{jobs} running job(s)"] if jobs else []
    parts += [f"{studies} running {'study' if studies == 1 else 'studies'}"] if studies else []
    return " and ".join(parts)


def waits_for(wanted: Resources, capacity: Capacity, held_by: str, head: str) -> str:
    """What a queued job waits for, in a sentence, while the first of the queue finds no room."""
    several = f" for each of {wanted.workers} workers" if wanted.workers > 1 else ""
    asked = f"{wanted.cpus_per_worker} core(s) and {wanted.gpus_per_worker} GPU(s){several}"
    if not capacity.fits(wanted):
        return f"Waits for {asked}: it asks for more than the cluster has now."
    if not held_by:
        return f"Waits for {asked}: {head} is before it and asks for more than there is."
    return f"Waits for {asked}, held by {held_by}."


def _is_ending(job: Job) -> bool:
    return job.cancel_requested or job.pause_requested


def _basis(holders: Sequence[Holder], waiters: int) -> str:
    parts = []
    if holders:
        parts.append(f"the pace of {len(holders)} running job(s)")
    if waiters:
        parts.append(f"the measured durations of the like of {waiters} waiting job(s)")
    if not parts:
        return "Nothing is before it, and what it asks for is free."
    unknown = sum(holder.left_s is None for holder in holders)
    cut = f" {unknown} running job(s) have no known end and are not counted on." if unknown else ""
    return f"Rests on {' and '.join(parts)}; jobs that end early let it start sooner.{cut}"


def play(
    ceiling: Capacity, holders: Sequence[Holder], waiters: Sequence[Waiter], asks: Waiter
) -> Start:
    """Play the queue's rule through until ``asks`` starts.

    ``waiters`` are in the order of their turns, ``asks`` among them. What has no known end is
    taken to hold its resources for ever, so a start that is found is the latest.
    """
    now_s = 0.0
    running = [(holder.job_id, holder.resources, holder.left_s) for holder in holders]
    waiting = list(waiters)
    while True:
        due = next((waiter for waiter in waiting if waiter.due_s <= now_s), None)
        if due is not None and _free(ceiling, running).fits(due.resources):
            if due is asks:
                return Start(now_s)
            waiting.remove(due)
            ends_s = None if due.runs_s is None else now_s + due.runs_s
            running.append((due.job_id, due.resources, ends_s))
            continue
        ends = [end for _, _, end in running if end is not None]
        turns = [waiter.due_s for waiter in waiting if waiter.due_s > now_s]
        if not ends and not turns:
            if due is not None and not ceiling.fits(due.resources):
                return Start(None, f"{due.job_id} is before it and asks for more than there is.")
            return Start(None, _unknown(holders, [each[0] for each in running]))
        now_s = min([*ends, *turns])
        running = [each for each in running if each[2] is None or each[2] > now_s]


def _free(ceiling: Capacity, running: Sequence[tuple[str, Resources, float | None]]) -> Capacity:
    for _, resources, _ in running:
        ceiling = ceiling.minus(resources)
    return ceiling


def _unknown(holders: Sequence[Holder], running: Sequence[str]) -> str:
    """Why there is no start: what runs, or would run, has no known end."""
    ending = [holder.job_id for holder in holders if holder.left_s is None and holder.is_ending]
    unmeasured = [job_id for job_id in running if job_id not in ending]
    parts = []
    if ending:
        parts.append(f"{_some(ending)} is about to end, when its last checkpoint is published")
    if unmeasured:
        parts.append(
            f"nobody can tell how long {_some(unmeasured)} will run: not measured long enough, and "
            "nothing like it has run here lately"
        )
    return f"No time yet: {'; '.join(parts)}."


def _some(jobs: Sequence[str]) -> str:
    return ", ".join(jobs[:3]) + (f" and {len(jobs) - 3} more" if len(jobs) > 3 else "")
