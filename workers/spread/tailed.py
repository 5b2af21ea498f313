r"""Noise with heavier tails than a Gaussian's, in each of the D dimensions on its own.

With d = y − mean of one dimension and the standard deviation σ:

===============  ==================================================  ==========================
spread           log p(d)                                            characteristic function
===============  ==================================================  ==========================
Logistic         −|d|/s − 2 log(1 + e^{−|d|/s}) − log s, s = σ√3/π   πsω/sinh πsω
Student-t ν      −½(ν + 1) log(1 + d²/ντ²) − log τ√ν B(ν/2, ½),      ∝ u^{ν/2} K_{ν/2}(u),
                 τ = σ√((ν − 2)/ν)                                   u = √ν τ|ω|
Gaussian scale   log Σ_i w_i N(d; 0, τ_i²), τ_i = σr_i/√(Σ w r²)     Σ_i w_i e^{−τ_i²ω²/2}
mixture
===============  ==================================================  ==========================

All three functions are positive for every ω, so all are valid. The entropy of the logistic is
2 + log s; of Student-t log τ + ½(ν + 1)(ψ(½(ν + 1)) − ψ(½ν)) + log √ν B(ν/2, ½); of a mixture an
integral.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from workers.spec import MixtureComponent
from workers.spread.base import LARGEST_BELOW_1, Spread

# Of log|k| / τ for the integral: from the least scale down, where a density is flat, to the largest
# scale up, where it is nothing. The integrand is analytic, so that the trapezium rule is exact to
# rounding at this step.
_BELOW, _ABOVE, _STEP = -40.0, math.log(40.0), 0.005


class _Independent(Spread):
    """Noise that is given by the log density of a single value."""

    @abstractmethod
    def _log_density(self, d: Tensor, scale: float) -> Tensor:
        """log p(d) of each value, same shape."""

    def log_prob(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """See :meth:`Spread.log_prob`."""
        return self._log_density(y - mean, scale).sum(-1)

    def cost(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """See :meth:`Spread.cost`."""
        return -self._log_density(y - mean, scale).sum()


class Logistic(_Independent):
    """p(k) = e^{−k/s}/s(1 + e^{−k/s})²."""

    def sample_noise(
        self, shape: Sequence[int], scale: float, generator: torch.Generator
    ) -> Tensor:
        """See :meth:`Spread.sample_noise`: with u uniform on (−1, 1), 2s·artanh(u)."""
        u = torch.empty(tuple(shape), device=generator.device)
        u.uniform_(-LARGEST_BELOW_1, LARGEST_BELOW_1, generator=generator)
        return u.atanh_().mul_(2 * _logistic_s(scale))

    def _log_density(self, d: Tensor, scale: float) -> Tensor:
        t = d.abs() / _logistic_s(scale)
        return -t - 2 * functional.softplus(-t) - math.log(_logistic_s(scale))

    def entropy(self, dimensions: int, scale: float) -> float:
        """See :meth:`Spread.entropy`."""
        return dimensions * (2 + math.log(_logistic_s(scale)))


class StudentT(_Independent):
    """Student's t with ν > 2 degrees of freedom, which a standard deviation needs."""

    def __init__(self, degrees_of_freedom: float) -> None:
        self._nu = degrees_of_freedom
        self._tau = math.sqrt((self._nu - 2) / self._nu)  # at σ = 1
        self._log_norm = math.log(self._nu) / 2 + (
            math.lgamma(self._nu / 2) + math.lgamma(0.5) - math.lgamma((self._nu + 1) / 2)
        )

    def sample_noise(
        self, shape: Sequence[int], scale: float, generator: torch.Generator
    ) -> Tensor:
        """See :meth:`Spread.sample_noise`.

        With u, v uniform on (0, 1), τ√(ν(u^{−2/ν} − 1)) cos 2πv (Bailey, *Polar generation of
        random variates with the t-distribution*, 1994). u is a multiple of 2⁻²⁴, so what is rarer
        is not drawn. It has the share 2^{−24(1 − 2/ν)} of the variance: .0002 at ν = 4, but .036 at
        2.5, .45 at 2.1 and .92 at 2.01, by which the draws vary less than ``scale`` says.
        """
        u, v = torch.rand(2, *shape, generator=generator, device=generator.device)
        radius: Tensor = (1 - u).log_().mul_(-2 / self._nu).expm1_().mul_(self._nu).sqrt_()
        return radius.mul_(v.mul_(2 * math.pi).cos_()).mul_(self._tau * scale)

    def _log_density(self, d: Tensor, scale: float) -> Tensor:
        tau = self._tau * scale
        log_ratio = (d.square() / (self._nu * tau**2)).log1p()
        return log_ratio * (-(self._nu + 1) / 2) - (self._log_norm + math.log(tau))

    def entropy(self, dimensions: int, scale: float) -> float:
        """See :meth:`Spread.entropy`."""
        upper, lower = torch.digamma(
            torch.tensor([(self._nu + 1) / 2, self._nu / 2], dtype=torch.float64)
        ).tolist()
        one = (self._nu + 1) / 2 * (upper - lower) + self._log_norm + math.log(self._tau * scale)
        return dimensions * float(one)


