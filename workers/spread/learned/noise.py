"""The spread p(y|x) with parameters ψ: y = f(x) + Lη, with η of a fixed kind."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from workers.spread.base import Spread
from workers.spread.learned.covariance import equal_entropy_scale
from workers.spread.learned.psi import Psi
from workers.spread.noise import Gaussian


class LearnedNoise(Spread):
    """Noise of a fixed kind as ψ moves and stretches it; all in float32, whatever networks use."""

    def __init__(self, noise: Spread, psi: Psi) -> None:
        self._noise = noise
        self._psi = psi

    @property
    def is_transformed(self) -> bool:
        """Whether there is a learned f."""
        return self._psi.transform is not None

    def transform(self, x: Tensor) -> Tensor:
        """See :meth:`Spread.transform`."""
        if self._psi.transform is None:
            return x
        with _in_float32(x):
            moved: Tensor = self._psi.transform(x)
        return moved

    def sample_noise(
        self, shape: Sequence[int], scale: float, generator: torch.Generator
    ) -> Tensor:
        """See :meth:`Spread.sample_noise`."""
        noise = self._noise.sample_noise(shape, self.own_scale(scale, shape[-1]), generator)
        return self.stretch(noise, scale)

    def stretch(self, noise: Tensor, scale: float) -> Tensor:
        """Lη for η of shape (..., D)."""
        if self._psi.covariance is None:
            return noise
        with _in_float32(noise):
            return self._psi.covariance.stretch(noise, scale)

    def log_prob(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """See :meth:`Spread.log_prob`."""
        covariance, own_scale = self._psi.covariance, self.own_scale(scale, y.shape[-1])
        if covariance is None:
            return self._noise.log_prob(y, mean, own_scale)
        with _in_float32(y):
            d = covariance.shrink(y - mean, scale)
        nothing = torch.zeros((), device=d.device, dtype=d.dtype)
        return self._noise.log_prob(d, nothing, own_scale) - covariance.log_det(scale)

    def cost(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """See :meth:`Spread.cost`; on Gaussian noise by Woodbury, with one product less."""
        covariance, own_scale = self._psi.covariance, self.own_scale(scale, y.shape[-1])
        if covariance is None:
            return self._noise.cost(y, mean, own_scale)
        rows = mean.numel() // mean.shape[-1]
        log_det = rows * covariance.log_det(scale)
        with _in_float32(y):
            if not isinstance(self._noise, Gaussian):
                d = covariance.shrink(y - mean, scale)
                return self._noise.cost(d, torch.zeros_like(d), scale) + log_det
            d, along, share = covariance.shrunk_squares(y - mean, scale)
        saved = along.square().sum() * (-share / (2 * scale**2))
        return self._noise.cost(d, torch.zeros_like(d), scale) + saved + log_det

    def entropy(self, dimensions: int, scale: float) -> float:
        """See :meth:`Spread.entropy`: it does not depend on the learned parameters."""
        own = self._noise.entropy(dimensions, self.own_scale(scale, dimensions))
        return own if self._psi.covariance is None else own + self._psi.covariance.log_det(scale)

    def rms(self, scale: float, dimensions: int) -> float:
        """Root mean square over the dimensions of the noise's standard deviation."""
        covariance = self._psi.covariance
        if covariance is None:
            return self.own_scale(scale, dimensions)
        return math.sqrt(scale**2 + covariance.strength**2 * covariance.rank / dimensions)

    def own_scale(self, scale: float, dimensions: int) -> float:
        """Standard deviation of η, which is the rival's where it stands in for a covariance."""
        if self._psi.rival is None:
            return scale
        rank, strength = self._psi.rival
        return equal_entropy_scale(scale, strength, rank, dimensions)


def _in_float32(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)
