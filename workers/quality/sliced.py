r"""The sliced Wasserstein distance: √ of the mean over directions of W₂² between projections.

In one dimension W₂² is the mean square of the differences of sorted values (Bonneel et al., *Sliced
and Radon Wasserstein barycenters of measures*, 2015). From finite samples it is too large.
"""

import torch
from torch import Tensor

DIRECTIONS = 128


def sliced_wasserstein(first: Tensor, second: Tensor, seed: int = 0) -> float:
    """The distance between the first rows, as many as both have, of (N, F) and (M, F)."""
    rows = min(len(first), len(second))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(first.shape[1], DIRECTIONS, generator=generator, dtype=torch.float64)
    directions = (drawn / drawn.norm(dim=0)).to(first.device)
    a, b = ((x[:rows].double() @ directions).sort(0).values for x in (first, second))
    return float((a - b).square().mean().sqrt())
