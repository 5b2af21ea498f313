r"""Equation 12: noise on the model alone against a spread of both, for a line through 0.

The data are x_n = θ_p z_n with z ~ N(0, 1) and θ_p = (2, 1, −1), so both estimators follow from a
covariance in closed form. With noise on the model alone the likelihood is that of probabilistic
PCA, and its maximum θ_p √(m − σ²/‖θ_p‖²), m = mean z², stays too short for every N. With fresh
noise on every datum, y = x + σe, the maximum of Π N(y; 0, θθᵀ + σ²I) is √(λ − σ²) times the leading
eigenvector of mean yyᵀ, λ its eigenvalue, and tends to θ_p.

Lowering σ² of the model while EM goes on does heal the first, if it is slow enough; both are shown.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.divergence import em_step, model_noise_optimum
from workers.images import encode_figure
from workers.paper.base import NOTHING, Asked, Kept, Part, Row, Scale, Verdict
from workers.paper.means import DECISIVE, Mean, chance, values_by
from workers.paper.panels import column, label, of_kind, panels
from workers.seeds import SeedStream
from workers.student import confidence_of, reach

TRUTH = (2.0, 1.0, -1.0)
VARIANCE = 0.8
START = (1.0, 0.5, 0.1)
_LAST_VARIANCE = 1e-6
_SIGMAS = 4.0  # of a normal value: how sure a verdict is
_LEAST_POWER = -0.25  # half of that of a consistent estimate; by hand
# Of the error without annealing, by hand: no closed form says what a schedule leaves, which falls
# about as one over its steps.
_HEALED = 0.1
_SPEAK = 50  # steps between two signs of life
_NAMES = {"model_noise": "noise on the model alone", "spread": "spread of data and model"}


@dataclass(frozen=True, slots=True)
class Setting:
    """Numbers of data, repetitions for each, and lengths of the annealing."""

    samples: tuple[int, ...]
    repetitions: int
    schedules: tuple[int, ...]


SETTINGS: Mapping[Scale, Setting] = {
    "quick": Setting((10, 100, 1000, 10_000, 100_000), 60, (1, 50, 500, 5000)),
    "paper": Setting(
        (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 1_000_000),
        200,
        (1, 15, 50, 150, 500, 1500, 5000, 15_000, 50_000),
    ),
}


@dataclass(frozen=True, slots=True)
class Equation12:
    """The estimators' errors against N, and annealed EM's against the steps it is given."""

    name: str = "eq12"
    title: str = "Noise on the model alone is inconsistent, a spread of both is consistent"
    source: str = "Equation 12"

    def parts(self, asked: Asked) -> Sequence[Part]:
        """One for each N, and one for each length of the annealing."""
        setting, seeds = SETTINGS[asked.scale], SeedStream(asked.seed, "equation-12")
        repetitions = asked.repetitions or setting.repetitions
        return [
            *(
                Part(
                    f"samples={samples}",
                    partial(_estimates, samples, repetitions, seeds.at(place)),
                )
                for place, samples in enumerate(setting.samples)
            ),
            *(
                Part(f"annealing={steps}", partial(_annealing, steps))
                for steps in setting.schedules
            ),
        ]

    def verdicts(self, rows: Sequence[Row]) -> tuple[Verdict, ...]:
        """Inconsistency, consistency, and what annealing does."""
        return inconsistent(rows), consistent(rows), healed(rows)

    def draw(self, rows: Sequence[Row], kept: Kept = NOTHING) -> bytes:
        """Errors against N on the left, against the length of the annealing on the right."""
        figure, (left, right) = panels(2)
        for estimator, name in _NAMES.items():
            errors = _errors(rows, estimator)
            means = [Mean.of(found) for found in errors.values()]
            bars = [mean.standard_error or 0.0 for mean in means]
            left.errorbar(
                [*errors], [mean.mean for mean in means], bars, marker="o", capsize=3, label=name
            )
        left.axhline(_shortfall(), color="black", linewidth=0.8, linestyle=":", label="closed form")
        annealed = of_kind(rows, "estimator", "annealed_em")
        steps, error = column(annealed, "steps"), column(annealed, "error")
        right.plot(steps, error, marker="o", label="EM, σ² from 0.8 to 10⁻⁶")
        right.axhline(_shortfall(), color="black", linewidth=0.8, linestyle=":", label="σ² = 0.8")
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_yscale("log")
        label(left, "Error of θ", "N, number of data", "‖θ − θp‖ / ‖θp‖")
        label(right, "Annealing the model's noise heals it", "EM steps", "‖θ − θp‖ / ‖θp‖")
        return encode_figure(figure)

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Mean errors and lengths at each N, and errors of each schedule."""
        estimates = [
            {
                "estimator": estimator,
                "samples": samples,
                "error": Mean.of(errors).body,
                "length": Mean.of(_lengths(rows, estimator)[samples]).body,
            }
            for estimator in _NAMES
            for samples, errors in _errors(rows, estimator).items()
        ]
        annealed = of_kind(rows, "estimator", "annealed_em")
        return {
            "closed_form": {"model_noise_length": 1 - _shortfall()},
            "estimates": estimates,
            "annealing": [{"steps": row["steps"], "error": row["error"]} for row in annealed],
        }


