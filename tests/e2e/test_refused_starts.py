"""A second service that would disturb a first one is refused, and the first one goes on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, ForkedService, ServiceProcess, forked_command


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """The first one, which none of these tests may change."""
    made = ForkedService(tmp_path_factory.mktemp("first") / "data", SPREADTRAIN_CPUS="1")
    yield made
    made.end()


def test_a_second_service_on_the_same_data_is_refused(service: ServiceProcess) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "api.cli", "serve", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "SPREADTRAIN_DATA_DIR": str(service.data_dir)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert second.returncode != 0
    assert "another service is running" in second.stderr + second.stdout
    assert "Traceback" not in second.stderr
    assert service.is_ready()


def refused(folder: Path, port: int, **environment: str) -> str:
    """What a service says that ends at once."""
    log = folder / "second.log"
    second = forked_command(
        ["serve", "--port", str(port)],
        {**os.environ, "SPREADTRAIN_DATA_DIR": str(folder / "other"), **environment},
        log,
    )
    assert second.wait() == 1
    said = log.read_text()
    assert "Traceback" not in said
    return said.replace("\n", " ")


def test_a_second_service_on_the_same_database_is_refused(
    service: ServiceProcess, tmp_path: Path
) -> None:
    database = f"sqlite:///{service.data_dir / 'spreadtrain.db'}"
    said = refused(tmp_path, 0, SPREADTRAIN_DATABASE_URL=database)
    assert "another service is running" in said


def test_a_taken_port_is_said_at_once(service: ServiceProcess, tmp_path: Path) -> None:
    assert "choose another port" in refused(tmp_path, service.port)
