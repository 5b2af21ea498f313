"""Drawn data sets of vectors, each a curve or a sheet that a generator has to find.

A toy is its recipe: its digest is that of the recipe's parameters and ``RECIPE_VERSION``, which
rises whenever a change would draw other points.
"""

import hashlib
import json
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from workers.spec import ToyDataset

RECIPE_VERSION = 1

TITLES = {
    "ring": "Ring: the unit circle in the plane",
    "line": "Line: a segment in the plane",
    "two-moons": "Two moons: two interlocking half circles in the plane",
    "surface": "Surface: a curved sheet in three dimensions, as in the paper's Figure 1",
}


def dimensions(kind: str) -> int:
    """Dimensions of a toy's points."""
    return 3 if kind == "surface" else 2


def digest(ref: ToyDataset) -> str:
    """Identity of the drawn points, without drawing them."""
    recipe = {
        "recipe": RECIPE_VERSION,
        "kind": ref.kind,
        "samples": ref.samples,
        "noise_std": ref.noise_std,
        "seed": ref.seed,
    }
    return "sha256:" + hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def draw(ref: ToyDataset) -> NDArray[np.float32]:
    """The points of a toy, shape (samples, D)."""
    generator = np.random.Generator(np.random.PCG64(ref.seed))
    n = ref.samples
    u = generator.uniform(-1.0, 1.0, size=(n, 2))
    match ref.kind:
        case "ring":
            angle = np.pi * u[:, 0]
            points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        case "line":
            points = np.stack([1.5 * u[:, 0], 0.75 * u[:, 0]], axis=1)
        case "two-moons":
            points = _two_moons(u)
        case "surface":
            s, t = 1.5 * u[:, 0], 1.5 * u[:, 1]
            points = np.stack([s, t, 0.5 * np.sin(2 * s) * np.cos(t)], axis=1)
        case _:
            assert_never(ref.kind)
    points = points + ref.noise_std * generator.standard_normal(points.shape)
    return points.astype(np.float32)


def _two_moons(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half circles of radius 1 about (−½, −¼) and, upside down, about (½, ¼)."""
    angle = np.pi * (u[:, 0] + 1) / 2
    is_upper = u[:, 1] < 0
    sign = np.where(is_upper, 1.0, -1.0)
    return np.stack(
        [sign * (np.cos(angle) - 0.5), sign * (np.sin(angle) - 0.25)],
        axis=1,
    )
