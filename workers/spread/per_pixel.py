r"""Noise whose scale differs from dimension to dimension: y_i = x_i + r_i k_i.

The relative scales r have a root mean square of 1, so ``scale`` stays the standard deviation over
all dimensions, and log p(y|mean) = log p_K((y − mean)/r) − Σ log r_i.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.spread.base import Spread


def relative(scales: Sequence[float]) -> Tensor:
    """Scales with their root mean square made 1, float32 of shape (D,)."""
    values = torch.tensor(scales, dtype=torch.float64)
    return (values / values.square().mean().sqrt()).float()


class PerPixel(Spread):
    """Noise of another kind, times r of shape (D,)."""

    def __init__(self, noise: Spread, r: Tensor) -> None:
        self._noise = noise
        self._r = r
        self._log_r = float(r.double().log().sum())

    def sample_noise(
        self, shape: Sequence[int], scale: float, generator: torch.Generator
    ) -> Tensor:
        """See :meth:`Spread.sample_noise`."""
        return self._noise.sample_noise(shape, scale, generator).mul_(self._r)

    def log_prob(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """See :meth:`Spread.log_prob`."""
        return self._noise.log_prob(y / self._r, mean / self._r, scale) - self._log_r

    def cost(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """See :meth:`Spread.cost`."""
        rows = mean.numel() // len(self._r)
        return self._noise.cost(y / self._r, mean / self._r, scale) + rows * self._log_r

    def entropy(self, dimensions: int, scale: float) -> float:
        """See :meth:`Spread.entropy`."""
        return self._noise.entropy(dimensions, scale) + self._log_r
