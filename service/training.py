"""The use cases of a training job: submit, cancel, pause, resume, retry, list."""

import builtins
import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from service.access.caller import ANYBODY, Caller
from service.ceiling import Ceiling, beyond
from service.cluster.base import Capacity, Cluster
from service.datasets import Datasets, is_upload
from service.errors import (
    ExceedsCapacity,
    FieldError,
    InvalidSpec,
    NotReady,
    OutOfStorage,
    StateConflict,
)
from service.feed import Feed
from service.jobs import Attempt, Job, JobFilter, JobRequest, JobState, Limits, Page, Parent, Reason
from service.jobstore import Idempotency, JobStore
from service.log_lines import about
from service.queueing import Queueing, Standing, holders_in_words
from service.studies.allotment import beside
from workers.artifacts import ArtifactStore
from workers.costs import Estimate
from workers.data import DatasetInfo
from workers.errors import DataError, SpecMismatch, StoreError
from workers.kinds import (
    AnySpec,
    advice,
    estimate,
    lacking,
    needs_checkpoint,
    resolve,
    thread_s,
)
from workers.quality import Shelf
from workers.spec import NamedDataset
from workers.tracing import OFF, Tracing

log = logging.getLogger(__name__)

FORKS_SHOWN = 100
STORAGE_RESERVE_BYTES = 256 << 20  # left free for the database, logs and other runs' events


@dataclass(frozen=True, slots=True)
class Plan:
    """What a submission would do: the resolved spec, its costs, and what it would wait for.

    ``duration_s`` comes from the pace of its like (see service.paces), unless the trainer knows its
    own, and is None where none has run here lately; ``standing`` is its place in the queue,
    ``advice`` what to know before.
    """

    spec: AnySpec
    parameters: int
    memory_bytes: int
    steps: int
    storage_bytes: int
    duration_s: float | None
    waits_for: str
    standing: Standing
    advice: tuple[str, ...] = ()


