"""Samples from a job's checkpoints: the same checkpoint, seed and n give the same bytes."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import (
    CheckpointNotFound,
    FieldError,
    InvalidQuery,
    NotReady,
    ResultNotFound,
    ServiceError,
)
from service.generators import GeneratorCache
from service.jobs import CheckpointInfo
from service.results import Results
from workers.artifacts import ArtifactStore, job_prefix
from workers.checkpoint import FileFacts, parse_manifest, verify
from workers.data import load
from workers.errors import ArtifactNotFound, CheckpointError, DataError, StoreError
from workers.generate import GENERATOR_VERSION, Generator
from workers.images import filmstrip_png, render

CACHE_BYTES = 512 << 20
FILMSTRIP_MAX_ROWS = 16  # more rows than this fit no screen


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """``n`` samples of a seed; ``spread`` adds the noise that the model was trained with."""

    n: int
    seed: int
    spread: bool


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of shape (n, H, W), (n, H, W, C) or (n, D)."""

    array: NDArray[np.float32]
    is_image: bool

    def png(self) -> bytes:
        """A grid of pictures, or a scatter plot of vectors."""
        return render(self.array, self.is_image)

    def npz(self) -> bytes:
        """A NumPy archive with the one array ``samples``."""
        buffer = io.BytesIO()
        np.savez(buffer, samples=self.array)
        return buffer.getvalue()

    def rows(self) -> list[Any]:
        """The samples as nested lists of numbers."""
        rows: list[Any] = self.array.tolist()
        return rows


class Sampling:
    """Draws from checkpoints. ``cache_dir`` is where data sets are looked for.

    ``cache_bytes`` bounds the generators that are kept ready.
    """

    def __init__(
        self,
        results: Results,
        artifacts: ArtifactStore,
        cache_dir: Path,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._results = results
        self._artifacts = artifacts
        self._cache_dir = cache_dir
        self._generators = GeneratorCache(cache_bytes)

    def checkpoint(self, job_id: str, choice: str) -> CheckpointInfo:
        """See :meth:`service.results.Results.checkpoint`."""
        return self._results.checkpoint(job_id, choice)

    def etag(self, checkpoint: CheckpointInfo, request: SampleRequest, form: str) -> str:
        """Hash of everything that determines the bytes; nothing is loaded for it."""
        content = [checkpoint.digest, asdict(request), form, GENERATOR_VERSION]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def draw(self, checkpoint: CheckpointInfo, request: SampleRequest) -> Samples:
        """The samples. Raises CheckpointNotFound, NotReady, and ServiceError for a damaged one."""
        generator = self._generator(checkpoint)
        array = generator.sample(request.n, request.seed, request.spread)
        return Samples(array, generator.is_image)

    def forget(self, job_id: str) -> None:
        """Let go of the generators of a job that was deleted."""
        self._generators.forget(job_prefix(job_id))

    def filmstrip(self, job_id: str, epochs: Sequence[int] | None, n: int, seed: int) -> bytes:
        """A PNG of the same n latents over the checkpoints, and as many real data in the last row.

        ``epochs`` chooses the checkpoints; None takes at most FILMSTRIP_MAX_ROWS of them, evenly.
        Raises InvalidQuery for an epoch that has no checkpoint, CheckpointNotFound where the job
        has none at all.
        """
        latest = self._results.checkpoint(job_id, "latest")  # says why there is none
        chosen = _chosen(self._results.checkpoints(job_id), epochs)
        rows = [
            (f"epoch {round(checkpoint.epoch, 2):g}", self._generator(checkpoint).sample(n, seed))
            for checkpoint in chosen
        ]
        return filmstrip_png([*rows, ("data", self._data(latest, n))])

    def _generator(self, checkpoint: CheckpointInfo) -> Generator:
        return self._generators.get(
            checkpoint.prefix, checkpoint.size_bytes, lambda: self._load(checkpoint)
        )

    def _load(self, checkpoint: CheckpointInfo) -> Generator:
        weights_key = f"{checkpoint.prefix}/weights.safetensors"
        recorded = FileFacts(digest=checkpoint.digest, size_bytes=checkpoint.size_bytes)
        try:
            manifest = parse_manifest(self._artifacts.get(f"{checkpoint.prefix}/manifest.json"))
            if self._artifacts.size(weights_key) != checkpoint.size_bytes:
                raise CheckpointError("its weights file has not the recorded size")
            with self._artifacts.open_file(weights_key) as weights:
                verify(weights, recorded)
                return Generator.from_parts(manifest, weights)
        except CheckpointError as error:
            raise ServiceError(
                f"checkpoint {checkpoint.id} is damaged, so it is not used ({error}); "
                "choose another one"
            ) from error
        except ArtifactNotFound as error:
            raise CheckpointNotFound(
                f"the files of checkpoint {checkpoint.id} are gone: it was thinned out or removed"
            ) from error
        except StoreError as error:
            raise NotReady("the artifact store does not answer; try again soon") from error

    def _data(self, checkpoint: CheckpointInfo, n: int) -> NDArray[np.float32]:
        """The first n data that the checkpoint's model was trained on, as it saw them."""
        spec = self._generator(checkpoint).description.spec
        try:
            data = load(spec.dataset, self._cache_dir, self._artifacts)
        except DataError as error:
            raise ResultNotFound(f"there are no real data to show: {error}") from error
        except StoreError as error:
            raise NotReady("the artifact store does not answer; try again soon") from error
        rows = data.train[:n].numpy().reshape(-1, *data.info.shape).astype(np.float32)
        return rows / np.float32(255) if data.info.is_image else rows


def _chosen(
    checkpoints: Sequence[CheckpointInfo], epochs: Sequence[int] | None
) -> list[CheckpointInfo]:
    if epochs is None:
        count = min(len(checkpoints), FILMSTRIP_MAX_ROWS)
        evenly = np.linspace(0, len(checkpoints) - 1, count).round().astype(int)
        return [checkpoints[index] for index in evenly]
    by_epoch = {checkpoint.epoch: checkpoint for checkpoint in checkpoints}
    absent = [epoch for epoch in epochs if epoch not in by_epoch]
    if not absent and 1 <= len(epochs) <= FILMSTRIP_MAX_ROWS:
        return [by_epoch[epoch] for epoch in epochs]
    if absent:
        known = ", ".join(f"{epoch:g}" for epoch in by_epoch)
        problem = f"there is no checkpoint of epoch {absent[0]}; there are ones of {known}"
    else:
        problem = f"name 1 to {FILMSTRIP_MAX_ROWS} epochs"
    raise InvalidQuery("no film strip of these epochs", (FieldError("/query/epochs", problem),))
