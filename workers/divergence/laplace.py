r"""Independent Laplace noise around a point: p(y) = Π e^{−|y_i − a_i|/b}/2b.

It is what a delta becomes under Laplace noise. For two points at the distances m_i = |a_i − c_i|,
with t_i = m_i/b, sums and products go over the dimensions:

    KL = Σ (t_i + e^{−t_i} − 1),    H² = 1 − Π e^{−t_i/2}(1 + t_i/2),
    χ² = Π (⅔e^{t_i} + ⅓e^{−2t_i}) − 1,    TV = 1 − e^{−t/2} in one dimension.
"""

import math
from dataclasses import dataclass

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


def shifted(kind: Kind, p: ProductLaplace, q: ProductLaplace) -> float | None:
    """D(p ‖ q) for equal b where there is a closed form, else None."""
    t = (p.mean.double() - q.mean.double()).abs() / p.b
    match kind:
        case "kl" | "reverse_kl":
            return float((t + (-t).expm1()).sum())
        case "hellinger2":
            return -float(((t / 2).log1p() - t / 2).sum().expm1())
        case "chi2":
            return float(torch.log(2 / 3 * t.exp() + (-2 * t).exp() / 3).sum().expm1())
        case "tv":
            return -math.expm1(-float(t[0]) / 2) if len(t) == 1 else None
        case "js":
            return None
