"""Figures 4a and 4b: the error of estimated mixing matrices against noise, and against data.

Standard EM, spread EM, our fit by expectation propagation and FastICA after PCA, all on the same
drawn data x = Az + γ·N(0, I) with Laplace sources and entries of A ±1 (section 4.1). At scale
``paper`` spread EM is the published recipe, importance sampling with 1000 draws a datum; at scale
``quick`` its expectations are EP's, on fewer data. Standard EM has EP's at both, which is no worse
for it. Sizes, iterations and repetitions of scale ``paper`` are the paper's; the grids are ours.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from workers.ica import paper
from workers.ica.align import errors
from workers.ica.drawn import MixtureRecipe
from workers.paper import claims4
from workers.paper.base import NOTHING, Asked, Kept, Part, Row, Scale, Verdict
from workers.paper.means import Mean, values_by
from workers.paper.mixtures import Drawing, MethodName
from workers.paper.plots4 import errors_png
from workers.seeds import SeedStream

# Seconds of one thread, measured on one core of a server of 2023.
_RECIPE_S = 1.1e-7  # of the published recipe, for each iteration, datum and draw
_STEP_S = 1.5e-3  # of EM with EP's expectations, for each iteration,
_DATUM_S = 3e-8  # and more for each iteration, datum and pair of sources
_REST_S = 0.2  # for drawing, FastICA and our own fit, of a thousand data


@dataclass(frozen=True, slots=True)
class Setting:
    """The experiments of a figure at one scale: every γ with every N, ``repetitions`` times."""

    dimensions: int
    components: int
    gammas: tuple[float, ...]
    samples: tuple[int, ...]
    repetitions: int
    iterations: int
    methods: tuple[MethodName, ...]

    def thread_s(self, samples: int) -> float:
        """What one experiment takes on one thread."""
        em = _STEP_S + _DATUM_S * samples * self.components**2
        spread = _RECIPE_S * samples * paper.SAMPLES if "paper" in self.methods else em
        return self.iterations * (em + spread) + _REST_S * samples / 1000


@dataclass(frozen=True, slots=True)
class MixtureFigure:
    """Figure 4a or 4b; ``axis`` is what the error is drawn against."""

    name: str
    title: str
    source: str
    axis: Literal["gamma", "samples"]
    settings: Mapping[Scale, Setting]

    def parts(self, asked: Asked) -> Sequence[Part]:
        """One for each γ, N and repetition; a repetition has the same A and sources at every γ."""
        setting, seeds = self.settings[asked.scale], SeedStream(asked.seed, "figure-4")
        first, count = asked.first_repetition, asked.repetitions or setting.repetitions
        return [
            Part(
                f"gamma={gamma:g} samples={samples} repetition={repetition}",
                partial(_experiment, setting, gamma, samples, repetition, seeds.at(repetition)),
                setting.thread_s(samples),
            )
            for repetition in range(first, first + count)
            for gamma in setting.gammas
            for samples in setting.samples
        ]

    def verdicts(self, rows: Sequence[Row]) -> tuple[Verdict, ...]:
        """What holds of the paper's claims."""
        if self.axis == "gamma":
            return (
                claims4.em_freezes(rows),
                claims4.spread_em_does_not(rows),
                claims4.fastica_fails(rows),
            )
        return claims4.error_falls(rows), claims4.fastica_fails(rows)

    def draw(self, rows: Sequence[Row], kept: Kept = NOTHING) -> bytes:
        """Mean relative errors with their standard errors."""
        return errors_png(rows, self.axis, self.title)

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Mean errors of each method at each γ and N."""
        found = []
        for (gamma, samples, method), relative in values_by(
            rows, "relative_error", "gamma", "samples", "method"
        ).items():
            at = {"gamma": gamma, "samples": samples, "method": method}
            found.append(at | {"relative_error": Mean.of(relative).body})
        return {"errors": found}


def _experiment(
    setting: Setting, gamma: float, samples: int, repetition: int, seed: int
) -> Iterator[Row | None]:
    """A row for each method."""
    recipe = MixtureRecipe(setting.dimensions, setting.components, samples, gamma, seed=seed)
    drawing = Drawing.of(recipe)
    for method in setting.methods:
        estimates: list[Tensor] = []
        for estimate in drawing.estimate(method, setting.iterations):
            if estimate is None:
                yield None
            else:
                estimates.append(estimate)
        found = errors(estimates[-1], drawing.truth)
        yield {
            "gamma": gamma,
            "samples": samples,
            "repetition": repetition,
            "method": method,
            "relative_error": found.relative,
            "frobenius_error": found.frobenius,
            "angle_degrees": found.angle_degrees,
            "amari_distance": found.amari,
        }


_QUICK: tuple[MethodName, ...] = ("em", "spread_em", "ep", "fastica")
_PAPER: tuple[MethodName, ...] = ("em", "paper", "ep", "fastica")

FIGURE_4A = MixtureFigure(
    name="4a",
    title="Error of the mixing matrix against the noise of the data",
    source="Figure 4a, section 4.1",
    axis="gamma",
    settings={
        "quick": Setting(10, 5, (0.01, 0.03, 0.1, 0.3, 1.0), (1000,), 4, 600, _QUICK),
        "paper": Setting(
            20,
            10,
            (0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
            (20_000,),
            10,
            paper.ITERATIONS,
            _PAPER,
        ),
    },
)
FIGURE_4B = MixtureFigure(
    name="4b",
    title="Error of the mixing matrix against the number of data",
    source="Figure 4b, section 4.1",
    axis="samples",
    settings={
        "quick": Setting(10, 5, (0.2,), (250, 500, 1000, 2000, 4000), 4, 500, _QUICK),
        "paper": Setting(
            10, 5, (0.2,), (1000, 2000, 5000, 10_000, 20_000), 10, paper.ITERATIONS, _PAPER
        ),
    },
)
