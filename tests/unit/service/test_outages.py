"""What the watcher still does while a store, a process or a job is in trouble."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service import attempts, watch, watcher
from service.cluster.base import Sighting
from service.cluster.inline import InlineCluster
from service.errors import NotReady
from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from tests.factories import request
from tests.harness import Service, make_service
from workers.artifacts import LocalStore, attempt_prefix, chunk_key, outcome_key
from workers.errors import StoreAway, StoreError
from workers.events import MetricsRecord, NoticeRecord, Outcome, OutcomeReason, StartedRecord
from workers.run import Run, StopReason


class Hung(InlineCluster):
    """Its attempts neither work, nor hear, nor end by themselves."""

    def __init__(self) -> None:
        super().__init__(cpus=2)
        self.living: set[str] = set()
        self.asked: list[tuple[str, StopReason]] = []

    def launch(self, executor_id: str, run: Run) -> None:
        self.living.add(executor_id)

    def look(self, executor_id: str) -> Sighting:
        return Sighting("running" if executor_id in self.living else "gone")

    def request_stop(self, executor_id: str, reason: StopReason) -> None:
        self.asked.append((executor_id, reason))

    def kill(self, executor_id: str) -> None:
        self.living.discard(executor_id)


class Troubled(LocalStore):
    """Fails for what is under a prefix, and counts what it is asked for."""

    error: Exception | None = None
    prefix = "jobs"
    requests = 0

    def _try(self, key: str) -> None:
        self.requests += 1
        if self.error is not None and key.startswith(self.prefix):
            raise self.error

    def put(self, key: str, content: bytes) -> None:
        self._try(key)
        super().put(key, content)

    def size(self, key: str) -> int:
        self._try(key)
        return super().size(key)

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        self._try(key)
        return super().stream(key, start, stop)


@pytest.fixture
def store(artifacts: LocalStore) -> Troubled:
    return Troubled(artifacts.root)


@pytest.fixture
def cluster() -> Hung:
    return Hung()


@pytest.fixture
def service(jobs: JobStore, store: Troubled, tmp_path: Path, cluster: Hung) -> Service:
    return make_service(jobs, store, tmp_path, cluster)


def running(service: Service, **fields: Any) -> Job:
    job = service.submit(request(**fields))
    return service.run_until(job, lambda now: now.state is JobState.RUNNING)


def executor(service: Service, job: Job) -> str:
    return service.jobs.attempts(job.id)[-1].executor_id


def complete(service: Service, job: Job, reason: OutcomeReason = "completed") -> None:
    """The attempt's end is written as its process would."""
    done = Outcome(reason=reason, message="Done.", at=job.updated_at)
    key = outcome_key(attempt_prefix(job.id, 1))
    service.artifacts.put(key, done.model_dump_json().encode())


def test_what_the_store_denies_of_one_job_holds_up_no_other(
    service: Service, store: Troubled, cluster: Hung
) -> None:
    denied, other, waiting = running(service), running(service), service.submit(request())
    complete(service, other)
    store.error, store.prefix = StoreError("denied"), f"jobs/{denied.id}"
    service.training.cancel(denied.id)
    service.watcher.round()
    assert service.jobs.get(other.id).state is JobState.SUCCEEDED
    assert service.jobs.get(waiting.id).state is JobState.RUNNING
    assert cluster.asked == [(executor(service, denied), "cancelled")]
    assert service.jobs.get(denied.id).reason is Reason.CANCELLING
    assert str(service.watcher.store_trouble) == "denied"
    store.error = None
    service.watcher.round()
    assert service.watcher.store_trouble is None


def test_wishes_are_carried_out_while_the_store_is_away(
    service: Service, store: Troubled, cluster: Hung
) -> None:
    first, second = running(service), running(service)
    pausing, cancelling, waiting = (service.submit(request()) for _ in range(3))
    service.training.pause(first.id)
    service.training.cancel(second.id)
    service.training.cancel(cancelling.id)
    service.training.pause(pausing.id)
    store.error = StoreAway("away")
    asked = store.requests
    service.watcher.round()
    assert store.requests == asked + 1  # one request that fails is enough
    assert {reason for _, reason in cluster.asked} == {"paused", "cancelled"}
    assert service.jobs.get(cancelling.id).state is JobState.CANCELLED
    assert service.jobs.get(pausing.id).state is JobState.PAUSED
    service.attempts._cancel_grace_s = 0
    service.watcher.round()
    assert cluster.living == set()  # nothing is held for the length of the outage
    assert service.jobs.get(waiting.id).state is JobState.QUEUED
    store.error = None
    service.run_until(second, lambda now: now.state is JobState.CANCELLED)
    service.run_until(first, lambda now: now.state is JobState.PAUSED)
    service.run_until(waiting, lambda now: now.state is JobState.RUNNING)


def test_a_job_whose_process_is_silent_ends_at_its_time_limit(
    service: Service, cluster: Hung, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LIMIT_GRACE_S", 0.0)
    service.attempts._cancel_grace_s = 0.0
    unbounded = running(service)
    job = running(service, limits={"max_wall_s": 0.05})
    ended = service.run_to_end(job)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.TIME_LIMIT)
    assert "max_wall_s" in ended.message
    assert cluster.asked == [(executor(service, job), "time_limit")]
    assert service.jobs.get(unbounded.id).state is JobState.RUNNING


