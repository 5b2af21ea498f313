"""What is drawn from checkpoints: what to draw, and what came of it as PNG and npz."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workers.images import render
from workers.interpolate import Interpolations, PathKind
from workers.layouts import paths_png, rows_png
from workers.memory import import_lasting
from workers.reconstruct import Reconstructions

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """``n`` samples of a seed; ``spread`` adds the noise that the model was trained with."""

    n: int
    seed: int
    spread: bool


@dataclass(frozen=True, slots=True)
class ReconstructionRequest:
    """``n`` held-out data, chosen and spread by a seed."""

    n: int
    seed: int


@dataclass(frozen=True, slots=True)
class InterpolationRequest:
    """``n`` paths of ``steps`` latents, between draws of the prior or encoded held-out data."""

    n: int
    seed: int
    steps: int
    between: Literal["prior", "data"]
    path: PathKind


@dataclass(frozen=True, slots=True)
class MatrixRequest:
    """Which matrix of an ``ica`` job's checkpoint."""

    what: Literal["mixing", "unmixing"]


Request = SampleRequest | ReconstructionRequest | InterpolationRequest | MatrixRequest


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of shape (n, H, W), (n, H, W, C) or (n, D)."""

    array: Array
    is_image: bool

    def png(self) -> bytes:
        """A grid of pictures, or a scatter plot of vectors."""
        if not self.is_image:
            make_ready_to_plot()
        return render(self.array, self.is_image)

    def npz(self) -> bytes:
        """A NumPy archive with the one array ``samples``."""
        return archive({"samples": self.array})

    def rows(self) -> list[Any]:
        """The samples as nested lists of numbers."""
        rows: list[Any] = self.array.tolist()
        return rows


@dataclass(frozen=True, slots=True)
class DrawnReconstructions:
    """Reconstructions; ``noise_scale`` is the standard deviation of the noise in y, or 0.

    ``is_transformed`` where y = f(x) + k with a learned f.
    """

    found: Reconstructions
    is_image: bool
    noise_scale: float
    is_transformed: bool = False

    @property
    def rmse(self) -> float:
        """Root of the mean square of g − x."""
        return float(np.sqrt(np.square(self.found.g - self.found.x).mean()))

    def png(self) -> bytes:
        """Data, what the encoder saw, and reconstructions, in rows or panels with these words."""
        if not self.is_image:
            make_ready_to_plot()
        noise = f" + noise, std {self.noise_scale:.3g}" if self.noise_scale else ", without noise"
        mean = "f(x)" if self.is_transformed else "x"
        rows = [
            ("x  held-out data", self.found.x),
            (f"y = {mean}{noise}", self.found.y),
            ("g  reconstruction", self.found.g),
        ]
        return rows_png(rows, self.is_image)

    def npz(self) -> bytes:
        """A NumPy archive with the arrays ``x``, ``y``, ``z`` and ``g``."""
        found = self.found
        return archive({"x": found.x, "y": found.y, "z": found.z, "g": found.g})


@dataclass(frozen=True, slots=True)
class DrawnInterpolations:
    """Interpolations, as pictures or vectors."""

    found: Interpolations
    is_image: bool

    def png(self) -> bytes:
        """One path in a row, between the data at its ends; vectors become lines."""
        if not self.is_image:
            make_ready_to_plot()
        return paths_png(self.found.g, self.found.x, self.is_image)

    def npz(self) -> bytes:
        """A NumPy archive with the arrays ``z`` and ``g``, and ``x`` between data."""
        arrays = {"z": self.found.z, "g": self.found.g}
        return archive(arrays if self.found.x is None else {**arrays, "x": self.found.x})


def make_ready_to_plot() -> None:
    """Import what draws plots and vectors, so that no other answer waits for collections which look
    through it: a tenth of a second each."""
    import_lasting("matplotlib.figure", "matplotlib.backends.backend_agg")


def archive(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays as the bytes of an npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
