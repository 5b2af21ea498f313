"""From a spec and what is known of its data to a model, and what that will cost."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch

from workers.data import DatasetInfo, held_out_count
from workers.errors import SpecMismatch
from workers.networks import Autoencoder, Network, activations, parameter_count, value_count
from workers.networks.batch_norm import Reduce
from workers.rounds import Position, Rounds, total_steps
from workers.seeds import SeedStream
from workers.spec import (
    DeltaVae,
    FeatureName,
    LearnedSpread,
    LinearNetwork,
    Noise,
    Quality,
    TrainSpec,
)
from workers.spec.learned import LowRankCovariance
from workers.spread import Spread, spread_of
from workers.spread.learned import LearnedNoise, Psi, build_psi, psi_activations, psi_counts
from workers.spread.learned.covariance import PCA_ROWS

_FLOAT_BYTES = 4
_PROCESS_BYTES = 350 * 2**20  # Python, torch and its libraries before the first tensor
_GRID_TILES = 64
EVALUATION_ROWS = 512  # at once
# Weights, and what a block of pictures of 64×64 leaves behind on its way.
_EXTRACTOR_VALUES: Mapping[FeatureName, int] = {
    "efficientnet_lite0_40": 20_000_000,
    "efficientnet_lite0_320": 20_000_000,
    "inception_v3_fid": 80_000_000,
}
FEATURE_SIZES: Mapping[FeatureName, int] = {
    "efficientnet_lite0_40": 40,
    "efficientnet_lite0_320": 320,
    "inception_v3_fid": 2048,
}
QUALITY_ROWS = 20  # held out, or there are no neighbours to speak of


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will need.

    ``worker_memory_bytes`` is the peak of one worker, ``storage_bytes`` what the kept weights, two
    train states and grids fill at most.
    """

    parameters: int
    worker_memory_bytes: int
    steps: int
    storage_bytes: int


def resolve(spec: TrainSpec, info: DatasetInfo) -> TrainSpec:
    """The spec with the data digest and ``output: auto`` filled in.

    Raises SpecMismatch, its pointer relative to the spec, where the spec does not fit the data.
    """
    trainer = spec.trainer
    train_count = info.count - held_out_count(info.count, spec.dataset.held_out_fraction)
    if trainer.batch_size > train_count:
        raise SpecMismatch(
            "/trainer/batch_size",
            f"the training split of {info.name} has {train_count} data; choose at most that",
        )
    if trainer.batch_size < spec.resources.workers:
        raise SpecMismatch(
            "/trainer/batch_size",
            f"{spec.resources.workers} workers share a batch; choose at least that, or fewer "
            "workers",
        )
    network = trainer.network
    if network.output == "sigmoid" and not info.is_image:
        raise SpecMismatch(
            "/trainer/network/output",
            f"a sigmoid cannot reach the values of {info.name}, which are vectors; "
            "choose identity or auto",
        )
    if isinstance(network, LinearNetwork) and network.latent_dim > info.dimensions:
        raise SpecMismatch(
            "/trainer/network/latent_dim",
            f"a linear decoder has no use for more latents than the {info.dimensions} dimensions "
            f"of {info.name}; choose at most that",
        )
    parameter_count(network, info.shape)  # raises where the network does not fit
    require_pixel_scales(spec, info.shape)
    if trainer.quality is not None and info.count - train_count < QUALITY_ROWS:
        raise SpecMismatch(
            "/trainer/quality",
            f"needs at least {QUALITY_ROWS} held-out data, and {info.name} has "
            f"{info.count - train_count}; hold out more, or leave it out",
        )
    if trainer.quality is not None:
        _require_measurable(trainer.quality, spec.resources.workers, info)
    if (learned := learned_spread(spec)) is not None:
        _require_learnable(learned, spec, info, train_count)
    output = _output(network, is_image=info.is_image)
    return spec.model_copy(
        update={
            "dataset": spec.dataset.model_copy(update={"digest": info.digest}),
            "trainer": trainer.model_copy(
                update={"network": network.model_copy(update={"output": output})}
            ),
        }
    )


def _require_measurable(quality: Quality, workers: int, info: DatasetInfo) -> None:
    """Raise SpecMismatch where a network sees no pictures, or others wait too long for worker 0."""
    slow = [name for name in quality.features if name == "inception_v3_fid"]
    if workers > 1 and (slow or quality.reference_scales is not None):
        raise SpecMismatch(
            f"/trainer/quality/{'features' if slow else 'reference_scales'}",
            "takes one worker, for which the others wait for ten minutes at most; choose "
            "resources.workers 1, or leave it out and fork the last checkpoint with one worker",
        )
    if not quality.features:
        return
    if not info.is_image or (len(info.shape) == 3 and info.shape[2] not in (1, 3)):
        raise SpecMismatch(
            "/trainer/quality/features",
            f"see grey or colour pictures only, and {info.name} has none; leave them out: "
            "the measures by principal components stay",
        )


