"""Samples from a checkpoint: x = g(z), z ~ N(0, I), the same bytes in every process.

Row i depends on (seed, i) alone. Latents and noise come from streams in row order, and encoding and
decoding always run on blocks of ``BLOCK`` rows, because the rounding of a matrix product depends on
its shape.
"""

import math
from collections.abc import Callable
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
from workers.checkpoint import (
    MAX_MANIFEST_BYTES,
    DatasetFacts,
    Description,
    Manifest,
    check_weights,
    decode_tensors,
    parse_description,
    parse_manifest,
    verify,
)
from workers.delta_vae import objective_at
from workers.errors import CheckpointError, SpecMismatch
from workers.networks import Autoencoder
from workers.spec import TrainSpec
from workers.spread import draw_noise, scale_at
from workers.spread.drawn import numpy_stream
from workers.spread.learned import LearnedNoise, Psi
from workers.train_state import SPREAD

GENERATOR_VERSION = 1  # rises when the same checkpoint, seed and n would give other bytes
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


class Generator:
    """Decoder and encoder of one checkpoint, and what it has learned of the spread.

    ``Generator.load("weights.safetensors").sample(64, seed=0)`` draws 64 samples offline.
    """

    version = GENERATOR_VERSION

    def __init__(
        self, description: Description, model: Autoencoder, psi: Psi | None = None
    ) -> None:
        self.description = description
        self._model = model
        device = next(model.parameters()).device
        spread = run_spread(description.spec, psi, device)
        self._learned = spread if isinstance(spread, LearnedNoise) else None

    @classmethod
    def from_parts(cls, manifest: Manifest, weights: Path) -> Self:
        """From a checkpoint's manifest and its weights file; raises CheckpointError."""
        verify(weights, manifest.weights)
        return cls(manifest, *_load_model(manifest.spec, manifest.dataset, weights))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """From a weights file, or a checkpoint's folder; raises CheckpointError."""
        path = Path(path)
        if path.is_dir():
            manifest = parse_manifest(_read(path / "manifest.json"))
            return cls.from_parts(manifest, path / "weights.safetensors")
        description = parse_description(path)
        return cls(description, *_load_model(description.spec, description.dataset, path))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.description.dataset.shape

    @property
    def is_image(self) -> bool:
        """Whether samples are pictures."""
        return self.description.dataset.is_image

    def latents(self, n: int, seed: int = 0) -> Array:
        """The latents of ``sample(n, seed)``, shape (n, Z)."""
        return draw_latents(n, self.description.spec.trainer.network.latent_dim, seed)

    def sample(self, n: int, seed: int = 0, spread: bool = False) -> Array:
        """Samples of shape (n, *shape); pictures are in [0, 1].

        ``spread=True`` gives y = f(x) + k, with the noise that the model was trained with, which
        leaves [0, 1]; f is the identity unless it was learned.
        """
        samples = self.decode(self.latents(n, seed))
        return self._moved(samples) + self._noise(n, seed, _NOISE) if spread else samples

    def decode(self, latents: Array) -> Array:
        """g(z) for latents of shape (n, Z): shape (n, *shape)."""
        return decode(self._model, latents).reshape(-1, *self.shape)

    def encode(self, y: Array) -> Array:
        """μ(y), the mean of q(z|y), for y of shape (n, *shape): shape (n, Z)."""
        return encode(self._model, y.reshape(len(y), -1))

    @property
    def is_transformed(self) -> bool:
        """Whether y = f(x) + k with a learned f."""
        return self._learned is not None and self._learned.is_transformed

    @property
    def encoder_noise(self) -> float:
        """Standard deviation of the noise in what the encoder sees at this point of the training.

        Where it differs between dimensions, its root mean square over them. 0 where it sees clean
        data: for the trainer ``vae``, and in the warm-up of ``delta_vae``.
        """
        spec, epoch = self.description.spec, self.description.epoch
        if objective_at(spec.trainer, epoch).estimator == "plain":
            return 0.0
        scale = scale_at(spread_spec(spec), epoch)
        learned = self._learned
        return scale if learned is None else learned.rms(scale, math.prod(self.shape))

    def spread(self, x: Array, seed: int = 0) -> Array:
        """y = f(x) + k for data of shape (n, *shape), as the encoder sees them.

        Without noise y = f(x); f is the identity unless it was learned. Row i of k depends on
        (seed, i) alone. Never clipped to the range of pixels.
        """
        y = self._moved(x)
        return y + self._noise(len(x), seed, _DATA_NOISE) if self.encoder_noise else y

    def _moved(self, x: Array) -> Array:
        """f(x) for x of shape (n, *shape)."""
        return x if self._learned is None else self._by_rows(x, self._learned.transform)

    def _noise(self, n: int, seed: int, stream: int) -> Array:
        spec = spread_spec(self.description.spec)
        scale = scale_at(spec, self.description.epoch)
        dimensions = math.prod(self.shape)
        noise = draw_noise(spec, scale, n, dimensions, seed, stream).reshape(n, *self.shape)
        learned = self._learned
        if learned is None:
            return noise
        noise *= np.float32(learned.own_scale(scale, dimensions) / scale)
        return self._by_rows(noise, lambda rows: learned.stretch(rows, scale))

    def _by_rows(self, values: Array, change: Callable[[Tensor], Tensor]) -> Array:
        """A change of rows of D values, for values of shape (n, *shape)."""
        rows = values.reshape(len(values), -1)
        return _in_blocks(self._model, rows, change, rows.shape[1]).reshape(values.shape)


def _load_model(
    spec: TrainSpec, dataset: DatasetFacts, weights: Path
) -> tuple[Autoencoder, Psi | None]:
    """Model and ψ of a spec with the weights of a file, both of which may be hostile."""
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
    return model.requires_grad_(requires_grad=False).eval(), psi


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise CheckpointError(f"{path.name} is larger than any that was ever written")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
