import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import ForkedService, ServiceProcess

Start = Callable[..., ServiceProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts services on one data folder; whatever is left of them is ended.

    Its own Ray has one core unless a test says otherwise: with more, each start makes a spare
    executor too, which waits beside the job.
    """
    with _starts(ForkedService, tmp_path) as start:
        yield start


@pytest.fixture
def start_anew(tmp_path: Path) -> Iterator[Start]:
    """The same, each in a new interpreter."""
    with _starts(ServiceProcess, tmp_path) as start:
        yield start


@contextlib.contextmanager
def _starts(kind: type[ServiceProcess], folder: Path) -> Iterator[Start]:
    started: list[ServiceProcess] = []

    def start_one(port: int | None = None, **environment: str) -> ServiceProcess:
        if "RAY_ADDRESS" not in environment:
            environment = {"SPREADTRAIN_CPUS": "1", **environment}
        started.append(kind(folder / "data", port, **environment))
        return started[-1]

    yield start_one
    for service in started:
        service.end()