def require_pixel_scales(spec: TrainSpec, shape: tuple[int, ...]) -> None:
    """Raise SpecMismatch unless there are as many relative scales as dimensions, or none."""
    scales, dimensions = spread_spec(spec).pixel_scales, math.prod(shape)
    if scales is not None and len(scales) != dimensions:
        field = "spread" if isinstance(spec.trainer, DeltaVae) else "observation"
        raise SpecMismatch(
            f"/trainer/{field}/pixel_scales",
            f"the data have {dimensions} dimensions; give one relative scale for each, "
            f"not {len(scales)}",
        )


def _require_learnable(
    learned: LearnedSpread, spec: TrainSpec, info: DatasetInfo, train_count: int
) -> None:
    """Raise SpecMismatch where a spread cannot be learned so."""
    at, covariance = "/trainer/learned_spread", learned.covariance
    if covariance is None and learned.mean_transform is None:
        raise SpecMismatch(at, "nothing is learned; give a covariance, a mean_transform, or both")
    if covariance is not None and covariance.rank > info.dimensions:
        raise SpecMismatch(
            f"{at}/covariance/rank",
            f"{info.name} has {info.dimensions} dimensions; choose at most that",
        )
    if isinstance(covariance, LowRankCovariance) and covariance.components is not None:
        most = min(info.dimensions, train_count)
        if not covariance.rank <= covariance.components <= most:
            raise SpecMismatch(
                f"{at}/covariance/components",
                f"choose from the rank, {covariance.rank}, to {most}, the principal components "
                f"that {info.name} has",
            )
    psi_counts(learned, info.shape)  # raises where the transform does not fit
    rounds = Rounds.of(spec.trainer)
    assert rounds is not None
    if rounds.first > rounds.last:
        raise SpecMismatch(
            f"{at}/every_epochs",
            f"the first round would come after epoch {rounds.first}, and none comes after the "
            f"last of {spec.trainer.epochs} epochs; choose fewer, or train longer",
        )


def steps_per_epoch(spec: TrainSpec, info: DatasetInfo) -> int:
    """Batches that cover the training split once; the last one may be smaller."""
    held = held_out_count(info.count, spec.dataset.held_out_fraction)
    return math.ceil((info.count - held) / spec.trainer.batch_size)


def rows_per_step(spec: TrainSpec) -> int:
    """Rows that pass the decoder in one step: batch, noise draws and importance samples."""
    trainer = spec.trainer
    pairs = 2 if isinstance(trainer, DeltaVae) and trainer.estimator == "antithetic" else 1
    return trainer.batch_size * trainer.noise_samples * trainer.importance_samples * pairs


def checkpoint_epochs(spec: TrainSpec) -> frozenset[int]:
    """The epochs after which a run that is not cut short has a checkpoint."""
    epochs, every = spec.trainer.epochs, spec.checkpoint_every_epochs
    named = {epoch for epoch in spec.checkpoint_at_epochs if epoch <= epochs}
    return frozenset(range(every, epochs + 1, every)) | named | {epochs}


def grid_epochs(spec: TrainSpec) -> frozenset[int]:
    """The epochs after which a run that is not cut short has a grid."""
    epochs, every = spec.trainer.epochs, spec.trainer.grid_every_epochs
    return frozenset(range(every, epochs + 1, every)) | {1, epochs}


def estimate(spec: TrainSpec, info: DatasetInfo) -> Estimate:
    """What the run will need; by arithmetic, nothing is allocated."""
    trainer = spec.trainer
    learned = learned_spread(spec)
    psi_parameters = 0 if learned is None else psi_counts(learned, info.shape)[0]
    parameters = parameter_count(trainer.network, info.shape) + psi_parameters
    weights_bytes = weight_count(spec, info.shape) * _FLOAT_BYTES
    has_average = trainer.optimizer.ema_decay is not None
    state_bytes = weights_bytes * (4 if has_average else 3)
    data_bytes = info.count * info.dimensions * (1 if info.is_image else _FLOAT_BYTES)
    # The gradients beside the state, and one checkpoint on its way to the store.
    memory = (
        _PROCESS_BYTES
        + 2 * state_bytes
        + 2 * weights_bytes
        + _activation_bytes(spec, info)
        + 2 * data_bytes
        + _pca_bytes(spec, info)
        + _quality_bytes(spec, info)
    )
    steps = total_steps(trainer, steps_per_epoch(spec, info), Position())
    return Estimate(
        parameters, memory, steps, _storage_bytes(spec, info, weights_bytes, state_bytes)
    )


def _activation_bytes(spec: TrainSpec, info: DatasetInfo) -> int:
    """What the larger of a worker's share of a step and a block of the evaluation needs."""
    values = activations(spec.trainer.network, info.shape)
    # Forward values and their gradients, and as much again for the noise and what is on the way.
    rows = math.ceil(rows_per_step(spec) / spec.resources.workers)
    step = 3 * rows * sum(values)
    if (learned := learned_spread(spec)) is not None:
        # Stretched noise and residual beside the values, f twice, and in `kl` all pairs of a batch.
        step += 3 * rows * (2 * psi_activations(learned, info.shape) + 3 * info.dimensions)
        if learned.ascend == "kl":
            step += 6 * spec.trainer.batch_size * rows * info.dimensions
    evaluation = EVALUATION_ROWS * max(sum(pair) for pair in pairwise(values))
    return max(step, evaluation) * _FLOAT_BYTES


