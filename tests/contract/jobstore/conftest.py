from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobstore import JobStore


@pytest.fixture(params=["memory", "file", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    """Each implementation in turn: one test body holds for all of them."""
    match request.param:
        case "memory":
            url = "sqlite://"
        case "file":
            url = f"sqlite:///{tmp_path / 'jobs.db'}"
        case _:
            url = request.getfixturevalue("postgres_url")
    store = JobStore.open(url)
    yield store
    store.close()