class Training:
    """Takes jobs in; the watcher carries them out. ``wake`` tells it that there is news."""

    def __init__(
        self,
        jobs: JobStore,
        artifacts: ArtifactStore,
        cluster: Cluster,
        feed: Feed,
        datasets: Datasets,
        wake: Callable[[], None],
        fid_weights: str = "",
        tracing: Tracing = OFF,
    ) -> None:
        self._tracing = tracing
        self._shelf = Shelf(fid_weights=fid_weights)
        self._jobs = jobs
        self._artifacts = artifacts
        self.ceiling = Ceiling(cluster)
        self._feed = feed
        self._datasets = datasets
        self._wake = wake
        self._queueing = Queueing(jobs, cluster)

    def submit(
        self,
        request: JobRequest,
        idempotency_key: str | None = None,
        caller: Caller = ANYBODY,
    ) -> tuple[Job, bool]:
        """Store a job, queued; returns it and whether it is new.

        The same key with the same body answers with the job that it made before. Raises
        InvalidSpec, ExceedsCapacity, OutOfStorage, NotReady, IdempotencyConflict, TooManyJobs,
        StorageLimit.
        """
        idempotency = None
        if idempotency_key is not None:
            key, digest = caller.named(idempotency_key), request_digest(request)
            idempotency = Idempotency(key=key, body_digest=digest)
            # A repeated request is answered even if it could not be carried out any more.
            if (stored := self._jobs.replayed(idempotency)) is not None:
                return stored, False
        return self.begin(request, idempotency, caller)

    def begin(
        self, request: JobRequest, idempotency: Idempotency | None, caller: Caller
    ) -> tuple[Job, bool]:
        """As :meth:`submit`, under a key whose body is another's, who has looked for a replay."""
        spec, info = self._checked_anew(request)
        return self.store(
            request.model_copy(update={"spec": spec}),
            f"job-{secrets.token_hex(8)}",
            spec.digest(),
            None,
            idempotency,
            estimate(spec, info).storage_bytes,
            caller,
        )

    def store(
        self,
        request: JobRequest,
        job_id: str,
        spec_digest: str,
        parent: Parent | None,
        idempotency: Idempotency | None,
        storage_bytes: int,
        caller: Caller,
    ) -> tuple[Job, bool]:
        """Store a checked request as a queued job of the caller's; returns it, or the job that has
        the key. Raises TooManyJobs, StorageLimit beyond what he may use."""
        spec, now = request.spec, datetime.now(UTC)
        job = Job(
            id=job_id,
            name=request.name,
            labels=request.labels,
            priority=request.priority,
            limits=request.limits,
            retention=request.retention,
            spec=spec,
            spec_digest=spec_digest,
            state=JobState.QUEUED,
            reason=Reason.SUBMITTED,
            message="Submitted; the service will start it as soon as there is room.",
            version=1,
            created_at=now,
            updated_at=now,
            parent=parent,
            owner=caller.owner,
            reserved_bytes=storage_bytes,
            traceparent=self._tracing.current(),
        )
        stored, created = self._jobs.add(
            job, idempotency, needs_content=is_upload(spec.dataset), quota=caller.quota
        )
        if created:
            with about(job=job.id):
                log.info("%s is submitted: %s", job.id, spec.trainer.kind)
        self._wake()
        return stored, created

    def dry_run(self, request: JobRequest) -> Plan:
        """Everything that a submission would check, and what it would cost; stores nothing."""
        spec, info = self._checked_anew(request)
        costs = estimate(spec, info)
        standing = self._queueing.standing_of_a_new_one(spec, request.priority)
        free, held_by = self.free()
        if standing.ahead:
            waits_for = f"{standing.ahead} queued job(s) that start before it"
        elif not free.fits(spec.resources):
            waits_for = f"resources held by {held_by}"
        else:
            waits_for = "nothing: it would start at once"
        return Plan(
            spec=spec,
            parameters=costs.parameters,
            memory_bytes=costs.worker_memory_bytes * spec.resources.workers,
            steps=costs.steps,
            storage_bytes=costs.storage_bytes,
            duration_s=self._duration_s(spec),
            waits_for=waits_for,
            standing=standing,
            advice=advice(spec, info),
        )

    def _duration_s(self, spec: AnySpec) -> float | None:
        if (known := thread_s(spec)) is not None:
            return known
        like = self._queueing.paces.of_its_like(spec)
        return None if like is None else like.trained_s(spec)

    def get(self, job_id: str) -> Job:
        """The job; raises JobNotFound."""
        return self._jobs.get(job_id)

    def attempts(self, job_id: str) -> list[Attempt]:
        """The job's attempts, first to last."""
        return self._jobs.attempts(job_id)

    def list(self, filter: JobFilter, cursor: str | None, limit: int) -> Page:
        """A page of jobs, newest first."""
        return self._jobs.list(filter, cursor, limit)

    def standing(self, job: Job) -> Standing | None:
        """Where a job stands in the queue; None unless it waits there, as no trial does."""
        is_in_queue = job.state is JobState.QUEUED and job.study_id is None
        return self._queueing.standing(job) if is_in_queue else None

    def forks_of(self, job_id: str) -> builtins.list[str]:
        """Ids of the jobs that were forked from this one, oldest first, as many as are shown."""
        return self._jobs.forks_of(job_id, FORKS_SHOWN)

    def cancel(self, job_id: str) -> Job:
        """Note the wish; the watcher cancels. Raises StateConflict for a job that has ended."""
        return self._told(self._jobs.request_cancel(job_id))

    def pause(self, job_id: str) -> Job:
        """Note the wish; the watcher pauses. A queued job is paused at once.

        Raises StateConflict for a job that has ended or is being cancelled, and for a trial.
        """
        self._refuse_trial(job_id, "pause")
        return self._told(self._jobs.request_pause(job_id))

    def resume(self, job_id: str, caller: Caller = ANYBODY) -> Job:
        """Queue a paused job again, or take the wish to pause back.

        Raises StateConflict for a job that has ended or is being cancelled, and for a trial, and
        TooManyJobs.
        """
        self._refuse_trial(job_id, "resume")
        return self._told(self._jobs.resume(job_id, caller.quota))

    def retry(self, job_id: str, limits: Limits | None = None, caller: Caller = ANYBODY) -> Job:
        """Queue a failed or cancelled job again, as a new attempt from its last checkpoint.

        ``limits`` replace the job's; losses and time count anew. Raises StateConflict for a job
        that has not ended, or has succeeded, and for a trial, and TooManyJobs.
        """
        self._refuse_trial(job_id, "retry")
        return self._told(self._jobs.retry(job_id, limits, caller.quota))

    def _refuse_trial(self, job_id: str, verb: str) -> None:
        job = self._jobs.get(job_id)
        if job.study_id is not None:
            message = f"the job is a trial of {job.study_id}, which decides on it; {verb} the study"
            raise StateConflict(message, job.state)

    def _told(self, job: Job) -> Job:
        """The job, after its followers and the watcher were told of a change."""
        self._feed.notify(job.id, urgent=True)
        self._wake()
        return job

    def set_labels(
        self, job_id: str, labels: Mapping[str, str], expected_version: int | None
    ) -> Job:
        """Replace the labels; raises VersionConflict if the job is no longer at that version."""
        return self._jobs.set_labels(job_id, labels, expected_version)

    def _checked_anew(self, request: JobRequest) -> tuple[AnySpec, DatasetInfo]:
        """As :meth:`checked`, for what does not begin from a checkpoint."""
        spec, info = self.checked(request)
        if needs_checkpoint(spec):
            kind = spec.trainer.kind
            message = (
                f"{kind} begins from a checkpoint: POST /v1/jobs/{{id}}/fork of the job that has "
                'it, with start "weights" and this trainer in spec'
            )
            raise InvalidSpec(
                "The trainer begins from a checkpoint of another job.",
                (FieldError("/spec/trainer/kind", message),),
            )
        return spec, info

    def checked(self, request: JobRequest) -> tuple[AnySpec, DatasetInfo]:
        """The resolved spec and its data, or the error that says why it cannot be carried out.

        Raises InvalidSpec, ExceedsCapacity, OutOfStorage, NotReady.
        """
        pinned = request.spec.data_digest
        try:
            info = self._datasets.describe(request.spec.dataset)
            if pinned not in (None, info.digest):
                raise SpecMismatch(
                    "/dataset/digest", f"the data set is now {info.digest}; leave the digest out"
                )
            spec = resolve(request.spec, info)
            for missing in lacking(spec, self._shelf):
                raise missing
        except DataError as error:
            at = "/name" if isinstance(request.spec.dataset, NamedDataset) else ""
            raise InvalidSpec(
                "The data set cannot be used.", (FieldError(f"/spec/dataset{at}", str(error)),)
            ) from error
        except SpecMismatch as error:
            raise InvalidSpec(
                "The spec does not fit its data.",
                (FieldError(f"/spec{error.pointer}", str(error)),),
            ) from error
        costs = estimate(spec, info)
        self._check_capacity(spec, costs)
        self._check_storage(costs)
        return spec, info

    def _check_capacity(self, spec: AnySpec, costs: Estimate) -> None:
        if errors := beyond(self.ceiling.now(), spec.resources, costs.worker_memory_bytes):
            raise ExceedsCapacity(
                "The job asks for more than this installation has, so it would wait for ever.",
                tuple(errors),
            )

    def _check_storage(self, costs: Estimate) -> None:
        try:
            free = self._artifacts.free_bytes()
        except StoreError as error:
            raise NotReady(str(error)) from error
        if free is not None and costs.storage_bytes + STORAGE_RESERVE_BYTES > free:
            raise OutOfStorage(
                f"The run may need {costs.storage_bytes / 1e6:.0f} MB for checkpoints and grids, "
                f"and {free / 1e6:.0f} MB are free, of which {STORAGE_RESERVE_BYTES / 1e6:.0f} MB "
                "stay reserved; keep fewer checkpoints (spec.keep_checkpoints) or make room."
            )

    def free(self) -> tuple[Capacity, str]:
        """What running jobs and studies leave of the cluster, and how many they are, in words."""
        studies, at_work = self._jobs.ledger.in_state(JobState.RUNNING), self._jobs.at_work()
        ids = {study.id for study in studies}
        jobs = sum(job.study_id not in ids for job in at_work)
        free = beside(self.ceiling.now(), studies, at_work)
        return free, holders_in_words(jobs, len(studies)) or "what has just ended"


def request_digest(request: JobRequest) -> str:
    """The same for the same request, in whatever order its keys came."""
    content = json.dumps(request.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
