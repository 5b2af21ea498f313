r"""Figure 1: an implicit model on a surface in R³, and the jump of its likelihood.

x = g(z) with z uniform in the plane has no density in R³. Given it noise of scale γ,

    log p_γ(x) = log ∫ N(x; g(z), γ²I) p(z) dz,

at x on the surface grows by log 2 with each halving of γ (one dimension is left over), and at x off
it falls as −d²/2γ²: as γ → 0 the likelihood of a model that is moved off its data jumps from ∞ to
−∞. With a spread of fixed scale on data and model it is bounded, and falls off smoothly.

Beside it a δ-VAE is trained on the surface, through noise which is much wider than what it learns.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.build import empty_model, resolve
from workers.data import load
from workers.decoding import decode, draw_latents
from workers.events import Checkpoint
from workers.images import encode_figure
from workers.paper import claims1
from workers.paper.base import NOTHING, Asked, Kept, Part, Row, Scale, Verdict
from workers.paper.means import Mean, values_by
from workers.paper.panels import column, label, of_kind, panels
from workers.seeds import SeedStream
from workers.spec import ToyDataset, TrainSpec
from workers.spec.base import SEED_MAX
from workers.train import train

SCALE = 0.3  # σ of the spread, in training and in the likelihood
HALF = 1.5  # the sheet reaches from −HALF to HALF in both directions
GAMMAS = (0.4, 0.2, 0.1, 0.05)
_SHIFT = 0.6  # largest, of the model along the third axis
_INNER = 1.0  # data of the likelihood stay away from the sheet's edge
_FINE = 0.5  # γ between two nodes of the quadrature, whose error is then below rounding
_DISTANCE_NODES = 201
_DRAWN = 400  # samples in the picture and in the distances
_COVER = 2000  # samples that data are looked for among


@dataclass(frozen=True, slots=True)
class Setting:
    """Shifts, data and noise draws of the likelihood; rows, epochs and seeds of the training."""

    shifts: int
    data: int
    draws: int
    rows: int
    epochs: int
    repetitions: int


SETTINGS: Mapping[Scale, Setting] = {
    "quick": Setting(17, 12, 8, 2000, 300, 3),
    "paper": Setting(41, 50, 20, 20_000, 300, 5),
}


@dataclass(frozen=True, slots=True)
class Figure1:
    """The surface with samples of a trained model, and the likelihood of a model moved off it."""

    name: str = "1"
    title: str = "A surface, an implicit model trained on it, and the likelihood's jump"
    source: str = "Figure 1"

    def parts(self, asked: Asked) -> Sequence[Part]:
        """One for each γ, one for the spread, one for each training."""
        setting, seeds = SETTINGS[asked.scale], SeedStream(asked.seed, "figure-1")
        of_trainings = SeedStream(asked.seed, "figure-1 trainings")
        trainings = range(asked.repetitions or setting.repetitions)
        return [
            *(
                Part(f"gamma={gamma:g}", partial(_likelihood, setting, gamma, seeds.at(0)))
                for gamma in GAMMAS
            ),
            Part("spread", partial(_spread_likelihood, setting, seeds.at(0))),
            *(
                Part(
                    f"training={repetition}",
                    partial(_training, setting, repetition, of_trainings.at(repetition) & SEED_MAX),
                )
                for repetition in trainings
            ),
        ]

    def verdicts(self, rows: Sequence[Row]) -> tuple[Verdict, ...]:
        """The jump, its absence where both are spread, and the trained model."""
        return claims1.jumps(rows), claims1.does_not_jump(rows), claims1.is_learned(rows, SCALE)

    def draw(self, rows: Sequence[Row], kept: Kept = NOTHING) -> bytes:
        """The surface with samples, the likelihoods, and the spread one."""
        figure, (left, middle, right) = panels(3)
        left.remove()
        space = figure.add_subplot(1, 3, 1, projection="3d")
        axis = np.linspace(-HALF, HALF, 30)
        s, t = np.meshgrid(axis, axis)
        space.plot_surface(s, t, _height(s, t), color="0.8", alpha=0.45, linewidth=0)
        sample = of_kind(of_kind(rows, "kind", "sample"), "repetition", 0)
        space.scatter(*(column(sample, name) for name in ("x1", "x2", "x3")), s=4, color="C3")
        space.set_title("The data's surface, samples of the model", fontsize=10)
        space.tick_params(labelsize=7)
        space.set_box_aspect((3, 3, 1.6))
        space.view_init(elev=42, azim=-75)
        for gamma in GAMMAS:
            at = claims1.by_shift(of_kind(of_kind(rows, "kind", "model_noise"), "gamma", gamma))
            middle.plot([*at], [mean.mean for mean in at.values()], label=f"γ = {gamma:g}")
        middle.set_ylim(-40, 6)
        at = claims1.by_shift(of_kind(rows, "kind", "spread"))
        right.errorbar(
            [*at],
            [mean.mean for mean in at.values()],
            [mean.standard_error or 0.0 for mean in at.values()],
            marker=".",
            label=f"σ = {SCALE:g} on both",
        )
        moved = "the model, moved along x₃"
        label(middle, "Noise γ → 0 on the model alone: a jump", moved, "nats a datum")
        label(right, "A spread of data and model: none", moved, "nats a datum")
        return encode_figure(figure)

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Mean log likelihoods by γ and shift, and distances over the trainings."""
        likelihoods = [
            {"kind": kind, "gamma": gamma, "shift": shift, "nats": mean.body}
            for kind, gamma in [*(("model_noise", gamma) for gamma in GAMMAS), ("spread", SCALE)]
            for shift, mean in claims1.by_shift(
                of_kind(of_kind(rows, "kind", kind), "gamma", gamma)
            ).items()
        ]
        trained = of_kind(rows, "kind", "trained")
        distances = {
            name: Mean.of(values_by(trained, name, "kind")[("trained",)]).body
            for name in claims1.DISTANCES
        }
        return {"scale": SCALE, "likelihoods": likelihoods, "trained": distances}


