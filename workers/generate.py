"""Samples from a checkpoint: x = g(z), z ~ N(0, I), the same bytes in every process.

The generator of linear ICA is x = Az + mean with z from the fitted priors, see workers.ica.model.
Row i depends on (seed, i) alone; how is told in workers.decoding.
"""

from pathlib import Path
from typing import Protocol, Self, assert_never

from workers.checkpoint import (
    MAX_MANIFEST_BYTES,
    Description,
    Manifest,
    decode_tensors,
    parse_description,
    parse_manifest,
    verify,
)
from workers.decoding import Array, load_networks
from workers.errors import CheckpointError
from workers.ica.model import IcaModel
from workers.refit.standing_in import standing_in
from workers.spec import IcaSpec, PaperSpec, RefitSpec, TrainSpec

GENERATOR_VERSION = 1  # rises when the same checkpoint, seed and n would give other bytes


class Model(Protocol):
    """What draws, decodes and encodes; rows are flat, D values each."""

    @property
    def is_transformed(self) -> bool:
        """See :attr:`Generator.is_transformed`."""
        ...

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

    def transform(self, rows: Array) -> Array:
        """f(x), shape (n, D); x itself unless f was learned."""
        ...

    def noise(self, n: int, seed: int) -> Array:
        """The noise around g(z), shape (n, D)."""
        ...

    def data_noise(self, n: int, seed: int) -> Array:
        """The noise in what the encoder sees of data, shape (n, D)."""
        ...


class Generator:
    """Decoder and encoder of one checkpoint, and what it has learned of the spread.

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

        ``spread=True`` gives y = f(x) + k, with the noise that the model was trained with, which
        leaves [0, 1]; f is the identity unless it was learned.
        """
        samples = self.decode(self.latents(n, seed))
        if not spread:
            return samples
        return self._transformed(samples) + self._shaped(self._model.noise(n, seed))

    def decode(self, latents: Array) -> Array:
        """g(z) for latents of shape (n, Z): shape (n, *shape)."""
        return self._shaped(self._model.decode(latents))

    def encode(self, y: Array) -> Array:
        """μ(y), the mean of q(z|y), for y of shape (n, *shape): shape (n, Z)."""
        return self._model.encode(y.reshape(len(y), -1))

    @property
    def is_transformed(self) -> bool:
        """Whether y = f(x) + k with a learned f."""
        return self._model.is_transformed

    @property
    def encoder_noise(self) -> float:
        """Standard deviation of the noise in what the encoder sees at this point of the training.

        Where it differs between dimensions, its root mean square over them. 0 where it sees clean
        data: for ``vae`` and ``ica``, and in the warm-up of ``delta_vae``.
        """
        return self._model.encoder_noise

    def spread(self, x: Array, seed: int = 0) -> Array:
        """y = f(x) + k for data of shape (n, *shape), as the encoder sees them.

        Without noise y = f(x); f is the identity unless it was learned. Row i of k depends on
        (seed, i) alone. Never clipped to the range of pixels.
        """
        y = self._transformed(x)
        if not self.encoder_noise:
            return y
        return y + self._shaped(self._model.data_noise(len(x), seed))

    def _transformed(self, x: Array) -> Array:
        return self._shaped(self._model.transform(x.reshape(len(x), -1)))

    def _shaped(self, rows: Array) -> Array:
        return rows.reshape(-1, *self.shape)


def _load(description: Description, weights: Path) -> Model:
    spec, dataset = description.spec, description.dataset
    match spec:
        case TrainSpec():
            return load_networks(spec, description.epoch, dataset, weights)
        case IcaSpec():
            if len(dataset.shape) != 1:
                raise CheckpointError("ICA decomposes vectors, and its data are none")
            return IcaModel.of(decode_tensors(weights), dataset.shape[0])
        case RefitSpec():
            stands_in = standing_in(spec, description.step)
            return load_networks(stands_in, description.epoch, dataset, weights)
        case PaperSpec():
            raise CheckpointError("it has the rows of a figure, and no model to draw from")
        case _:
            assert_never(spec)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise CheckpointError(f"{path.name} is larger than any that was ever written")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
