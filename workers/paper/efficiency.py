r"""Appendix F: the variance of the spread maximum likelihood estimate against the Cramér–Rao bound.

The parameter is a location θ, with data of variance 1 around it: Gaussian, where I = 1, or Laplace,
where I = 2, and 1/NI is the bound. Gaussian noise of scale σ spreads both. With s = ∂ log p̃/∂θ, the
score of the spread density, two estimates solve Σ ψ(x_n − θ) = 0:

- of one draw, ψ = s on y = x + σe, whose variance tends to 1/N E s², never below 1/NI;
- over all noise, ψ = E_e s(x + σe), whose variance tends to E ψ²/N(E s²)² (an M-estimate, with
  −E ψ′ = E s²).

Both reach the bound as σ → 0. At θ = 0 without loss of generality.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray

from workers.ica.priors import Laplace
from workers.images import encode_figure
from workers.paper.base import NOTHING, Asked, Kept, Part, Row, Scale, Verdict
from workers.paper.means import DECISIVE, chance
from workers.paper.panels import column, label, of_kind, panels
from workers.seeds import SeedStream

Family = Literal["gaussian", "laplace"]
Array = NDArray[np.float64]
SIGMAS = (0.1, 0.25, 0.5, 1.0, 2.0)
INFORMATION: Mapping[Family, float] = {"gaussian": 1.0, "laplace": 2.0}
_FAMILIES: tuple[Family, ...] = ("gaussian", "laplace")
_WAYS = {"one_draw": "one draw of the noise", "all_noise": "over all noise"}
_REACH = 40.0  # of the grid, in units of √(1 + σ²): no draw comes near
_POINTS = 40_001
_NODES = 200  # of Gauss–Hermite, for E_e
_HALVINGS = 32
_BLOCK = 100  # repetitions at once
_SIGMAS = 5.0  # twenty variances are compared


@dataclass(frozen=True, slots=True)
class Setting:
    """N of each estimate, and how many estimates a variance is made of."""

    samples: int
    repetitions: int


SETTINGS: Mapping[Scale, Setting] = {"quick": Setting(400, 1000), "paper": Setting(2000, 10_000)}


@dataclass(frozen=True, slots=True)
class Score:
    """ψ on a grid of x, decreasing, and the variance N·Var that its estimate tends to."""

    at: Array
    psi: Array
    variance: float


@dataclass(frozen=True, slots=True)
class Efficiency:
    """N times the variance, over the bound, against σ."""

    name: str = "efficiency"
    title: str = "Variance of the spread MLE against the Cramér–Rao bound"
    source: str = "Appendix F"

    def parts(self, asked: Asked) -> Sequence[Part]:
        """One for each family and σ."""
        setting, seeds = SETTINGS[asked.scale], SeedStream(asked.seed, "efficiency")
        repetitions = asked.repetitions or setting.repetitions
        cells = [(family, sigma) for family in _FAMILIES for sigma in SIGMAS]
        return [
            Part(
                f"family={family} sigma={sigma:g}",
                partial(_variances, family, sigma, setting.samples, repetitions, seeds.at(place)),
            )
            for place, (family, sigma) in enumerate(cells)
        ]

    def verdicts(self, rows: Sequence[Row]) -> tuple[Verdict, ...]:
        """The closed form, the bound, and its two ends."""
        return follows_theory(rows), above_the_bound(rows), efficient_without_noise(rows)

    def draw(self, rows: Sequence[Row], kept: Kept = NOTHING) -> bytes:
        """Relative variances with their standard errors; lines are the closed form."""
        figure, every = panels(len(_FAMILIES))
        for axes, family in zip(every, _FAMILIES, strict=True):
            for (way, name), colour in zip(_WAYS.items(), ("C1", "C0"), strict=True):
                found = of_kind(of_kind(rows, "family", family), "estimate", way)
                sigma = column(found, "sigma")
                axes.plot(sigma, column(found, "expected"), color=colour, linewidth=1.2)
                axes.errorbar(
                    sigma,
                    column(found, "relative_variance"),
                    column(found, "standard_error"),
                    fmt="o",
                    markersize=4,
                    capsize=3,
                    color=colour,
                    label=name,
                )
            axes.axhline(1.0, color="black", linewidth=0.8, linestyle=":", label="Cramér–Rao")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_ylim(0.8, 15)
            axes.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
            axes.minorticks_off()
            title = f"{family.capitalize()} data; lines are the closed form"
            label(axes, title, "σ of the spread; data have 1", "variance over the bound")
        return encode_figure(figure)

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Every relative variance beside what it should be."""
        return {"variances": [dict(row) for row in rows]}


