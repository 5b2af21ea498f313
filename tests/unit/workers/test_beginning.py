"""Workers of one run begin at one checkpoint, or not at all."""

import zlib

import pytest
import torch
from torch import Tensor

from workers.beginning import Beginning, require_same
from workers.errors import CheckpointError
from workers.parallel import ALONE, Peers

CPU = torch.device("cpu")


def beside(other: str) -> Peers:
    """Worker 0, whose peer has read the checkpoint under this prefix."""

    def all_reduce(tensor: Tensor) -> Tensor:
        return tensor.add_(torch.tensor([0, zlib.crc32(other.encode())]))

    return Peers(0, 2, all_reduce, lambda: None)


def test_workers_that_read_the_same_checkpoint_go_on() -> None:
    require_same(Beginning({}, "j/1/checkpoints/2"), beside("j/1/checkpoints/2"), CPU)
    require_same(Beginning(), beside(""), CPU)
    require_same(Beginning({}, "j/1/checkpoints/2"), ALONE, CPU)


@pytest.mark.parametrize("other", ["j/1/checkpoints/1", ""])
def test_workers_that_read_different_ones_end_before_the_first_step(other: str) -> None:
    with pytest.raises(CheckpointError, match="same checkpoint"):
        require_same(Beginning({}, "j/1/checkpoints/2"), beside(other), CPU)
