r"""The Fréchet distance between Gaussians with the moments of two samples.

‖m₁ − m₂‖² + tr(C₁ + C₂ − 2(C₁C₂)^½), with covariances that divide by n − 1 (Heusel et al., *GANs
trained by a two time-scale update rule*, 2017, where the features are those of InceptionV3 and it
is called FID). The trace of the root is that of (C₁^½C₂C₁^½)^½, which is symmetric, so that no
complex numbers appear. From finite samples the distance is too large.
"""

import torch
from torch import Tensor


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """The distance between features of shape (N, F) and (M, F)."""
    a, b = first.double(), second.double()
    c1, c2 = (torch.atleast_2d(x.T.cov()) for x in (a, b))
    root = _root(c1)
    cross = torch.linalg.eigvalsh(root @ c2 @ root).clamp_min(0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return float(shift + c1.trace() + c2.trace() - 2 * cross)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root
