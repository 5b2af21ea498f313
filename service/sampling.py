"""Drawn from a job's checkpoints: the same checkpoint, seed and n give the same bytes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.drawings import (
    DrawnInterpolations,
    DrawnReconstructions,
    InterpolationRequest,
    ReconstructionRequest,
    Request,
    SampleRequest,
    Samples,
    make_ready_to_plot,
)
from service.errors import (
    CheckpointNotFound,
    FieldError,
    InvalidQuery,
    NotReady,
    OtherTrainer,
    ServiceError,
)
from service.generators import GeneratorCache
from service.job_data import DatasetRef, JobData
from service.jobs import CheckpointInfo
from service.measures import Measures
from service.results import Results
from workers.artifacts import ArtifactStore, job_prefix
from workers.checkpoint import FileFacts, parse_manifest, verify
from workers.errors import ArtifactNotFound, CheckpointError, StoreError
from workers.generate import GENERATOR_VERSION, Generator
from workers.images import filmstrip_png
from workers.interpolate import between_data, between_latents
from workers.kinds import AnySpec
from workers.reconstruct import reconstruct
from workers.spec import IcaSpec

CACHE_BYTES = 512 << 20
VALUES_MAX = 1 << 25  # numbers in one answer
FILMSTRIP_MAX_ROWS = 16  # more rows than this fit no screen


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint, and the data of its job."""

    checkpoint: CheckpointInfo
    data: DatasetRef


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
        measures: Measures | None = None,
    ) -> None:
        self._results = results
        self._artifacts = artifacts
        self._data = JobData(cache_dir, artifacts)
        self._generators = GeneratorCache(cache_bytes, measures)

    def checkpoint(self, job_id: str, choice: str) -> CheckpointInfo:
        """See :meth:`service.results.Results.checkpoint`; raises OtherTrainer besides."""
        self._results.spec_of_model(job_id)
        return self._results.checkpoint(job_id, choice)

    def source(self, job_id: str, choice: str) -> Source:
        """See :meth:`service.results.Results.checkpoint`; raises OtherTrainer besides."""
        data = _data_of(self._results.spec_of_model(job_id))
        return Source(self._results.checkpoint(job_id, choice), data)

    def path_source(self, job_id: str, choice: str) -> Source:
        """As :meth:`source`, for paths between latents; raises OtherTrainer where those say
        nothing."""
        spec = self._spec_of_networks(job_id, "paths between latents", "mixing")
        return Source(self._results.checkpoint(job_id, choice), _data_of(spec))

    def etag(
        self,
        checkpoint: CheckpointInfo,
        request: Request,
        form: str,
        data: DatasetRef | None = None,
    ) -> str:
        """Hash of everything that determines the bytes; nothing is loaded for it.

        ``data`` are those that are drawn from, None for what comes from the prior alone.
        """
        content = [
            *(type(request).__name__, checkpoint.digest, asdict(request), form, GENERATOR_VERSION),
            None if data is None else data.model_dump(mode="json"),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def draw(
        self, checkpoint: CheckpointInfo, request: SampleRequest, values_max: int = VALUES_MAX
    ) -> Samples:
        """The samples, of at most ``values_max`` numbers.

        Raises InvalidQuery where they would be more, CheckpointNotFound, NotReady, and
        ServiceError for a damaged checkpoint.
        """
        generator = self.generator(checkpoint)
        _check_values(generator, request.n, 1, values_max)
        array = generator.sample(request.n, request.seed, request.spread)
        return Samples(array, generator.is_image)

    def reconstruct(
        self, source: Source, request: ReconstructionRequest, values_max: int
    ) -> DrawnReconstructions:
        """The reconstructions, of at most ``values_max`` numbers in all of their arrays.

        Raises InvalidQuery where they would be more, ResultNotFound where the job's data cannot be
        had here, and as :meth:`draw`.
        """
        generator = self.generator(source.checkpoint)
        _check_values(generator, request.n, 3, values_max)
        held_out = self._data.get(source.data).held_out
        found = reconstruct(generator, held_out, request.n, request.seed)
        return DrawnReconstructions(
            found, generator.is_image, generator.encoder_noise, generator.is_transformed
        )

    def interpolate(
        self, source: Source, request: InterpolationRequest, values_max: int
    ) -> DrawnInterpolations:
        """The interpolations; raises as :meth:`reconstruct`."""
        generator = self.generator(source.checkpoint)
        n, steps, path, seed = request.n, request.steps, request.path, request.seed
        if request.between == "prior":
            _check_values(generator, n, steps, values_max)
            found = between_latents(generator, n, steps, path, seed)
        else:
            _check_values(generator, n, steps + 6, values_max)
            held_out = self._data.get(source.data).held_out
            found = between_data(generator, held_out, n, steps, path, seed)
        return DrawnInterpolations(found, generator.is_image)

    def forget(self, job_id: str) -> None:
        """Let go of the generators of a job that was deleted."""
        self._generators.forget(job_prefix(job_id))

    def filmstrip(self, job_id: str, epochs: Sequence[int] | None, n: int, seed: int) -> bytes:
        """A PNG of the same n latents over the checkpoints, and as many real data in the last row.

        ``epochs`` chooses the checkpoints; None takes at most FILMSTRIP_MAX_ROWS of them, evenly.
        Raises InvalidQuery for an epoch that has no checkpoint, CheckpointNotFound where the job
        has none at all.
        """
        self._spec_of_networks(job_id, "film strip", "artifacts/plots/convergence.png")
        latest = self._results.checkpoint(job_id, "latest")  # says why there is none
        chosen = _chosen(self._results.checkpoints(job_id), epochs)
        rows = [
            (f"epoch {round(checkpoint.epoch, 2):g}", self.generator(checkpoint).sample(n, seed))
            for checkpoint in chosen
        ]
        if rows[0][1].ndim < 3:  # vectors
            make_ready_to_plot()
        return filmstrip_png([*rows, ("data", self._first_data(latest, n))])

    def _spec_of_networks(self, job_id: str, what: str, instead: str) -> AnySpec:
        spec = self._results.spec_of_model(job_id)
        if isinstance(spec, IcaSpec):
            raise OtherTrainer(
                f"the job's trainer is ica, a linear model, of which there is no {what}; GET the "
                f"job's {instead} instead"
            )
        return spec

    def generator(self, checkpoint: CheckpointInfo) -> Generator:
        """The checkpoint's generator, kept ready; raises as :meth:`draw`."""
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

    def _first_data(self, checkpoint: CheckpointInfo, n: int) -> NDArray[np.float32]:
        """The first n data that the checkpoint's model was trained on, as it saw them."""
        data = self._data.get(_data_of(self.generator(checkpoint).description.spec))
        rows = data.train[:n].numpy().reshape(-1, *data.info.shape).astype(np.float32)
        return rows / np.float32(255) if data.info.is_image else rows


def _data_of(spec: AnySpec) -> DatasetRef:
    assert spec.dataset is not None  # there is a model, and it was fitted to them
    return spec.dataset


def _check_values(generator: Generator, n: int, data_each: int, values_max: int) -> None:
    """Refuse more numbers than an answer may hold: n times ``data_each`` data."""
    size = prod(generator.shape)
    most = values_max // (data_each * size)
    if n > most:
        problem = f"must be at most {most} in this form, as each of the data has {size:,} numbers"
        raise InvalidQuery("too much for one answer", (FieldError("/query/n", problem),))


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
