"""A Ray cluster that somebody else started: the service joins it, and attempts outlive it."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cluster.processes import is_running
from service.jobstore import JobStore
from tests.contract.jobstore import test_revisions as revisions
from tests.e2e.conftest import Start
from tests.e2e.processes import (
    pid_of_attempt,
    spec,
    wait_for,
    wait_until,
    wait_until_gone,
)
from tests.e2e.test_restarts import begun
from tests.other_ray import OtherRay


@pytest.fixture
def ray_cluster() -> Iterator[dict[str, str]]:
    """The settings that join a cluster of one node."""
    ray = OtherRay()
    yield ray.settings
    ray.close()


def to_the_schema_before(database: Path) -> None:
    """The same rows in the schema of the revision before the last one."""
    JobStore.open(f"sqlite:///{database}").close()  # what a killed service left beside the file
    now = database.rename(database.with_name("now.db"))
    with (
        contextlib.closing(JobStore.open(f"sqlite:///{now}")) as source,
        revisions.connected(f"sqlite:///{database}") as connection,
    ):
        revisions.upgrade(connection, revisions.REVISIONS[-2])
        revisions.fill(connection, source)


def test_an_attempt_on_a_joined_cluster_is_interrupted_by_no_death_of_the_service_and_no_upgrade(
    start: Start, ray_cluster: dict[str, str]
) -> None:
    service = start(**ray_cluster)
    job = service.client.submit(spec(150))
    wait_for(job, begun, "two checkpoints")
    pid = pid_of_attempt(job)
    service.kill()
    to_the_schema_before(service.data_dir / "spreadtrain.db")
    assert is_running(pid)
    again = start(**ray_cluster)
    same = again.client.job(job.id)
    assert pid_of_attempt(same) == pid
    assert same.wait(240).state == "succeeded"
    assert [attempt.reason for attempt in same.body.attempts] == ["completed"]


def test_a_stopped_service_leaves_a_joined_cluster_at_work_and_cancel_still_reaches_it(
    start: Start, ray_cluster: dict[str, str]
) -> None:
    service = start(**ray_cluster)
    job = service.client.submit(spec(10_000))
    wait_for(job, begun, "two checkpoints")
    pid = pid_of_attempt(job)
    assert service.stop(signal.SIGTERM) == 0
    assert is_running(pid)
    again = start(**ray_cluster)
    same = again.client.job(job.id)
    same.cancel()
    wait_until(lambda: same.refresh().state == "cancelled", 240, "the job to be cancelled")
    wait_until_gone(frozenset({pid}))
