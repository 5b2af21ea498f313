"""Disks that are full: of the artifact store, and of the database. Nothing is lost with them."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service import training
from service.cluster import inline
from service.cluster.inline import InlineCluster
from service.errors import NotReady
from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from tests.factories import long_spec, request
from tests.harness import Service, make_service
from tests.own_mounts import fill, in_own_mounts, mount_disk
from tests.whole import assert_all_whole
from workers import ledger
from workers.artifacts import LocalStore
from workers.errors import StoreError
from workers.events import OutcomeReason
from workers.run import StopFlag
from workers.spec import TrainSpec

DISK_BYTES = 16 << 20
EPOCHS = 160
WAIT_S = 240.0


class Unhurried(StopFlag):
    """Is asked before every step, and takes its time: the disk fills up before the end."""

    step_s = 0.002

    @property
    def reason(self) -> OutcomeReason | None:
        time.sleep(self.step_s)
        return super().reason


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "StopFlag", Unhurried)
    monkeypatch.setattr(training, "STORAGE_RESERVE_BYTES", 0)
    monkeypatch.setattr(ledger, "FLUSH_INTERVAL_S", 0.2)


def spec() -> TrainSpec:
    return long_spec(EPOCHS).model_copy(
        update={"checkpoint_every_epochs": 20, "keep_checkpoints": 100}
    )


def hurried(service: Service) -> Job:
    """The same job, undisturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Unhurried, "step_s", 0)
        return service.run_to_end(service.submit(request(spec())))


def begun(service: Service) -> Job:
    """A job that trains and has a checkpoint."""
    return service.run_until(
        service.submit(request(spec())),
        lambda now: now.reason is Reason.TRAINING and bool(service.jobs.checkpoints(now.id)),
    )


def wait_until(look: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + WAIT_S
    while not look():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def last_digest(service: Service, job: Job) -> str:
    return service.jobs.checkpoints(job.id)[-1].digest


def test_a_run_waits_while_the_stores_disk_is_full_and_goes_on(
    jobs: JobStore, tmp_path: Path
) -> None:
    def story() -> None:
        disk = tmp_path / "disk"
        mount_disk(disk, DISK_BYTES)
        with contextlib.closing(InlineCluster()) as cluster:
            service = make_service(jobs, LocalStore(disk / "artifacts"), tmp_path, cluster)
            undisturbed = hurried(service)
            job = begun(service)
            other = fill(disk)
            with pytest.raises(StoreError, match="disk of the artifact store is full"):
                service.artifacts.put("jobs/probe", b"x")
            published = service.jobs.checkpoints(job.id)
            give_up_at = time.monotonic() + 1.0  # some checkpoints' worth of steps
            while time.monotonic() < give_up_at:
                service.watcher.round()
                fill(disk)  # what was thinned out
            assert service.jobs.get(job.id).state is JobState.RUNNING
            assert len(service.jobs.checkpoints(job.id)) <= len(published) + 1
            assert_all_whole(service.artifacts, jobs, job)
            other.unlink()
            done = service.run_to_end(job)
            assert done.state is JobState.SUCCEEDED
            assert [attempt.number for attempt in jobs.attempts(job.id)] == [1]
            assert last_digest(service, done) == last_digest(service, undisturbed)
            assert_all_whole(service.artifacts, jobs, job)

    in_own_mounts(story)


def test_a_disk_that_stays_full_ends_the_attempt_with_that_reason_and_room_lets_it_go_on(
    jobs: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "STORE_PATIENCE_S", 0.2)
    monkeypatch.setattr("workers.logs.attempt.CLOSE_PATIENCE_S", 0.2)

    def story() -> None:
        disk = tmp_path / "disk"
        mount_disk(disk, DISK_BYTES)
        with contextlib.closing(InlineCluster()) as cluster:
            service = make_service(jobs, LocalStore(disk / "artifacts"), tmp_path, cluster)
            undisturbed = hurried(service)
            job = begun(service)
            executor = jobs.attempts(job.id)[-1].executor_id

            def is_given_up() -> bool:
                other = fill(disk)
                assert other.exists()
                return cluster.look(executor).state == "gone"

            wait_until(is_given_up)
            assert cluster.look(executor).cause == "store_full"
            service.watcher.round()
            assert "disk of the artifact store is full" in str(service.attempts.store_trouble())
            assert jobs.get(job.id).state is JobState.RUNNING
            assert_all_whole(service.artifacts, jobs, job)
            fill(disk).unlink()
            waiting = service.run_until(job, lambda now: now.state is JobState.QUEUED)
            assert jobs.attempts(job.id)[-1].reason is Reason.STORE_FULL
            assert "the disk of the artifact store is full; make room" in waiting.message.lower()
            # Who has made room need not wait for the back-off.
            service.training.pause(job.id)
            service.training.resume(job.id)
            done = service.run_to_end(job)
            assert done.state is JobState.SUCCEEDED
            assert jobs.attempts(job.id)[-1].resumed_from_step
            assert last_digest(service, done) == last_digest(service, undisturbed)
            assert_all_whole(service.artifacts, jobs, job)

    in_own_mounts(story)


def test_a_full_disk_of_the_database_is_named_and_nothing_is_lost(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    def story() -> None:
        disk = tmp_path / "disk"
        mount_disk(disk, DISK_BYTES)
        with (
            contextlib.closing(JobStore.open(f"sqlite:///{disk / 'jobs.db'}")) as jobs,
            contextlib.closing(InlineCluster()) as cluster,
        ):
            service = make_service(jobs, artifacts, tmp_path, cluster)
            job = begun(service)
            other = fill(disk)

            def is_refused() -> bool:
                try:
                    service.submit(request(spec()))
                except NotReady as error:
                    return "the disk of the database is full" in str(error)
                return False

            wait_until(is_refused)
            assert jobs.get(job.id).state is JobState.RUNNING
            other.unlink()
            done = service.run_to_end(job)
            assert done.state is JobState.SUCCEEDED
            assert_all_whole(artifacts, jobs, job)

    in_own_mounts(story)
