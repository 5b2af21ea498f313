r"""Monte Carlo estimates of f-divergences, unbiased, with a standard error.

With ℓ = log p/q and m = (p + q)/2, each divergence is an expectation:

==========  ==========================================================
kl          E_p ℓ
reverse_kl  E_q −ℓ
chi2        E_p (e^ℓ − 1)
js          E_m [log 2 − H(σ(ℓ))], H the entropy of a coin in nats
tv          E_m |tanh(ℓ/2)|
hellinger2  E_m [1 − 1/cosh(ℓ/2)]
==========  ==========================================================

The last three are bounded. Half of their draws come from p and half from q. Where e^ℓ has heavy
tails, the draws of χ² mostly miss what makes it large, and their standard error says nothing of
that; where χ² is infinite they give a finite number all the same.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, assert_never

import torch
from torch import Tensor
from torch.nn import functional

Kind = Literal["kl", "reverse_kl", "js", "tv", "hellinger2", "chi2"]


class Density(Protocol):
    """A distribution over R^D that can be drawn from and has a density."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws, float64 of shape (n, D)."""

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density of y of shape (n, D), shape (n,)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its standard error, which is 0 where the value is exact."""

    value: float
    standard_error: float = 0.0


def estimate_divergence(
    kind: Kind, p: Density, q: Density, n: int, generator: torch.Generator
) -> Estimate:
    """D(p ‖ q) from n draws of p, of q, or of both, n of each."""
    match kind:
        case "kl":
            return _mean(_log_ratio(p, q, p.sample(n, generator)))
        case "reverse_kl":
            return _mean(-_log_ratio(p, q, q.sample(n, generator)))
        case "chi2":
            return _mean(_log_ratio(p, q, p.sample(n, generator)).expm1())
        case "js" | "tv" | "hellinger2":
            parts = [
                _mean(_bounded(kind, _log_ratio(p, q, side.sample(n, generator))))
                for side in (p, q)
            ]
            return Estimate(
                (parts[0].value + parts[1].value) / 2,
                math.hypot(parts[0].standard_error, parts[1].standard_error) / 2,
            )
        case _:
            assert_never(kind)


def _log_ratio(p: Density, q: Density, y: Tensor) -> Tensor:
    return p.log_prob(y) - q.log_prob(y)


def _bounded(kind: Literal["js", "tv", "hellinger2"], log_ratio: Tensor) -> Tensor:
    match kind:
        case "js":
            # H(σ(ℓ)) = σ(ℓ) softplus(−ℓ) + σ(−ℓ) softplus(ℓ)
            first = log_ratio.sigmoid() * functional.softplus(-log_ratio)
            second = (-log_ratio).sigmoid() * functional.softplus(log_ratio)
            return math.log(2) - first - second
        case "tv":
            return (log_ratio / 2).tanh().abs()
        case "hellinger2":
            # 1 − 2e^{−|ℓ|/2}/(1 + e^{−|ℓ|}), which does not overflow
            shrunk = (-log_ratio.abs() / 2).exp()
            return 1 - 2 * shrunk / (1 + shrunk.square())
        case _:
            assert_never(kind)


def _mean(values: Tensor) -> Estimate:
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(len(values))))
