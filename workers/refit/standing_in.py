"""A refit as the δ-VAE whose model it has: what it is built as, what it costs, how it forks."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from workers import build, costs
from workers.checkpoint import Description
from workers.data import DatasetInfo, held_out_count
from workers.errors import SpecMismatch
from workers.held_out import seen_by_parent
from workers.quality.reference import reference_noise
from workers.spec import (
    DeltaVae,
    IcaSpec,
    PaperSpec,
    RefitSpec,
    Start,
    TrainSpec,
)

STATE_VERSION = 1
DECODER = "decoder."  # what the names of its tensors begin with


def scales(spec: RefitSpec) -> tuple[float, ...]:
    """The reference scales, each once, in the order in which they were given."""
    return tuple(dict.fromkeys(spec.trainer.scales))


def standing_in(spec: RefitSpec, step: int = 0) -> TrainSpec:
    """The δ-VAE that has the model after ``step`` steps: its noise is that of the last scale."""
    trainer, all_scales = spec.trainer, scales(spec)
    at = min(max(step - 1, 0) // trainer.steps, len(all_scales) - 1)
    return TrainSpec(
        seed=spec.seed,
        dataset=spec.dataset,
        resources=spec.resources,
        keep_checkpoints=spec.keep_checkpoints,
        trainer=DeltaVae(
            kind="delta_vae",
            network=trainer.network,
            log_std_bound=trainer.log_std_bound,
            batch_size=trainer.batch_size,
            spread=reference_noise(trainer, all_scales[at]),
            epochs=len(all_scales),
        ),
    )


def resolve(spec: RefitSpec, info: DatasetInfo) -> RefitSpec:
    """The spec with everything filled in that the data decide; raises SpecMismatch."""
    if spec.resources.workers > 1:
        raise SpecMismatch(
            "/resources/workers", "must be 1: an encoder is fitted by one worker; leave it out"
        )
    # A step takes all data where there are fewer than its batch.
    rows = info.count - held_out_count(info.count, spec.dataset.held_out_fraction)
    fewer = spec.trainer.model_copy(update={"batch_size": min(spec.trainer.batch_size, rows)})
    resolved = build.resolve(standing_in(spec.model_copy(update={"trainer": fewer})), info)
    trainer = spec.trainer.model_copy(update={"network": resolved.trainer.network})
    return spec.model_copy(update={"dataset": resolved.dataset, "trainer": trainer})


def estimate(spec: RefitSpec, info: DatasetInfo) -> costs.Estimate:
    """What the run of a resolved spec will need."""
    of_model = costs.estimate(standing_in(spec), info)
    return costs.Estimate(
        parameters=of_model.parameters,
        worker_memory_bytes=of_model.worker_memory_bytes,
        steps=total_steps(spec),
        storage_bytes=of_model.storage_bytes,
    )


def total_steps(spec: RefitSpec) -> int:
    """Steps over all scales."""
    return len(scales(spec)) * spec.trainer.steps


def obstacles(
    start: Start, checkpoint: Description, spec: RefitSpec, info: DatasetInfo
) -> Iterator[SpecMismatch]:
    """Why a resolved spec for these data cannot begin so; pointers are relative to the spec."""
    old = checkpoint.spec
    assert not isinstance(old, PaperSpec)  # not_forkable has seen to that
    if isinstance(old, IcaSpec):
        yield SpecMismatch("/trainer/kind", "must stay 'ica': a mixing matrix has no encoder")
        return
    if start != "weights":
        yield SpecMismatch(
            "/trainer/kind", 'refit_encoder takes the decoder alone; begin with start "weights"'
        )
    if old.trainer.network != spec.trainer.network:
        yield SpecMismatch(
            "/trainer/network", "must stay that of the checkpoint; leave it out of the changes"
        )
    if info.digest == checkpoint.dataset.digest:
        yield from seen_by_parent(old.dataset, spec.dataset)
    if info.shape != checkpoint.dataset.shape:
        yield SpecMismatch(
            "/dataset",
            f"its data have the shape {info.shape}, and the checkpoint's decoder was built for "
            f"{checkpoint.dataset.shape}; choose data of that shape",
        )


def taken_over(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The train state that a refit begins with: the decoder of a weights file."""
    decoder = {name: value for name, value in weights.items() if name.startswith(DECODER)}
    return {
        "version": torch.tensor(STATE_VERSION),
        "step": torch.tensor(0),
        "found": torch.zeros(0, 5, dtype=torch.float64),
        **decoder,
    }
