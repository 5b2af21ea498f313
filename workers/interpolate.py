r"""Interpolations: the decoder along a path from one latent to another.

The prior N(0, I) in Z dimensions has its mass near the sphere of radius √Z. The middle of the
straight line between two draws has a norm of about √(Z/2), where the prior puts almost nothing and
the decoder was hardly trained. The spherical path (Shoemake, *Animating rotation with quaternion
curves*, 1985) turns from the direction u of one end to the direction v of the other at a constant
angular speed, while the norm goes straight from one end's to the other's:

    z(t) = ((1 − t)‖a‖ + t‖b‖) · (sin((1 − t)ω) u + sin(tω) v) / sin ω,   cos ω = u·v.

Where the ends lie on one line through the origin, there is no arc, and the path is straight.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
from torch import Tensor

from workers.decoding import Array
from workers.generate import Generator
from workers.reconstruct import reconstruct

PathKind = Literal["spherical", "linear"]
_LEAST_SINE = 1e-6  # of the angle between the ends; below it sin tω / sin ω loses its digits


@dataclass(frozen=True, slots=True)
class Interpolations:
    """z of shape (n, steps, Z) and g of shape (n, steps, *shape).

    Between data, x of shape (n, 2, *shape) are those at the two ends, None between latents.
    """

    z: Array
    g: Array
    x: Array | None = None


def between_latents(
    generator: Generator, n: int, steps: int, path: PathKind = "spherical", seed: int = 0
) -> Interpolations:
    """From latent 2i to latent 2i + 1 of the seed, as ``Generator.sample`` draws them."""
    ends = generator.latents(2 * n, seed).reshape(n, 2, -1)
    return _along(generator, ends, steps, path)


def between_data(
    generator: Generator,
    held_out: Tensor,
    n: int,
    steps: int,
    path: PathKind = "spherical",
    seed: int = 0,
) -> Interpolations:
    """From reconstruction 2i to reconstruction 2i + 1 of the seed, see ``reconstruct``."""
    found = reconstruct(generator, held_out, 2 * n, seed)
    x = found.x.reshape(n, 2, *generator.shape)
    return _along(generator, found.z.reshape(n, 2, -1), steps, path, x)


def _along(
    generator: Generator, ends: Array, steps: int, path: PathKind, x: Array | None = None
) -> Interpolations:
    z = latents_between(ends[:, 0], ends[:, 1], steps, path)
    g = generator.decode(z.reshape(-1, z.shape[-1]))
    return Interpolations(z, g.reshape(*z.shape[:2], *generator.shape), x)


def latents_between(first: Array, last: Array, steps: int, path: PathKind) -> Array:
    """``steps`` latents from each row of ``first`` to that of ``last``: (n, Z) to (n, steps, Z).

    The first and the last of them are the ends themselves, bit for bit.
    """
    a, b = first.astype(np.float64)[:, None], last.astype(np.float64)[:, None]
    t = np.linspace(0.0, 1.0, steps)[:, None]
    z = (1 - t) * a + t * b
    match path:
        case "linear":
            pass
        case "spherical":
            norm_a, norm_b = (np.linalg.norm(end, axis=-1, keepdims=True) for end in (a, b))
            u, v = a / np.where(norm_a > 0, norm_a, 1), b / np.where(norm_b > 0, norm_b, 1)
            # Exact near 0 and π too, where the arc cosine is not.
            apart, along = (np.linalg.norm(w, axis=-1, keepdims=True) for w in (u - v, u + v))
            angle = 2 * np.arctan2(apart, along)
            sine = np.sin(angle)
            is_arc = (sine > _LEAST_SINE) & (norm_a > 0) & (norm_b > 0)
            turned = np.sin((1 - t) * angle) * u + np.sin(t * angle) * v
            arc = ((1 - t) * norm_a + t * norm_b) * turned / np.where(is_arc, sine, 1)
            z = np.where(is_arc, arc, z)
        case _:
            assert_never(path)
    z[:, 0], z[:, -1] = first, last
    return z.astype(np.float32)
