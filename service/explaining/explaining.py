"""Gathers what is known of a job, and lets the one that knows its state explain it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from service.cluster.base import Capacity, Cluster, ClusterDown, Unclaimed
from service.errors import NotReady
from service.explaining.ended import chain, explain_ended
from service.explaining.values import Claims, Explanation, Facts, Finding
from service.explaining.waiting import NAMED, explain_paused, explain_queued, explain_trial
from service.explaining.working import explain_running
from service.health import Readiness
from service.jobs import FINAL_STATES, Attempt, Job, JobState
from service.jobstore import JobStore
from service.logs import Logs
from service.queueing import Holder, Queueing

LAST_LINES = 20
CHANGES_READ = 100  # of states and reasons, to find since when
OF_THE_STUDY = frozenset({"pause", "resume", "retry"})
READ_LINES = 200  # so that a traceback among the last lines is seen whole


class Explaining:
    """Explains jobs. ``readiness`` says which part of the service is down."""

    def __init__(
        self,
        jobs: JobStore,
        cluster: Cluster,
        logs: Logs,
        readiness: Callable[[], Readiness],
    ) -> None:
        self._jobs = jobs
        self._cluster = cluster
        self._readiness = readiness
        self._logs = logs
        self._queueing = Queueing(jobs, cluster)

    def explain(self, job_id: str) -> Explanation:
        """Why the job is as it is; raises JobNotFound."""
        job = self._jobs.get(job_id)
        attempts = self._jobs.attempts(job_id)
        facts = self._facts(job, attempts)
        finding = self._finding(facts)
        if job.study_id is not None:  # whose study pauses, resumes and retries it
            changes = [each for each in finding.changes if each.action not in OF_THE_STUDY]
            finding = replace(finding, changes=changes)
        return Explanation(
            job=job,
            since=self._since(job),
            headline=finding.headline,
            rule=finding.rule,
            changes=finding.changes,
            claims=facts.claims,
            standing=facts.standing,
            speed=finding.speed,
            chain=chain(job, attempts),
            last_lines=self._said(job, attempts),
        )

    def _finding(self, facts: Facts) -> Finding:
        job = facts.job
        if job.study_id is not None and job.state in (JobState.QUEUED, JobState.PAUSED):
            return explain_trial(facts)
        match job.state:
            case JobState.QUEUED:
                sooner = self._jobs.turns.sooner(job.priority, job.created_at, job.id, NAMED + 1)
                studies = self._queueing.studies_before(job.priority, job.created_at, job.id)
                return explain_queued(
                    facts, tuple(each.id for each in sooner), tuple(each.id for each in studies)
                )
            case JobState.RUNNING:
                return explain_running(facts, self._jobs, self._queueing.paces)
            case JobState.PAUSED:
                return explain_paused(facts)
            case _:
                has_checkpoint = bool(self._jobs.checkpoints(job.id))
                return explain_ended(job, facts.attempts, has_checkpoint=has_checkpoint)

    def _facts(self, job: Job, attempts: Sequence[Attempt]) -> Facts:
        is_open = job.state not in FINAL_STATES
        troubles: dict[str, str] = {}
        if is_open:
            parts = self._readiness().parts
            troubles = {part.name: part.detail for part in parts if not part.ready}
        claims = self._claims() if job.state in (JobState.QUEUED, JobState.RUNNING) else None
        if claims is not None and claims.capacity is None:
            troubles.setdefault("ray", "it is being started or joined again")
        is_queued = job.state is JobState.QUEUED and job.study_id is None
        return Facts(
            job=job,
            attempts=attempts,
            now=datetime.now(UTC),
            troubles=troubles,
            claims=claims,
            standing=self._queueing.standing(job) if is_queued else None,
            is_own=self._cluster.own,
        )

    def _claims(self) -> Claims:
        holders = self._queueing.holders()
        try:
            capacity, unclaimed = self._cluster.capacity(), self._cluster.unclaimed()
        except ClusterDown:
            return Claims(None, None, None, holders, None)
        held_cpus = sum(each.resources.workers * each.resources.cpus_per_worker for each in holders)
        held_gpus = sum(each.resources.workers * each.resources.gpus_per_worker for each in holders)
        if unclaimed is None:
            free_cpus, free_gpus = capacity.cpus - held_cpus, capacity.gpus - held_gpus
            return Claims(capacity, free_cpus, free_gpus, holders, None)
        others = self._others(capacity, unclaimed, holders)
        return Claims(capacity, unclaimed.cpus, unclaimed.gpus, holders, others)

    def _others(
        self, capacity: Capacity, unclaimed: Unclaimed, holders: Sequence[Holder]
    ) -> Unclaimed:
        """What neither is free nor is held by an attempt that has its process."""
        placed = [holder.resources for holder in holders if holder.has_process]
        placed += [job.spec.resources for job in self._jobs.running_trials()]
        cpus = sum(each.workers * each.cpus_per_worker for each in placed)
        gpus = sum(each.workers * each.gpus_per_worker for each in placed)
        return Unclaimed(
            cpus=max(capacity.cpus - unclaimed.cpus - cpus, 0.0),
            gpus=max(capacity.gpus - unclaimed.gpus - gpus, 0.0),
        )

    def _since(self, job: Job) -> datetime:
        """When the job came into its state, as far back as its changes are read."""
        since = job.created_at
        for event in self._jobs.turns.states(job.id, CHANGES_READ):
            if event.data.get("state") != job.state:
                return since
            since = event.at
        return since

    def _said(self, job: Job, attempts: Sequence[Attempt]) -> tuple[str, ...]:
        """The last lines of the last attempt's log, where they may tell why."""
        if not attempts or job.state is JobState.SUCCEEDED:
            return ()
        try:
            page = self._logs.tail(job.id, attempts[-1].number, READ_LINES)
        except NotReady as error:
            return (f"({error})",)
        return without_tracebacks([said.line.text for said in page.lines])[-LAST_LINES:]


_STACK = re.compile(r"Traceback \(most recent call last\):|\s+File \".*\", line \d+")
_FRAME = re.compile(
    r"\s|$|Traceback |During handling |The above exception |\w[\w.]*(?:Error|Exception|Interrupt)\b"
)


def without_tracebacks(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines without the stacks of Python in them, which are for the log."""
    kept: list[str] = []
    inside = False
    for line in lines:
        if not inside and _STACK.match(line):
            inside = True
            kept.append("(a traceback; the log has it)")
        elif inside and _FRAME.match(line):
            inside = line.startswith((" ", "\t")) or not line.strip()
        else:
            inside = False
            kept.append(line)
    return tuple(kept)
