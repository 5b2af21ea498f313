"""Small data sets with known A, for the tests beside this file."""

import torch
from torch import Tensor

from workers.ica.drawn import MixtureRecipe, draw
from workers.spec.dataset import Family

Z, X = 3, 6


def mixture(
    samples: int = 800, noise_std: float = 0.2, seed: int = 0, sources: Family = "laplace"
) -> tuple[Tensor, Tensor]:
    """Rows (N, 6) in float64 and the true A (6, 3)."""
    drawn = draw(MixtureRecipe(X, Z, samples, noise_std, "signs", sources, seed))
    return torch.from_numpy(drawn.rows).double(), torch.from_numpy(drawn.mixing)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal draws in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)
