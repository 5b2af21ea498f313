"""The published recipe: spread EM by self-normalised importance sampling (section 4.1).

Each iteration draws y = x + σe for every x, S sources from N(Wy, v(AᵀA)⁻¹) with v = γ² + σ²,
weighs them by the prior, softmax(−√2·Σ|z_i|), and sets A ← E[yzᵀ]E[zzᵀ]⁻¹ and
σ = max(0.001, 2.5·√mean(AAᵀ)). It is here for fidelity: expectation propagation computes the
same expectations, without noise, in a thousandth of the time.

All draws are functions of (seed, iteration, block of rows), so a state is A, σ and a number.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.ica.align import Errors, errors
from workers.ica.shard import Shard
from workers.parallel import ALONE, Peers
from workers.seeds import SeedStream

SAMPLES = 1000
ITERATIONS = 2000
_LEAST_SIGMA = 1e-3
_SIGMA = 2.5
_ROWS = 256  # whose draws are made together
_ROOT_2 = math.sqrt(2.0)


@dataclass(frozen=True, slots=True)
class RecipeState:
    """Where the recipe stands: A (X, Z) in float64, σ, and how many iterations led there."""

    mixing: Tensor
    sigma: float
    iteration: int


@dataclass(frozen=True, slots=True)
class RecipeIteration:
    """One iteration: the residual ‖A' − A‖/‖A‖ of noisy steps, and the recipe's next state."""

    residual: float
    errors: Errors | None
    seconds: float
    recipe: RecipeState


def begin(mixing: Tensor) -> RecipeState:
    """The recipe at a first A, with σ by its rule."""
    return RecipeState(mixing, sigma_of(mixing), 0)


def sigma_of(mixing: Tensor) -> float:
    """max(0.001, 2.5·√mean(AAᵀ)), the mean being over all entries."""
    return max(_LEAST_SIGMA, _SIGMA * math.sqrt((mixing @ mixing.T).mean().clamp_min(0).item()))


def run(
    rows: Tensor,
    recipe: RecipeState,
    noise_variance: float,
    *,
    samples: int = SAMPLES,
    iterations: int = ITERATIONS,
    seed: int = 0,
    peers: Peers = ALONE,
    truth: Tensor | None = None,
) -> Iterator[RecipeIteration]:
    """Go on until ``iterations`` are done in all; Laplace sources, known γ²."""
    start = time.perf_counter()
    shard = Shard.of(rows, peers)
    while recipe.iteration < iterations:
        before = recipe.mixing
        recipe = step(shard, recipe, noise_variance, samples, seed, peers)
        yield RecipeIteration(
            residual=((recipe.mixing - before).norm() / before.norm()).item(),
            errors=None if truth is None else errors(recipe.mixing, truth),
            seconds=time.perf_counter() - start,
            recipe=recipe,
        )


def step(
    shard: Shard, recipe: RecipeState, noise_variance: float, samples: int, seed: int, peers: Peers
) -> RecipeState:
    """One iteration over the data of all workers."""
    x, z = recipe.mixing.shape
    at = SeedStream(seed, f"ica-paper-{recipe.iteration}")
    w = torch.linalg.pinv(recipe.mixing)
    variance = noise_variance + recipe.sigma**2
    root = torch.linalg.cholesky(variance * (w @ w.T)).float()
    total = torch.zeros(x * z + z * z, dtype=torch.float64, device=shard.rows.device)
    for first, last, y in _blocks(shard.spread(recipe.sigma, at.at(0))):
        block = first // _ROWS
        generator = torch.Generator(y.device).manual_seed(at.at(1 + block))
        noise = torch.randn((_ROWS, samples, z), generator=generator, device=y.device)
        noise = noise[first - block * _ROWS : last - block * _ROWS]
        draws = (noise @ root.T).add_((w.float() @ y).T[:, None])
        share = torch.softmax(draws.abs().sum(-1) * -_ROOT_2, 1)
        mean = torch.einsum("ns,nsz->nz", share, draws)
        square = torch.einsum("ns,nsz,nsw->zw", share, draws, draws)
        total += torch.cat([(y @ mean).flatten(), square.flatten()]).double()
    peers.all_reduce(total)
    yz, zz = total.split([x * z, z * z])
    mixing = torch.linalg.solve(zz.view(z, z), yz.view(x, z), left=False)
    return RecipeState(mixing, sigma_of(mixing), recipe.iteration + 1)


def _blocks(shard: Shard) -> Iterator[tuple[int, int, Tensor]]:
    """(first, last, (X, n) data), cut where the whole data's blocks of rows are."""
    begin, end = shard.offset, shard.offset + len(shard.rows)
    while begin < end and not shard.is_over():
        stop = min(end, (begin // _ROWS + 1) * _ROWS)
        part = shard.part(begin - shard.offset, stop - shard.offset, torch.float32)
        yield begin, stop, part
        begin = stop
