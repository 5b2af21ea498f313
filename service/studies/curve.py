"""The curve of a metric against one or two tuned parameters, with its uncertainty.

Where a parameter has few values, each has its mean over trials with Student's interval. Else the
curve is the posterior of a Gaussian process with a Matérn-5/2 kernel (Rasmussen and Williams, 2006,
sections 2.2, 4.2 and 5.4): with r² = Σ_d (x_d − x'_d)²/l_d²,

    k(x, x') = σ² (1 + √5 r + 5r²/3) e^{−√5 r},   ȳ_i = m + f(x_i) + noise of variance σ²ν/n_i,

where ȳ_i is the mean of n_i trials at x_i, and S the sum of squares of all trials about these
means, which is noise alone. m is flat, so that σ² and it have a closed form given l and ν; these
are chosen on a grid by the restricted likelihood of all N trials, in which m and σ² are done with:
with n places, K = k/σ² + diag(ν/n_i), Q = (ȳ − m)ᵀK⁻¹(ȳ − m) + S/ν and σ² = Q/(N − 1),

    log L = −½ ((N − 1) log σ² + log|K| + (N − n) log ν + log 1ᵀK⁻¹1).

The posterior is Student's t with N − 1 degrees of freedom. x is in [0, 1], the parameter's own u:
loguniform ones are seen in the logarithm.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from service.studies.ranking import CONFIDENCE, Interval, interval
from workers.memory import import_lasting

Array = NDArray[np.float64]
_LENGTHS = {1: (0.05, 0.1, 0.2, 0.4, 0.8, 1.6), 2: (0.1, 0.25, 0.6, 1.5)}
_NOISES = (1e-6, 1e-3, 1e-2, 0.1, 0.3, 1.0, 10.0)
_BINS = {1: 64, 2: 12}  # places along each parameter, beyond which trials are put together


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric's mean at some places, M×d, between ``low`` and ``high`` with this confidence.

    ``noise`` is the standard deviation between trials at one place.
    """

    at: Array
    mean: Array
    low: Array
    high: Array
    noise: float
    confidence: float


def levels(
    values: Mapping[str, Sequence[float]], confidence: float = CONFIDENCE
) -> dict[str, Interval]:
    """The mean at each value of a parameter that has few; those without results are left out."""
    finite = {name: [v for v in found if math.isfinite(v)] for name, found in values.items()}
    return {name: interval(found, confidence) for name, found in finite.items() if found}


def curve(x: Array, y: Array, at: Array, confidence: float = CONFIDENCE) -> Curve:
    """The posterior at M×d places of results y, N, at x, N×d, d being 1 or 2.

    Results that are no numbers are left out. Raises ValueError for fewer than three places.
    """
    import_lasting("scipy.linalg", "scipy.special")  # slow to import, and rarely needed
    from scipy.special import stdtrit

    usable = np.isfinite(y)
    seen = _together(x[usable], y[usable])
    if len(seen.places) < 3:
        raise ValueError("a curve needs results at three places at least")
    fits = [
        _fit(seen, np.array(lengths), noise)
        for lengths in product(_LENGTHS[x.shape[1]], repeat=x.shape[1])
        for noise in _NOISES
    ]
    best = max(fits, key=lambda fit: fit.log_likelihood)
    mean, deviation = best.posterior(at)
    half = -stdtrit(int(usable.sum()) - 1, (1 - confidence) / 2) * deviation
    noise = math.sqrt(best.variance * best.noise)
    return Curve(at, mean, mean - half, mean + half, noise, confidence)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Places n×d, mean results and their numbers, and the squares of results about the means."""

    places: Array
    means: Array
    counts: Array
    squares: float


def _together(x: Array, y: Array) -> _Seen:
    """One place for equal x, or for those of one bin."""
    keys = x
    if len(np.unique(x, axis=0)) > _BINS[x.shape[1]] ** x.shape[1]:
        keys = np.minimum(np.floor(x * _BINS[x.shape[1]]), _BINS[x.shape[1]] - 1)
    _, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    means = np.bincount(inverse, y) / counts
    columns = [np.bincount(inverse, column) / counts for column in x.T]
    squares = float(((y - means[inverse]) ** 2).sum())
    return _Seen(np.stack(columns, axis=1), means, counts.astype(np.float64), squares)


def kernel(a: Array, b: Array, lengths: Array) -> Array:
    """Matérn 5/2 of unit variance between rows."""
    scaled = (a[:, None, :] - b[None, :, :]) / lengths
    r = math.sqrt(5) * np.sqrt((scaled**2).sum(-1))
    values: Array = (1 + r + r**2 / 3) * np.exp(-r)
    return values


@dataclass(frozen=True, slots=True)
class _Fit:
    """A process given its lengths and noise; ``weights`` are K⁻¹(y − m)."""

    places: Array
    lengths: Array
    noise: float
    mean: float
    variance: float
    log_likelihood: float
    factor: Array
    weights: Array

    def posterior(self, at: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of m + f at M×d places, that of m included."""
        from scipy.linalg import cho_solve

        across = kernel(at, self.places, self.lengths)
        mean = self.mean + across @ self.weights
        solved = cho_solve((self.factor, True), across.T)
        ones = np.ones(len(self.places))
        inverse_ones = cho_solve((self.factor, True), ones)
        left = 1 - across @ inverse_ones
        explained = (across * solved.T).sum(1)
        relative = 1 - explained + left**2 / (ones @ inverse_ones)
        return mean, np.sqrt(self.variance * np.maximum(relative, 0.0))


def _fit(seen: _Seen, lengths: Array, noise: float) -> _Fit:
    from scipy.linalg import cho_solve, cholesky

    places, means = seen.places, seen.means
    count, trials = len(places), float(seen.counts.sum())
    covariance = kernel(places, places, lengths) + np.diag(noise / seen.counts + 1e-10)
    factor = cholesky(covariance, lower=True)
    ones = np.ones(count)
    inverse_ones = cho_solve((factor, True), ones)
    mean = float(inverse_ones @ means / (ones @ inverse_ones))
    weights = cho_solve((factor, True), means - mean)
    squares = float((means - mean) @ weights) + seen.squares / noise
    variance = max(squares / (trials - 1), 1e-300)
    log_determinant = 2 * float(np.log(np.diag(factor)).sum())
    likelihood = -0.5 * (
        (trials - 1) * math.log(variance)
        + log_determinant
        + (trials - count) * math.log(noise)
        + math.log(ones @ inverse_ones)
    )
    return _Fit(places, lengths, noise, mean, variance, likelihood, factor, weights)
