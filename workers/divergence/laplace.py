r"""Independent Laplace noise around a point: p(y) = Π e^{−|y_i − a_i|/b}/2b.

It is what a delta becomes under Laplace noise. For two points at the distances m_i = |a_i − c_i|,
under noise of b and of b′, with r = b/b′, t_i = m_i/b and u_i = m_i/b′, sums and products go over
the dimensions:

    KL = Σ (u_i + r e^{−t_i} − log r − 1),
    χ² = Π (2e^{u_i} + r e^{−2t_i})/r(4 − r²) − 1, infinite where r ≥ 2.

    H² = 1 − Π 2√r (e^{−u_i/2} − r e^{−t_i/2})/(1 − r²).

Where b′ = b, the last factor is e^{−t_i/2}(1 + t_i/2), and TV = 1 − e^{−t/2} in one dimension.
"""

import math
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from workers.divergence.estimate import Kind
from workers.errors import InvalidSpread


@dataclass(frozen=True, slots=True)
class ProductLaplace:
    """Laplace noise of parameter b > 0 (standard deviation √2·b) around a mean of shape (D,)."""

    mean: Tensor
    b: float

    def __post_init__(self) -> None:
        if not self.b > 0:
            raise InvalidSpread(
                "Laplace noise of scale 0 is no valid spread: choose a positive one"
            )

    def log_prob(self, y: Tensor) -> Tensor:
        """See Density."""
        distances = (y.double() - self.mean.double()).abs().sum(-1)
        return -distances / self.b - len(self.mean) * math.log(2 * self.b)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """See Density."""
        uniform = torch.rand(2, n, len(self.mean), generator=generator, dtype=torch.float64)
        # The difference of two exponential draws.
        first, second = -(1 - uniform).log()
        drawn: Tensor = self.mean.double() + self.b * (first - second)
        return drawn


def closed_form(kind: Kind, p: ProductLaplace, q: ProductLaplace) -> float | None:
    """D(p ‖ q) where there is a closed form, else None."""
    match kind:
        case "kl":
            return kl(p, q)
        case "reverse_kl":
            return kl(q, p)
        case "chi2":
            return chi2(p, q)
        case "hellinger2":
            return hellinger2(p, q)
        case "tv":
            return tv(p, q)
        case "js":
            return None
        case _:
            assert_never(kind)


def kl(p: ProductLaplace, q: ProductLaplace) -> float:
    """KL(p‖q), by E_p|y − c| = m + b e^{−t} in each dimension."""
    distances = (p.mean.double() - q.mean.double()).abs()
    ratio = p.b / q.b
    # r e^{−t} − 1 = r(e^{−t} − 1) + (r − 1), without the rounding of what is near 0.
    each = distances / q.b + ratio * (-distances / p.b).expm1() + (ratio - 1 - math.log(ratio))
    return float(each.sum())


def chi2(p: ProductLaplace, q: ProductLaplace) -> float:
    """∫ p²/q − 1, where p²/q falls as e^{−(2/b − 1/b′)|y|}: infinite unless b < 2b′."""
    distances = (p.mean.double() - q.mean.double()).abs()
    ratio = p.b / q.b
    if ratio >= 2:
        return math.inf
    u, t = distances / q.b, distances / p.b
    each = u + torch.log((2 + ratio * (-u - 2 * t).exp()) / (ratio * (4 - ratio**2)))
    return float(each.sum().expm1())


def hellinger2(p: ProductLaplace, q: ProductLaplace) -> float:
    """1 − ∫ √(pq), for r ≥ 1 as 2√r/(1 + r) · e^{−t/2} (1 + [1 − e^{−t(r − 1)/2}]/(r − 1)).

    That is the module's form without the rounding of what is near 0; the bracket is t/2 at r = 1.
    """
    wide, narrow = (p, q) if p.b >= q.b else (q, p)
    t = (p.mean.double() - q.mean.double()).abs() / wide.b
    ratio = wide.b / narrow.b
    more = (wide.b - narrow.b) / narrow.b
    bracket = t / 2 if more == 0 else -(-t * more / 2).expm1() / more
    # 2√r/(1 + r) = 1 − (√r − 1)²/(1 + r), and √r − 1 = (r − 1)/(√r + 1).
    factor = math.log1p(-((more / (math.sqrt(ratio) + 1)) ** 2) / (1 + ratio))
    return -float((factor - t / 2 + bracket.log1p()).sum().expm1())


def tv(p: ProductLaplace, q: ProductLaplace) -> float | None:
    """1 − e^{−t/2} for equal b in one dimension, else None."""
    if p.b != q.b or len(p.mean) != 1:
        return None
    return -math.expm1(-float((p.mean.double() - q.mean.double()).abs()[0]) / p.b / 2)
