"""Reconstructions: held-out data x, what the encoder sees of them, y = x + k, and g(μ(y)).

The latent is z = μ(y), the mean of q(z|y), and no draw from it: one answer for each y, without the
posterior's own noise on top of the spread's. Row i depends on (seed, i) alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.decoding import Array
from workers.generate import Generator
from workers.metrics import as_float

_ROWS = 3  # a stream of the seed, beside those of workers.decoding


@dataclass(frozen=True, slots=True)
class Reconstructions:
    """x, y and g of shape (n, *shape), z of shape (n, Z)."""

    x: Array
    y: Array
    z: Array
    g: Array


def reconstruct(generator: Generator, held_out: Tensor, n: int, seed: int = 0) -> Reconstructions:
    """Reconstruct n of the held-out data, N×D as a data set has them."""
    x = held_out_rows(held_out, n, seed).reshape(n, *generator.shape)
    y = generator.spread(x, seed)
    z = generator.encode(y)
    return Reconstructions(x, y, z, generator.decode(z))


def held_out_rows(held_out: Tensor, n: int, seed: int) -> Array:
    """n rows of N×D data as the model sees them; of mapped data no other row is read."""
    rows = torch.from_numpy(choose_rows(held_out.shape[0], n, seed))
    chosen: Array = as_float(held_out[rows]).numpy()
    return chosen


def choose_rows(count: int, n: int, seed: int) -> NDArray[np.int64]:
    """n row numbers below ``count``; fewer are the first of more.

    All rows come once before one comes again. Drawn from PCG64's raw output, the one stream which
    NumPy promises to keep.
    """
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_ROWS,)))
    chosen = np.empty(n, np.int64)
    seen: set[int] = set()
    for i in range(n):
        if len(seen) == count:
            seen.clear()
        row = _below(count, bits)
        while row in seen:
            row = _below(count, bits)
        seen.add(row)
        chosen[i] = row
    return chosen


def _below(count: int, bits: np.random.PCG64) -> int:
    return int(bits.random_raw()) * count >> 64
