r"""Densities of one source, and what expectation propagation asks of them.

A prior p(z) has variance 1 (a fitted mixture has that of its sources). Its tilted distribution for
a cavity N(m, v) is N(z; m, v)·p(z)/Ẑ, and all of it follows from log Ẑ(m, v), the log of
Ẑ = ∫ N(z; m, v) p(z) dz, and its derivatives in m:

    slope g = ∂ log Ẑ/∂m,  curvature c = −∂² log Ẑ/∂m²,
    mean of the tilted = m + v·g,  variance = v·(1 − v·c).

At v = 0 these are log p and the score, so the noise-free model needs no code of its own. The
Laplace has a closed form. All others are mixtures of Gaussians, for which
log Ẑ = log Σ_k w_k N(m; μ_k, s_k² + v): exactly so, or, for the logistic and Student-t, as the
trapezoid rule in the log scale of the scale mixture that they are.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.ica.erfcx import erfcx

_ROOT_2 = math.sqrt(2.0)
_ROOT_2_OVER_PI = math.sqrt(2.0 / math.pi)
_LOG_2_PI = math.log(2 * math.pi)
# Beyond this many standard deviations from 0 a Laplace source has one sign for certain.
_FAR = 1e4
_LOGISTIC_STEP = 0.16  # of log k: the density's relative error is below 1e-6 within 12 sd
_STUDENT_STEP = 0.7  # of log λ, likewise
_NEGLIGIBLE = 1e-9  # weight of a node that is left out


@dataclass(frozen=True, slots=True)
class Tilted:
    """log Ẑ of a cavity, its slope g and its curvature c in the cavity's mean."""

    log_z: Tensor
    slope: Tensor
    curvature: Tensor

    def mean(self, m: Tensor, v: Tensor) -> Tensor:
        """Mean of N(z; m, v)·p(z)/Ẑ."""
        return torch.addcmul(m, v, self.slope)

    def variance(self, v: Tensor) -> Tensor:
        """Variance of N(z; m, v)·p(z)/Ẑ."""
        return v * (1 - v * self.curvature)


