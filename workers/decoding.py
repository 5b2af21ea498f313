"""Decoder and encoder of a training by gradients as functions of arrays, the same bytes everywhere.

Row i of what is drawn depends on (seed, i) alone. Encoding and decoding always run on blocks of
``BLOCK`` rows, because the rounding of a matrix product depends on its shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.build import (
    empty_model,
    fresh_psi,
    require_pixel_scales,
    run_spread,
    spread_spec,
    weight_count,
)
from workers.checkpoint import DatasetFacts, check_weights, decode_tensors
from workers.delta_vae import objective_at
from workers.errors import CheckpointError, SpecMismatch
from workers.networks import Autoencoder
from workers.spec import TrainSpec
from workers.spread import draw_noise, scale_at
from workers.spread.drawn import numpy_stream
from workers.spread.learned import LearnedNoise, Psi
from workers.train_state import SPREAD

BLOCK = 64

_LATENTS, _NOISE, _DATA_NOISE = 0, 1, 2  # streams of one seed

Array = NDArray[np.float32]


def use_one_thread() -> None:
    """Decode on the calling thread alone, in this whole process.

    A block is too small to share between cores, and requests already run side by side.
    """
    torch.set_num_threads(1)


def draw_latents(n: int, latent_dim: int, seed: int) -> Array:
    """Standard normal latents, shape (n, Z); fewer are the first rows of more."""
    return numpy_stream(seed, _LATENTS).standard_normal((n, latent_dim), dtype=np.float32)


def decode(model: Autoencoder, latents: Array) -> Array:
    """g(z) for latents of shape (n, Z): shape (n, D), in blocks of a fixed size."""
    return _in_blocks(model, latents, model.decode, model.dimensions)


def encode(model: Autoencoder, y: Array) -> Array:
    """μ(y), the mean of q(z|y), for y of shape (n, D): shape (n, Z), in blocks of a fixed size."""
    return _in_blocks(model, y, lambda block: model.encode(block).mean, model.latent_dim)


def _in_blocks(
    model: Autoencoder, rows: Array, network: Callable[[Tensor], Tensor], width: int
) -> Array:
    """The network's output of ``width`` values for each row; the last block is filled with 0."""
    device = next(model.parameters()).device
    blocks = []
    with torch.inference_mode():
        for begin in range(0, len(rows), BLOCK):
            block = np.zeros((BLOCK, rows.shape[1]), np.float32)
            part = rows[begin : begin + BLOCK]
            block[: len(part)] = part
            output = network(torch.from_numpy(block).to(device)).cpu().numpy()
            blocks.append(output[: len(part)])
    return np.concatenate(blocks) if blocks else np.zeros((0, width), np.float32)


@dataclass(frozen=True, slots=True)
class Networks:
    """Decoder and encoder after ``epoch`` epochs, and what was learned of the spread, if anything.

    See :class:`workers.generate.Model`.
    """

    spec: TrainSpec
    epoch: float
    autoencoder: Autoencoder
    learned: LearnedNoise | None = None

    @classmethod
    def of(cls, spec: TrainSpec, epoch: float, model: Autoencoder, psi: Psi | None) -> Self:
        """With ψ as the spec spreads with it."""
        spread = run_spread(spec, psi, next(model.parameters()).device)
        return cls(spec, epoch, model, spread if isinstance(spread, LearnedNoise) else None)

    @property
    def is_transformed(self) -> bool:
        """See :class:`workers.generate.Model`."""
        return self.learned is not None and self.learned.is_transformed

    @property
    def encoder_noise(self) -> float:
        """See :class:`workers.generate.Model`."""
        if objective_at(self.spec.trainer, self.epoch).estimator == "plain":
            return 0.0
        scale, dimensions = self._scale, self.autoencoder.dimensions
        return scale if self.learned is None else self.learned.rms(scale, dimensions)

    @property
    def _scale(self) -> float:
        return scale_at(spread_spec(self.spec), self.epoch)

    def latents(self, n: int, seed: int) -> Array:
        """See :class:`workers.generate.Model`."""
        return draw_latents(n, self.autoencoder.latent_dim, seed)

    def decode(self, latents: Array) -> Array:
        """See :class:`workers.generate.Model`."""
        return decode(self.autoencoder, latents)

    def encode(self, rows: Array) -> Array:
        """See :class:`workers.generate.Model`."""
        return encode(self.autoencoder, rows)

    def transform(self, rows: Array) -> Array:
        """See :class:`workers.generate.Model`."""
        if self.learned is None or not self.learned.is_transformed:
            return rows
        return _in_blocks(self.autoencoder, rows, self.learned.transform, rows.shape[1])

    def noise(self, n: int, seed: int) -> Array:
        """See :class:`workers.generate.Model`."""
        return self._noise(n, seed, _NOISE)

    def data_noise(self, n: int, seed: int) -> Array:
        """See :class:`workers.generate.Model`."""
        return self._noise(n, seed, _DATA_NOISE)

    def _noise(self, n: int, seed: int, stream: int) -> Array:
        scale, dimensions, learned = self._scale, self.autoencoder.dimensions, self.learned
        noise = draw_noise(spread_spec(self.spec), scale, n, dimensions, seed, stream)
        if learned is None:
            return noise
        noise *= np.float32(learned.own_scale(scale, dimensions) / scale)
        return _in_blocks(
            self.autoencoder, noise, lambda rows: learned.stretch(rows, scale), dimensions
        )


def load_networks(spec: TrainSpec, epoch: float, dataset: DatasetFacts, weights: Path) -> Networks:
    """Those of a spec with the weights of a file, both of which may be hostile.

    Raises CheckpointError.
    """
    tensors = decode_tensors(weights)
    try:
        # Before anything of the size that the spec claims is allocated.
        require_pixel_scales(spec, dataset.shape)
        check_weights(tensors, weight_count(spec, dataset.shape))
        model = empty_model(
            spec,
            dataset.shape,
            is_image=dataset.is_image,
            generator=torch.Generator().manual_seed(0),
        )
        psi = fresh_psi(spec, dataset.shape, torch.device("cpu"))
        learned = {name: tensors.pop(name) for name in [*tensors] if name.startswith(SPREAD)}
        model.load_state_dict(tensors)
        if psi is not None:
            psi.load_state_dict({name[len(SPREAD) :]: value for name, value in learned.items()})
    except (RuntimeError, SpecMismatch) as error:
        raise CheckpointError("the weights do not fit the network of their own spec") from error
    return Networks.of(spec, epoch, model.requires_grad_(requires_grad=False).eval(), psi)
