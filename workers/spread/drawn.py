"""Noise for pictures and samples, in NumPy: row i depends on the seed and i alone."""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from workers.spec import (
    GaussianMixtureSpread,
    GaussianSpread,
    LaplaceSpread,
    LogisticSpread,
    Noise,
    StudentTSpread,
)
from workers.spread.per_pixel import relative
from workers.spread.tailed import mixture_parts


def draw_noise(
    spec: Noise, scale: float, n: int, dimensions: int, seed: int, stream: int
) -> NDArray[np.float32]:
    """Draws of k of shape (n, D); fewer are the first rows of more."""
    noise = _of_kind(spec, scale, (n, dimensions), seed, stream).astype(np.float32)
    if spec.pixel_scales is not None:
        noise *= relative(spec.pixel_scales).numpy()
    return noise


def numpy_stream(seed: int, *key: int) -> np.random.Generator:
    """The generator of one stream of a seed."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def _of_kind(
    spec: Noise, scale: float, size: tuple[int, int], seed: int, stream: int
) -> NDArray[np.float64]:
    generator = numpy_stream(seed, stream)
    drawn: NDArray[np.float64]
    match spec:
        case GaussianSpread():
            drawn = generator.normal(0.0, scale, size)
        case LaplaceSpread():
            drawn = generator.laplace(0.0, scale / np.sqrt(2), size)
        case LogisticSpread():
            drawn = generator.logistic(0.0, scale * np.sqrt(3) / np.pi, size)
        case StudentTSpread(degrees_of_freedom=nu):
            drawn = generator.standard_t(nu, size) * (scale * np.sqrt((nu - 2) / nu))
        case GaussianMixtureSpread():
            weights, taus = mixture_parts(spec.components)
            # From a stream of its own, so that a value's draws do not depend on how many follow.
            chosen = numpy_stream(seed, stream, 1).random(size)
            component = np.searchsorted(np.cumsum(weights)[:-1], chosen, side="right")
            drawn = generator.normal(0.0, scale, size) * np.array(taus)[component]
        case _:
            assert_never(spec)
    return drawn
