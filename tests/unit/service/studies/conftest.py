from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobstore import JobStore
from tests.harness import make_service
from tests.played_driver import PlayedCluster
from tests.studying import Studied
from workers.artifacts import LocalStore


@pytest.fixture
def cluster() -> Iterator[PlayedCluster]:
    """Plays the drivers of studies, and trains in this process."""
    made = PlayedCluster()
    yield made
    made.close()


@pytest.fixture
def studied(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path, cluster: PlayedCluster
) -> Studied:
    """A service over that cluster whose rounds are the test's."""
    return Studied(make_service(jobs, artifacts, tmp_path, cluster))
