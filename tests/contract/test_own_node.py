"""A service on a machine of no Ray node joins the cluster by a node of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, wait_until_gone
from tests.other_ray import OtherRay
from tests.own_mounts import need_own_mounts

JOINS = """
import sys, time
from pathlib import Path
from service.cluster.ray_cluster import RayCluster
from service.settings import ray_environment

ray_environment(joining=True)
cluster = RayCluster(sys.argv[1], Path(sys.argv[2]), None, "contract")
cluster.start()
print(sorted(node.cpus for node in cluster.capacity().nodes), flush=True)
cluster.start_driver("a driver", "{}")  # which says soon that its setup is none
while not cluster.exchange("a driver", []).is_gone:
    time.sleep(0.05)
cluster.close()
print("left", flush=True)
"""


def test_a_service_without_a_node_here_starts_one_that_offers_nothing_and_ends_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    need_own_mounts()
    head = OtherRay(cpus=1)
    try:
        before = head.pids()
        # With process ids of its own it sees no node of the cluster, as in a container.
        done = subprocess.run(
            [
                *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child"),
                *(sys.executable, "-c", JOINS, head.settings["RAY_ADDRESS"], str(tmp_path)),
            ],
            env={**os.environ, **head.settings, "PYTHONPATH": str(ROOT)},
            check=False,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.split("\n")[:2] == ["[0.0, 1.0]", "left"]
        assert before <= head.pids()
    finally:
        head.close()
        wait_until_gone(before)