def _height(s: Any, t: Any) -> Any:
    """The third coordinate of the toy data set ``surface``."""
    return 0.5 * np.sin(2 * s) * np.cos(t)


def surface(nodes: int) -> Tensor:
    """Points of the sheet on a square grid, float64 of shape (nodes², 3); all alike in p(z)."""
    # Midpoints, so that every node stands for the same area.
    axis = HALF * ((2 * np.arange(nodes) + 1) / nodes - 1)
    s, t = (grid.ravel() for grid in np.meshgrid(axis, axis))
    return torch.from_numpy(np.stack((s, t, _height(s, t)), 1))


def log_density(y: Tensor, scale: float, shift: float) -> Tensor:
    """log ∫ N(y; g(z) + shift·e₃, scale²I) p(z) dz for y of shape (N, 3), by quadrature."""
    nodes = math.ceil(2 * HALF / (_FINE * scale))
    points = surface(nodes) + torch.tensor([0.0, 0.0, shift], dtype=torch.float64)
    square = torch.cdist(y, points, compute_mode="donot_use_mm_for_euclid_dist").square()
    log_norm = 3 * math.log(2 * math.pi * scale**2) / 2 + math.log(len(points))
    values: Tensor = torch.logsumexp(square / (-2 * scale**2), 1) - log_norm
    return values


def _data(count: int, generator: torch.Generator) -> Tensor:
    """Points of the sheet, away from its edge."""
    s, t = _INNER * (2 * torch.rand(2, count, generator=generator, dtype=torch.float64) - 1)
    return torch.stack((s, t, torch.from_numpy(_height(s.numpy(), t.numpy()))), 1)


def _shifts(setting: Setting) -> list[float]:
    return [float(shift) for shift in np.linspace(-_SHIFT, _SHIFT, setting.shifts)]


def _likelihood(setting: Setting, gamma: float, seed: int) -> Iterator[Row | None]:
    """A row for each shift and datum; all γ have the same data."""
    x = _data(setting.data, torch.Generator().manual_seed(seed))
    for shift in _shifts(setting):
        for datum, nats in enumerate(log_density(x, gamma, shift).tolist()):
            yield _row("model_noise", gamma, shift, datum, nats)


def _spread_likelihood(setting: Setting, seed: int) -> Iterator[Row | None]:
    """A row for each shift and datum: the mean over its noise, which all shifts share."""
    generator = torch.Generator().manual_seed(seed)
    x = _data(setting.data, generator).repeat_interleave(setting.draws, 0)
    y = x + SCALE * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    for shift in _shifts(setting):
        means = log_density(y, SCALE, shift).view(setting.data, setting.draws).mean(1)
        for datum, nats in enumerate(means.tolist()):
            yield _row("spread", SCALE, shift, datum, nats)


def _row(kind: str, gamma: float, shift: float, datum: int, nats: float) -> Row:
    return {"kind": kind, "gamma": gamma, "shift": shift, "datum": datum, "nats": nats}


def training_spec(rows: int, epochs: int, seed: int) -> TrainSpec:
    """The job that the figure trains: a δ-VAE with Gaussian spread on the toy ``surface``."""
    return TrainSpec.model_validate(
        {
            "seed": seed,
            "dataset": {"kind": "surface", "samples": rows, "seed": seed},
            "trainer": {
                "kind": "delta_vae",
                "spread": {"kind": "gaussian", "scale": SCALE},
                "network": {"kind": "mlp", "hidden": [64, 64], "latent_dim": 2},
                "optimizer": {"learning_rate": 3e-3, "schedule": {"kind": "cosine"}},
                "epochs": epochs,
                "evaluate_every_epochs": epochs,
                "grid_every_epochs": epochs,
            },
            "checkpoint_every_epochs": epochs,
        }
    )


def _training(setting: Setting, repetition: int, seed: int) -> Iterator[Row | None]:
    """Train one model; distances of its samples as a row, then some samples."""
    spec = training_spec(setting.rows, setting.epochs, seed)
    assert isinstance(spec.dataset, ToyDataset)
    # Drawn, so that no file is read.
    data = load(spec.dataset, Path())
    weights: Mapping[str, Tensor] = {}
    for event in train(spec, data):
        if isinstance(event, Checkpoint):
            weights = event.weights
        yield None
    resolved = resolve(spec, data.info)
    generator = torch.Generator().manual_seed(seed)
    model = empty_model(resolved, data.info.shape, is_image=False, generator=generator)
    model.load_state_dict(weights)
    samples = torch.from_numpy(decode(model.eval(), draw_latents(_COVER, 2, seed))).double()
    clean = data.held_out.double()[:_DRAWN]
    noisy = clean + SCALE * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    sheet = surface(_DISTANCE_NODES)
    yield {
        "kind": "trained",
        "repetition": repetition,
        "samples_to_surface": _rms_distance(samples[:_DRAWN], sheet),
        "data_to_samples": _rms_distance(clean, samples),
        "spread_data_to_surface": _rms_distance(noisy, sheet),
    }
    for point in samples[:_DRAWN].tolist():
        named = dict(zip(("x1", "x2", "x3"), point, strict=True))
        yield {"kind": "sample", "repetition": repetition, **named}


def _rms_distance(points: Tensor, others: Tensor) -> float:
    """Root mean square of the distance from each point to the nearest of the others."""
    return float(torch.cdist(points, others).amin(1).square().mean().sqrt())


FIGURE_1 = Figure1()
