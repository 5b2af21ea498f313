"""A fitted model as tensors of a checkpoint, and what is drawn and computed with it.

The weights file holds, in float64: ``mixing`` (X, Z), ``mean`` (X), ``noise_variance`` (),
``priors`` (Z, …), see ``workers.ica.state``, ``fastica_mixing`` (X, Z), which is scikit-learn's
answer for the same data, and ``true_mixing`` (X, Z′) where the data were drawn from one.

Row i of what is drawn depends on (seed, i) alone: draws are made, and matrices applied, in blocks
of a fixed size.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.errors import CheckpointError
from workers.ica.priors import Laplace, Mixture, Prior
from workers.ica.sources import Sources, infer, reconstruct
from workers.ica.state import prior_table, priors_in

BLOCK = 256  # rows that are drawn, or go through a matrix, together

_ROUNDING = 1e-6  # of weights that sum to 1
_LATENTS, _NOISE = 0, 1  # streams of one seed

Array = NDArray[np.float32]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class IcaModel:
    """x = Az + mean + γ·N(0, I), all of it on the CPU in float64."""

    mixing: Tensor
    mean: Tensor
    noise_variance: float
    priors: tuple[Prior, ...]
    fastica_mixing: Tensor
    true_mixing: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        kept = {
            "mixing": self.mixing,
            "mean": self.mean,
            "noise_variance": torch.tensor(self.noise_variance, dtype=torch.float64),
            "priors": prior_table(self.priors),
            "fastica_mixing": self.fastica_mixing,
        }
        if self.true_mixing is not None:
            kept["true_mixing"] = self.true_mixing
        return {name: copied(tensor) for name, tensor in kept.items()}

    @classmethod
    def of(cls, kept: Mapping[str, Tensor], dimensions: int) -> Self:
        """The model in a checkpoint for data of X dimensions; raises CheckpointError."""
        mixing = _matrix(kept, "mixing", dimensions)
        mean, noise, table = kept.get("mean"), kept.get("noise_variance"), kept.get("priors")
        if mean is None or noise is None or table is None or mean.shape != (dimensions,):
            raise CheckpointError("the weights are not those of a fitted mixing matrix")
        if noise.shape != () or not noise.item() >= 0 or not mean.isfinite().all():
            raise CheckpointError("the weights hold no mean and no variance that can be used")
        true = _matrix(kept, "true_mixing", dimensions) if "true_mixing" in kept else None
        return cls(
            mixing=mixing,
            mean=mean.double(),
            noise_variance=noise.item(),
            priors=_priors(table, mixing.shape[1]),
            fastica_mixing=_matrix(kept, "fastica_mixing", dimensions),
            true_mixing=true,
        )

    @property
    def latent_dim(self) -> int:
        """Z."""
        return self.mixing.shape[1]

    @property
    def is_transformed(self) -> bool:
        """No: there is no spread to be learned."""
        return False

    def transform(self, rows: Array) -> Array:
        """The rows themselves."""
        return rows

    @property
    def encoder_noise(self) -> float:
        """0: sources are found from the data as they are."""
        return 0.0

    def data_noise(self, n: int, seed: int) -> Array:
        """No noise, (n, X)."""
        return np.zeros((n, self.mixing.shape[0]), np.float32)

    @property
    def unmixing(self) -> Tensor:
        """W = (AᵀA)⁻¹Aᵀ, (Z, X)."""
        unmixing: Tensor = torch.linalg.pinv(self.mixing)
        return unmixing

    def latents(self, n: int, seed: int) -> Array:
        """Draws of the sources from their priors, (n, Z)."""

        def block(generator: np.random.Generator) -> Matrix:
            return np.stack([prior.sample(BLOCK, generator) for prior in self.priors], 1)

        return _drawn(n, self.latent_dim, seed, _LATENTS, block)

    def decode(self, latents: Array) -> Array:
        """Az + mean for sources (n, Z): (n, X)."""
        width = self.mixing.shape[0]
        return _in_blocks(latents, width, lambda z: reconstruct(z.double(), self))

    def encode(self, rows: Array) -> Array:
        """E[z|x] for data (n, X): (n, Z)."""
        return _in_blocks(rows, self.latent_dim, lambda x: infer(x, self).mean)

    def sources(self, rows: Tensor) -> Sources:
        """Posterior means and variances of the sources behind data (n, X)."""
        return infer(rows, self)

    def arrays(self) -> dict[str, Matrix]:
        """The matrices and the mean as NumPy arrays."""
        found = {
            "mixing": self.mixing,
            "unmixing": self.unmixing,
            "mean": self.mean,
            "fastica_mixing": self.fastica_mixing,
        }
        if self.true_mixing is not None:
            found["true_mixing"] = self.true_mixing
        return {name: tensor.numpy() for name, tensor in found.items()}

    def posterior(self, rows: Matrix) -> tuple[Matrix, Matrix]:
        """Means and variances of the sources behind data (n, X), (n, Z) each."""
        found = self.sources(torch.from_numpy(rows))
        return found.mean.numpy(), found.variance.numpy()

    def noise(self, n: int, seed: int) -> Array:
        """γ·N(0, I), (n, X)."""
        x, scale = self.mixing.shape[0], math.sqrt(self.noise_variance)

        def block(generator: np.random.Generator) -> Matrix:
            return scale * generator.standard_normal((BLOCK, x))

        return _drawn(n, x, seed, _NOISE, block)


def copied(tensor: Tensor) -> Tensor:
    """A copy on the CPU that shares nothing."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _matrix(kept: Mapping[str, Tensor], name: str, dimensions: int) -> Tensor:
    """A matrix of ``dimensions`` rows and at most as many columns."""
    matrix = kept.get(name)
    if (
        matrix is None
        or matrix.ndim != 2
        or matrix.shape[0] != dimensions
        or not 1 <= matrix.shape[1] <= dimensions
        or not matrix.is_floating_point()
        or not bool(matrix.isfinite().all())
    ):
        raise CheckpointError(
            f"{name} is no matrix of {dimensions} rows and as many columns at most"
        )
    return matrix.double()


