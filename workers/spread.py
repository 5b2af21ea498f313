r"""Spread noise p(y|x): y = x + k with independent noise k in each of the D dimensions.

A spread is valid where its density is positive everywhere and its characteristic function has no
zeros but countably many (section 2 of *Spread Divergence*, Zhang et al., ICML 2020); both of these
are. ``scale`` is the standard deviation σ of k for both, so with d = y − mean:

=========  ===============================  ===========================
spread     log p(y|mean)                    entropy H(K)
=========  ===============================  ===========================
Gaussian   −‖d‖²/2σ² − (D/2) log 2πσ²       (D/2) log 2πeσ²
Laplace    −‖d‖₁/b − D log 2b, b = σ/√2     D (1 + log 2b)
=========  ===============================  ===========================
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import assert_never

import torch
from torch import Tensor
from torch.nn import functional

from workers.spec import FixedSpread, GaussianSpread, LaplaceSpread

# The largest float32 below 1: uniform draws from [-LIMIT, LIMIT] keep log(1 - |u|) finite.
_LIMIT = 1 - 2**-24


class Spread(ABC):
    """A noise distribution with a scale that may move from step to step."""

    @abstractmethod
    def sample_noise(
        self, shape: Sequence[int], scale: float, generator: torch.Generator
    ) -> Tensor:
        """Float32 draws of k on the generator's device."""

    @abstractmethod
    def log_prob(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """log p(y|mean) in nats, summed over the last dimension."""

    @abstractmethod
    def cost(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """−log p(y|mean) in nats, summed over everything: one fused reduction."""

    @abstractmethod
    def entropy(self, dimensions: int, scale: float) -> float:
        """H(K) in nats of the noise in ``dimensions`` dimensions."""


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
        u.uniform_(-_LIMIT, _LIMIT, generator=generator)
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


def spread_of(spec: GaussianSpread | LaplaceSpread) -> Spread:
    """The noise distribution that a spec names."""
    match spec:
        case GaussianSpread():
            return Gaussian()
        case LaplaceSpread():
            return Laplace()
        case _:
            assert_never(spec)


def scale_at(spec: FixedSpread, epoch: float) -> float:
    """Standard deviation of the noise after ``epoch`` epochs; see ScaleSchedule for the forms."""
    schedule = spec.schedule
    if schedule is None or epoch >= schedule.until_epoch:
        return spec.scale
    first, last, u = schedule.initial_scale, spec.scale, epoch / schedule.until_epoch
    match schedule.kind:
        case "linear":
            return first + (last - first) * u
        case "cosine":
            return last + (first - last) * (1 + math.cos(math.pi * u)) / 2
        case "geometric":
            return first * math.exp(u * math.log(last / first))
        case _:
            assert_never(schedule.kind)


def settled_epoch(spec: FixedSpread) -> int:
    """The epoch from which the scale no longer moves."""
    return 0 if spec.schedule is None else spec.schedule.until_epoch
