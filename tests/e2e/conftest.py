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


@pytest.fixture(scope="module")
def _lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    service = ForkedService(
        tmp_path_factory.mktemp("lasting") / "data",
        SPREADTRAIN_CPUS="2",
        SPREADTRAIN_CANCEL_GRACE_S="600",
    )
    yield service
    service.end()


@pytest.fixture
def lasting(_lasting: ServiceProcess) -> Iterator[ServiceProcess]:
    """A service with two cores for all tests of a file that neither end it nor leave jobs open;
    nobody but themselves ends attempts that are to be cancelled."""
    yield _lasting
    open_jobs = [
        job.id for state in ("queued", "running") for job in _lasting.client.jobs(state=state)
    ]
    assert not open_jobs


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
