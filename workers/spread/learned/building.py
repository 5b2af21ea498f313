"""From a spec to ψ, and what ψ costs, by arithmetic."""

from itertools import pairwise
from math import prod
from typing import assert_never

import torch

from workers.spec.learned import (
    ConvTransform,
    EqualEntropyCovariance,
    LearnedSpread,
    LowRankCovariance,
    MeanTransform,
    MlpTransform,
)
from workers.spread.learned.covariance import LowRank
from workers.spread.learned.psi import Psi
from workers.spread.learned.transform import Transform, picture_of, widths

STRENGTH = 4.0  # c of a spec that leaves it open, in multiples of the scale


def build_psi(
    spec: LearnedSpread, shape: tuple[int, ...], scale: float, generator: torch.Generator
) -> Psi:
    """ψ at its beginning, a function of the generator's seed; ``scale`` is the spread's own."""
    transform = spec.mean_transform
    moved = None if transform is None else Transform(transform, shape, generator)
    covariance = spec.covariance
    match covariance:
        case None:
            return Psi(None, moved)
        case LowRankCovariance(rank=rank, components=components):
            strength = covariance.strength or STRENGTH * scale
            return Psi(LowRank(prod(shape), rank, strength, components, generator), moved)
        case EqualEntropyCovariance(rank=rank):
            return Psi(None, moved, (rank, covariance.strength or STRENGTH * scale))
        case _:
            assert_never(covariance)


def psi_counts(spec: LearnedSpread, shape: tuple[int, ...]) -> tuple[int, int]:
    """Number of learned values, and of others that belong to ψ; nothing is allocated."""
    parameters, others = 0, 0
    covariance = spec.covariance
    if isinstance(covariance, LowRankCovariance):
        parameters += (covariance.components or prod(shape)) * covariance.rank
        others += prod(shape) * (covariance.components or 0)
    if spec.mean_transform is not None:
        kernel = 9 if isinstance(spec.mean_transform, ConvTransform) else 1
        layers = pairwise(widths(spec.mean_transform, shape))
        one = sum(i * o * kernel + o for i, o in layers)
        parameters += spec.mean_transform.blocks * one
        others += 1  # the gain
    return parameters, others


def psi_activations(spec: LearnedSpread, shape: tuple[int, ...]) -> int:
    """Values that f leaves behind for each row of x or g(z)."""
    transform: MeanTransform | None = spec.mean_transform
    match transform:
        case None:
            return 0
        case MlpTransform():
            return transform.blocks * (sum(widths(transform, shape)[1:]) + prod(shape))
        case ConvTransform():
            height, width, _ = picture_of(shape)
            maps = sum(widths(transform, shape)[1:]) * height * width
            return transform.blocks * (maps + prod(shape))
        case _:
            assert_never(transform)
