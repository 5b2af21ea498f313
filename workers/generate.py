"""Samples from a checkpoint: x = g(z), z ~ N(0, I), the same bytes in every process.

The generator of linear ICA is x = Az + mean with z from the fitted priors, see workers.ica.model.

Row i depends on (seed, i) alone. Latents and noise come from streams in row order, and encoding and
decoding always run on blocks of ``BLOCK`` rows, because the rounding of a matrix product depends on
its shape.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.build import empty_model, spread_spec
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
from workers.ica.model import IcaModel
from workers.networks import Autoencoder, value_count
from workers.spec import GaussianSpread, IcaSpec, TrainSpec
from workers.spread import scale_at

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
    return _stream(seed, _LATENTS).standard_normal((n, latent_dim), dtype=np.float32)


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


class Model(Protocol):
    """What draws, decodes and encodes; rows are flat, D values each."""

    @property
    def encoder_noise(self) -> float:
        """See :attr:`Generator.encoder_noise`."""
        ...

    def latents(self, n: int, seed: int) -> Array:
        """n draws from the prior, shape (n, Z)."""
        ...

    def decode(self, latents: Array) -> Array:
        """g(z), shape (n, D)."""
        ...

    def encode(self, rows: Array) -> Array:
        """The posterior's means, shape (n, Z)."""
        ...

    def noise(self, n: int, seed: int) -> Array:
        """The noise around g(z), shape (n, D)."""
        ...

    def data_noise(self, n: int, seed: int) -> Array:
        """The noise in what the encoder sees of data, shape (n, D)."""
        ...


@dataclass(frozen=True, slots=True)
class Networks:
    """Decoder and encoder after ``epoch`` epochs of a training by gradients."""

    spec: TrainSpec
    epoch: float
    autoencoder: Autoencoder

    @property
    def encoder_noise(self) -> float:
        """See :attr:`Generator.encoder_noise`."""
        if objective_at(self.spec.trainer, self.epoch).estimator == "plain":
            return 0.0
        return scale_at(spread_spec(self.spec), self.epoch)

    def latents(self, n: int, seed: int) -> Array:
        """See :class:`Model`."""
        return draw_latents(n, self.autoencoder.latent_dim, seed)

    def decode(self, latents: Array) -> Array:
        """See :class:`Model`."""
        return decode(self.autoencoder, latents)

    def encode(self, rows: Array) -> Array:
        """See :class:`Model`."""
        return encode(self.autoencoder, rows)

    def noise(self, n: int, seed: int) -> Array:
        """See :class:`Model`."""
        return self._noise(n, seed, _NOISE)

    def data_noise(self, n: int, seed: int) -> Array:
        """See :class:`Model`."""
        return self._noise(n, seed, _DATA_NOISE)

    def _noise(self, n: int, seed: int, stream: int) -> Array:
        spec = spread_spec(self.spec)
        scale = scale_at(spec, self.epoch)
        generator = _stream(seed, stream)
        size: Sequence[int] = (n, self.autoencoder.dimensions)
        if isinstance(spec, GaussianSpread):
            noise = generator.normal(0.0, scale, size)
        else:
            noise = generator.laplace(0.0, scale / np.sqrt(2), size)
        return noise.astype(np.float32)


class Generator:
    """Decoder and encoder of one checkpoint.

    ``Generator.load("weights.safetensors").sample(64, seed=0)`` draws 64 samples offline.
    """

    version = GENERATOR_VERSION

    def __init__(self, description: Description, model: Model) -> None:
        self.description = description
        self._model = model

    @classmethod
    def from_parts(cls, manifest: Manifest, weights: Path) -> Self:
        """From a checkpoint's manifest and its weights file; raises CheckpointError."""
        verify(weights, manifest.weights)
        return cls(manifest, _load(manifest, weights))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """From a weights file, or a checkpoint's folder; raises CheckpointError."""
        path = Path(path)
        if path.is_dir():
            manifest = parse_manifest(_read(path / "manifest.json"))
            return cls.from_parts(manifest, path / "weights.safetensors")
        description = parse_description(path)
        return cls(description, _load(description, path))

    @property
    def ica(self) -> IcaModel | None:
        """The fitted mixing matrix and what belongs to it; None for other trainers."""
        return self._model if isinstance(self._model, IcaModel) else None

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
        return self._model.latents(n, seed)

    def sample(self, n: int, seed: int = 0, spread: bool = False) -> Array:
        """Samples of shape (n, *shape); pictures are in [0, 1].

        ``spread=True`` adds the noise that the model was trained with, which leaves [0, 1].
        """
        samples = self.decode(self.latents(n, seed))
        return samples + self._shaped(self._model.noise(n, seed)) if spread else samples

    def decode(self, latents: Array) -> Array:
        """g(z) for latents of shape (n, Z): shape (n, *shape)."""
        return self._shaped(self._model.decode(latents))

    def encode(self, y: Array) -> Array:
        """μ(y), the mean of q(z|y), for y of shape (n, *shape): shape (n, Z)."""
        return self._model.encode(y.reshape(len(y), -1))

    @property
    def encoder_noise(self) -> float:
        """Standard deviation of the noise in what the encoder sees at this point of the training.

        0 where it sees clean data: for ``vae`` and ``ica``, and in the warm-up of ``delta_vae``.
        """
        return self._model.encoder_noise

    def spread(self, x: Array, seed: int = 0) -> Array:
        """y = x + k for data of shape (n, *shape), as the encoder sees them: y = x without noise.

        Row i of k depends on (seed, i) alone. Never clipped to the range of pixels.
        """
        if not self.encoder_noise:
            return x
        return x + self._shaped(self._model.data_noise(len(x), seed))

    def _shaped(self, rows: Array) -> Array:
        return rows.reshape(-1, *self.shape)


def _stream(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,))))


def _load(description: Description, weights: Path) -> Model:
    spec, dataset = description.spec, description.dataset
    match spec:
        case TrainSpec():
            return Networks(spec, description.epoch, _load_networks(spec, dataset, weights))
        case IcaSpec():
            if len(dataset.shape) != 1:
                raise CheckpointError("ICA decomposes vectors, and its data are none")
            return IcaModel.of(decode_tensors(weights), dataset.shape[0])
        case _:
            assert_never(spec)


def _load_networks(spec: TrainSpec, dataset: DatasetFacts, weights: Path) -> Autoencoder:
    """The model of a spec with the weights of a file, both of which may be hostile."""
    tensors = decode_tensors(weights)
    try:
        # Before anything of the size that the spec claims is allocated.
        check_weights(tensors, value_count(spec.trainer.network, dataset.shape))
        model = empty_model(
            spec,
            dataset.shape,
            is_image=dataset.is_image,
            generator=torch.Generator().manual_seed(0),
        )
        model.load_state_dict(tensors)
    except (RuntimeError, SpecMismatch) as error:
        raise CheckpointError("the weights do not fit the network of their own spec") from error
    return model.requires_grad_(requires_grad=False).eval()


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise CheckpointError(f"{path.name} is larger than any that was ever written")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
