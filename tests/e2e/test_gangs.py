"""Jobs with two workers through the whole service: real uvicorn, real Ray, real signals."""

import contextlib
import os
import signal
from collections.abc import Mapping
from functools import partial

import psutil

from api.client import JobHandle
from service.cluster.processes import is_running
from tests import ray_census
from tests.e2e.conftest import Start
from tests.e2e.processes import (
    ServiceProcess,
    pid_of_attempt,
    spec,
    wait_for,
    wait_until,
    wait_until_gone,
)
from tests.e2e.test_external_ray import ray_cluster
from tests.e2e.test_restarts import begun, resumed_steps

__all__ = ["ray_cluster"]  # the fixture


def gang_spec(epochs: int, workers: int = 2) -> Mapping[str, object]:
    """Nine steps an epoch, and a checkpoint after each."""
    alone = spec(epochs, resources={"workers": workers})
    trainer = alone["trainer"]
    assert isinstance(trainer, dict)
    return {**alone, "trainer": {**trainer, "batch_size": 1000}}


def workers_of(service: ServiceProcess) -> set[int]:
    """Process ids of all executors."""
    found = set()
    for pid in service.census():
        with contextlib.suppress(psutil.NoSuchProcess):  # ended since they were listed
            process = psutil.Process(pid)
            is_ended = process.status() == psutil.STATUS_ZOMBIE
            title = " ".join(process.cmdline())  # with its name in between while it is called
            if not is_ended and title.startswith("ray::") and "Executor" in title:
                found.add(pid)
    return found


def losses(job: JobHandle) -> dict[float, float]:
    """The loss after each epoch."""
    points = job.metrics(["loss_nats"])["loss_nats"]
    whole = [point for point in points if point.epoch == round(point.epoch)]
    assert len({point.epoch for point in whole}) == len(whole)  # each is counted once
    return {point.epoch: point.value for point in whole if point.value is not None}


def both_workers(service: ServiceProcess) -> set[int]:
    """Process ids of a gang that has all cores, so that there is no spare beside it."""
    workers = workers_of(service)
    assert len(workers) == 2
    return workers


def kill_worker(service: ServiceProcess, job: JobHandle, rank: int) -> set[int]:
    """The process ids of all workers, one of which was killed."""
    first = pid_of_attempt(job)
    workers = both_workers(service)
    os.kill(first if rank == 0 else (workers - {first}).pop(), signal.SIGKILL)
    return workers


def is_at_work(job: JobHandle) -> bool:
    return begun(job) and job.body.attempts[-1].first_step_at is not None


def has_more_attempts(job: JobHandle, known: int) -> bool:
    return len(job.refresh().body.attempts) > known


def test_a_gang_that_loses_each_of_its_workers_ends_as_one_that_was_not_disturbed(
    start: Start,
) -> None:
    service = start(SPREADTRAIN_CPUS="2")
    whole = service.client.submit(gang_spec(80)).wait(240)
    job = service.client.submit(gang_spec(80))
    workers: set[int] = set()
    for rank in (1, 0):
        wait_for(job, is_at_work, "a step of the latest attempt, and two checkpoints")
        known = len(job.refresh().body.attempts)
        workers |= kill_worker(service, job, rank)
        wait_until(partial(has_more_attempts, job, known), 240, "another attempt")
    assert job.wait(240).state == "succeeded"
    assert [attempt.reason for attempt in job.refresh().body.attempts] == [
        "worker_lost",
        "worker_lost",
        "completed",
    ]
    assert "worker 1" in (job.body.attempts[0].message or "")
    assert all(resumed_steps(job)[1:])
    assert job.checkpoints()[-1].digest == whole.checkpoints()[-1].digest
    assert set(losses(job)) == set(losses(whole))
    wait_until_gone(frozenset(workers))
    wait_until(lambda: len(workers_of(service)) <= 1, 240, "only the warm spare to be left")
    last = wait_until(lambda: workers_of(service), 240, "the warm spare")
    one_core = service.client.submit(gang_spec(1, workers=1)).wait(240)
    assert last == {pid_of_attempt(one_core)}  # it was the spare, and no leftover of the gang


def test_cancelling_a_gang_leaves_none_of_its_processes(start: Start) -> None:
    service = start(SPREADTRAIN_CPUS="2")
    job = service.client.submit(gang_spec(10_000))
    waiting = service.client.submit(gang_spec(1))
    wait_for(job, begun, "two checkpoints")
    assert waiting.refresh().body.reason == "waiting_for_resources"
    assert "each of 2 workers" in (waiting.body.message or "")
    workers = both_workers(service)
    job.cancel()
    wait_until(lambda: job.refresh().state == "cancelled", 240, "the job to be cancelled")
    assert not [pid for pid in workers if is_running(pid)]
    assert waiting.wait(240).state == "succeeded"


def test_a_gang_on_a_joined_cluster_is_found_again_and_none_is_left_that_nobody_knows(
    ray_cluster: dict[str, str], start: Start
) -> None:
    service = start(**ray_cluster)
    # So long that the next service finds it at work; seldom checkpoints, to be done soon after.
    job = service.client.submit({**gang_spec(300), "checkpoint_every_epochs": 10})
    wait_for(job, begun, "two checkpoints")
    pid = pid_of_attempt(job)
    service.kill()
    again = start(**ray_cluster)
    same = again.client.job(job.id)
    assert pid_of_attempt(same) == pid
    assert is_running(pid)
    assert same.wait(240).state == "succeeded"
    assert [attempt.reason for attempt in same.body.attempts] == ["completed"]
    wait_until_gone(frozenset({pid}))
    assert ray_census.take(ray_cluster["RAY_ADDRESS"], ray_cluster).groups == []

    # A service that lost its database knows of no gang that its predecessor had.
    other = again.client.submit(gang_spec(10_000))
    wait_for(other, begun, "two checkpoints")
    pid = pid_of_attempt(other)
    again.kill()
    for file in again.data_dir.glob("spreadtrain.db*"):
        file.unlink()
    start(**ray_cluster)
    wait_until_gone(frozenset({pid}))
    wait_until(
        lambda: not ray_census.take(ray_cluster["RAY_ADDRESS"], ray_cluster).groups, 240, "groups"
    )
