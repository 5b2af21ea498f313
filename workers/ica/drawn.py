"""The data set ``laplace-ica``: x = Az + γ·N(0, I) with a known A.

The mixing matrix is redrawn until its condition number is at most 6, so that errors of several
seeds can be averaged; where a shape hardly allows that, the best of the draws is taken.
"""

import math
from dataclasses import dataclass
from typing import assert_never, get_args

import numpy as np
from numpy.typing import NDArray

from workers.spec.dataset import Entries, Family

FAMILIES: tuple[Family, ...] = get_args(Family)

_CONDITION = 6.0
_DRAWS = 200
_SPARSE = 0.2  # share of a sparse source that is not 0


@dataclass(frozen=True, slots=True)
class MixtureRecipe:
    """What is drawn: ``samples`` (N) rows of ``dimensions`` (X) from ``components`` (Z)."""

    dimensions: int
    components: int
    samples: int
    noise_std: float
    entries: Entries = "signs"
    sources: Family = "laplace"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Drawn:
    """``rows`` (N, X) in float32, the true ``mixing`` (X, Z) and ``sources`` (N, Z)."""

    rows: NDArray[np.float32]
    mixing: NDArray[np.float64]
    sources: NDArray[np.float64]


def draw(recipe: MixtureRecipe) -> Drawn:
    """The data of a recipe; all sources have mean 0 and variance 1."""
    if not 1 <= recipe.components <= recipe.dimensions:
        raise ValueError("components must be at least 1 and at most dimensions")
    generator = np.random.Generator(np.random.PCG64(recipe.seed))
    mixing = _mixing(recipe, generator)
    sources = _sources(recipe.sources, (recipe.samples, recipe.components), generator)
    noise = generator.standard_normal((recipe.samples, recipe.dimensions))
    rows = sources @ mixing.T + recipe.noise_std * noise
    return Drawn(rows.astype(np.float32), mixing, sources)


def _mixing(recipe: MixtureRecipe, generator: np.random.Generator) -> NDArray[np.float64]:
    shape = (recipe.dimensions, recipe.components)
    best, best_condition = np.eye(*shape), math.inf
    for _ in range(_DRAWS):
        if recipe.entries == "signs":
            mixing = generator.choice([-1.0, 1.0], size=shape)
        else:
            mixing = generator.standard_normal(shape)
        condition = float(np.linalg.cond(mixing))
        if condition < best_condition:
            best, best_condition = mixing, condition
        if best_condition <= _CONDITION:
            break
    return best


def _sources(
    family: Family, shape: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.float64]:
    root_3 = math.sqrt(3.0)
    match family:
        case "laplace":
            return generator.laplace(scale=math.sqrt(0.5), size=shape)
        case "logistic":
            return generator.logistic(scale=root_3 / math.pi, size=shape)
        case "student-t-3":
            return generator.standard_t(3, size=shape) / root_3
        case "student-t-5":
            return generator.standard_t(5, size=shape) * math.sqrt(3 / 5)
        case "sparse":
            is_on = generator.random(shape) < _SPARSE
            return is_on * generator.standard_normal(shape) / math.sqrt(_SPARSE)
        case "exponential":
            return generator.exponential(size=shape) - 1
        case "uniform":
            return generator.uniform(-root_3, root_3, size=shape)
        case "half-and-half":
            peaked = _sources("laplace", shape, generator)
            flat = _sources("uniform", shape, generator)
            return np.where(np.arange(shape[1]) % 2 == 0, peaked, flat)
        case _:
            assert_never(family)
