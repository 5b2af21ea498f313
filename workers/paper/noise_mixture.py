r"""Appendix E: noise that is mixed with a distribution instead of being added to its draws.

p = δ_0 and q = δ_t become aδ_0 + (1 − a)N(0, 1) and aδ_t + (1 − a)N(0, 1). Both have the density
of the noise everywhere, and yet for every t ≠ 0 their KL is infinite, TV = a and JS = a log 2:
there is nothing to descend. Added noise gives divergences that have a slope in t.

Two ways: exactly, as the densities are equal off the two atoms, so that three outcomes (the atoms
and the rest) decide all; and with atoms widened to N(·, w²), by quadrature, as w falls.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workers.divergence import LowRankGaussian, between, discrete_divergence
from workers.images import encode_figure
from workers.paper.base import NOTHING, Asked, Kept, Part, Row, Scale, Verdict
from workers.paper.panels import column, label, of_kind, panels

Array = NDArray[np.float64]
SHARES = (0.2, 0.5, 0.8)
_REACH = 2.0  # of t to either side
_PLACES: Mapping[Scale, int] = {"quick": 41, "paper": 201}
_WIDTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
_WIDENED_AT = 1.0  # t where the atoms are widened
_ROUNDING = 1e-12
# The gap is of the order w log(1/w): it falls by nearly ten where w falls tenfold, once w is small.
_FALL = 5.0
_ATOM_POINTS = 4001
_TAIL = 12.0  # standard deviations of a density to either side


@dataclass(frozen=True, slots=True)
class NoiseMixture:
    """JS and TV against t, with noise mixed in and with noise added."""

    name: str = "mixture"
    title: str = "Noise mixed in gives no slope, noise added does"
    source: str = "Appendix E"

    def parts(self, asked: Asked) -> Sequence[Part]:
        """One for each share a, one for added noise, one for widened atoms; nothing is drawn."""
        places = np.linspace(-_REACH, _REACH, _PLACES[asked.scale])
        return [
            *(Part(f"share={share:g}", partial(_mixed, share, places)) for share in SHARES),
            Part("added", partial(_added, places)),
            *(Part(f"width={width:g}", partial(_widened, width)) for width in _WIDTHS),
        ]

    def verdicts(self, rows: Sequence[Row]) -> tuple[Verdict, ...]:
        """No slope where noise is mixed in, in the limit too; a slope where it is added."""
        return no_slope(rows), is_the_limit(rows), has_slope(rows)

    def draw(self, rows: Sequence[Row], kept: Kept = NOTHING) -> bytes:
        """JS on the left; on the right how the widened atoms tend to the limit."""
        figure, (left, right) = panels(2)
        for share in SHARES:
            found = of_kind(of_kind(rows, "noise", "mixed"), "share", share)
            off = [row for row in found if row["t"] != 0]
            line = left.plot(column(off, "t"), column(off, "js"), label=f"mixed in, a = {share:g}")
            colour = line[0].get_color()
            left.plot(0, 0, "o", color=colour, markersize=4, zorder=3)
            widened = of_kind(of_kind(rows, "noise", "widened"), "share", share)
            right.plot(column(widened, "width"), _gaps(widened), marker="o", color=colour)
            right.lines[-1].set_label(f"a = {share:g}")
        added = of_kind(rows, "noise", "added")
        left.plot(column(added, "t"), column(added, "js"), color="black", label="added, σ = 1")
        right.set_xscale("log")
        right.set_yscale("log")
        label(left, "JS of δ₀ and δₜ with noise", "t", "nats")
        label(right, "Atoms of width w instead of deltas, t = 1", "w", "a log 2 − JS in nats")
        return encode_figure(figure)

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """JS and TV of each share off t = 0, and the gaps of widened atoms."""
        mixed = [
            {"share": share, "js": float(found["js"]), "tv": float(found["tv"]), "kl": "infinite"}
            for share in SHARES
            for found in of_kind(of_kind(rows, "noise", "mixed"), "share", share)[:1]
        ]
        return {
            "mixed": mixed,
            "added": [dict(row) for row in of_kind(rows, "noise", "added")],
            "widened": [dict(row) for row in of_kind(rows, "noise", "widened")],
        }


def no_slope(rows: Sequence[Row]) -> Verdict:
    """Off t = 0: KL infinite, TV = a, JS = a log 2 to rounding, at every place."""
    off = [row for row in of_kind(rows, "noise", "mixed") if row["t"] != 0]
    worst = max(
        max(
            abs(float(row["tv"]) - float(row["share"])),
            abs(float(row["js"]) - float(row["share"]) * math.log(2)),
        )
        for row in off
    )
    is_infinite = all(math.isinf(float(row["kl"])) for row in off)
    return Verdict(
        worst < _ROUNDING and is_infinite,
        f"Noise mixed in gives no slope: at {len(off)} places and shares with t ≠ 0 the KL is "
        f"{'infinite' if is_infinite else 'finite somewhere'}, and TV = a, JS = a log 2 within "
        f"{worst:.1g}.",
    )


def is_the_limit(rows: Sequence[Row]) -> Verdict:
    """The gap to a log 2 falls with the width, in the end by five or more for each tenth of it."""
    gaps = np.stack(
        [_gaps(of_kind(of_kind(rows, "noise", "widened"), "share", share)) for share in SHARES]
    )
    falls = gaps[:, :-1] / gaps[:, 1:]
    return Verdict(
        bool((gaps > 0).all() and (falls > 1).all() and falls[:, -1].min() > _FALL),
        f"It is the limit of narrow atoms: the gap to a log 2 falls with their width w, by a "
        f"factor of {falls[:, -1].min():.1f} or more for the last tenth (it is of the order "
        f"w log 1/w), to {gaps[:, -1].max():.1g} nats.",
    )


def has_slope(rows: Sequence[Row]) -> Verdict:
    """With noise added, JS is least at t = 0 and rises from place to place on both sides."""
    added = sorted(of_kind(rows, "noise", "added"), key=lambda row: float(row["t"]))
    t, js = column(added, "t"), column(added, "js")
    middle = int(np.abs(t).argmin())
    outward = np.concatenate((-np.diff(js)[:middle], np.diff(js)[middle:]))
    return Verdict(
        bool(js.argmin() == middle and outward.min() > _ROUNDING),
        f"Noise added gives one: JS rises from {abs(js[middle]):.2g} at t = 0 to {js[-1]:.3f} "
        f"nats at t = {t[-1]:g}, by {outward.min():.2g} or more from place to place.",
    )


def _gaps(rows: Sequence[Row]) -> Array:
    """a log 2 − JS, in the order of falling widths."""
    falling = sorted(rows, key=lambda row: -float(row["width"]))
    gaps: Array = column(falling, "share") * math.log(2) - column(falling, "js")
    return gaps


def _mixed(share: float, places: Array) -> Iterator[Row | None]:
    for t in places:
        first = [share, 0.0, 1 - share]
        second = [0.0, share, 1 - share] if t != 0 else first
        p, q = (torch.tensor(values, dtype=torch.float64) for values in (first, second))
        yield {
            "noise": "mixed",
            "share": share,
            "t": float(t),
            "kl": discrete_divergence("kl", p, q),
            "js": discrete_divergence("js", p, q),
            "tv": discrete_divergence("tv", p, q),
        }


def _added(places: Array) -> Iterator[Row | None]:
    unused = torch.Generator()  # all three are closed forms
    p = LowRankGaussian.isotropic(torch.zeros(1, dtype=torch.float64), 1.0)
    for t in places:
        q = LowRankGaussian.isotropic(torch.tensor([float(t)], dtype=torch.float64), 1.0)
        yield {
            "noise": "added",
            "t": float(t),
            "kl": between("kl", p, q, generator=unused).value,
            "js": between("js", p, q, generator=unused).value,
            "tv": between("tv", p, q, generator=unused).value,
        }


def _widened(width: float) -> Iterator[Row | None]:
    for share in SHARES:
        yield {
            "noise": "widened",
            "share": share,
            "t": _WIDENED_AT,
            "width": width,
            "js": widened_js(share, _WIDENED_AT, width),
        }


def widened_js(share: float, t: float, width: float) -> float:
    """JS of aN(0, w²) + (1 − a)N(0, 1) and aN(t, w²) + (1 − a)N(0, 1), by the trapezoid rule.

    The grid is fine around both atoms, where the integrand lives.
    """
    steps = np.linspace(-_TAIL, _TAIL, _ATOM_POINTS)
    at = np.unique(np.concatenate((steps * width, t + steps * width, steps)))
    noise = (1 - share) * _normal(at, 0.0, 1.0)
    p = share * _normal(at, 0.0, width) + noise
    q = share * _normal(at, t, width) + noise
    middle = (p + q) / 2
    return float(np.trapezoid(p * np.log(p / middle) + q * np.log(q / middle), at) / 2)


def _normal(at: Array, mean: float, sd: float) -> Array:
    density: Array = np.exp(-(((at - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))
    return density


NOISE_MIXTURE = NoiseMixture()
