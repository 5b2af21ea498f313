"""What the checkpoints of ``ica`` jobs say: the mixing matrix, and the sources behind data."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.drawings import MatrixRequest, archive
from service.errors import FieldError, InvalidData, OtherTrainer
from service.jobs import CheckpointInfo
from service.results import Results
from service.sampling import Sampling
from workers.errors import InvalidUpload
from workers.ica.model import IcaModel
from workers.ica.priors import Laplace, Mixture, Prior
from workers.intake.npz import read_vectors
from workers.spec import IcaSpec

What = Literal["mixing", "unmixing"]
Matrix = NDArray[np.float64]

VALUES_MAX = 1 << 18  # numbers in posted data: each goes through some twenty sweeps


@dataclass(frozen=True, slots=True)
class Part:
    """A Gaussian in a mixture."""

    weight: float
    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class Density:
    """The density of a source: a softened Laplace has a width, a mixture of Gaussians parts."""

    kind: str
    width: float | None = None
    parts: tuple[Part, ...] | None = None


@dataclass(frozen=True, slots=True)
class Decomposition:
    """A checkpoint's model."""

    checkpoint: CheckpointInfo
    model: IcaModel

    @property
    def densities(self) -> list[Density]:
        """The density of each source."""
        return [_density(prior) for prior in self.model.priors]

    def npz(self) -> bytes:
        """A NumPy archive of all of its arrays, ``noise_variance`` among them."""
        noise = np.asarray(self.model.noise_variance)
        return archive({**self.model.arrays(), "noise_variance": noise})

    def csv(self, what: What) -> str:
        """One matrix: a column for each source, z0, z1, …, or for each dimension, x0, x1, …"""
        matrix = self.model.arrays()[what]
        letter = "z" if what == "mixing" else "x"
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(f"{letter}{column}" for column in range(matrix.shape[1]))
        rows.writerows(matrix.tolist())
        return text.getvalue()


@dataclass(frozen=True, slots=True)
class FoundSources:
    """Posterior means and variances of sources, (n, Z) each, and how well they make the data.

    ``rmse`` is the root of the mean square of x − (A·E[z|x] + mean).
    """

    checkpoint: CheckpointInfo
    mean: Matrix
    variance: Matrix
    rmse: float

    def npz(self) -> bytes:
        """A NumPy archive with the arrays ``mean`` and ``variance``."""
        return archive({"mean": self.mean, "variance": self.variance})


class Mixing:
    """Reads mixing matrices, and finds sources with them."""

    def __init__(self, results: Results, sampling: Sampling) -> None:
        self._results = results
        self._sampling = sampling

    def checkpoint(self, job_id: str, choice: str) -> CheckpointInfo:
        """See :meth:`service.results.Results.checkpoint`; raises OtherTrainer besides."""
        spec = self._results.spec_of_model(job_id)
        if not isinstance(spec, IcaSpec):
            raise OtherTrainer(
                f"the job's trainer is {spec.trainer.kind}, whose model has no mixing matrix; jobs "
                "of the trainer ica have one. Its samples and reconstructions are what it has"
            )
        return self._results.checkpoint(job_id, choice)

    def etag(self, checkpoint: CheckpointInfo, what: What, form: str) -> str:
        """Hash of everything that determines the bytes."""
        return self._sampling.etag(checkpoint, MatrixRequest(what), form)

    def decomposition(self, checkpoint: CheckpointInfo) -> Decomposition:
        """The checkpoint's model; raises CheckpointNotFound, NotReady, ServiceError."""
        model = self._sampling.generator(checkpoint).ica
        assert model is not None  # as its job's trainer is ica
        return Decomposition(checkpoint, model)

    def sources(
        self, job_id: str, choice: str, data: Sequence[Sequence[float]] | bytes
    ) -> FoundSources:
        """The sources behind posted data: rows of numbers, or the bytes of an npz file.

        Raises InvalidData, and as :meth:`checkpoint` and :meth:`decomposition`.
        """
        checkpoint = self.checkpoint(job_id, choice)
        model = self.decomposition(checkpoint).model
        rows = _rows_in(data)
        if rows.shape[1] != len(model.mean):
            wrong = f"has {rows.shape[1]} numbers; the job's data have {len(model.mean)}"
            raise InvalidData(f"Each datum {wrong}.", (FieldError("/data/0", wrong),))
        mean, variance = model.posterior(rows)
        arrays = model.arrays()
        left = rows - mean @ arrays["mixing"].T - arrays["mean"]
        return FoundSources(checkpoint, mean, variance, float(np.sqrt(np.square(left).mean())))


def _density(prior: Prior) -> Density:
    match prior:
        case Laplace(width=width):
            return Density(prior.name, width=width)
        case Mixture(weights=weights, means=means, variances=variances):
            parts = zip(weights, means, variances, strict=True)
            return Density(prior.name, parts=tuple(Part(*part) for part in parts))
        case _:
            return Density(prior.name)


def _rows_in(data: Sequence[Sequence[float]] | bytes) -> Matrix:
    if isinstance(data, bytes):
        try:
            return read_vectors(data, VALUES_MAX)
        except InvalidUpload as error:
            raise InvalidData(
                f"The npz file cannot be used: {error}.", (FieldError("", str(error)),)
            ) from error
    width = len(data[0])
    for number, row in enumerate(data):
        if len(row) != width:
            wrong = f"has {len(row)} numbers, and the first row has {width}"
            raise InvalidData(f"Row {number} {wrong}.", (FieldError(f"/data/{number}", wrong),))
    if len(data) * width > VALUES_MAX:
        wrong = f"has {len(data) * width:,} numbers; send at most {VALUES_MAX:,} at once"
        raise InvalidData(f"It {wrong}.", (FieldError("/data", wrong),))
    return np.asarray(data, dtype=np.float64)