@pytest.mark.parametrize("apart_s", [-7200, 7200])
def test_no_clock_that_goes_otherwise_ends_a_job_at_its_time_limit(
    service: Service, cluster: Hung, apart_s: float
) -> None:
    """The worker's clock is set otherwise than this one, or one of them has been set since."""
    job = running(service, limits={"max_wall_s": 60})
    at = datetime.now(UTC) + timedelta(seconds=apart_s)
    begun = StartedRecord(at=at, pid=1, host="h", total_steps=9, steps_per_epoch=3)
    told = MetricsRecord(at=at + timedelta(seconds=20), step=1, epoch=0.5, values={"loss_nats": 1})
    service.jobs.ingest(job.id, 1, 0, [begun, told])
    service.watcher.round()
    assert cluster.asked == []
    # And none of the time that it was at work is invented, or lost, for its next attempt.
    complete(service, job, "service_stopped")
    cluster.kill(executor(service, job))
    service.run_until(job, lambda now: now.attempt == 2)
    service.watcher.round()
    watched = service.attempts._watched[job.id, 2]
    assert watched.wall_s == pytest.approx(40)


def test_who_takes_over_an_attempt_counts_what_it_has_told(
    service: Service, monkeypatch: pytest.MonkeyPatch, cluster: Hung
) -> None:
    monkeypatch.setattr(watch, "LIMIT_GRACE_S", 0.0)
    cluster.own = False
    job = running(service, limits={"max_wall_s": 60})
    at = datetime.now(UTC)
    begun = StartedRecord(at=at, pid=1, host="h", total_steps=9, steps_per_epoch=3)
    told = MetricsRecord(at=at + timedelta(seconds=61), step=1, epoch=0.5, values={"loss_nats": 1})
    service.jobs.ingest(job.id, 1, 0, [begun, told])
    service.attempts.forget()
    service.run_until(job, lambda now: bool(cluster.asked))
    assert cluster.asked == [(executor(service, job), "time_limit")]


def test_an_attempt_that_another_service_follows_now_holds_nothing_open_here(
    service: Service, cluster: Hung, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Sighting("running", pid=os.getpid(), host="here")
    monkeypatch.setattr(cluster, "look", lambda executor_id: here)
    running(service)
    before = list(Path("/proc/self/fd").iterdir())
    service.watcher.round()
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before) + 1
    service.attempts.forget()
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


def test_a_long_backlog_is_taken_in_over_rounds_and_nothing_is_judged_before_its_end(
    jobs: JobStore,
    store: Troubled,
    cluster: Hung,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "INGEST_S", 0.0)
    service = make_service(jobs, store, tmp_path, cluster, store_interval_s=1000)
    behind, other = running(service), running(service)
    for chunk in range(5):
        told = NoticeRecord(at=behind.created_at, code="told", message=str(chunk))
        key = chunk_key(attempt_prefix(behind.id, 1), chunk)
        store.put(key, told.model_dump_json().encode())
    service.training.cancel(other.id)
    cluster.living.clear()
    taken = []
    while jobs.get(behind.id).attempt == 1 and jobs.get(behind.id).state is JobState.RUNNING:
        taken.append(jobs.attempts(behind.id)[-1].next_chunk)
        assert not store.exists(outcome_key(attempt_prefix(behind.id, 1)))
        service.watcher.round()
        assert jobs.get(other.id).state is JobState.CANCELLED  # in the first round
    assert taken == [0, 1, 2, 3, 4, 5]
    assert jobs.attempts(behind.id)[0].reason is Reason.WORKER_LOST


@pytest.mark.parametrize(
    "error", [StoreError("denied"), NotReady("locked"), ZeroDivisionError()], ids=repr
)
def test_a_job_that_cannot_be_wound_down_costs_no_other_its_checkpoint(
    error: Exception,
    service: Service,
    store: Troubled,
    cluster: Hung,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watcher, "WIND_DOWN_S", 1.0)
    first, second = running(service), running(service)
    executors = {executor(service, job) for job in (first, second)}
    store.error, store.prefix = error, f"jobs/{first.id}"
    service.watcher._stopping.set()  # no round before the last ones
    service.watcher.start()
    service.watcher.stop(grace_s=0.1)
    assert {name for name, reason in cluster.asked if reason == "service_stopped"} == executors
    assert cluster.living == set()
    left = service.jobs.get(second.id)
    assert (left.state, left.reason) == (JobState.QUEUED, Reason.RECOVERING)
    assert service.jobs.get(first.id).state is JobState.RUNNING


def test_the_store_is_asked_now_and_then_and_at_once_when_something_changes(
    jobs: JobStore,
    store: Troubled,
    cluster: Hung,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "STARTING_S", 0.0)
    service = make_service(jobs, store, tmp_path, cluster, store_interval_s=1000)
    job, other = running(service), running(service)
    service.watcher.round()
    asked = store.requests
    for _ in range(20):
        service.watcher.round()
    assert store.requests == asked
    service.training.pause(job.id)
    service.watcher.round()
    assert store.requests > asked
    complete(service, other)
    cluster.kill(executor(service, other))
    service.watcher.round()
    assert jobs.get(other.id).state is JobState.SUCCEEDED