def _priors(table: Tensor, count: int) -> tuple[Prior, ...]:
    try:
        priors = priors_in(table.double())
    except (ValueError, IndexError, TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError("the weights hold no priors that can be read") from error
    if len(priors) != count or not all(_is_density(prior) for prior in priors):
        raise CheckpointError(f"the weights hold no priors of {count} sources")
    return priors


def _is_density(prior: Prior) -> bool:
    match prior:
        case Laplace(width=width):
            return 0 <= width < math.inf
        case Mixture(weights=weights, means=means, variances=variances):
            return (
                len(weights) == len(means) == len(variances)
                and abs(sum(weights) - 1) < _ROUNDING
                and min(weights) >= 0
                and all(math.isfinite(mean) for mean in means)
                and all(0 < variance < math.inf for variance in variances)
            )
        case _:
            return False


def _drawn(
    n: int,
    width: int,
    seed: int,
    stream: int,
    block: Callable[[np.random.Generator], Matrix],
) -> Array:
    """The first n rows of blocks that are each drawn from a generator of their own."""
    rows = np.empty((n, width), np.float32)
    for number, begin in enumerate(range(0, n, BLOCK)):
        key = np.random.SeedSequence(seed, spawn_key=(stream, number))
        part = rows[begin : begin + BLOCK]
        part[:] = block(np.random.Generator(np.random.PCG64(key)))[: len(part)]
    return rows


def _in_blocks(rows: Array, width: int, function: Callable[[Tensor], Tensor]) -> Array:
    """The function's output of ``width`` values for each row; the last block is filled with 0."""
    found = np.empty((len(rows), width), np.float32)
    for begin in range(0, len(rows), BLOCK):
        block = np.zeros((BLOCK, rows.shape[1]), np.float32)
        part = rows[begin : begin + BLOCK]
        block[: len(part)] = part
        with torch.inference_mode():
            found[begin : begin + len(part)] = function(torch.from_numpy(block))[: len(part)]
    return found
