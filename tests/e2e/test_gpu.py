"""Jobs on the GPUs of an own Ray: they get one, give it back, and leave no process on it."""

import os
import signal
import subprocess

import pytest

from tests.e2e.conftest import Start
from tests.e2e.processes import pid_of_attempt, spec, wait_for, wait_until
from tests.e2e.test_restarts import begun

pytestmark = pytest.mark.gpu
ON_GPU = {"resources": {"gpus_per_worker": 1}}


def on_gpus() -> set[int]:
    """Processes with memory on a GPU, by the driver's count."""
    told = subprocess.run(
        ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {int(line) for line in told.stdout.split() if line.isdigit()}


def test_a_job_gets_a_gpu_survives_a_kill_and_a_cancel_frees_it(start: Start) -> None:
    before = on_gpus()
    service = start(SPREADTRAIN_CPUS="2")  # cores enough: what is waited for is the GPU
    done = service.client.submit(spec(5, **ON_GPU)).wait(240)
    assert done.state == "succeeded", done.body.message
    assert service.client.job(done.id).samples(16).shape == (16, 28, 28)

    job = service.client.submit(spec(100_000, **ON_GPU))
    wait_for(job, begun, "two checkpoints")
    waits = service.client.submit(spec(1, **ON_GPU))
    wait_for(waits, lambda now: now.explain().rule.name == "capacity", "the reason of its waiting")
    os.kill(pid_of_attempt(job), signal.SIGKILL)
    wait_for(
        job,
        lambda now: len(now.body.attempts) == 2 and now.body.reason == "training",
        "a second attempt",
    )
    assert job.body.attempts[1].resumed_from_step
    second = pid_of_attempt(job)
    job.cancel()
    wait_for(job, lambda now: now.state == "cancelled", "its end")
    assert waits.wait(240).state == "succeeded"
    assert service.stop() == 0
    wait_until(lambda: not on_gpus() - before, 60, "the GPU to be free")
    assert second not in on_gpus()
