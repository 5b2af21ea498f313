"""What Figure 4's rows say of the paper's claims, with the rule by which each is judged."""

import math
import statistics
from collections.abc import Mapping, Sequence

from workers.paper.base import Row, Verdict
from workers.paper.means import Mean, values_by
from workers.student import reach

# By hand: what is claimed are orders of magnitude, for which no closed form gives a margin. Methods
# that work differ by a quarter or so, and what fails is several times worse.
_FROZEN = 3.0  # times spread EM's error
_STEADY = 2.0  # times its own least error: the data of another γ are other data
_FAILED = 3.0  # times our error
_LEAST_SLOPE = -0.25  # of log error against log N: nearer the −½ of a consistent estimate than to 0

_Key = tuple[float | int | str, ...]


def em_freezes(rows: Sequence[Row]) -> Verdict:
    """Standard EM's error at the least γ: above that at the greatest, and thrice spread EM's.

    The first by Student's interval of the paired differences over repetitions.
    """
    errors = _by(rows, "gamma")
    least, greatest = _ends(errors)
    em, spread = Mean.of(errors[least, "em"]), Mean.of(errors[least, _spread(errors)])
    grown = Mean.of(
        low - high for low, high in zip(errors[least, "em"], errors[greatest, "em"], strict=True)
    )
    text = (
        f"Standard EM freezes as γ → 0: its error is {Mean.of(errors[greatest, 'em'])} at "
        f"γ = {greatest:g} and {em} at γ = {least:g}, where spread EM's is {spread}."
    )
    if grown.standard_error is None:
        return Verdict(None, f"{text} One repetition has no standard error.")
    allowed = reach(grown.standard_error, grown.count)
    if em.mean <= _FROZEN * spread.mean or grown.mean < -allowed:
        return Verdict(False, text)
    return Verdict(True if grown.mean > allowed else None, text)


def spread_em_does_not(rows: Sequence[Row]) -> Verdict:
    """Spread EM's error at the least γ: at most twice the least that it has at any γ."""
    errors = _by(rows, "gamma")
    least, _ = _ends(errors)
    method = _spread(errors)
    at_least = Mean.of(errors[least, method])
    best = min(
        (Mean.of(found) for key, found in errors.items() if key[1] == method),
        key=lambda mean: mean.mean,
    )
    text = (
        f"Spread EM does not freeze: its error is {at_least} at γ = {least:g}, and {best} where "
        "it is least."
    )
    return Verdict(at_least.mean <= _STEADY * best.mean, text)


def fastica_fails(rows: Sequence[Row]) -> Verdict:
    """FastICA in the non-square case: its error is above thrice ours in most experiments."""
    ours, fastica = (
        [float(row["relative_error"]) for row in rows if row["method"] == method]
        for method in ("ep", "fastica")
    )
    ratios = [theirs / our for theirs, our in zip(fastica, ours, strict=True)]
    failed = sum(ratio > _FAILED for ratio in ratios)
    ratio = math.exp(statistics.fmean(map(math.log, ratios)))
    text = (
        f"FastICA fails where there are fewer sources than dimensions: after PCA its error is "
        f"above {_FAILED:g} times ours in {failed} of {len(ratios)} experiments, {ratio:.2f} "
        f"times ours in the geometric mean, and {statistics.median(fastica):.3g} in the median."
    )
    return Verdict(2 * failed > len(ratios), text)


def error_falls(rows: Sequence[Row]) -> Verdict:
    """Spread EM's error against N: a straight line in logarithms, steeper than N^(−1/4)."""
    errors = _by(rows, "samples")
    method = _spread(errors)
    means = {
        float(key[0]): statistics.fmean(found) for key, found in errors.items() if key[1] == method
    }
    slope = statistics.linear_regression(
        [math.log(n) for n in means], [math.log(mean) for mean in means.values()]
    ).slope
    few, many = min(means), max(means)
    text = (
        f"Spread EM's error falls as N grows: {means[few]:.3g} at N = {few:g}, {means[many]:.3g} "
        f"at N = {many:g}, as N^{slope:.2f}; a consistent estimate falls as N^-0.5."
    )
    return Verdict(slope < _LEAST_SLOPE, text)


def _by(rows: Sequence[Row], axis: str) -> Mapping[_Key, list[float]]:
    """Relative errors by (γ or N, method), in the order of repetitions."""
    return values_by(rows, "relative_error", axis, "method")


def _ends(errors: Mapping[_Key, list[float]]) -> tuple[float, float]:
    places = [float(key[0]) for key in errors]
    return min(places), max(places)


def _spread(errors: Mapping[_Key, list[float]]) -> str:
    """The method that spread EM is at this scale."""
    return "paper" if any(key[1] == "paper" for key in errors) else "spread_em"
