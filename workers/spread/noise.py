r"""Gaussian and Laplace noise, in each of the D dimensions on its own.

With d = y − mean and the standard deviation σ:

=========  ===============================  ===========================
spread     log p(y|mean)                    entropy H(K)
=========  ===============================  ===========================
Gaussian   −‖d‖²/2σ² − (D/2) log 2πσ²       (D/2) log 2πeσ²
Laplace    −‖d‖₁/b − D log 2b, b = σ/√2     D (1 + log 2b)
=========  ===============================  ===========================
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from workers.spread.base import LARGEST_BELOW_1, Spread


class Gaussian(Spread):
    """k ~ N(0, σ² I)."""

    def sample_noise(
        self, shape: Sequence[int], scale: float, generator: torch.Generator
    ) -> Tensor:
        """See :meth:`Spread.sample_noise`."""
        noise = torch.empty(tuple(shape), device=generator.device)
        return noise.normal_(0.0, scale, generator=generator)

    def log_prob(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """See :meth:`Spread.log_prob`."""
        squares = (y - mean).square().sum(-1)
        return squares.mul(-0.5 / scale**2) - _gaussian_log_norm(y.shape[-1], scale)

    def cost(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """See :meth:`Spread.cost`."""
        squares = functional.mse_loss(mean, y.expand_as(mean), reduction="sum")
        return squares * (0.5 / scale**2) + _gaussian_log_norm(mean.numel(), scale)

    def entropy(self, dimensions: int, scale: float) -> float:
        """See :meth:`Spread.entropy`."""
        return dimensions / 2 + _gaussian_log_norm(dimensions, scale)


class Laplace(Spread):
    """p(k) = e^(−|k|/b)/2b in each dimension, with b = σ/√2."""

    def sample_noise(
        self, shape: Sequence[int], scale: float, generator: torch.Generator
    ) -> Tensor:
        """See :meth:`Spread.sample_noise`.

        With u uniform on (−1, 1), b·sign(u)·log(1 − |u|): a tenth of the time of two exponential
        draws.
        """
        u = torch.empty(tuple(shape), device=generator.device)
        u.uniform_(-LARGEST_BELOW_1, LARGEST_BELOW_1, generator=generator)
        return u.abs().neg_().log1p_().mul_(scale / math.sqrt(2)).copysign_(u)

    def log_prob(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """See :meth:`Spread.log_prob`."""
        distances = (y - mean).abs().sum(-1)
        return distances.mul(-math.sqrt(2) / scale) - _laplace_log_norm(y.shape[-1], scale)

    def cost(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """See :meth:`Spread.cost`."""
        distances = functional.l1_loss(mean, y.expand_as(mean), reduction="sum")
        return distances * (math.sqrt(2) / scale) + _laplace_log_norm(mean.numel(), scale)

    def entropy(self, dimensions: int, scale: float) -> float:
        """See :meth:`Spread.entropy`."""
        return dimensions + _laplace_log_norm(dimensions, scale)


def _gaussian_log_norm(dimensions: int, scale: float) -> float:
    return dimensions / 2 * math.log(2 * math.pi * scale**2)


def _laplace_log_norm(dimensions: int, scale: float) -> float:
    return dimensions * math.log(math.sqrt(2) * scale)
