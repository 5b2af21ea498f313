"""Student's interval of a mean: x̄ ± t_{n−1} s/√n."""

import math

CONFIDENCE = 0.95


def confidence_of(sigmas: float) -> float:
    """The probability with which a normal value is within so many standard deviations."""
    return math.erf(sigmas / math.sqrt(2))


def reach(
    standard_error: float, count: int, confidence: float = CONFIDENCE, comparisons: int = 1
) -> float:
    """Half the width of the interval of a mean of ``count`` values, infinite for a single one.

    ``comparisons`` such intervals hold at once with the confidence (Bonferroni).
    """
    if count < 2:
        return math.inf
    from scipy.special import stdtrit  # slow to import, and rarely needed

    tail = (1 - confidence) / (2 * comparisons)
    return -float(stdtrit(count - 1, tail)) * standard_error