class GaussianMixture(_Independent):
    """A scale mixture of Gaussians: each value has the scale of a component drawn for it."""

    def __init__(self, components: Sequence[MixtureComponent]) -> None:
        weights, taus = mixture_parts(components)
        self._log_weights, self._taus = [math.log(w) for w in weights], taus
        self._edges = torch.tensor(weights, dtype=torch.float64).cumsum(0)[:-1].float()
        self._entropy = self._entropy_at_1()

    def sample_noise(
        self, shape: Sequence[int], scale: float, generator: torch.Generator
    ) -> Tensor:
        """See :meth:`Spread.sample_noise`."""
        device = generator.device
        chosen = torch.rand(tuple(shape), generator=generator, device=device)
        component = torch.bucketize(chosen, self._edges.to(device), right=True)
        taus = torch.tensor(self._taus, device=device)
        normal = torch.empty(tuple(shape), device=device).normal_(generator=generator)
        return normal.mul_(taus[component]).mul_(scale)

    def _log_density(self, d: Tensor, scale: float) -> Tensor:
        half_squares = d.square() / (-2 * scale**2)
        parts = [
            half_squares / tau**2 + (log_w - math.log(tau * scale * math.sqrt(2 * math.pi)))
            for log_w, tau in zip(self._log_weights, self._taus, strict=True)
        ]
        return torch.stack(parts).logsumexp(0)

    def entropy(self, dimensions: int, scale: float) -> float:
        """See :meth:`Spread.entropy`."""
        return dimensions * (self._entropy + math.log(scale))

    def _entropy_at_1(self) -> float:
        """−2∫ p log p dk over k > 0, with k = eᵗ: scales may differ by a million."""
        ends = math.log(min(self._taus)) + _BELOW, math.log(max(self._taus)) + _ABOVE
        t = torch.arange(*ends, _STEP, dtype=torch.float64)
        log_p = self._log_density(t.exp(), 1.0)
        return -2 * _STEP * float(((log_p + t).exp() * log_p).sum())


def mixture_parts(components: Sequence[MixtureComponent]) -> tuple[list[float], list[float]]:
    """Weights that sum to one, and the components' standard deviations at σ = 1."""
    total = sum(component.weight for component in components)
    weights = [component.weight / total for component in components]
    scales = [component.relative_scale for component in components]
    rms = math.sqrt(sum(w * r**2 for w, r in zip(weights, scales, strict=True)))
    return weights, [r / rms for r in scales]


def _logistic_s(scale: float) -> float:
    return scale * math.sqrt(3) / math.pi
