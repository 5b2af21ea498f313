"""Pause, resume, retry and fork with real processes: resources are really given back."""

from api.client import JobHandle
from service.cluster.processes import is_running
from tests.e2e.conftest import Start
from tests.e2e.processes import ServiceProcess, pid_of_attempt, spec, wait_for, wait_until


def begun(job: JobHandle) -> bool:
    """The job has a checkpoint to go on from."""
    return job.refresh().state == "running" and len(job.checkpoints()) >= 2


def step_of(job: JobHandle) -> int:
    assert job.body.progress is not None
    return job.body.progress.step


def resumed_steps(job: JobHandle) -> list[int | None]:
    return [attempt.resumed_from_step for attempt in job.refresh().body.attempts]


def in_state(job: JobHandle, state: str) -> JobHandle:
    return wait_for(job, lambda now: now.state == state, f"the job to be {state}")


def same_weights(service: ServiceProcess, *jobs: JobHandle) -> bool:
    return len({service.client.job(job.id).checkpoints()[-1].digest for job in jobs}) == 1


def test_a_paused_job_gives_its_core_to_another_and_a_pause_outlives_the_service(
    start: Start,
) -> None:
    service = start()
    undisturbed = service.client.submit(spec(30)).wait(240)
    job = wait_for(service.client.submit(spec(30)), begun, "two checkpoints")
    pid = pid_of_attempt(job)
    assert job.pause().body.pause_requested
    paused = in_state(job, "paused")
    assert not is_running(pid)
    step = step_of(paused)
    assert job.checkpoints()[-1].step == step
    assert service.client.submit(spec(1)).wait(240).state == "succeeded"
    assert job.refresh().state == "paused"
    ended = job.resume().wait(240)
    assert [attempt.reason for attempt in ended.body.attempts] == ["paused", "completed"]
    assert resumed_steps(ended) == [None, step]
    assert same_weights(service, undisturbed, ended)

    # Another one, whose service is killed before its pause, and then ends in order.
    job = wait_for(service.client.submit(spec(40)), begun, "two checkpoints")
    job.pause()
    service.kill()
    service = start()
    job = in_state(service.client.job(job.id), "paused")
    assert job.body.attempts[-1].reason in ("paused", "interrupted")
    assert service.stop() == 0
    service = start()
    job = service.client.job(job.id)
    assert job.state == "paused"
    ended = job.resume().wait(240)
    assert ended.state == "succeeded"
    assert ended.body.attempts[-1].resumed_from_step


def test_a_fork_of_a_running_job_runs_beside_it_and_a_cancelled_one_is_retried(
    start: Start,
) -> None:
    service = start(SPREADTRAIN_CPUS="2")
    parent = wait_for(service.client.submit(spec(10_000)), begun, "two checkpoints")
    cooler = {"trainer": {"epochs": 1, "optimizer": {"learning_rate": 1e-5}}}
    fork = parent.fork(cooler, checkpoint="best", start="weights", name="cooler")
    assert fork.wait(240).state == "succeeded"
    assert fork.body.parent is not None
    assert fork.body.parent.job == parent.id
    assert fork.id in parent.refresh().body.forks
    assert parent.state == "running"
    pid = pid_of_attempt(parent)
    parent.cancel()
    step = step_of(in_state(parent, "cancelled"))
    assert not is_running(pid)
    parent.retry({"max_wall_s": 3600.0})
    wait_until(lambda: resumed_steps(parent)[1:] == [step], 240, "the retry to go on")
    parent.cancel()
    in_state(parent, "cancelled")
