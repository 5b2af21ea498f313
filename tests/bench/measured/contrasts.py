"""Which arms stand against each other, and what follows from the intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.measured.intervals import Interval, Sign, paired
from tests.bench.measured.record import Line, chosen
from tests.bench.measured.studies import (
    BASE,
    COVARIANCE,
    EQUAL_ENTROPY,
    FAMILIES,
    LEARNED_MEAN,
    SMALLER,
    TUNING_SEED,
    best_scale,
)

NAMES = {
    "vae-gaussian": "VAE, Gaussian",
    "vae-laplace": "VAE, Laplace",
    BASE: "δ-VAE, Gaussian",
    "delta-laplace": "δ-VAE, Laplace",
    LEARNED_MEAN: "learned mean",
    SMALLER: "fixed at σ ÷ gain",
    COVARIANCE: "learned covariance",
    EQUAL_ENTROPY: "equal entropy",
}


@dataclass(frozen=True, slots=True)
class Arm:
    """Runs of one arm: at a scale, at the arm's own best scale, or at whatever it has."""

    name: str
    scale: float | None = None
    at_best: bool = False

    def lines(self, lines: Sequence[Line], study: str) -> dict[int, Line]:
        """Its lines by seed, without the seed that scales are chosen on."""
        scale = best_scale(lines, study, self.name) if self.at_best else self.scale
        if self.at_best and scale is None:
            return {}
        found = chosen(lines, study, self.name, scale)
        return {seed: line for seed, line in found.items() if seed != TUNING_SEED}

    def label(self, lines: Sequence[Line], study: str) -> str:
        """What it is called in tables."""
        name = NAMES[self.name]
        if self.at_best:
            best = best_scale(lines, study, self.name)
            return f"{name}, best σ" + ("" if best is None else f" = {best:g}")
        return name if self.scale is None else f"{name}, σ = {self.scale:.3g}"


def _best(name: str) -> Arm:
    return Arm(name, at_best=True)


def arms_of(study: str) -> tuple[Arm, ...]:
    """All arms of a study, in the order of its table."""
    match study:
        case "toy":
            return (Arm(BASE, 0.2), Arm(EQUAL_ENTROPY), Arm(COVARIANCE))
        case "pictures":
            vaes = (Arm("vae-gaussian", math.sqrt(0.5)), Arm("vae-gaussian", 0.5))
            return (*vaes, Arm(BASE, 0.5), Arm(SMALLER), Arm(LEARNED_MEAN))
        case _:
            equal = tuple(Arm(family, 0.5) for family in FAMILIES)
            learned = (Arm(EQUAL_ENTROPY), Arm(COVARIANCE), Arm(SMALLER), Arm(LEARNED_MEAN))
            return (*equal, *map(_best, FAMILIES), *learned)


def contrasts_of(study: str) -> tuple[tuple[Arm, Arm], ...]:
    """Pairs whose difference, first minus second, is asked for."""
    fixed = Arm(BASE, 0.2 if study == "toy" else 0.5)
    mean = ((Arm(LEARNED_MEAN), Arm(SMALLER)), (Arm(LEARNED_MEAN), fixed), (Arm(SMALLER), fixed))
    covariance = ((Arm(COVARIANCE), Arm(EQUAL_ENTROPY)), (Arm(COVARIANCE), fixed))
    match study:
        case "toy":
            return covariance
        case "pictures":
            wide, equal = Arm("vae-gaussian", math.sqrt(0.5)), Arm("vae-gaussian", 0.5)
            return ((fixed, wide), (fixed, equal), (Arm(LEARNED_MEAN), wide), *mean)
        case _:
            pairs = (("gaussian", "gaussian"), ("laplace", "laplace"))
            at_equal = tuple((Arm(f"delta-{a}", 0.5), Arm(f"vae-{b}", 0.5)) for a, b in pairs)
            at_best = tuple((_best(f"delta-{a}"), _best(f"vae-{b}")) for a, b in pairs)
            kinds = (Arm("delta-laplace", 0.5), fixed), (_best("delta-laplace"), _best(BASE))
            return (*at_equal, *at_best, *kinds, *covariance, *mean)


def difference(
    first: Mapping[int, Line], second: Mapping[int, Line], metric: str
) -> Interval | None:
    """The paired difference of a metric; None where no seed has both."""
    a, b = (
        {seed: line.metrics[metric] for seed, line in lines.items() if metric in line.metrics}
        for lines in (first, second)
    )
    return paired(a, b)


def verdict(found: Mapping[str, Interval], first: str, second: str) -> str:
    """What the intervals of distances say, each by its own side of 0; smaller is nearer."""
    by_sign = {sign: [name for name, of in found.items() if of.sign is sign] for sign in Sign}
    if by_sign[Sign.UNKNOWN]:
        return "one seed has both: no interval, nothing follows."
    parts = []
    for sign, arm in ((Sign.BELOW, first), (Sign.ABOVE, second)):
        if names := by_sign[sign]:
            parts.append(f"{arm} is nearer to the data by {_listed(names, len(found))}")
    if names := by_sign[Sign.OPEN]:
        by = _listed(names, len(found), "any of the")
        parts.append(f"the two are not told apart by {by}")
    return "; ".join(parts) + "."


def _listed(names: Sequence[str], whole: int, every: str = "all") -> str:
    if len(names) == whole and whole > 1:
        return f"{every} {whole} distances"
    return ", ".join(names)
