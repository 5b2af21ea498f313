r"""Kernel distances: unbiased estimates of MMD² with a standard error.

MMD² = E k(x, x′) + E k(y, y′) − 2E k(x, y) (Gretton et al., 2012). Both samples are cut into blocks
of the same size, ten or more from 20 rows on; each block gives an unbiased estimate, and the spread
of these the standard error. It may be negative where the distributions are near.

KID is MMD² with the kernel (xᵀy/F + 1)³ (Bińkowski et al., *Demystifying MMD GANs*, 2018).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 250
BLOCKS = 10  # at least, where there are rows for so many: of two, the spread says next to nothing
_MEDIAN_ROWS = 500

Kernel = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its standard error, and how many rows of each sample it is made of."""

    value: float
    standard_error: float
    rows: int


def kid(first: Tensor, second: Tensor) -> Estimate:
    """The kernel distance with the cubic kernel; features (N, F) and (M, F)."""

    def cubic(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    return _blocks(first, second, cubic)


def mmd(first: Tensor, second: Tensor) -> Estimate:
    """MMD² with the kernel e^{−‖x−y‖²/2h²}, h the median distance between rows of ``second``.

    Where most rows are equal, h is the median of the distances above 0, or 1 if there are none.
    """
    distances = torch.pdist(second.double()[:_MEDIAN_ROWS])
    bandwidth = float(distances.median())
    if bandwidth == 0:
        positive = distances[distances > 0]
        bandwidth = float(positive.median()) if len(positive) else 1.0

    def gaussian(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(x, y).square() / (2 * bandwidth**2))

    return _blocks(first, second, gaussian)


def _blocks(first: Tensor, second: Tensor, kernel: Kernel) -> Estimate:
    rows = min(len(first), len(second))
    size = min(BLOCK, max(2, rows // BLOCKS))
    count = rows // size
    estimates = torch.tensor(
        [
            _unbiased(first[at : at + size].double(), second[at : at + size].double(), kernel)
            for at in range(0, count * size, size)
        ],
        dtype=torch.float64,
    )
    return Estimate(
        float(estimates.mean()), float(estimates.std() / math.sqrt(count)), count * size
    )


def _unbiased(x: Tensor, y: Tensor, kernel: Kernel) -> float:
    n = len(x)
    within = [k.sum() - k.diagonal().sum() for k in (kernel(x, x), kernel(y, y))]
    return float((within[0] + within[1]) / (n * (n - 1)) - 2 * kernel(x, y).mean())
