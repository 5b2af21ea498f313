"""Jobs, attempts and records for the tests of the job store."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from service.access.keys import NO_LIMITS, ApiKey, KeyLimits, Scope, new_secret
from service.access.making import stored_key
from service.jobs import Attempt, Job, JobState, Limits, Parent, Reason
from service.jobstore import JobStore
from workers.events import (
    ArtifactRecord,
    CheckpointRecord,
    FirstStepRecord,
    MetricsRecord,
    StartedRecord,
)
from workers.spec import Start, TrainSpec

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_numbers = count()


def spec(trainer: str = "delta_vae", dataset: Mapping[str, Any] | None = None) -> TrainSpec:
    return TrainSpec.model_validate(
        {"dataset": dataset or {"name": "mnist-10k"}, "trainer": {"kind": trainer}}
    )


def job(
    *,
    labels: Mapping[str, str] | None = None,
    priority: int = 0,
    at_s: float | None = None,
    of: TrainSpec | None = None,
    id: str | None = None,
    parent: Parent | None = None,
    owner: str | None = None,
    reserved_bytes: int | None = None,
) -> Job:
    number = next(_numbers)
    created = NOON + timedelta(seconds=number if at_s is None else at_s)
    of = of or spec()
    return Job(
        id=id or f"job-{number:06d}",
        name="a job",
        labels=labels or {},
        priority=priority,
        limits=Limits(max_wall_s=60.0),
        spec=of,
        spec_digest=of.digest(),
        state=JobState.QUEUED,
        reason=Reason.SUBMITTED,
        message="submitted",
        version=1,
        created_at=created,
        updated_at=created,
        parent=parent,
        owner=owner,
        reserved_bytes=reserved_bytes,
    )


def key(owner: str, limits: KeyLimits = NO_LIMITS, scope: Scope = Scope.WRITE) -> ApiKey:
    return stored_key(new_secret(), owner, scope, limits)


def parent(of: Job, start: Start = "train_state") -> Parent:
    return Parent(of.id, "00000010", "jobs/fork/parent", "sha256:" + "7" * 64, start)


def attempt(of: Job, number: int = 1, **known: Any) -> Attempt:
    return Attempt(of.id, number, f"executor-{number}", "session", NOON, **known)


def queued(store: JobStore, **how: Any) -> Job:
    made, created = store.add(job(**how))
    assert created
    return made


def running(store: JobStore, **how: Any) -> Job:
    made = queued(store, **how)
    return store.start_attempt(made, attempt(made), Reason.STARTING, "starting")


def resumed(store: JobStore, of: Job, **known: Any) -> Job:
    """The job after its attempt was lost and the next one has begun."""
    waiting = store.settle(of, JobState.QUEUED, Reason.RECOVERING, "lost", Reason.WORKER_LOST)
    following = attempt(of, of.attempt + 1, **known)
    return store.start_attempt(waiting, following, Reason.STARTING, "again")


def started(at_s: float = 0, total: int = 100, resumed_from: int | None = None) -> StartedRecord:
    return StartedRecord(
        at=NOON + timedelta(seconds=at_s),
        pid=42,
        host="node",
        total_steps=total,
        steps_per_epoch=10,
        resumed_from_step=resumed_from,
    )


def first_step(at_s: float, step: int = 1) -> FirstStepRecord:
    return FirstStepRecord(at=NOON + timedelta(seconds=at_s), step=step)


def metrics(step: int, at_s: float = 0, **values: float) -> MetricsRecord:
    at = NOON + timedelta(seconds=at_s)
    return MetricsRecord(at=at, step=step, epoch=step / 10, values=values)


def checkpoint(step: int, *, attempt: int = 1, is_best: bool = False) -> CheckpointRecord:
    return CheckpointRecord(
        at=NOON,
        id=f"{step:08d}",
        step=step,
        epoch=step / 10,
        prefix=f"jobs/j/attempts/{attempt}/checkpoints/{step:08d}",
        digest="sha256:" + "0" * 64,
        size_bytes=10,
        metrics={"held_out_elbo_nats": -1.5},
        is_best=is_best,
    )


def artifact(name: str, *, key: str = "k", step: int | None = None) -> ArtifactRecord:
    return ArtifactRecord(
        at=NOON,
        name=name,
        key=key,
        media_type="image/png",
        digest="sha256:" + "1" * 64,
        size_bytes=3,
        step=step,
        epoch=None,
    )


def together(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each returns or raises when all begin at the same moment, each in its thread."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as threads:
        futures = [threads.submit(run, work) for work in works]
    return [future.exception() or future.result() for future in futures]
