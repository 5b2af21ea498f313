r"""Figure 2: two deltas, their spreads, and the spread divergence against the place of one.

KL(δ_p ‖ δ_q) is 0 or infinite, whatever the distance. Spread by Gaussian noise it is
(μ_p − μ_q)²/2σ² (equation 27), and by Laplace noise of parameter b, with t = |μ_p − μ_q|/b,
t + e^{−t} − 1: both have a slope wherever the two differ. Closed forms are drawn, and estimates
from draws stand beside them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from workers.divergence import (
    Density,
    LowRankGaussian,
    ProductLaplace,
    between,
    estimate_divergence,
)
from workers.images import encode_figure
from workers.paper.base import NOTHING, Asked, Kept, Part, Row, Scale, Verdict
from workers.paper.panels import column, label, of_kind, panels
from workers.seeds import SeedStream

Noise = Literal["gaussian", "laplace"]
VARIANCE = 0.5
REACH = 3.0  # of μ_q to either side of μ_p = 0
_NOISES: tuple[Noise, ...] = ("gaussian", "laplace")
_SIGMAS = 5.0  # standard errors: a few dozen estimates are compared at once
_DRAWS: Mapping[Scale, int] = {"quick": 20_000, "paper": 1_000_000}
_PLACES: Mapping[Scale, int] = {"quick": 25, "paper": 61}
_SHOWN = 1.0  # μ_q in the first two panels


@dataclass(frozen=True, slots=True)
class Figure2:
    """KL of spread deltas against the place of one, in closed form and from draws."""

    name: str = "2"
    title: str = "Deltas, their spreads, and the spread KL against μ_q"
    source: str = "Figure 2, equation 27"

    def parts(self, asked: Asked) -> Sequence[Part]:
        """One for each noise; ``repetitions`` multiplies the draws."""
        seeds = SeedStream(asked.seed, "figure-2")
        return [
            Part(
                f"noise={noise}",
                partial(_divergences, noise, asked.scale, asked.repetitions or 1, seeds.at(number)),
            )
            for number, noise in enumerate(_NOISES)
        ]

    def verdicts(self, rows: Sequence[Row]) -> tuple[Verdict, ...]:
        """For each noise, that the estimates agree, and that there is a slope everywhere."""
        return tuple(
            verdict
            for noise in _NOISES
            for verdict in (
                agrees(noise, of_kind(rows, "noise", noise)),
                has_slope(noise, of_kind(rows, "noise", noise)),
            )
        )

    def draw(self, rows: Sequence[Row], kept: Kept = NOTHING) -> bytes:
        """The deltas, their spreads, and both divergences with estimates as points."""
        figure, (deltas, spreads, divergence) = panels(3)
        at = np.linspace(-REACH, REACH + _SHOWN, 500)
        y = torch.from_numpy(at)[:, None]
        for name, place, colour in (("p", 0.0, "C0"), ("q", _SHOWN, "C1")):
            deltas.annotate(
                "", (place, 1.0), (place, 0.0), arrowprops={"arrowstyle": "->", "color": colour}
            )
            deltas.text(place + 0.08, 0.9, f"δ(x − μ{name})", color=colour)
            for noise, line in zip(_NOISES, ("-", "--"), strict=True):
                density = _spread(noise, place).log_prob(y).exp().numpy()
                spreads.plot(at, density, line, color=colour, label=f"{name} spread, {noise}")
        deltas.set_xlim(-1, 1 + _SHOWN)
        deltas.set_ylim(0, 1.1)
        deltas.set_yticks([])
        for noise, colour in zip(_NOISES, ("C2", "C3"), strict=True):
            found = of_kind(rows, "noise", noise)
            mu_q, error = column(found, "mu_q"), column(found, "standard_error")
            divergence.plot(mu_q, column(found, "exact"), color=colour, label=f"{noise}, exact")
            divergence.errorbar(
                mu_q, column(found, "estimate"), error, fmt=".", color=colour, label="from draws"
            )
        label(deltas, "Deltas: KL is infinite", "x", "", legend=False)
        label(spreads, f"Spreads of variance {VARIANCE:g}", "y", "density")
        label(divergence, "Spread KL, μp = 0", "μq", "nats")
        return encode_figure(figure)

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Exact values and estimates with standard errors at each place."""
        return {"variance": VARIANCE, "divergences": [dict(row) for row in rows]}


def agrees(noise: str, rows: Sequence[Row]) -> Verdict:
    """Every estimate within five of its standard errors of the closed form."""
    worst = 0.0
    for row in rows:
        gap = abs(float(row["estimate"]) - float(row["exact"]))
        # At μ_q = μ_p every draw is 0 exactly, and so is its standard error.
        worst = max(worst, gap / float(row["standard_error"]) if gap > 0 else 0.0)
    return Verdict(
        worst <= _SIGMAS,
        f"Under {noise} noise the estimates from draws agree with the closed form at all "
        f"{len(rows)} places: the farthest is {worst:.2f} standard errors off, allowed "
        f"{_SIGMAS:g}.",
    )


def has_slope(noise: str, rows: Sequence[Row]) -> Verdict:
    """The estimates are least at μ_p and rise to either side, beyond their standard errors."""
    rising = sorted(rows, key=lambda row: float(row["mu_q"]))
    value, error = column(rising, "estimate"), column(rising, "standard_error")
    middle = int(np.abs(column(rising, "mu_q")).argmin())
    outward = np.concatenate((-np.diff(value)[:middle], np.diff(value)[middle:]))
    sd = np.hypot(error[1:], error[:-1])
    least = float((outward / sd).min())
    return Verdict(
        bool(value.argmin() == middle and least > _SIGMAS),
        f"Under {noise} noise the spread KL is least where the deltas meet, at "
        f"{value[middle]:.3g} nats, and rises from place to place on both sides, by "
        f"{least:.1f} standard errors at least; without noise it is infinite off that place.",
    )


def _spread(noise: Noise, place: float) -> Density:
    """δ at a place under noise of the variance."""
    mean = torch.tensor([place], dtype=torch.float64)
    match noise:
        case "gaussian":
            return LowRankGaussian.isotropic(mean, math.sqrt(VARIANCE))
        case "laplace":
            return ProductLaplace(mean, math.sqrt(VARIANCE / 2))


def _divergences(noise: Noise, scale: Scale, repetitions: int, seed: int) -> Iterator[Row | None]:
    """A row for each place: the mean of as many estimates as there are repetitions."""
    generator = torch.Generator().manual_seed(seed)
    p = _spread(noise, 0.0)
    for place in np.linspace(-REACH, REACH, _PLACES[scale]):
        q = _spread(noise, float(place))
        value = variance = 0.0
        for _ in range(repetitions):
            found = estimate_divergence("kl", p, q, _DRAWS[scale], generator)
            value += found.value / repetitions
            variance += (found.standard_error / repetitions) ** 2
            yield None
        yield {
            "noise": noise,
            "mu_q": float(place),
            "exact": between("kl", p, q, generator=generator).value,
            "estimate": value,
            "standard_error": math.sqrt(variance),
        }


FIGURE_2 = Figure2()
