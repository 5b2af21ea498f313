"""A Ray cluster that somebody else started: the service joins it, and attempts outlive it."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service.cluster.processes import is_running
from service.cluster.reap import end_holders
from tests.e2e.conftest import Start
from tests.e2e.processes import (
    ROOT,
    free_port,
    pid_of_attempt,
    spec,
    wait_for,
    wait_until,
    wait_until_gone,
)
from tests.e2e.test_restarts import begun


@pytest.fixture
def ray_cluster() -> Iterator[dict[str, str]]:
    """The settings that join a cluster of one node, which is ended by its process ids."""
    folder = Path(tempfile.mkdtemp(prefix="st-ray-"))
    port = free_port()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "ray"),
            "start",
            "--head",
            "--block",
            f"--port={port}",
            "--num-cpus=2",
            "--include-dashboard=false",
            f"--temp-dir={folder}",
            "--object-store-memory=83886080",
            "--disable-usage-stats",
        ],
        env={**os.environ, **token, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    sockets = folder / "session_latest" / "sockets" / "raylet"
    wait_until(lambda: sockets.exists() or head.poll() is not None, 60, "Ray to start")
    assert head.poll() is None
    yield {"RAY_ADDRESS": f"127.0.0.1:{port}", **token}
    children = psutil.Process(head.pid).children(recursive=True)
    head.kill()
    for child in children:
        if is_running(child.pid):
            child.kill()
    head.wait()
    end_holders(folder)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_an_attempt_on_a_joined_cluster_is_not_interrupted_by_the_services_death(
    start: Start, ray_cluster: dict[str, str]
) -> None:
    service = start(**ray_cluster)
    job = service.client.submit(spec(150))
    wait_for(job, begun, "two checkpoints")
    pid = pid_of_attempt(job)
    service.kill()
    assert is_running(pid)
    again = start(**ray_cluster)
    same = again.client.job(job.id)
    assert pid_of_attempt(same) == pid
    assert same.wait(90).state == "succeeded"
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
    wait_until(lambda: same.refresh().state == "cancelled", 30, "the job to be cancelled")
    wait_until_gone(frozenset({pid}), 1)
