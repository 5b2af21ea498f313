r"""Paired differences over seeds, with Student's interval.

With differences d_1 … d_k of k seeds, mean d̄ and standard deviation s (ddof 1), the 95 % interval
is d̄ ± t_{.975, k−1} s/√k. Two arms of one seed share initial weights, order of the data and latents
of the samples, so what is common to a seed cancels.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from workers.student import reach


class Sign(Enum):
    """What an interval says of a difference."""

    BELOW = "below 0"
    ABOVE = "above 0"
    OPEN = "on both sides of 0"
    UNKNOWN = "no interval"


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over ``count`` seeds; ``half_width`` is None where one seed gives no interval."""

    mean: float
    half_width: float | None
    count: int

    @property
    def sign(self) -> Sign:
        """On which side of 0 it lies."""
        if self.half_width is None:
            return Sign.UNKNOWN
        if self.mean + self.half_width < 0:
            return Sign.BELOW
        return Sign.ABOVE if self.mean - self.half_width > 0 else Sign.OPEN


def interval(values: list[float]) -> Interval:
    """The mean of one value or more, with Student's interval from two on."""
    count = len(values)
    mean = statistics.fmean(values)
    if count == 1:
        return Interval(mean, None, count)
    return Interval(mean, reach(statistics.stdev(values) / math.sqrt(count), count), count)


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Interval | None:
    """first − second over the seeds that both have; None where there is none."""
    seeds = sorted(first.keys() & second.keys())
    return interval([first[seed] - second[seed] for seed in seeds]) if seeds else None
