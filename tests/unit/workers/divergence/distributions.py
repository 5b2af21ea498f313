"""Spread distributions that the tests compare."""

from typing import get_args

import torch
from torch import Tensor

from workers.divergence import Kind, LowRankGaussian

KINDS: tuple[Kind, ...] = get_args(Kind)
ORIGIN = torch.zeros(3, dtype=torch.float64)
APART = torch.tensor([0.4, -0.3, 0.2], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def low_rank(seed: int, mean: Tensor, scale: float, rank: int) -> LowRankGaussian:
    factor = torch.randn(len(mean), rank, generator=generator(seed), dtype=torch.float64)
    return LowRankGaussian(mean, scale, factor / 2)
