"""One divergence between two spread distributions: in closed form, or estimated."""

import torch

from workers.divergence import gaussian, laplace
from workers.divergence.estimate import Density, Estimate, Kind, estimate_divergence
from workers.divergence.gaussian import LowRankGaussian
from workers.divergence.laplace import ProductLaplace


def between(
    kind: Kind, p: Density, q: Density, *, n: int = 100_000, generator: torch.Generator
) -> Estimate:
    """D(p ‖ q); exact, with a standard error of 0, where there is a closed form.

    Elsewhere from n draws.
    """
    value = closed_form(kind, p, q)
    if value is not None:
        return Estimate(value)
    return estimate_divergence(kind, p, q, n, generator)


def closed_form(kind: Kind, p: Density, q: Density) -> float | None:
    """D(p ‖ q), perhaps infinite, where a closed form is known, else None."""
    match p, q:
        case LowRankGaussian(), LowRankGaussian():
            return _gaussians(kind, p, q)
        case ProductLaplace(), ProductLaplace():
            return laplace.closed_form(kind, p, q)
    return None


def _gaussians(kind: Kind, p: LowRankGaussian, q: LowRankGaussian) -> float | None:
    if p.scale == q.scale and torch.equal(p.factor, q.factor):
        d = p.mean.double() - q.mean.double()
        return gaussian.shifted(kind, float(d @ p.solve(d)) ** 0.5)
    match kind:
        case "kl":
            return gaussian.kl(p, q)
        case "reverse_kl":
            return gaussian.kl(q, p)
        case "hellinger2":
            return gaussian.hellinger2(p, q)
        case "chi2":
            return gaussian.chi2(p, q)
        case "js" | "tv":
            return None
