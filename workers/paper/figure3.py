r"""Figure 3: which direction of noise tells two distributions best apart.

p = N(a, AAᵀ) and q = N(b, AAᵀ) are lines in the plane, without density. Noise of covariance
σ²I + uuᵀ, ‖u‖ = 1, spreads both to Gaussians of covariance M + uuᵀ with M = AAᵀ + σ²I, so with
d = b − a

    KL(u) = ½[dᵀM⁻¹d − (uᵀM⁻¹d)²/(1 + uᵀM⁻¹u)],

which is largest for uᵀM⁻¹d = 0, where uuᵀ costs nothing. The spread cross-entropy −E log q̃ is
KL(u) + H(p̃), and H(p̃) depends on u too, so ascending it alone goes the wrong way where d is small.
Both are ascended by stochastic gradients, on draws y = a + Az + σe + ue′ through which the gradient
goes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from workers.divergence import LowRankGaussian, gaussian
from workers.images import encode_figure
from workers.optimize import Adam
from workers.paper.base import NOTHING, Asked, Kept, Part, Row, Scale, Verdict
from workers.paper.means import Mean
from workers.paper.panels import column, label, of_kind, panels
from workers.seeds import SeedStream
from workers.student import confidence_of, reach

Objective = Literal["kl", "cross_entropy"]
SCALE = 0.5  # σ
DISTANCES = (1.0, 0.3)  # of the lines; at the second the cross-entropy is misled
_OBJECTIVES: tuple[Objective, ...] = ("kl", "cross_entropy")
_ANGLES = 91
_DRAWS = 256  # in a step
_RATE = 0.05  # of Adam, in radians
_SIGMAS = 4.0  # of a normal value: how sure a verdict is
_DECISIVE = 45.0  # degrees: an interval as wide as the half of all directions decides nothing


@dataclass(frozen=True, slots=True)
class Setting:
    """How often u is learned, each time from another angle, and in how many steps."""

    repetitions: int
    steps: int


SETTINGS: Mapping[Scale, Setting] = {"quick": Setting(6, 400), "paper": Setting(20, 2000)}


@dataclass(frozen=True, slots=True)
class Figure3:
    """The KL and the cross-entropy against the angle of u, and the angles that were learned."""

    name: str = "3"
    title: str = "The best direction of noise, exact and learned"
    source: str = "Figure 3"

    def parts(self, asked: Asked) -> Sequence[Part]:
        """For each distance the exact curves, then one part for each learned direction."""
        setting, seeds = SETTINGS[asked.scale], SeedStream(asked.seed, "figure-3")
        parts = []
        for distance in DISTANCES:
            parts.append(Part(f"distance={distance:g} exact", partial(_curves, distance)))
            for objective in _OBJECTIVES:
                for repetition in range(asked.repetitions or setting.repetitions):
                    parts.append(
                        Part(
                            f"distance={distance:g} ascend={objective} repetition={repetition}",
                            partial(
                                _learned,
                                distance,
                                objective,
                                repetition,
                                setting.steps,
                                seeds.at(repetition),
                            ),
                        )
                    )
        return parts

    def verdicts(self, rows: Sequence[Row]) -> tuple[Verdict, ...]:
        """For each distance the learned direction; what the cross-entropy picks at the second."""
        return (
            *(finds_the_best(_at(rows, distance)) for distance in DISTANCES),
            misleads(_at(rows, DISTANCES[1])),
        )

    def draw(self, rows: Sequence[Row], kept: Kept = NOTHING) -> bytes:
        """The lines with both directions, then the objectives, one panel for each distance."""
        figure, (plane, *curves) = panels(1 + len(DISTANCES))
        _draw_plane(plane, _at(rows, DISTANCES[1]))
        for axes, distance in zip(curves, DISTANCES, strict=True):
            found = _at(rows, distance)
            exact = of_kind(found, "kind", "exact")
            for objective, colour in zip(_OBJECTIVES, ("C0", "C3"), strict=True):
                name = "KL" if objective == "kl" else "cross-entropy"
                axes.plot(
                    column(exact, "angle"), column(exact, objective), color=colour, label=name
                )
                ends = _ends(found, objective)
                axes.plot(
                    column(ends, "angle"),
                    column(ends, objective),
                    "o",
                    color=colour,
                    markerfacecolor="none",
                    label=f"learned by {name}",
                )
            axes.set_xticks([0, 45, 90, 135, 180])
            label(axes, f"‖b − a‖ = {distance:g}", "angle of u in degrees", "nats")
        return encode_figure(figure)

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """The exact best angle and the mean learned ones, as deviations from it."""
        found = []
        for distance in DISTANCES:
            at = _at(rows, distance)
            exact = of_kind(at, "kind", "exact")
            for objective in _OBJECTIVES:
                best = exact[int(column(exact, objective).argmax())]
                found.append(
                    {
                        "distance": distance,
                        "objective": objective,
                        "exact_angle_degrees": best["angle"],
                        "exact_nats": best[objective],
                        "learned_from_exact_degrees": Mean.of(
                            _deviation(float(row["angle"]), float(best["angle"]))
                            for row in _ends(at, objective)
                        ).body,
                    }
                )
        return {"directions": found}


def finds_the_best(rows: Sequence[Row]) -> Verdict:
    """The mean learned angle is that of the exact best, as surely as four standard deviations.

    The interval of few angles is wide, so the nats are bounded too, by what an ascent can see.
    """
    exact = of_kind(rows, "kind", "exact")
    best = max(exact, key=lambda row: float(row["kl"]))
    learned = Mean.of(
        _deviation(float(row["angle"]), float(best["angle"])) for row in _ends(rows, "kl")
    )
    nats = Mean.of(float(row["kl"]) for row in _ends(rows, "kl"))
    text = (
        f"At ‖b − a‖ = {float(best['distance']):g} ascending the KL finds the best direction: "
        f"exact {float(best['angle']):g}° with {float(best['kl']):.4f} nats, learned "
        f"{learned.mean:+.2f}° from it with {nats.mean:.4f} nats"
    )
    if learned.standard_error is None:
        return Verdict(None, f"{text}; one repetition has no standard error.")
    degrees = reach(learned.standard_error, learned.count, confidence_of(_SIGMAS))
    allowed = _unseen(float(best["kl"]), _ends(rows, "kl"))
    holds: bool | None = None
    if abs(learned.mean) > degrees or float(best["kl"]) - nats.mean > allowed:
        holds = False
    elif degrees < _DECISIVE:
        holds = True
    return Verdict(
        holds,
        f"{text}; {learned.count} repetitions allow ± {degrees:.2f}°, and {allowed:.2g} nats are "
        "what an ascent cannot see.",
    )


def misleads(rows: Sequence[Row]) -> Verdict:
    """What the cross-entropy picks tells p and q badly apart.

    Its KL is below the best by more than an ascent of the KL cannot see, in the exact curves and in
    every learned direction.
    """
    exact = of_kind(rows, "kind", "exact")
    best = max(float(row["kl"]) for row in exact)
    picked = max(exact, key=lambda row: float(row["cross_entropy"]))
    learned = [float(row["kl"]) for row in _ends(rows, "cross_entropy")]
    worst = max(float(picked["kl"]), *learned)
    return Verdict(
        best - worst > _unseen(best, _ends(rows, "cross_entropy")),
        f"At ‖b − a‖ = {float(picked['distance']):g} the cross-entropy alone misleads: it is "
        f"largest at {float(picked['angle']):g}°, where the KL is {float(picked['kl']):.4f} of "
        f"{best:.4f} nats at best; learned by it, at most {max(learned):.4f}.",
    )


def _unseen(kl: float, ends: Sequence[Row]) -> float:
    """Nats that an ascent cannot tell apart: four standard errors of the KL over all its draws.

    Under p̃ the log ratio of two Gaussians with the same covariance is N(KL, 2 KL).
    """
    draws = _DRAWS * min(int(row["step"]) for row in ends)
    return _SIGMAS * math.sqrt(2 * kl / draws)


def spread_pair(distance: float, angle: Tensor) -> tuple[LowRankGaussian, LowRankGaussian]:
    """p̃ and q̃ for A = (1, 0), d = (0, distance) and u at an angle in radians."""
    u = torch.stack((angle.cos(), angle.sin()))
    factor = torch.stack((torch.tensor([1.0, 0.0], dtype=torch.float64), u), 1)
    a, b = torch.zeros(2, 2, dtype=torch.float64)
    b = b + torch.tensor([0.0, distance], dtype=torch.float64)
    return LowRankGaussian(a, SCALE, factor), LowRankGaussian(b, SCALE, factor)


def _values(distance: float, angle: float) -> dict[str, float | int | str]:
    """Both objectives in closed form, at an angle in degrees."""
    p, q = spread_pair(distance, torch.tensor(math.radians(angle), dtype=torch.float64))
    return {
        "distance": distance,
        "angle": angle,
        "kl": gaussian.kl(p, q),
        "cross_entropy": gaussian.cross_entropy(p, q),
    }


def _curves(distance: float) -> Iterator[Row | None]:
    for angle in np.linspace(0.0, 180.0, _ANGLES):
        yield {"kind": "exact", "repetition": -1, "step": -1, **_values(distance, float(angle))}


def _learned(
    distance: float, objective: Objective, repetition: int, steps: int, seed: int
) -> Iterator[Row | None]:
    """Adam on the angle of u from 45° or 135° by turns; its rate falls to 0 along half a cosine.

    One row for the direction that it ends with.
    """
    generator = torch.Generator().manual_seed(seed)
    first = math.radians(45.0 if repetition % 2 == 0 else 135.0)
    angle = torch.tensor(first, dtype=torch.float64, requires_grad=True)
    optimizer = Adam([angle], _RATE, is_fused=False)
    for step in range(steps):
        optimizer.learning_rate = _RATE * (1 + math.cos(math.pi * step / steps)) / 2
        p, q = spread_pair(distance, angle)
        y = p.sample(_DRAWS, generator)
        value = -q.log_prob(y).mean()
        if objective == "kl":
            value = value + p.log_prob(y).mean()
        optimizer.zero_grad()
        (-value).backward()
        optimizer.step()
        yield None
    degrees = math.degrees(angle.item()) % 180.0
    at = {"kind": objective, "repetition": repetition, "step": steps}
    yield {**at, **_values(distance, degrees)}


def _at(rows: Sequence[Row], distance: float) -> list[Row]:
    return of_kind(rows, "distance", distance)


def _ends(rows: Sequence[Row], objective: Objective) -> list[Row]:
    return of_kind(rows, "kind", objective)


def _deviation(angle: float, best: float) -> float:
    """Degrees from the best, in [−90, 90): directions u and −u are the same."""
    return (angle - best + 90.0) % 180.0 - 90.0


def _draw_plane(axes: Any, rows: Sequence[Row]) -> None:
    """Both lines, and the direction that each objective has found."""
    distance = float(rows[0]["distance"])
    for height, name, colour in ((0.0, "p", "C0"), (distance, "q", "C1")):
        axes.plot([-2, 2], [height, height], color=colour, linewidth=2, label=name)
    for objective, colour in zip(_OBJECTIVES, ("black", "C3"), strict=True):
        angle = math.radians(float(_ends(rows, objective)[0]["angle"]))
        tip = (math.cos(angle), math.sin(angle))
        arrow = {"arrowstyle": "<->", "color": colour, "linewidth": 1.6}
        axes.annotate("", tip, (-tip[0], -tip[1]), arrowprops=arrow)
        name = "KL" if objective == "kl" else "cross-entropy"
        axes.plot([], [], color=colour, label=f"u learned by {name}")
    axes.set_xlim(-2, 2)
    axes.set_ylim(-1.6, 2.4)
    axes.set_aspect("equal")
    label(axes, f"p, q and the noise, ‖b − a‖ = {distance:g}", "x₁", "x₂")


FIGURE_3 = Figure3()
