from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """A run sets them, and sums by other threads are other bits in the tests after it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
