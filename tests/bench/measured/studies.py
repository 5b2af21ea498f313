"""Which runs are compared: three studies, their arms, and the spec of each run.

Every arm of a study has the same network, data, batches and number of steps of the model. An arm
that is a fork goes on from the train state that the base arm of the same seed had at ``forked_at``,
and so differs from it in the rest of the run alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.bench.measured.record import Line, chosen
from workers.build import resolve
from workers.data import DatasetInfo
from workers.spec import TrainSpec

SCALES = (0.2, 0.3, 0.5, 0.7, 1.0)
TUNING_SEED = 100  # best scales are chosen on it, and nothing else is measured with it
CHOSEN_BY = "kid_pca"
BASE = "delta-gaussian"
FAMILIES = ("vae-gaussian", BASE, "vae-laplace", "delta-laplace")
LEARNED_MEAN, SMALLER = "learned-mean", "smaller"
COVARIANCE, EQUAL_ENTROPY = "covariance", "equal-entropy"
HELD_OUT_FRACTION = 0.5
MANY = 20_000  # training data; with so many an epoch has enough steps for a round after each


@dataclass(frozen=True, slots=True)
class Size:
    """How long runs are: epochs, the epoch that forks begin at, and rounds of learning ψ."""

    epochs: int
    forked_at: int
    every_epochs: int
    noise_steps: int
    encoder_steps: int
    noise_rate: float = 5e-4


@dataclass(frozen=True, slots=True)
class Study:
    """Arms on one data set; ``scale`` is that of the base arm, ``rank`` that of its covariance."""

    name: str
    dataset: dict[str, Any]
    network: dict[str, Any]
    size: Size
    scale: float
    arms: tuple[tuple[str, float | None], ...]
    rank: int = 20
    quality: tuple[str, ...] = ("efficientnet_lite0_40",)
    samples: int = 5000
    gpus: int = 0
    is_tuned: bool = False
    has_forks: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """One run: a resolved spec, and the parent's spec and epoch where it is a fork."""

    study: Study
    arm: str
    seed: int
    scale: float
    spec: TrainSpec
    parent: TrainSpec | None = None

    @property
    def begins_from(self) -> str | None:
        """What a fork begins from."""
        at = self.study.size.forked_at
        return None if self.parent is None else f"{self.parent.digest()}@{at}"

    @property
    def key(self) -> tuple[str, str | None]:
        """Which computation it is."""
        return self.spec.digest(), self.begins_from


def digits(info: DatasetInfo, *, on_gpu: bool = False) -> Study:
    """VAE and δ-VAE on digits, or garments: equal and best scales, learned spreads."""
    trained = info.count * (1 - HELD_OUT_FRACTION)
    size = Size(8, 4, 1, 200, 50) if trained >= MANY else Size(40, 20, 5, 200, 50)
    forks = ((LEARNED_MEAN, None), (SMALLER, None), (COVARIANCE, 0.5), (EQUAL_ENTROPY, 0.5))
    return Study(
        name=info.name,
        dataset={"name": info.name},
        network={"kind": "mlp"},
        size=size,
        scale=0.5,
        arms=(*((family, 0.5) for family in FAMILIES), *forks),
        is_tuned=True,
        gpus=int(on_gpu),
    )


def pictures(info: DatasetInfo, *, on_gpu: bool = False) -> Study:
    """The arms of the paper's Figure 6 on colour pictures; the VAE's own σ² there is .5.

    A GPU trains a network of four times the width five times as long.
    """
    channels = [32, 64, 128, 256] if on_gpu else [8, 16, 32, 64]
    return Study(
        name="pictures",
        dataset={"name": info.name, "digest": info.digest},
        network={"kind": "conv", "channels": channels, "kernel_size": 3},
        size=Size(100, 50, 10, 100, 25) if on_gpu else Size(20, 10, 3, 100, 25),
        gpus=int(on_gpu),
        scale=0.5,
        arms=(
            (BASE, 0.5),
            (LEARNED_MEAN, None),
            (SMALLER, None),
            ("vae-gaussian", math.sqrt(0.5)),
            ("vae-gaussian", 0.5),
        ),
    )


