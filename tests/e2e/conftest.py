from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import ServiceProcess

Start = Callable[..., ServiceProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts services on one data folder; whatever is left of them is ended."""
    started: list[ServiceProcess] = []

    def start_one(port: int | None = None, **environment: str) -> ServiceProcess:
        started.append(ServiceProcess(tmp_path / "data", port, **environment))
        return started[-1]

    yield start_one
    for service in started:
        service.end()