def inconsistent(rows: Sequence[Row]) -> Verdict:
    """At the largest N the length is that of the closed form, and not 1."""
    lengths = _lengths(rows, "model_noise")
    samples = max(lengths)
    found, expected = Mean.of(lengths[samples]), 1 - _shortfall()
    text = (
        f"Noise on the model alone is inconsistent: ‖θ‖/‖θp‖ is {found.mean:.5f} at "
        f"N = {samples:g}, the closed form {expected:.5f}, the truth 1"
    )
    if found.standard_error is None:
        return Verdict(None, f"{text}; one repetition has no standard error.")
    allowed = reach(found.standard_error, found.count, confidence_of(_SIGMAS))
    holds: bool | None = None
    if abs(found.mean - expected) > allowed:
        holds = False
    elif 1 - found.mean > allowed:
        holds = True
    return Verdict(holds, f"{text}; {found.count} repetitions allow ± {allowed:.1g}.")


def consistent(rows: Sequence[Row]) -> Verdict:
    """Mean squared errors of the spread fall as N grows, at the largest N to their closed form.

    What chance allows is that of a χ² with the closed form's degrees of freedom, at the largest N
    and for the power of N. The closed form leaves out a share of 1/N of itself, far below it.
    """
    squares = {
        samples: Mean.of([error**2 for error in errors])
        for samples, errors in _errors(rows, "spread").items()
    }
    last = max(squares)
    found, expected = squares[last], asymptotic_square()
    low, high = chance(found.count * _degrees(), _SIGMAS)
    power, error = _power(squares)
    share, allowed = last * found.mean / expected, _SIGMAS * error
    holds: bool | None = None
    if not low <= share <= high or power - allowed > _LEAST_POWER:
        holds = False
    elif high <= DECISIVE and power + allowed < _LEAST_POWER:
        holds = True
    return Verdict(
        holds,
        f"The spread of both is consistent: its error falls to {math.sqrt(found.mean):.2g} at "
        f"N = {last:g}, whose square is {last * found.mean:.3f}/N, the closed form "
        f"{expected:.3f}/N; {found.count} repetitions allow {low * expected:.2g} to "
        f"{high * expected:.2g}. Over all N it falls as N^{power:.3f} ± {error:.2g}.",
    )


def _power(squares: Mapping[float, Mean]) -> tuple[float, float]:
    """The slope of log error against log N, and its standard deviation.

    A mean of n squares is about χ²_ν/ν with ν = n times the degrees of one, and log χ²_ν has the
    variance ψ′(ν/2).
    """
    at = np.log([*squares])
    values = np.log([mean.mean for mean in squares.values()]) / 2
    centred = at - at.mean()
    count = next(iter(squares.values())).count
    from scipy.special import polygamma  # slow to import, and rarely needed

    sd = math.sqrt(float(polygamma(1, count * _degrees() / 2))) / 2
    return float(centred @ values / (centred @ centred)), sd / float(np.linalg.norm(centred))


def asymptotic_square() -> float:
    """N E‖θ − θ_p‖²/‖θ_p‖² of the spread estimate as N → ∞.

    With λ = ‖θ_p‖² + σ² the leading eigenvalue has the variance 2λ²/N, and its vector leaves θ_p
    by E sin² = (D − 1)λσ²/N‖θ_p‖⁴ (Anderson, 1963). So ‖θ‖ = √(λ − σ²) has λ²/2N‖θ_p‖², to which
    (D − 1)λσ²/N‖θ_p‖² across it is added.
    """
    along, across = _variances()
    return along + (len(TRUTH) - 1) * across


