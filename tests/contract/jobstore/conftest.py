from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobstore import JobStore


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    """Each implementation in turn: one test body holds for all of them."""
    url = "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"
    store = JobStore.open(url)
    yield store
    store.close()
