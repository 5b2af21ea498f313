"""The whole: data, trainer, resources and checkpoints of one training run."""

import hashlib
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Discriminator, Field, Tag, TypeAdapter

from workers.spec.base import SEED_MAX, SpecModel
from workers.spec.dataset import AnyDataset, DatasetSpec, NamedDataset
from workers.spec.ica import Ica
from workers.spec.paper import Paper
from workers.spec.refit import RefitEncoder
from workers.spec.trainer import TrainerSpec

Start = Literal["train_state", "weights"]
"""What a run takes over from a checkpoint: weights, optimiser and step, or the weights alone."""


class Resources(SpecModel):
    """What one attempt reserves on the cluster, all of it at once.

    The number of workers changes how long a run takes, and its results only within rounding.
    """

    workers: int = Field(default=1, ge=1, le=64)
    """Worker processes, perhaps on several machines. Each computes its share of every batch, so
    `batch_size` is that of all of them together, and at least their number."""
    cpus_per_worker: int = Field(default=1, ge=1, le=1024)
    """Cores, and torch threads, of each worker."""
    gpus_per_worker: int = Field(default=0, ge=0, le=64)
    """GPUs of each worker, which computes on one: 0 or 1."""


_Data = TypeVar("_Data", bound=AnyDataset | None)


class _Spec(SpecModel, Generic[_Data]):
    """What the specs of all trainers share."""

    kind: Literal["train"] = "train"
    version: Literal[1] = 1
    """Version of this format."""
    seed: int = Field(default=0, ge=0, le=SEED_MAX)
    """Seed of everything that is drawn: initial weights, data order, noise, latents."""
    dataset: _Data
    resources: Resources = Resources()
    keep_checkpoints: int = Field(default=16, ge=3, le=1000)
    """How many of the regular checkpoints are kept; the others are thinned evenly. The first, the
    last two and the best stay; the train state is kept of the last two."""

    @property
    def data_name(self) -> str | None:
        """Name of the data set, or the kind of a drawn one; None where there is none."""
        data = self.dataset
        return data.name if isinstance(data, NamedDataset) else None if data is None else data.kind

    @property
    def data_digest(self) -> str | None:
        """Content that the data set is pinned to; None before that, and where there is none."""
        return None if self.dataset is None else self.dataset.digest

    def digest(self) -> str:
        """Identity of the computation: data, trainer, seed; not resources, limits or cadence."""
        content = self.model_dump_json(include={"version", "seed", "dataset", "trainer"})
        return "sha256:" + hashlib.sha256(content.encode()).hexdigest()


class TrainSpec(_Spec[DatasetSpec]):
    """One training run by stochastic gradients, complete: the same spec gives the same weights."""

    trainer: TrainerSpec
    checkpoint_every_epochs: int = Field(default=5, ge=1, le=100_000)
    """Epochs between two checkpoints; the last epoch always has one."""
    checkpoint_at_epochs: Annotated[
        tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(strict=False)
    ] = Field(default=(1,), max_length=64)
    """Epochs that have a checkpoint besides; these are never thinned out."""


class IcaSpec(_Spec[DatasetSpec]):
    """One fit of linear ICA, complete: the same spec gives the same mixing matrix."""

    trainer: Ica
    checkpoint_every_iterations: int = Field(default=10, ge=1, le=100_000)
    """Iterations between two checkpoints; the first and the last one always have one."""


class RefitSpec(_Spec[DatasetSpec]):
    """Encoders fitted to a decoder, complete but for the decoder, which a fork brings."""

    trainer: RefitEncoder


class PaperSpec(_Spec[DatasetSpec | None]):
    """One figure of the paper, complete: the same spec gives the same numbers."""

    dataset: DatasetSpec | None = None
    """Data that the figure shows, where it shows any; all others draw their own."""
    trainer: Paper


_ICA, REFIT, PAPER = "ica", "refit_encoder", "paper"


def _spec_tag(value: Any) -> str | None:
    """Which branch a spec is of, by its trainer; None for a kind of trainer that nobody knows."""
    trainer = value.get("trainer") if isinstance(value, dict) else getattr(value, "trainer", None)
    kind = trainer.get("kind") if isinstance(trainer, dict) else getattr(trainer, "kind", None)
    if kind == _ICA:
        return "IcaSpec"
    if kind == REFIT:
        return "RefitSpec"
    if kind == PAPER:
        return "PaperSpec"
    return "TrainSpec" if not isinstance(trainer, dict) or kind in _GRADIENT_KINDS else None


_GRADIENT_KINDS = ("delta_vae", "vae")
TRAINER_KINDS = (*_GRADIENT_KINDS, _ICA, REFIT, PAPER)

JobSpec = Annotated[
    Annotated[TrainSpec, Tag("TrainSpec")]
    | Annotated[IcaSpec, Tag("IcaSpec")]
    | Annotated[RefitSpec, Tag("RefitSpec")]
    | Annotated[PaperSpec, Tag("PaperSpec")],
    Discriminator(
        _spec_tag,
        custom_error_type="trainer_kind",
        custom_error_message="kind must be one of: " + ", ".join(TRAINER_KINDS),
    ),
]
JOB_SPEC: TypeAdapter[TrainSpec | IcaSpec | RefitSpec | PaperSpec] = TypeAdapter(JobSpec)
