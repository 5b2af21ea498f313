"""A raylet that is there and does nothing any more: its process id tells nothing."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from service.cluster.base import ClusterDown
from service.cluster.processes import is_running
from service.cluster.ray_cluster import RayCluster
from service.settings import ray_environment
from tests.e2e.processes import wait_until
from tests.other_ray import oldest


def is_down(cluster: RayCluster) -> bool:
    try:
        cluster.capacity()
    except ClusterDown:
        return True
    return False


def test_an_own_ray_whose_raylet_hangs_is_given_up_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("initial_delay_ms", "period_ms", "timeout_ms"):
        monkeypatch.setenv(f"RAY_health_check_{name}", "500")
    ray_environment(joining=False)
    cluster = RayCluster("", tmp_path, 1, "hung")
    try:
        cluster.start()
        before = cluster.session
        raylet = oldest("raylet", [child.pid for child in psutil.Process().children(True)])
        assert raylet is not None
        os.kill(raylet, signal.SIGSTOP)
        wait_until(lambda: is_down(cluster), 120, "the hung raylet to be missed")
        assert is_running(raylet)
        cluster.rejoin()
        assert not is_running(raylet)
        assert cluster.session != before
        assert cluster.capacity().nodes[0].cpus == 1
    finally:
        cluster.close()