def _variances() -> tuple[float, float]:
    """N times the variances of θ along θ_p and in each direction across it, over ‖θ_p‖²."""
    square = sum(value**2 for value in TRUTH)
    leading = square + VARIANCE
    return leading**2 / 2 / square**2, leading * VARIANCE / square**2


def _degrees() -> float:
    """Those of the χ² that has the mean and variance of one squared error (Satterthwaite)."""
    along, across = _variances()
    return asymptotic_square() ** 2 / (along**2 + (len(TRUTH) - 1) * across**2)


def healed(rows: Sequence[Row]) -> Verdict:
    """Annealed EM: every longer schedule is nearer, and the longest under a tenth of eq 12's."""
    annealed = of_kind(rows, "estimator", "annealed_em")
    errors = {int(row["steps"]): float(row["error"]) for row in annealed}
    falls = all(errors[after] < errors[before] for before, after in pairwise(sorted(errors)))
    listed = ", ".join(f"{errors[steps]:.2g} after {steps}" for steps in sorted(errors))
    return Verdict(
        falls and errors[max(errors)] < _HEALED * _shortfall(),
        f"Annealing the model's noise heals it where it is slow enough, and freezes where it is "
        f"not: error {listed} steps; {_shortfall():.3f} with the noise kept.",
    )


def _shortfall() -> float:
    """1 − √(1 − σ²/‖θ_p‖²): the relative error where the model alone is spread, N → ∞."""
    truth = torch.tensor(TRUTH, dtype=torch.float64)
    return float(1 - model_noise_optimum(truth, VARIANCE).norm() / truth.norm())


def _errors(rows: Sequence[Row], estimator: str) -> dict[float, list[float]]:
    found = values_by(of_kind(rows, "estimator", estimator), "error", "samples")
    return {float(key[0]): values for key, values in found.items()}


def _lengths(rows: Sequence[Row], estimator: str) -> dict[float, list[float]]:
    found = values_by(of_kind(rows, "estimator", estimator), "length", "samples")
    return {float(key[0]): values for key, values in found.items()}


def _estimates(samples: int, repetitions: int, seed: int) -> Iterator[Row | None]:
    """Two rows for each repetition; the same data for both estimators."""
    truth = torch.tensor(TRUTH, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    for repetition in range(repetitions):
        z = torch.randn(samples, generator=generator, dtype=torch.float64)
        noise = torch.randn(samples, len(truth), generator=generator, dtype=torch.float64)
        x = z[:, None] * truth
        y = x + math.sqrt(VARIANCE) * noise
        for estimator, seen in (("model_noise", x), ("spread", y)):
            yield {
                "estimator": estimator,
                "samples": samples,
                "repetition": repetition,
                **_compared(_maximum(seen.T @ seen / samples), truth),
            }


def _maximum(covariance: Tensor) -> Tensor:
    """The θ that maximises the likelihood N(0, θθᵀ + σ²I) for a covariance; 0 below the noise."""
    values, vectors = torch.linalg.eigh(covariance)
    theta: Tensor = vectors[:, -1] * (values[-1] - VARIANCE).clamp_min(0).sqrt()
    return theta


def _compared(theta: Tensor, truth: Tensor) -> dict[str, float]:
    """Error and length, both relative to the truth; the sign of θ is free."""
    error = min((theta - truth).norm(), (theta + truth).norm()) / truth.norm()
    return {"error": float(error), "length": float(theta.norm() / truth.norm())}


def _annealing(steps: int) -> Iterator[Row | None]:
    """EM on the true covariance while the model's σ² falls geometrically; one step is a jump."""
    truth = torch.tensor(TRUTH, dtype=torch.float64)
    covariance, theta = torch.outer(truth, truth), torch.tensor(START, dtype=torch.float64)
    first = _LAST_VARIANCE if steps == 1 else VARIANCE
    for step, variance in enumerate(np.geomspace(first, _LAST_VARIANCE, steps)):
        theta = em_step(theta, covariance, float(variance))
        if step % _SPEAK == 0:
            yield None
    yield {"estimator": "annealed_em", "steps": steps, **_compared(theta, truth)}


EQUATION_12 = Equation12()
