"""What all tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from service.jobstore import JobStore
from workers.artifacts import LocalStore


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small tensors are slower on several threads, and tests run beside other processes."""
    torch.set_num_threads(1)


@pytest.fixture
def artifacts(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


@pytest.fixture
def jobs() -> Iterator[JobStore]:
    store = JobStore.open("sqlite://")
    yield store
    store.close()