def _pca_bytes(spec: TrainSpec, info: DatasetInfo) -> int:
    """What finding the principal components of a learned covariance needs at its beginning."""
    learned = learned_spread(spec)
    covariance = None if learned is None else learned.covariance
    if not isinstance(covariance, LowRankCovariance) or covariance.components is None:
        return 0
    rows = min(info.count, PCA_ROWS)
    return 3 * rows * info.dimensions * _FLOAT_BYTES


def _quality_bytes(spec: TrainSpec, info: DatasetInfo) -> int:
    """What measuring the quality of samples needs: samples, features, pairs of some of them."""
    quality = spec.trainer.quality
    if quality is None:
        return 0
    rows = min(info.count, PCA_ROWS)
    values = (2 * quality.samples + 3 * rows) * info.dimensions + 4 * quality.samples * (
        quality.components + 128
    )
    pairs = 6 * min(quality.samples, 2000) ** 2
    networks = sum(
        _EXTRACTOR_VALUES[name] + 4 * quality.samples * size + 16 * size**2
        for name, size in ((name, FEATURE_SIZES[name]) for name in quality.features)
    )
    # A second model beside the run's, with the moments of its encoder.
    refitted = 0 if quality.reference_scales is None else 4 * weight_count(spec, info.shape)
    return (values + 2 * pairs + networks + refitted) * _FLOAT_BYTES


def _storage_bytes(spec: TrainSpec, info: DatasetInfo, weights_bytes: int, state_bytes: int) -> int:
    named = sum(epoch <= spec.trainer.epochs for epoch in set(spec.checkpoint_at_epochs))
    kept = min(len(checkpoint_epochs(spec)), spec.keep_checkpoints + named + 3)
    grid_bytes = _GRID_TILES * info.dimensions * 4 if info.is_image else 2**16
    return kept * weights_bytes + 2 * state_bytes + len(grid_epochs(spec)) * (grid_bytes + 4096)


def build_model(
    spec: TrainSpec, info: DatasetInfo, device: torch.device, reduce: Reduce | None = None
) -> Autoencoder:
    """The untrained model of a resolved spec, a function of the seed alone."""
    generator = torch.Generator()
    generator.manual_seed(SeedStream(spec.seed, "initial weights").at(0))
    model = empty_model(
        spec, info.shape, is_image=info.is_image, generator=generator, reduce=reduce
    )
    return model.to(device)


def empty_model(
    spec: TrainSpec,
    shape: tuple[int, ...],
    *,
    is_image: bool,
    generator: torch.Generator,
    reduce: Reduce | None = None,
) -> Autoencoder:
    """A model of the spec for data of one shape, with weights drawn from the generator.

    Raises SpecMismatch where the network does not fit the shape.
    """
    network = spec.trainer.network
    return Autoencoder(
        network,
        shape,
        output=_output(network, is_image=is_image),
        log_std_bound=spec.trainer.log_std_bound,
        generator=generator,
        reduce=reduce,
    )


def learned_spread(spec: TrainSpec) -> LearnedSpread | None:
    """What of the spread is learned, or None."""
    return spec.trainer.learned_spread if isinstance(spec.trainer, DeltaVae) else None


def fresh_psi(spec: TrainSpec, shape: tuple[int, ...], device: torch.device) -> Psi | None:
    """ψ at its beginning, a function of the seed; None for a fixed spread."""
    learned = learned_spread(spec)
    if learned is None:
        return None
    generator = torch.Generator().manual_seed(SeedStream(spec.seed, "initial spread").at(0))
    return build_psi(learned, shape, spread_spec(spec).scale, generator).to(device)


def run_spread(spec: TrainSpec, psi: Psi | None, device: torch.device) -> Spread:
    """The spread of a run, fixed or learned, or a plain VAE's observation noise."""
    noise = spread_of(spread_spec(spec), device)
    return noise if psi is None else LearnedNoise(noise, psi)


def weight_count(spec: TrainSpec, shape: tuple[int, ...]) -> int:
    """Number of values in a weights file of the spec, by arithmetic."""
    learned = learned_spread(spec)
    own = value_count(spec.trainer.network, shape)
    return own if learned is None else own + sum(psi_counts(learned, shape))


def _output(network: Network, *, is_image: bool) -> Literal["sigmoid", "identity"]:
    if network.output != "auto":
        return network.output
    return "sigmoid" if is_image else "identity"


def spread_spec(spec: TrainSpec) -> Noise:
    """The noise around g(z): the spread, or a plain VAE's observation noise."""
    trainer = spec.trainer
    return trainer.spread if isinstance(trainer, DeltaVae) else trainer.observation
