"""What a training by gradients will need: memory, steps and storage, by arithmetic."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from workers.build import (
    EVALUATION_ROWS,
    checkpoint_epochs,
    grid_epochs,
    learned_spread,
    rows_per_step,
    steps_per_epoch,
    weight_count,
)
from workers.data import DatasetInfo
from workers.networks import activations, parameter_count
from workers.rounds import Position, total_steps
from workers.spec import FeatureName, TrainSpec
from workers.spec.learned import LowRankCovariance
from workers.spread.learned import psi_activations, psi_counts
from workers.spread.learned.covariance import PCA_ROWS

_FLOAT_BYTES = 4
_PROCESS_BYTES = 350 * 2**20  # Python, torch and its libraries before the first tensor
_GRID_TILES = 64
# Weights, and what a block of pictures of 64×64 leaves behind on its way.
_EXTRACTOR_VALUES: Mapping[FeatureName, int] = {
    "efficientnet_lite0_40": 20_000_000,
    "efficientnet_lite0_320": 20_000_000,
    "inception_v3_fid": 80_000_000,
}
_FEATURE_SIZES: Mapping[FeatureName, int] = {
    "efficientnet_lite0_40": 40,
    "efficientnet_lite0_320": 320,
    "inception_v3_fid": 2048,
}


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
        for name, size in ((name, _FEATURE_SIZES[name]) for name in quality.features)
    )
    # A second model beside the run's, with the moments of its encoder.
    refitted = 0 if quality.reference_scales is None else 4 * weight_count(spec, info.shape)
    return (values + 2 * pairs + networks + refitted) * _FLOAT_BYTES


def _storage_bytes(spec: TrainSpec, info: DatasetInfo, weights_bytes: int, state_bytes: int) -> int:
    named = sum(epoch <= spec.trainer.epochs for epoch in set(spec.checkpoint_at_epochs))
    kept = min(len(checkpoint_epochs(spec)), spec.keep_checkpoints + named + 3)
    grid_bytes = _GRID_TILES * info.dimensions * 4 if info.is_image else 2**16
    return kept * weights_bytes + 2 * state_bytes + len(grid_epochs(spec)) * (grid_bytes + 4096)
