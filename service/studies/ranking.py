"""Honest ranking: what can be said of the best of many noisy results.

The best of m results on one seed is too good to be true: with equal means μ and noise of deviation
s its expectation is μ + s·E max of m standard normals. So the search only names candidates, which
are trained again on fresh seeds; only those give means and intervals.

- An interval is mean ± t_{n−1} s/√n. That of the best of k candidates takes Bonferroni's level
  1 − α/k, so that all k hold at once, and so does that of whichever is chosen by the same numbers.
- What cannot be told from the best b is a subset selection (S. S. Gupta, Technometrics 7, 1965;
  J. C. Hsu, Multiple Comparisons, 1996, chapter 4): a configuration is left out where a one-sided t
  test says that b is better at the level α/d, d = max(m − 1, 2k − 1), m being all that are compared
  and k those that are confirmed. The true best is left out with probability (2k − 1)α/d ≤ α at
  most, whichever b is: it may be one of the confirmed, with k − 1 others that could be b, or one
  that is not, with k. The test is paired over shared fresh seeds; a configuration that has only
  its one result of the search is compared by the deviation s of the confirmed ones, pooled:
  (x − mean_b)/(s √(1 + 1/n_b)).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workers import student
from workers.memory import import_lasting

Mode = Literal["min", "max"]
CONFIDENCE = student.CONFIDENCE


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and where it lies with this confidence; infinite for a single seed."""

    mean: float
    low: float
    high: float
    confidence: float
    count: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best configuration, and those that cannot be told from it (itself among them).

    ``means`` are over fresh seeds. ``untested`` have no result that can be compared.
    """

    best: int
    interval: Interval
    means: Mapping[int, float]
    indistinguishable: tuple[int, ...]
    untested: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reversals:
    """How the order of configurations changes from one measure of them to another.

    Of ``pairs`` that neither measure ties, ``reversed_pairs`` change their order; Goodman and
    Kruskal's γ = 1 − 2·reversed/pairs. ``best_was`` is the place, from 1, that the later best had
    before.
    """

    count: int
    pairs: int
    reversed_pairs: int
    gamma: float
    best_was: int


def _cost(value: float, mode: Mode) -> float:
    return value if mode == "min" else -value


def top(values: Mapping[int, float], k: int, mode: Mode) -> tuple[int, ...]:
    """The k configurations with the best results, the best first; what is no number is none."""
    usable = [number for number, value in values.items() if math.isfinite(value)]
    return tuple(sorted(usable, key=lambda number: (_cost(values[number], mode), number))[:k])


def interval(
    values: Sequence[float], confidence: float = CONFIDENCE, comparisons: int = 1
) -> Interval:
    """Student's interval of a mean, one of so many that hold at once with this confidence."""
    count = len(values)
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    half = student.reach(error, count, confidence, comparisons)
    return Interval(mean, mean - half, mean + half, confidence, count)


def rank(
    fresh: Mapping[int, Mapping[int, float]],
    searched: Mapping[int, float],
    mode: Mode,
    confidence: float = CONFIDENCE,
) -> Ranking:
    """The best by results on fresh seeds, {configuration: {seed: value}}, and its like.

    ``searched`` has the results of the search at full budget, NaN where there is none. A
    configuration that has failed on a fresh seed is not confirmed. Raises ValueError where none is.
    """
    confirmed = {
        number: by_seed
        for number, by_seed in fresh.items()
        if by_seed and all(map(math.isfinite, by_seed.values()))
    }
    if not confirmed:
        raise ValueError("no configuration has results on fresh seeds")
    means = {n: float(np.mean(list(by_seed.values()))) for n, by_seed in confirmed.items()}
    (best,) = top(means, 1, mode)
    alone = {
        number: value
        for number, value in searched.items()
        if number not in fresh and math.isfinite(value)
    }
    level = (1 - confidence) / max(len(confirmed) + len(alone) - 1, 2 * len(confirmed) - 1)
    like = [best]
    for number, by_seed in confirmed.items():
        if number != best and _p_paired(by_seed, confirmed[best], mode) >= level:
            like.append(number)
    deviation, freedom = _pooled(confirmed)
    for number, value in alone.items():
        worse = _cost(value, mode) - _cost(means[best], mode)
        error = deviation * math.sqrt(1 + 1 / len(confirmed[best]))
        if _p_worse(worse, error, freedom) >= level:
            like.append(number)
    return Ranking(
        best=best,
        interval=interval(list(confirmed[best].values()), confidence, len(confirmed)),
        means=means,
        indistinguishable=tuple(sorted(like)),
        untested=tuple(sorted({*fresh, *searched} - confirmed.keys() - alone.keys())),
    )


