"""The whole service but for HTTP, over an inline cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cluster.inline import InlineCluster
from service.jobstore import JobStore
from tests.harness import Service, make_service
from workers.artifacts import LocalStore


@pytest.fixture
def service(jobs: JobStore, artifacts: LocalStore, tmp_path: Path) -> Iterator[Service]:
    made = make_service(jobs, artifacts, tmp_path, InlineCluster())
    yield made
    made.cluster.close()
