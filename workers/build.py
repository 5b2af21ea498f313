"""From a spec and what is known of its data to a model."""

import math
from typing import Literal

import torch

from workers.data import DatasetInfo, held_out_count
from workers.errors import SpecMismatch
from workers.networks import Autoencoder, Network, parameter_count, value_count
from workers.networks.batch_norm import Reduce
from workers.rounds import Rounds
from workers.seeds import SeedStream
from workers.spec import (
    DeltaVae,
    LearnedSpread,
    LinearNetwork,
    Noise,
    Quality,
    TrainSpec,
)
from workers.spec.learned import LowRankCovariance
from workers.spread import Spread, spread_of
from workers.spread.learned import LearnedNoise, Psi, build_psi, psi_counts

EVALUATION_ROWS = 512  # at once
QUALITY_ROWS = 20  # held out, or there are no neighbours to speak of


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
        _require_measurable(trainer.quality, info)
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


def _require_measurable(quality: Quality, info: DatasetInfo) -> None:
    """Raise SpecMismatch where a network sees no pictures."""
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