def _p_paired(one: Mapping[int, float], best: Mapping[int, float], mode: Mode) -> float:
    """The p-value of "no worse than the best", paired over seeds, or else Welch's."""
    shared = sorted(one.keys() & best.keys())
    if len(shared) >= 2:
        worse = np.array([_cost(one[s], mode) - _cost(best[s], mode) for s in shared])
        error = float(np.std(worse, ddof=1)) / math.sqrt(len(shared))
        return _p_worse(float(worse.mean()), error, len(shared) - 1)
    return _p_welch(list(one.values()), list(best.values()), mode)


def _p_welch(one: Sequence[float], best: Sequence[float], mode: Mode) -> float:
    """Welch's test of two means with their own variances (B. L. Welch, Biometrika 34, 1947)."""
    if len(one) < 2 or len(best) < 2:
        return 1.0
    worse = _cost(float(np.mean(one)), mode) - _cost(float(np.mean(best)), mode)
    shares = [float(np.var(values, ddof=1)) / len(values) for values in (one, best)]
    total = sum(shares)
    if total == 0:
        return _p_worse(worse, 0.0, 1)
    weights = zip(shares, (len(one), len(best)), strict=True)
    freedom = total**2 / sum(share**2 / (n - 1) for share, n in weights)
    return _p_worse(worse, math.sqrt(total), freedom)


def _pooled(confirmed: Mapping[int, Mapping[int, float]]) -> tuple[float, int]:
    """The deviation between seeds within a configuration, and its degrees of freedom."""
    several = [list(values.values()) for values in confirmed.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = sum(float(np.var(values)) * len(values) for values in several)
    return (math.sqrt(squares / freedom), freedom) if freedom else (math.inf, 0)


def _p_worse(worse: float, error: float, freedom: float) -> float:
    """P(T ≥ worse/error): small where the difference is no accident."""
    if freedom == 0:
        return 1.0
    if error == 0:
        return 0.0 if worse > 0 else 1.0
    import_lasting("scipy.special")
    from scipy.special import stdtr  # slow to import, and rarely needed

    return float(stdtr(freedom, -worse / error))


def pareto(points: Mapping[int, tuple[float, float]], modes: tuple[Mode, Mode]) -> tuple[int, ...]:
    """The configurations that none surpasses: none is as good in both and better in one.

    In the order of the first objective, its best first; equal ones stand side by side.
    """
    usable = {n: point for n, point in points.items() if all(map(math.isfinite, point))}
    costs = {n: (_cost(a, modes[0]), _cost(b, modes[1])) for n, (a, b) in usable.items()}
    front: list[int] = []
    lowest, at = math.inf, math.inf
    for number in sorted(costs, key=lambda n: (*costs[n], n)):
        first, second = costs[number]
        if second < lowest or (second == lowest and first == at):
            front.append(number)
            lowest, at = second, first
    return tuple(front)


def reversals(earlier: Mapping[int, float], later: Mapping[int, float], mode: Mode) -> Reversals:
    """How the order changes from one rung, or extractor, to another, over what both have.

    Raises ValueError for fewer than two configurations.
    """
    both = sorted(
        n for n in earlier.keys() & later.keys() if all(map(math.isfinite, (earlier[n], later[n])))
    )
    if len(both) < 2:
        raise ValueError("an order needs two configurations at least")
    a = np.array([_cost(earlier[n], mode) for n in both])
    b = np.array([_cost(later[n], mode) for n in both])
    above = np.triu_indices(len(both), 1)
    agreement = (np.sign(a[:, None] - a[None, :]) * np.sign(b[:, None] - b[None, :]))[above]
    pairs, wrong = int((agreement != 0).sum()), int((agreement < 0).sum())
    best = int(np.argmin(b))
    return Reversals(
        count=len(both),
        pairs=pairs,
        reversed_pairs=wrong,
        gamma=1 - 2 * wrong / pairs if pairs else math.nan,
        best_was=1 + int((a < a[best]).sum()),
    )
