"""What real signals do to a real service: nothing is left running, and nothing is lost."""

import os
import signal
from functools import partial

from api.client import JobHandle
from service.cluster.processes import is_running
from tests.e2e.conftest import Start
from tests.e2e.processes import (
    ServiceProcess,
    pid_of_attempt,
    spec,
    wait_for,
    wait_until,
    wait_until_gone,
)

ENDED_WITH_IT_S = 10.0  # for processes of a service that has ended in order, on a loaded machine


def begun(job: JobHandle) -> bool:
    """The job has a checkpoint to go on from."""
    return job.refresh().state == "running" and len(job.checkpoints()) >= 2


def has_attempts(count: int, job: JobHandle) -> bool:
    return len(job.refresh().body.attempts) >= count


def has_begun(attempt: int, job: JobHandle) -> bool:
    """The attempt of this number has made a checkpoint of its own, two at least are there."""
    made = [checkpoint.attempt for checkpoint in job.checkpoints()]
    return begun(job) and attempt in made


def resumed_steps(job: JobHandle) -> list[int | None]:
    return [attempt.resumed_from_step for attempt in job.refresh().body.attempts]


def test_however_a_service_ends_nothing_is_left_and_its_job_goes_on_to_the_same_weights(
    start_anew: Start,
) -> None:
    service = start_anew()
    undisturbed = service.client.submit(spec(80)).wait(240)
    job = service.client.submit(spec(80))
    for known, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGKILL)):
        wait_for(job, partial(has_begun, known + 1), "two checkpoints, and a new one")
        pids = service.census()
        assert len(pids) > 5
        status = service.stop(number)
        if number == signal.SIGKILL:
            assert status == -number
            service = start_anew()  # it comes while others still clean up
            wait_until_gone(pids)
        else:
            assert status == 0
            wait_until_gone(pids, ENDED_WITH_IT_S)
            service = start_anew()
        job = service.client.job(job.id)

    resumed = job.wait(240)
    assert resumed.state == "succeeded"
    first, *later = resumed_steps(resumed)
    assert first is None
    assert len(later) == 3
    assert all(later)
    reasons = [attempt.reason for attempt in resumed.body.attempts]
    assert reasons == ["service_stopped", "service_stopped", "interrupted", "completed"]
    whole = service.client.job(undisturbed.id).checkpoints()[-1]
    assert resumed.checkpoints()[-1].digest == whole.digest

    # And so it is if nobody comes back.
    wait_for(service.client.submit(spec(10_000)), begun, "two checkpoints")
    pids, folders = service.census(), service.ray_folders()
    service.kill()
    wait_until_gone(pids)
    wait_until(lambda: not any(folder.exists() for folder in folders), 240, "the folders to go")


def test_the_death_of_ray_is_survived_and_the_service_can_still_be_stopped(start: Start) -> None:
    service = start()
    job = service.client.submit(spec(10_000))
    for known, name in enumerate(("raylet", "gcs_server")):
        wait_for(job, partial(has_begun, known + 1), "two checkpoints, and a new one")
        pid = pid_of_attempt(job)
        before = service.census() - {service.process.pid}
        os.kill(service.child(name), signal.SIGKILL)
        wait_until_gone(frozenset({pid}))
        wait_until(partial(has_attempts, known + 2, job), 240, "another attempt")
        wait_until_gone(before)
        wait_until(service.is_ready, 240, "the service to be ready")
    wait_for(job, partial(has_begun, 3), "a checkpoint of the third attempt")
    assert all(resumed_steps(job)[1:])
    job.cancel()
    wait_until(lambda: job.refresh().state == "cancelled", 240, "the job to be cancelled")
    reasons = [attempt.reason for attempt in job.refresh().body.attempts]
    assert reasons == ["cluster_lost", "cluster_lost", "cancelled"]
    after = service.census()
    assert service.stop() == 0
    wait_until_gone(after, ENDED_WITH_IT_S)


def test_an_attempt_that_does_not_listen_is_cancelled_the_hard_way(start: Start) -> None:
    service = start(SPREADTRAIN_CANCEL_GRACE_S="1")
    job = service.client.submit(spec(10_000))
    wait_for(job, begun, "two checkpoints")
    pid = pid_of_attempt(job)
    os.kill(pid, signal.SIGSTOP)  # it can neither see the wish nor write its outcome
    job.cancel()
    wait_until(lambda: job.refresh().state == "cancelled", 240, "the job to be cancelled")
    assert not is_running(pid)


def test_killing_an_attempt_costs_the_work_since_its_last_checkpoint(
    lasting: ServiceProcess,
) -> None:
    undisturbed = lasting.client.submit(spec(40)).wait(240)
    job = lasting.client.submit(spec(40))
    wait_for(job, begun, "two checkpoints")
    pid = pid_of_attempt(job)
    os.kill(pid, signal.SIGKILL)
    resumed = job.wait(240)
    assert [attempt.reason for attempt in resumed.body.attempts] == ["worker_lost", "completed"]
    assert resumed_steps(resumed)[1]
    assert not is_running(pid)
    assert resumed.checkpoints()[-1].digest == undisturbed.checkpoints()[-1].digest
    steps = [point.step for point in resumed.metrics()["loss_nats"]]
    assert steps == sorted(set(steps))


def test_a_cancelled_job_has_no_process_left(lasting: ServiceProcess) -> None:
    job = lasting.client.submit(spec(10_000))
    wait_for(job, begun, "two checkpoints")
    pid = pid_of_attempt(job)
    job.cancel()
    wait_until(lambda: job.refresh().state == "cancelled", 240, "the job to be cancelled")
    assert not is_running(pid)
    assert job.body.reason == "cancelled"
    assert lasting.client.submit(spec(1)).wait(240).state == "succeeded"


def test_ten_jobs_at_once_all_run_and_share_what_there_is(lasting: ServiceProcess) -> None:
    jobs = [lasting.client.submit(spec(1), name=str(number)) for number in range(10)]
    assert {job.wait(240).state for job in jobs} == {"succeeded"}
