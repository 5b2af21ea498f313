"""An artifact store that is away for a while: training waits, or is repeated; nothing is lost.

The attempt reaches the store over a cable that is cut; the service has another one, so that the
test sees all the while what the store lists. Times are shortened.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.cluster import inline
from service.cluster.inline import InlineCluster
from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from tests.factories import long_spec, request
from tests.harness import Service, make_service
from tests.s3_servers import BUCKET, Relay
from tests.whole import assert_all_whole
from workers import ledger
from workers.artifacts import open_store
from workers.artifacts.s3 import client as s3_client
from workers.events import OutcomeReason
from workers.run import StopFlag
from workers.spec import TrainSpec

pytestmark = pytest.mark.usefixtures("s3_credentials")
EPOCHS = 80
WAIT_S = 240.0


class Unhurried(StopFlag):
    """Is asked before every step, and takes its time: no job ends before the store is away."""

    step_s = 0.005

    @property
    def reason(self) -> OutcomeReason | None:
        time.sleep(self.step_s)
        return super().reason


@pytest.fixture
def relay(seaweedfs_endpoint: str) -> Iterator[Relay]:
    relay = Relay(seaweedfs_endpoint)
    yield relay
    relay.close()


@pytest.fixture
def service(
    relay: Relay,
    seaweedfs_endpoint: str,
    jobs: JobStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Service]:
    monkeypatch.setattr(inline, "StopFlag", Unhurried)
    monkeypatch.setattr(ledger, "FLUSH_INTERVAL_S", 0.2)
    monkeypatch.setattr(s3_client, "ATTEMPTS", 1)
    store = open_store(f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={seaweedfs_endpoint}")
    store.check()
    store.uri = store.uri.replace(seaweedfs_endpoint, relay.endpoint)
    with contextlib.closing(InlineCluster()) as cluster:
        yield make_service(jobs, store, tmp_path, cluster)
        relay.mend()  # or an attempt would never end


def spec() -> TrainSpec:
    return long_spec(EPOCHS).model_copy(
        update={"checkpoint_every_epochs": 10, "keep_checkpoints": 100}
    )


def undisturbed_digest(service: Service) -> str:
    """Of the weights that the job ends with when nothing is wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Unhurried, "step_s", 0)
        job = service.run_to_end(service.submit(request(spec())))
    return service.jobs.checkpoints(job.id)[-1].digest


def begun(service: Service) -> Job:
    """A job that trains and has a checkpoint."""
    return service.run_until(
        service.submit(request(spec())),
        lambda now: now.reason is Reason.TRAINING and bool(service.jobs.checkpoints(now.id)),
    )


def follow_until(service: Service, job: Job, look: Callable[[], bool]) -> None:
    """Rounds of the watcher until something is so; what is listed meanwhile is whole."""
    give_up_at = time.monotonic() + WAIT_S
    while not look():
        assert time.monotonic() < give_up_at
        service.watcher.round()
        assert_all_whole(service.artifacts, service.jobs, job)


def test_training_waits_for_a_store_that_is_back_in_time(service: Service, relay: Relay) -> None:
    expected = undisturbed_digest(service)
    job = begun(service)
    relay.break_off()
    back_at = time.monotonic() + 1.5
    follow_until(service, job, lambda: time.monotonic() > back_at)
    assert service.jobs.get(job.id).state is JobState.RUNNING
    relay.mend()
    done = service.run_until(job, lambda now: now.state is JobState.SUCCEEDED, WAIT_S)
    assert [attempt.number for attempt in service.jobs.attempts(done.id)] == [1]
    assert service.jobs.checkpoints(job.id)[-1].digest == expected
    assert_all_whole(service.artifacts, service.jobs, job)


def test_a_job_outlives_a_store_that_is_away_for_longer_than_it_is_waited_for(
    service: Service, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed_digest(service)
    job = begun(service)
    monkeypatch.setattr(ledger, "STORE_PATIENCE_S", 0.3)
    monkeypatch.setattr("workers.logs.attempt.CLOSE_PATIENCE_S", 0.2)
    relay.break_off()
    follow_until(service, job, lambda: service.jobs.get(job.id).state is JobState.QUEUED)
    lost = service.jobs.attempts(job.id)[-1]
    assert lost.reason is Reason.STORE_UNREACHABLE
    assert f"the S3 server {relay.endpoint}" in service.jobs.get(job.id).message
    relay.mend()
    # Who knows that the store is back need not wait for the back-off.
    service.training.pause(job.id)
    service.training.resume(job.id)
    service.run_until(job, lambda now: now.state is JobState.SUCCEEDED, WAIT_S)
    assert service.jobs.attempts(job.id)[-1].resumed_from_step
    assert service.jobs.checkpoints(job.id)[-1].digest == expected
    assert_all_whole(service.artifacts, service.jobs, job)
