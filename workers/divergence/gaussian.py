r"""Gaussians with covariance Σ = s²I + UUᵀ, and the divergences between them.

They are what deltas and low-dimensional Gaussians become under Gaussian noise: δ_a spread is
N(a, s²I), and N(a, AAᵀ), which has no density, spread with s²I + uuᵀ has the factor U = (A, u).
With C = I + UᵀU/s² (R×R) and v = Uᵀd (Woodbury), nothing of size D×D is ever made:

    dᵀΣ⁻¹d = (‖d‖² − vᵀC⁻¹v/s²)/s²,    log det Σ = D log s² + log det C.

Two Gaussians that differ in the mean alone, at the distance δ = √(dᵀΣ⁻¹d), have KL = δ²/2,
TV = erf(δ/√8), H² = 1 − e^{−δ²/8} and χ² = e^{δ²} − 1; JS is an integral over one dimension.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.divergence.estimate import Kind
from workers.errors import InvalidSpread

_LOG_2PI = math.log(2 * math.pi)
_ROUNDING = 1e-12  # an eigenvalue of so small a share is 0


@dataclass(frozen=True, slots=True)
class LowRankGaussian:
    """N(mean, s²I + UUᵀ) for a mean of shape (D,), s > 0 and U of shape (D, R), perhaps R = 0."""

    mean: Tensor
    scale: float
    factor: Tensor

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InvalidSpread(
                "Gaussian noise of scale 0 is no valid spread: choose a positive one"
            )

    @classmethod
    def isotropic(cls, mean: Tensor, scale: float) -> "LowRankGaussian":
        """N(mean, s²I)."""
        return cls(mean, scale, torch.zeros(len(mean), 0, dtype=torch.float64))

    def solve(self, d: Tensor) -> Tensor:
        """Σ⁻¹d for d of shape (..., D)."""
        u = self.factor.double()
        inner = torch.cholesky_solve((d.double() @ u).unsqueeze(-1), self._cholesky()).squeeze(-1)
        solved: Tensor = (d.double() - inner @ u.T / self.scale**2) / self.scale**2
        return solved

    def log_det(self) -> float:
        """log det Σ."""
        return float(self._log_det())

    def log_prob(self, y: Tensor) -> Tensor:
        """See Density."""
        d = y.double() - self.mean.double()
        square = (d * self.solve(d)).sum(-1)
        log_norm = self._log_det() + len(self.mean) * _LOG_2PI
        values: Tensor = (square + log_norm) / -2
        return values

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """See Density."""
        dimensions, rank = self.factor.shape
        noise = torch.randn(n, dimensions + rank, generator=generator, dtype=torch.float64)
        wide, narrow = noise.split((dimensions, rank), 1)
        drawn: Tensor = self.mean.double() + self.scale * wide + narrow @ self.factor.double().T
        return drawn

    def entropy(self) -> float:
        """½ log det 2πeΣ in nats."""
        return (self.log_det() + len(self.mean) * (1 + _LOG_2PI)) / 2

    def _capacitance(self) -> Tensor:
        u = self.factor.double()
        return torch.eye(u.shape[1], dtype=torch.float64) + u.T @ u / self.scale**2

    def _cholesky(self) -> Tensor:
        root: Tensor = torch.linalg.cholesky(self._capacitance())
        return root

    def _log_det(self) -> Tensor:
        inner = self._cholesky().diagonal().log().sum() * 2
        return inner + len(self.mean) * 2 * math.log(self.scale)


def kl(p: LowRankGaussian, q: LowRankGaussian) -> float:
    """KL(p‖q) = ½[tr Σq⁻¹Σp − D + dᵀΣq⁻¹d + log det Σq − log det Σp].

    With C = I + U₂ᵀU₂/s₂², tr Σq⁻¹Σp = (D s₁² + ‖U₁‖²)/s₂²
    − tr C⁻¹(s₁²U₂ᵀU₂ + U₂ᵀU₁U₁ᵀU₂)/s₂⁴.
    """
    u1, u2 = p.factor.double(), q.factor.double()
    s1, s2, dimensions = p.scale**2, q.scale**2, len(p.mean)
    cross = u2.T @ u1
    inner = torch.cholesky_solve(s1 * u2.T @ u2 + cross @ cross.T, q._cholesky())
    trace = (dimensions * s1 + u1.square().sum()) / s2 - inner.diagonal().sum() / s2**2
    d = p.mean.double() - q.mean.double()
    square = d @ q.solve(d)
    return float(trace - dimensions + square + q._log_det() - p._log_det()) / 2


def cross_entropy(p: LowRankGaussian, q: LowRankGaussian) -> float:
    """−E_p log q = KL(p‖q) + H(p) in nats."""
    return kl(p, q) + p.entropy()


def hellinger2(p: LowRankGaussian, q: LowRankGaussian) -> float:
    """1 − det^¼Σp det^¼Σq / det^½M · e^{−dᵀM⁻¹d/8} with M = (Σp + Σq)/2, of low rank too."""
    middle = LowRankGaussian(
        p.mean,
        math.sqrt((p.scale**2 + q.scale**2) / 2),
        torch.cat((p.factor.double(), q.factor.double()), 1) / math.sqrt(2),
    )
    d = p.mean.double() - q.mean.double()
    exponent = (p._log_det() + q._log_det()) / 4 - middle._log_det() / 2 - d @ middle.solve(d) / 8
    return -float(exponent.expm1())


def chi2(p: LowRankGaussian, q: LowRankGaussian) -> float:
    """det Σq / √(det Σp det M) · e^{dᵀM⁻¹d} − 1 with M = 2Σq − Σp; infinite unless M ≻ 0.

    M = mI + WSWᵀ with m = 2s₂² − s₁², W = (√2U₂, U₁) and signs S. With W = QT (QR) its eigenvalues
    are those of mI + TSTᵀ, and m across the span of Q.
    """
    u1, u2, dimensions = p.factor.double(), q.factor.double(), len(p.mean)
    across = 2 * q.scale**2 - p.scale**2
    basis, rest = torch.linalg.qr(torch.cat((math.sqrt(2) * u2, u1), 1))
    signs = torch.cat((u2.new_ones(u2.shape[1]), -u1.new_ones(u1.shape[1])))
    inner = (rest * signs) @ rest.T + across * torch.eye(len(rest), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(inner)
    others = dimensions - len(values)
    smallest = min(values.tolist() + [across] * (others > 0))
    largest = 2 * q.scale**2 + 2 * float(u2.square().sum())  # of 2Σq, at most
    if smallest <= _ROUNDING * largest:
        return math.inf
    d = p.mean.double() - q.mean.double()
    along = basis.T @ d
    square = ((vectors.T @ along).square() / values).sum()
    log_det = values.log().sum()
    if others:
        square = square + (d.square().sum() - along.square().sum()) / across
        log_det = log_det + others * math.log(across)
    exponent = q._log_det() - (p._log_det() + log_det) / 2 + square
    return float(exponent.expm1())


def shifted(kind: Kind, distance: float) -> float:
    """D between two Gaussians that differ in the mean alone, at Mahalanobis distance δ."""
    match kind:
        case "kl" | "reverse_kl":
            return distance**2 / 2
        case "tv":
            return math.erf(distance / math.sqrt(8))
        case "hellinger2":
            return -math.expm1(-(distance**2) / 8)
        case "chi2":
            return math.expm1(distance**2) if distance**2 < 700 else math.inf
        case "js":
            return _shifted_js(distance)


def _shifted_js(distance: float) -> float:
    """log 2 − E log(1 + e^{−ℓ}) with ℓ ~ N(δ²/2, δ²), by the trapezium rule.

    The integrand is analytic and falls as a Gaussian, so the rule is exact to rounding.
    """
    e = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    density = (-e.square() / 2).exp() / math.sqrt(2 * math.pi)
    ratio = distance**2 / 2 + distance * e
    loss = torch.nn.functional.softplus(-ratio, threshold=700)
    return math.log(2) - float(torch.trapezoid(density * loss, e))
