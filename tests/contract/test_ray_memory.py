from pathlib import Path

import pytest

from service.cluster.ray_cluster import RayCluster
from service.settings import ray_environment
from tests.contract.test_cluster import look_for
from tests.factories import long_spec
from workers.artifacts import LocalStore
from workers.run import Run


def test_an_attempt_that_rays_memory_monitor_ends_is_lost_for_want_of_memory(
    artifacts: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray's own switches: with this threshold any machine is short of memory at once.
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "200")
    ray_environment(joining=False)
    cluster = RayCluster("", tmp_path / "ray", 1, "short of memory")
    cluster.start()
    try:
        executor = cluster.reserve(long_spec().resources)
        run = Run(
            job_id="job-1",
            attempt=1,
            spec=long_spec(),
            artifacts_uri=artifacts.uri,
            cache_dir=tmp_path,
        )
        cluster.launch(executor, run)
        sighting = look_for(cluster, executor, "gone")
        assert sighting.cause == "out_of_memory"
        assert "running out of memory" in (sighting.detail or "")
    finally:
        cluster.close()