def toy(info: DatasetInfo) -> Study:
    """A covariance that is learned from the first round on, and its rival of equal entropy."""
    return Study(
        name="toy",
        dataset={"name": info.name, "digest": info.digest},
        network={"kind": "mlp", "hidden": [64, 64], "latent_dim": 2},
        size=Size(40, 0, 2, 50, 100, 1e-2),
        scale=0.2,
        arms=tuple((arm, 0.2) for arm in (BASE, COVARIANCE, EQUAL_ENTROPY)),
        quality=(),
        has_forks=False,
    )


def best_scale(lines: Sequence[Line], study: str, arm: str) -> float | None:
    """The scale with the least KID at the tuning seed; None until all five are measured."""
    found = {
        scale: line[TUNING_SEED]
        for scale in SCALES
        if TUNING_SEED in (line := chosen(lines, study, arm, scale))
    }
    tried = {
        line.scale
        for line in lines
        if (line.study, line.arm, line.seed) == (study, arm, TUNING_SEED)
    }
    if not found or not tried.issuperset(SCALES):
        return None
    return min(found, key=lambda scale: found[scale].metrics[CHOSEN_BY])


def spec_of(
    study: Study, info: DatasetInfo, arm: str, seed: int, scale: float, *, is_fork: bool
) -> TrainSpec:
    """The resolved spec of a run."""
    size = study.size
    trainer = {
        **_noise(arm if arm in FAMILIES else BASE, scale),
        "network": study.network,
        "epochs": size.epochs,
        "evaluate_every_epochs": size.epochs,
        "grid_every_epochs": size.epochs,
    }
    if (learned := _learned(study, arm)) is not None:
        trainer["learned_spread"] = {
            **learned,
            "learning_rate": size.noise_rate,
            "every_epochs": size.every_epochs,
            # A fork has passed the round that would come where it begins.
            "first_epoch": size.forked_at + size.every_epochs if is_fork else 0,
            "noise_steps": size.noise_steps,
            "encoder_steps": size.encoder_steps,
        }
    spec = TrainSpec.model_validate(
        {
            "seed": seed,
            "resources": {"gpus_per_worker": study.gpus},
            "dataset": {**study.dataset, "held_out_fraction": HELD_OUT_FRACTION},
            "trainer": trainer,
            "checkpoint_every_epochs": size.epochs,
            "checkpoint_at_epochs": [size.forked_at] if size.forked_at else [],
        }
    )
    resolved = resolve(spec, info)
    assert isinstance(resolved, TrainSpec)
    return resolved


def _noise(family: str, scale: float) -> dict[str, Any]:
    trainer, _, kind = family.partition("-")
    noise = {"kind": kind, "scale": scale}
    if trainer == "vae":
        return {"kind": "vae", "observation": noise}
    return {"kind": "delta_vae", "spread": noise}


def _learned(study: Study, arm: str) -> dict[str, Any] | None:
    """What is learned of the spread; a fork with nothing to learn has the encoder's steps alone."""
    match arm:
        case "learned-mean":
            return {"mean_transform": {"kind": "mlp"}}
        case "smaller":
            # A rival whose strength is nothing: its rounds are the encoder's steps.
            return {"covariance": {"kind": "equal_entropy", "rank": 1, "strength": 1e-4}}
        case "covariance":
            return {"covariance": {"kind": "low_rank", "rank": study.rank}}
        case "equal-entropy":
            return {"covariance": {"kind": "equal_entropy", "rank": study.rank}}
        case _:
            return None


def run_of(
    study: Study,
    info: DatasetInfo,
    arm: str,
    seed: int,
    scale: float | None,
    lines: Sequence[Line],
) -> Run | None:
    """The run of an arm; None where its scale follows from runs that are not there."""
    if scale is None:
        scale = _following_scale(study, arm, seed, lines)
    if scale is None:
        return None
    is_fork = study.has_forks and arm not in FAMILIES
    run = Run(study, arm, seed, scale, spec_of(study, info, arm, seed, scale, is_fork=is_fork))
    if not is_fork:
        return run
    parent = spec_of(study, info, BASE, seed, study.scale, is_fork=False)
    return replace(run, parent=parent)


def _following_scale(study: Study, arm: str, seed: int, lines: Sequence[Line]) -> float | None:
    match arm:
        case "learned-mean":
            return study.scale
        case "smaller":
            learned = chosen(lines, study.name, LEARNED_MEAN).get(seed)
            return None if learned is None else study.scale / learned.metrics["spread_gain"]
        case _:
            return best_scale(lines, study.name, arm)
