r"""The information I(X; Y) that y = f(x) + k has of x, where X is one of N data.

With the noise's entropy held fixed, KL(p̃‖q̃) = CE − H(K) − I(X; Y), and

    I = E [log p(y|x) − log (1/N) Σ_n p(y|x_n)],    0 ≤ I ≤ log N.

At log N the noise mixes up no data, and the cross-entropy CE may be ascended in place of the KL.
"""

import math

import torch
from torch import Tensor

from workers.spread.base import Spread

_VALUES_AT_ONCE = 2**22


def information(
    spread: Spread, x: Tensor, noise: Tensor, scale: float, rows: slice = slice(None)
) -> Tensor:
    """The sum of I's terms in nats over ``rows`` of the data x, (N, D), with ``noise`` for these.

    ``noise`` is k of shape (M, D); the sum over M rows divided by N estimates I.
    """
    means = spread.transform(x)
    y = means[rows] + noise
    own = torch.arange(len(x), device=x.device)[rows]
    block = max(1, _VALUES_AT_ONCE // x.numel())
    sums = []
    for part, index in zip(y.split(block), own.split(block), strict=True):
        log_p = spread.log_prob(part[:, None], means, scale)  # (block, N)
        mixed = log_p.logsumexp(1) - math.log(len(x))
        sums.append((log_p.gather(1, index[:, None])[:, 0] - mixed).sum())
    return torch.stack(sums).sum() if sums else y.sum()
