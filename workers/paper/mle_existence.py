r"""Appendix F.1: a maximum that the likelihood does not have, and the spread likelihood has.

N(μ, v) on one datum x: at μ = x the log likelihood −½ log 2πv grows without bound as v → 0. Spread
by noise of variance s², the expected log likelihood over y = x + se is

    −½ log 2π(v + s²) − (s² + (x − μ)²)/2(v + s²),

which is bounded; its maximum is at μ = x, v = 0 and is −½ log 2πs² − ½.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.images import encode_figure
from workers.optimize import Adam
from workers.paper.base import NOTHING, Asked, Kept, Part, Row, Scale, Verdict
from workers.paper.panels import column, label, of_kind, panels
from workers.seeds import SeedStream

DATUM = 0.7
SCALE = 0.5  # s
_VARIANCES = np.geomspace(1e-8, 10.0, 46)
_DRAWS: Mapping[Scale, int] = {"quick": 20_000, "paper": 1_000_000}
_STEPS: Mapping[Scale, int] = {"quick": 3000, "paper": 20_000}
_STARTS: tuple[tuple[float, float], ...] = ((-2.0, 1.0), (0.0, 4.0), (3.0, 0.1))  # (μ, v)
_RATE = 0.05  # of Adam, on μ and log v
_SIGMAS = 5.0  # standard errors
_ROUNDING = 1e-9  # of a slope between neighbours, each of which is exact to 1e-15
# By hand, as an ascent has no error: nats below the maximum at which it has arrived, and above it
# at which one has gone beyond. The likelihood's own ascents pass any such bound.
_NEAR, _BEYOND = 1e-3, 1.0
_SPEAK = 50  # steps between two signs of life
_KEEP = 30  # rows of an ascent


@dataclass(frozen=True, slots=True)
class MleExistence:
    """Both log likelihoods against v, and how gradient ascents of them end."""

    name: str = "mle-existence"
    title: str = "The spread likelihood has a maximum where the likelihood has none"
    source: str = "Appendix F.1"

    def parts(self, asked: Asked) -> Sequence[Part]:
        """The curves, then an ascent from each start of each; ``repetitions`` times the draws."""
        draws, repetitions = _DRAWS[asked.scale], asked.repetitions or 1
        seed = SeedStream(asked.seed, "mle-existence").at(0)
        ascents = [
            Part(
                f"ascent={kind} mean={mean:g} variance={variance:g}",
                partial(_ascent, kind, mean, variance, _STEPS[asked.scale]),
            )
            for kind in ("likelihood", "spread")
            for mean, variance in _STARTS
        ]
        return [Part("curves", partial(_curves, draws, repetitions, seed)), *ascents]

    def verdicts(self, rows: Sequence[Row]) -> tuple[Verdict, ...]:
        """Unbounded, bounded with its maximum, and what an ascent finds."""
        return unbounded(rows), is_the_closed_form(rows), ascents_arrive(rows)

    def draw(self, rows: Sequence[Row], kept: Kept = NOTHING) -> bytes:
        """The curves at μ = x on the left, the ascents on the right."""
        figure, (left, right) = panels(2)
        curves = of_kind(rows, "kind", "curve")
        variance = column(curves, "variance")
        left.plot(variance, column(curves, "likelihood"), color="C3", label="likelihood")
        left.plot(variance, column(curves, "spread"), color="C0", label="spread likelihood")
        left.plot(variance, column(curves, "estimate"), ".", color="C0", label="from draws")
        left.axhline(maximum(), color="black", linewidth=0.8, linestyle=":", label="its maximum")
        left.set_xscale("log")
        for kind, colour in (("likelihood", "C3"), ("spread", "C0")):
            for start in range(len(_STARTS)):
                ascent = of_kind(of_kind(rows, "kind", kind), "start", start)
                highest = np.maximum.accumulate(column(ascent, "nats"))
                right.plot(column(ascent, "step"), highest, color=colour)
            right.lines[-1].set_label("likelihood" if kind == "likelihood" else "spread likelihood")
        right.axhline(maximum(), color="black", linewidth=0.8, linestyle=":")
        ascended = [row for row in rows if row["kind"] != "curve" and int(row["step"]) > 0]
        # The first steps start far below, and would hide all that follows.
        right.set_ylim(-8, 1.05 * float(column(ascended, "nats").max()))
        label(left, f"One datum, μ = x; s = {SCALE:g}", "v", "nats")
        label(right, f"Gradient ascent from {len(_STARTS)} starts", "step", "highest so far, nats")
        return encode_figure(figure)

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """The maximum in closed form, and the last row of every ascent."""
        ends = [
            dict(of_kind(of_kind(rows, "kind", kind), "start", start)[-1])
            for kind in ("likelihood", "spread")
            for start in range(len(_STARTS))
        ]
        return {"maximum_nats": maximum(), "datum": DATUM, "scale": SCALE, "ascents": ends}


def maximum() -> float:
    """−½ log 2πs² − ½."""
    return -math.log(2 * math.pi * SCALE**2) / 2 - 0.5


def unbounded(rows: Sequence[Row]) -> Verdict:
    """At μ = x each tenth of v adds ½ log 10 to the log likelihood."""
    curves = of_kind(rows, "kind", "curve")
    power = np.diff(column(curves, "likelihood")) / np.diff(np.log(column(curves, "variance")))
    worst = float(np.abs(power + 0.5).max())
    highest = float(column(curves, "likelihood").max())
    return Verdict(
        worst < _ROUNDING,
        f"The likelihood has no maximum: at μ = x it grows as −½ log v (slope within {worst:.1g} "
        f"of −½), to {highest:.2f} nats at v = {float(column(curves, 'variance').min()):g}.",
    )


def is_the_closed_form(rows: Sequence[Row]) -> Verdict:
    """Estimates of the spread likelihood from draws agree, and none is above the maximum."""
    curves = of_kind(rows, "kind", "curve")
    estimate, error = column(curves, "estimate"), column(curves, "standard_error")
    off = np.abs(estimate - column(curves, "spread")) / error
    above = float(((estimate - maximum()) / error).max())
    return Verdict(
        bool(off.max() <= _SIGMAS and above <= _SIGMAS),
        f"The spread likelihood is bounded by {maximum():.6f} nats: estimates from draws are "
        f"within {off.max():.2f} standard errors of the closed form at all {len(curves)} variances "
        f"(allowed {_SIGMAS:g}), and at most {above:.2f} above the bound.",
    )


def ascents_arrive(rows: Sequence[Row]) -> Verdict:
    """Every ascent of the spread ends within 0.001 nats of its maximum; the other goes beyond.

    That of the likelihood is judged by the highest that it has reached: the narrower the density,
    the farther down a step of μ leads again.
    """
    ends, highest = [], []
    for start in range(len(_STARTS)):
        ascent = of_kind(of_kind(rows, "kind", "spread"), "start", start)
        ends.append(abs(maximum() - float(ascent[-1]["nats"])))
        other = of_kind(of_kind(rows, "kind", "likelihood"), "start", start)
        highest.append(max(other, key=lambda row: float(row["nats"])))
    lowest = min(highest, key=lambda row: float(row["nats"]))
    return Verdict(
        max(ends) <= _NEAR and float(lowest["nats"]) > maximum() + _BEYOND,
        f"Gradient ascent from {len(_STARTS)} starts ends within {max(ends):.1g} nats of the "
        f"spread likelihood's maximum; on the likelihood it climbs to {float(lowest['nats']):.1f} "
        f"nats or more, at v = {float(lowest['variance']):.1g} there.",
    )


def log_likelihood(mean: Tensor, variance: Tensor) -> Tensor:
    """log N(x; μ, v)."""
    return -(torch.log(2 * math.pi * variance) + (DATUM - mean) ** 2 / variance) / 2


def spread_log_likelihood(mean: Tensor, variance: Tensor) -> Tensor:
    """E log N(x + se; μ, v + s²) over e ~ N(0, 1)."""
    total = variance + SCALE**2
    return -(torch.log(2 * math.pi * total) + (SCALE**2 + (DATUM - mean) ** 2) / total) / 2


def _curves(draws: int, repetitions: int, seed: int) -> Iterator[Row | None]:
    """Both at μ = x, and the spread one from draws of the noise, fresh ones for each v."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.tensor(DATUM, dtype=torch.float64)
    for value in _VARIANCES:
        variance = torch.tensor(value, dtype=torch.float64)
        total = variance + SCALE**2
        estimate = squared_error = 0.0
        for _ in range(repetitions):
            noise = SCALE * torch.randn(draws, generator=generator, dtype=torch.float64)
            terms = -(torch.log(2 * math.pi * total) + noise**2 / total) / 2
            estimate += float(terms.mean()) / repetitions
            squared_error += float(terms.var()) / draws / repetitions**2
            yield None
        yield {
            "kind": "curve",
            "variance": float(value),
            "likelihood": float(log_likelihood(mean, variance)),
            "spread": float(spread_log_likelihood(mean, variance)),
            "estimate": estimate,
            "standard_error": math.sqrt(squared_error),
        }


def _ascent(kind: str, mean: float, variance: float, steps: int) -> Iterator[Row | None]:
    """Adam on μ and log v from a start, some of whose steps become rows; nothing is drawn."""
    objective = log_likelihood if kind == "likelihood" else spread_log_likelihood
    at = torch.tensor([mean, math.log(variance)], dtype=torch.float64, requires_grad=True)
    optimizer = Adam([at], _RATE, is_fused=False)
    for step in range(steps + 1):
        value = objective(at[0], at[1].exp())
        if step % max(1, steps // _KEEP) == 0 or step == steps:
            yield {
                "kind": kind,
                "start": _STARTS.index((mean, variance)),
                "step": step,
                "mean": at[0].item(),
                "variance": math.exp(at[1].item()),
                "nats": value.item(),
            }
        optimizer.zero_grad()
        (-value).backward()
        optimizer.step()
        if step % _SPEAK == 0:
            yield None


MLE_EXISTENCE = MleExistence()