class Prior(ABC):
    """A density of one source."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in specs."""

    @property
    @abstractmethod
    def is_log_concave(self) -> bool:
        """Whether site precisions are never negative, so that sweeps need no damping."""

    @abstractmethod
    def tilted(self, m: Tensor, v: Tensor) -> Tilted:
        """Log normaliser and derivatives for cavities N(m, v), elementwise; v ≥ 0."""

    @abstractmethod
    def softened(self, width: float) -> "Prior":
        """The density of (z + width·e)/√(1 + width²) with e ~ N(0, 1).

        That is z with a little spread noise, integrated out; the variance stays what it was.
        """

    @abstractmethod
    def sample(self, n: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """``n`` draws."""


@dataclass(frozen=True, slots=True)
class Laplace(Prior):
    """p(z) = l·e^(−l|z|)/2 with l = √2, perhaps softened."""

    width: float = 0.0

    @property
    def name(self) -> str:
        """See :attr:`Prior.name`."""
        return "laplace"

    @property
    def is_log_concave(self) -> bool:
        """See :attr:`Prior.is_log_concave`."""
        return True

    def softened(self, width: float) -> "Laplace":
        """See :meth:`Prior.softened`."""
        return Laplace(width)

    def sample(self, n: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """See :meth:`Prior.sample`."""
        draws = generator.laplace(scale=1 / _ROOT_2, size=n)
        return (draws + self.width * generator.standard_normal(n)) / math.sqrt(1 + self.width**2)

    def tilted(self, m: Tensor, v: Tensor) -> Tilted:
        """See :meth:`Prior.tilted`.

        With s = |m|, a = (s − l·v)/√v and b = (s + l·v)/√v the halves of Ẑ are
        (l/4)·e^(−m²/2v)·u±, u₊ = erfcx(−a/√2), u₋ = erfcx(b/√2). With q = u₋/u₊,
        g = −l·sign(m)·(1 − q)/(1 + q) and c = 2l·(√(2/π)·(1 + q)/(u₊√v) − 2lq)/(1 + q)²:
        no difference of large numbers where the source is far from 0. u₊ overflows for large a,
        so 1/u₊ is formed there as e^(−a²/2)/(2 − e^(−a²/2)·erfcx(a/√2)).
        """
        rate = _ROOT_2 * math.sqrt(1 + self.width**2)
        if self.width > 0:
            v = v + self.width**2 / (1 + self.width**2)
        inverse_sd = v.clamp_min(torch.finfo(v.dtype).tiny).rsqrt_()
        size = m.abs()
        scaled = (size * inverse_sd).clamp_max_(_FAR)
        shift = (v * inverse_sd).mul_(rate)
        a = scaled - shift
        gauss = a.square().mul_(-0.5).exp_()
        near = erfcx(a.abs().mul_(1 / _ROOT_2))
        tail = 2 - gauss * near  # 2Φ(a) where a ≥ 0
        inverse_plus = torch.where(a >= 0, gauss / tail, 1 / near)
        q = erfcx(scaled.add_(shift).mul_(1 / _ROOT_2)).mul_(inverse_plus)
        share = (q + 1).reciprocal_()  # of the half on m's side
        slope = torch.sign(m).mul_(q - 1).mul_(share).mul_(rate)
        curvature = inverse_plus.mul_(inverse_sd).mul_(_ROOT_2_OVER_PI).mul_(q + 1)
        curvature.add_(q, alpha=-2 * rate).mul_(share.square_()).mul_(2 * rate)
        log_phi = torch.where(a >= 0, tail.log_(), near.log_().addcmul_(a, a, value=-0.5))
        log_z = log_phi.add_(shift.square_(), alpha=0.5).add_(size, alpha=-rate)
        log_z.add_(q.log1p_()).add_(math.log(rate / 4))
        return Tilted(log_z, slope, curvature)


@dataclass(frozen=True, slots=True)
class Mixture(Prior):
    """p(z) = Σ_k weights_k·N(z; means_k, variances_k); a scale mixture where all means are 0."""

    kind: str
    weights: tuple[float, ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]

    @property
    def name(self) -> str:
        """See :attr:`Prior.name`."""
        return self.kind

    @property
    def is_log_concave(self) -> bool:
        """See :attr:`Prior.is_log_concave`."""
        return self.kind == "logistic"

    def softened(self, width: float) -> "Mixture":
        """See :meth:`Prior.softened`."""
        shrink = 1 / (1 + width**2)
        return Mixture(
            self.kind,
            self.weights,
            tuple(mean * math.sqrt(shrink) for mean in self.means),
            tuple((variance + width**2) * shrink for variance in self.variances),
        )

    def sample(self, n: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """See :meth:`Prior.sample`."""
        part = generator.choice(len(self.weights), size=n, p=np.asarray(self.weights))
        noise = generator.standard_normal(n)
        return np.asarray(self.means)[part] + np.sqrt(self.variances)[part] * noise

    def tilted(self, m: Tensor, v: Tensor) -> Tilted:
        """See :meth:`Prior.tilted`.

        With r_k the parts' posterior shares and d_k = (m − μ_k)/(s_k² + v), g = −Σ r_k d_k and
        c = Σ r_k/(s_k² + v) − Σ r_k (d_k + g)².
        """
        shape = (-1, *(1,) * m.ndim)
        weights, means, variances = (
            torch.tensor(numbers, dtype=m.dtype, device=m.device).view(shape)
            for numbers in (self.weights, self.means, self.variances)
        )
        spread = variances + v
        precision = spread.reciprocal_()
        if any(self.means):
            distance = m - means
            pull = distance * precision
        else:
            distance, pull = m, m * precision
        joint = precision.log().mul_(0.5).addcmul_(distance, pull, value=-0.5)
        joint += weights.log().sub_(_LOG_2_PI / 2)
        top = joint.amax(0)
        share = joint.sub_(top).exp_()
        total = share.sum(0)
        share *= total.reciprocal()
        slope = (share * pull).sum(0).neg_()
        precision.addcmul_(pull.add_(slope), pull, value=-1)
        curvature = precision.mul_(share).sum(0)
        return Tilted(total.log_().add_(top), slope, curvature)


def logistic() -> Mixture:
    """The unit-variance logistic: N(0, 4k²s²), s = √3/π, over Kolmogorov's density of k.

    f(k) = 8k·Σ_n (−1)^(n+1)·n²·e^(−2n²k²) (Andrews and Mallows 1974).
    """
    grid = np.arange(math.log(0.2), math.log(4.0), _LOGISTIC_STEP)
    k, n = np.exp(grid), np.arange(1, 60)[:, None]
    terms = (-1.0) ** (n + 1) * n**2 * np.exp(-2 * n**2 * k**2)
    weights = 8 * k * terms.sum(0) * k
    return _scale_mixture("logistic", weights, 4 * k**2 * 3 / math.pi**2)


def student_t(degrees: float) -> Mixture:
    """Student's t, scaled to unit variance: N(0, (ν − 2)/νλ) over λ ~ Gamma(ν/2, ν/2); ν > 2."""
    if not degrees > 2:
        raise ValueError("Student's t has a variance for more than 2 degrees of freedom only")
    half = degrees / 2
    grid = np.arange(math.log(_NEGLIGIBLE) / half, math.log(40 / half + 8), _STUDENT_STEP)
    weights = np.exp(half * (grid - np.exp(grid) + 1))
    return _scale_mixture("student_t", weights, (degrees - 2) / degrees * np.exp(-grid))


def bimodal(separation: float = 0.85) -> Mixture:
    """Half N(−s, 1 − s²), half N(s, 1 − s²): sub-Gaussian, with kurtosis 3 − 2s⁴."""
    variance = 1 - separation**2
    return Mixture("bimodal", (0.5, 0.5), (-separation, separation), (variance, variance))


def _scale_mixture(
    kind: str, weights: NDArray[np.float64], variances: NDArray[np.float64]
) -> Mixture:
    weights = np.maximum(weights, 0) / weights.sum()
    kept = weights > _NEGLIGIBLE
    weights, variances = weights[kept] / weights[kept].sum(), variances[kept]
    return Mixture(kind, tuple(weights.tolist()), (0.0,) * len(weights), tuple(variances.tolist()))


class Priors:
    """One prior per source; rows of (Z, N) tensors are the sources."""

    def __init__(self, priors: tuple[Prior, ...]) -> None:
        self.each = priors
        self.is_log_concave = all(prior.is_log_concave for prior in priors)
        self._groups = [
            (prior, [i for i, other in enumerate(priors) if other == prior])
            for prior in dict.fromkeys(priors)
        ]

    def softened(self, width: float) -> "Priors":
        """Every prior softened by the same width."""
        return Priors(tuple(prior.softened(width) for prior in self.each)) if width else self

    def tilted(self, m: Tensor, v: Tensor) -> Tilted:
        """See :meth:`Prior.tilted`; row i is for source i."""
        if len(self._groups) == 1:
            return self.each[0].tilted(m, v)
        whole = Tilted(torch.empty_like(m), torch.empty_like(m), torch.empty_like(m))
        for prior, rows in self._groups:
            part = prior.tilted(m[rows], v[rows])
            whole.log_z[rows] = part.log_z
            whole.slope[rows] = part.slope
            whole.curvature[rows] = part.curvature
        return whole
