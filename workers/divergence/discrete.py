r"""Divergences of discrete distributions, and their spread by a channel P.

The spread distribution is p̃ = P p with P_ij = p(y = i | x = j): columns sum to one. It is valid
where all entries are positive and P is invertible, so that P p = P q only for p = q.
"""

from typing import assert_never

import torch
from torch import Tensor

from workers.divergence.estimate import Kind
from workers.errors import InvalidSpread

# Below this ratio of the smallest to the largest singular value, a channel in float64 cannot be
# told from a singular one.
_SINGULAR = 1e-12
_SUM_ERROR = 1e-9


def uniform_channel(n: int, error: float) -> Tensor:
    """P = (1 − e)I + (e/n) 11ᵀ: with probability e, y is any of n outcomes.

    Raises InvalidSpread at e = 0, where entries vanish, and from e = 1 on, where y knows nothing.
    """
    if not 0 < error < 1:
        raise InvalidSpread(
            f"a channel that replaces a share of {error:g} is no valid spread: it is "
            + ("singular" if error >= 1 else "without noise")
            + "; choose a share between 0 and 1"
        )
    return (1 - error) * torch.eye(n, dtype=torch.float64) + error / n


def require_valid_channel(channel: Tensor) -> None:
    """Raise InvalidSpread unless P is a square stochastic matrix, positive and invertible."""
    if channel.dim() != 2 or channel.shape[0] != channel.shape[1]:
        raise InvalidSpread("a channel must be a square matrix")
    if not bool((channel > 0).all()):
        raise InvalidSpread("a channel with an entry of 0 is no valid spread: make all positive")
    if not bool(((channel.sum(0) - 1).abs() < _SUM_ERROR).all()):
        raise InvalidSpread("the columns of a channel must sum to one")
    values = torch.linalg.svdvals(channel.double())
    if values[-1] < _SINGULAR * values[0]:
        raise InvalidSpread(
            "a singular channel is no valid spread: it gives different distributions the same "
            "spread; choose an invertible one"
        )


def spread_discrete(p: Tensor, channel: Tensor) -> Tensor:
    """p̃ = P p for p of shape (n,); raises InvalidSpread."""
    require_valid_channel(channel)
    return channel.double() @ p.double()


def discrete_divergence(kind: Kind, p: Tensor, q: Tensor) -> float:
    """D(p ‖ q) of two distributions over the same outcomes; infinite where it is."""
    p, q = p.double(), q.double()
    match kind:
        case "kl":
            return _kl(p, q)
        case "reverse_kl":
            return _kl(q, p)
        case "js":
            middle = (p + q) / 2
            return (_kl(p, middle) + _kl(q, middle)) / 2
        case "tv":
            return float((p - q).abs().sum() / 2)
        case "hellinger2":
            return float((p.sqrt() - q.sqrt()).square().sum() / 2)
        case "chi2":
            square = (p - q).square()
            return float(torch.where(square > 0, square / q, square).sum())
        case _:
            assert_never(kind)


def _kl(p: Tensor, q: Tensor) -> float:
    return float((torch.xlogy(p, p) - torch.xlogy(p, q)).sum())