def follows_theory(rows: Sequence[Row]) -> Verdict:
    """Each variance is its closed form, but for chance and what finite N adds."""
    worst = max(rows, key=_excess)
    low, high = _allowed(worst)
    return Verdict(
        False if _excess(worst) > 0 else _if_decided(rows),
        f"The variances are those of the closed form at all {len(rows)} settings; the farthest is "
        f"{float(worst['relative_variance']):.3f} for {float(worst['expected']):.3f} times the "
        f"bound ({_described(worst)}), {_repeated(worst)} allow {low:.3f} to {high:.3f}.",
    )


def above_the_bound(rows: Sequence[Row]) -> Verdict:
    """No variance is farther below the bound than chance takes it."""
    lowest = min(rows, key=lambda row: float(row["relative_variance"]) / _chance(row)[0])
    value, (low, _) = float(lowest["relative_variance"]), _chance(lowest)
    return Verdict(
        False if value < low else _if_decided(rows),
        f"No variance is below the Cramér–Rao bound: the lowest is {value:.3f} times it "
        f"({_described(lowest)}), where {_repeated(lowest)} allow {low:.3f}.",
    )


def efficient_without_noise(rows: Sequence[Row]) -> Verdict:
    """One draw of the noise: near the bound at the least σ, far from it at the largest."""
    drawn = of_kind(rows, "estimate", "one_draw")
    least, largest = (of_kind(drawn, "sigma", end(SIGMAS)) for end in (min, max))
    gap = max(float(row["relative_variance"]) - 1 for row in least)
    cost = min(float(row["relative_variance"]) - 1 for row in largest)
    is_near = all(float(row["relative_variance"]) <= _allowed(row)[1] for row in least)
    is_far = all(float(row["relative_variance"]) > _chance(row)[1] for row in largest)
    as_expected = all(float(row["relative_variance"]) >= _allowed(row)[0] for row in largest)
    holds: bool | None = None
    if not is_near or not (is_far or as_expected):
        holds = False
    elif is_far:
        holds = _if_decided(rows)
    return Verdict(
        holds,
        f"The spread MLE is efficient as σ → 0 and not else: with one draw it is at most {gap:.3f} "
        f"above the bound at σ = {min(SIGMAS):g}, and at least {cost:.3f} at σ = {max(SIGMAS):g} "
        f"({_repeated(least[0])}).",
    )


def _chance(row: Row) -> tuple[float, float]:
    # θ = 0 is known, so each repetition is a degree of freedom.
    return chance(float(row["repetitions"]), _SIGMAS)


def _allowed(row: Row) -> tuple[float, float]:
    expected, (low, high) = float(row["expected"]), _chance(row)
    share = finite_share("gaussian" if row["family"] == "gaussian" else "laplace")
    finite = expected * share / math.sqrt(float(row["samples"]))
    return expected * low - finite, expected * high + finite


def _excess(row: Row) -> float:
    """How far a variance is from what is allowed, as a share of its closed form."""
    value, (low, high) = float(row["relative_variance"]), _allowed(row)
    return max(low - value, value - high) / float(row["expected"])


def _if_decided(rows: Sequence[Row]) -> bool | None:
    """True, or None where so few repetitions allow nearly everything."""
    return True if all(_chance(row)[1] <= DECISIVE for row in rows) else None


def _repeated(row: Row) -> str:
    return f"{int(row['repetitions']):,} repetitions"


