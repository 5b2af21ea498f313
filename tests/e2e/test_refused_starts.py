"""A second service that would disturb a first one is refused, and the first one goes on."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.processes import ROOT, ForkedService, ServiceProcess


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


def test_a_second_service_on_the_same_database_is_refused(service: ServiceProcess) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "api.cli", "serve", "--port", "0"],
        cwd=ROOT,
        env={
            **os.environ,
            "SPREADTRAIN_DATA_DIR": str(service.data_dir.parent / "other"),
            "SPREADTRAIN_DATABASE_URL": f"sqlite:///{service.data_dir / 'spreadtrain.db'}",
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert second.returncode != 0
    assert "another service is running" in (second.stderr + second.stdout).replace("\n", " ")


def test_a_taken_port_is_said_at_once(service: ServiceProcess) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "api.cli", "serve", "--port", str(service.port)],
        cwd=ROOT,
        env={**os.environ, "SPREADTRAIN_DATA_DIR": str(service.data_dir.parent / "other")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert second.returncode != 0
    assert "choose another port" in (second.stderr + second.stdout).replace("\n", " ")
