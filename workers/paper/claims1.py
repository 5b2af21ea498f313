"""What Figure 1's rows say, with the rule by which each claim is judged."""

import math
from collections.abc import Sequence
from itertools import pairwise

from workers.paper.base import Row, Verdict
from workers.paper.means import Mean, values_by
from workers.paper.panels import column, of_kind
from workers.student import CONFIDENCE, reach

DISTANCES = ("samples_to_surface", "data_to_samples", "spread_data_to_surface")
_CONFIDENCE = 0.99  # of a verdict over the data
_UNMOVED = 1e-9  # a shift that is 0 but for rounding
_CURVATURE = 2.0  # the surface's largest, at its ridges: ½·4


def by_shift(rows: Sequence[Row]) -> dict[float, Mean]:
    """Mean log likelihoods over the data, by the model's shift."""
    found = values_by(rows, "nats", "shift")
    return {float(key[0]): Mean.of(values) for key, values in sorted(found.items())}


def jumps(rows: Sequence[Row]) -> Verdict:
    """On the surface a halving of γ adds log 2, up to (κγ)², κ the curvature; off it all falls.

    Off it is the largest shift, where every halving must make the likelihood smaller.
    """
    found = of_kind(rows, "kind", "model_noise")
    nats = {
        (float(row_gamma), float(shift)): Mean.of(values).mean
        for (row_gamma, shift), values in values_by(found, "nats", "gamma", "shift").items()
    }
    gammas = sorted({gamma for gamma, _ in nats}, reverse=True)
    shifts = [shift for _, shift in nats]
    on, off = min(shifts, key=abs), max(shifts)
    before, last = gammas[-2:]
    gain, expected = nats[last, on] - nats[before, on], math.log(before / last)
    allowed = (_CURVATURE * before) ** 2
    falls = [nats[gamma, off] for gamma in gammas]
    is_falling = all(later < earlier for earlier, later in pairwise(falls))
    return Verdict(
        abs(on) < _UNMOVED and abs(gain - expected) <= allowed and is_falling,
        f"The likelihood jumps: on the surface γ from {before:g} to {last:g} adds {gain:.3f} nats, "
        f"expected {expected:.3f} ± {allowed:.2f}, and moved by {off:g} the model has "
        f"{falls[0]:.1f} to {falls[-1]:.1f} nats as γ falls from {gammas[0]:g} to {last:g}.",
    )


def does_not_jump(rows: Sequence[Row]) -> Verdict:
    """With both spread no shift is better than none, and both ends are worse.

    By Student's intervals of paired differences over the data.
    """
    values = values_by(of_kind(rows, "kind", "spread"), "nats", "shift")
    shifts = sorted(float(key[0]) for key in values)
    none = min(shifts, key=abs)
    drops = {
        shift: Mean.of(
            here - there for here, there in zip(values[(none,)], values[(shift,)], strict=True)
        )
        for shift in shifts
    }
    first, last = drops[shifts[0]], drops[shifts[-1]]
    text = (
        f"Spread on both, it does not: {Mean.of(values[(none,)])} nats where the model is at "
        f"{none:g}, less by {first} and {last} at both ends"
    )
    if first.standard_error is None:
        return Verdict(None, f"{text}; one datum has no standard error.")
    is_best = all(drop.mean >= -_reach(drop, _CONFIDENCE, len(drops)) for drop in drops.values())
    holds = _are_above_0((first, last), _CONFIDENCE)
    return Verdict(abs(none) < _UNMOVED and is_best and holds, f"{text}.")


def is_learned(rows: Sequence[Row], scale: float) -> Verdict:
    """Samples are nearer the surface than spread data are, and data nearer samples, over seeds."""
    trained = of_kind(rows, "kind", "trained")
    names = DISTANCES[:2]
    found = [Mean.of(column(trained, name)) for name in names]
    noise = Mean.of(column(trained, DISTANCES[2]))
    gaps = [Mean.of(column(trained, DISTANCES[2]) - column(trained, name)) for name in names]
    text = (
        f"A model trained through noise of σ = {scale:g} learns the surface: its samples are "
        f"{found[0]} from it, data {found[1]} from the nearest sample, spread data {noise} from it"
    )
    if any(gap.standard_error is None for gap in gaps):
        return Verdict(None, f"{text}; one training has no standard error.")
    holds = _are_above_0(gaps, CONFIDENCE)
    return Verdict(holds, f"{text} (root mean squares, {len(trained)} trainings).")


def _are_above_0(means: Sequence[Mean], confidence: float) -> bool | None:
    """Whether all intervals are above 0; None where none is below and some have it within."""
    if any(mean.mean <= -_reach(mean, confidence) for mean in means):
        return False
    return True if all(mean.mean > _reach(mean, confidence) for mean in means) else None


def _reach(mean: Mean, confidence: float, comparisons: int = 1) -> float:
    return reach(mean.standard_error or 0.0, mean.count, confidence, comparisons)