def finite_share(family: Family) -> float:
    """What a finite N adds to N·Var at most, as a share of its limit and in units of 1/√N.

    Gaussian data: nothing, as both estimates are means. Laplace data: most without noise, where the
    estimate is the median t. With g = F(t) − ½ ~ N(0, 1/4N), |t| = −log(1 − 2|g|)/√2, so
    E t² = 2 E g² + 4 E|g|³ + … = (1/2N)(1 + 2√(2/π)/√N + …): the density's cusp. Noise rounds it.
    """
    match family:
        case "gaussian":
            return 0.0
        case "laplace":
            return 2 * math.sqrt(2 / math.pi)
        case _:
            assert_never(family)


def _described(row: Row) -> str:
    way = _WAYS[str(row["estimate"])]
    return f"{row['family']}, σ = {float(row['sigma']):g}, {way}"


def scores(family: Family, sigma: float) -> tuple[Score, Score]:
    """ψ of one draw and over all noise, with their variances by quadrature."""
    at = np.linspace(-_REACH, _REACH, _POINTS) * math.sqrt(1 + sigma**2)
    density, score = _spread(family, at, sigma)
    information = float(np.trapezoid(density * score**2, at))
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    psi = np.zeros_like(at)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        psi += weight * np.interp(at + sigma * node, at, score)
    spread_of_psi = float(np.trapezoid(_density(family, at) * psi**2, at))
    return Score(at, score, 1 / information), Score(at, psi, spread_of_psi / information**2)


def _spread(family: Family, at: Array, sigma: float) -> tuple[Array, Array]:
    """Density of x + σe and its score in the location, −∂ log p̃/∂y."""
    match family:
        case "gaussian":
            variance = 1 + sigma**2
            density = np.exp(-(at**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
            return density, at / variance
        case "laplace":
            # The normaliser of a cavity N(y, σ²) is the spread density itself.
            y = torch.from_numpy(at)
            tilted = Laplace().tilted(y, torch.full_like(y, sigma**2))
            return tilted.log_z.exp().numpy(), -tilted.slope.numpy()
        case _:
            assert_never(family)


def _density(family: Family, at: Array) -> Array:
    if family == "laplace":
        root_2 = math.sqrt(2)
        laplace: Array = np.exp(-root_2 * np.abs(at)) / root_2
        return laplace
    return _spread(family, at, 0.0)[0]


def _variances(
    family: Family, sigma: float, samples: int, repetitions: int, seed: int
) -> Iterator[Row | None]:
    """A row for each estimate: N·I times the variance of θ over the repetitions."""
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn, integrated = scores(family, sigma)
    found: dict[str, list[Array]] = {way: [] for way in _WAYS}
    for begin in range(0, repetitions, _BLOCK):
        shape = (min(_BLOCK, repetitions - begin), samples)
        x = _draw(family, shape, generator)
        y = x + sigma * generator.standard_normal(shape)
        found["one_draw"].append(solve(drawn, y))
        yield None
        found["all_noise"].append(solve(integrated, x))
        yield None
    for way, score in zip(_WAYS, (drawn, integrated), strict=True):
        squares = np.concatenate(found[way]) ** 2 * samples * INFORMATION[family]
        deviation = squares.std(ddof=1) if repetitions > 1 else 0.0
        yield {
            "family": family,
            "sigma": sigma,
            "estimate": way,
            "samples": samples,
            "repetitions": repetitions,
            "relative_variance": float(squares.mean()),
            "standard_error": float(deviation / math.sqrt(repetitions)),
            "expected": score.variance * INFORMATION[family],
        }


def _draw(family: Family, shape: tuple[int, int], generator: np.random.Generator) -> Array:
    if family == "laplace":
        return generator.laplace(scale=math.sqrt(0.5), size=shape)
    return generator.standard_normal(shape)


def solve(score: Score, rows: Array) -> Array:
    """θ with Σ ψ(x_n − θ) = 0 for each row of N data, by halving; the sum falls as θ rises."""
    low, high = rows.min(1), rows.max(1)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        sums = np.interp(rows - middle[:, None], score.at, score.psi).sum(1)
        low, high = np.where(sums > 0, middle, low), np.where(sums > 0, high, middle)
    theta: Array = (low + high) / 2
    return theta


EFFICIENCY = Efficiency()
