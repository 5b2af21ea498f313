"""Means over repetitions, with their standard errors, and what a mean square may be by chance."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from workers.paper.base import Row
from workers.student import confidence_of

DECISIVE = 3.0
"""The largest of what :func:`chance` allows that still decides something; by hand."""


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of ``count`` values; ``standard_error`` s/√n is None for a single one."""

    mean: float
    standard_error: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Of at least one value."""
        given = list(values)
        error = statistics.stdev(given) / math.sqrt(len(given)) if len(given) > 1 else None
        return cls(statistics.fmean(given), error, len(given))

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "mean": self.mean,
            "standard_error": self.standard_error,
            "repetitions": self.count,
        }

    def __str__(self) -> str:
        """Such as 0.0456 ± 0.0012."""
        error = "" if self.standard_error is None else f" ± {self.standard_error:.2g}"
        return f"{self.mean:.3g}{error}"


def chance(degrees: float, sigmas: float) -> tuple[float, float]:
    """Between which shares of its expectation a mean square is, as surely as a normal value is
    within so many standard deviations: those of χ²_ν/ν, for ν > 0 degrees of freedom.

    Squares are skew and few of them say little of their own spread, so that no standard error of a
    sample can stand for it.
    """
    tail = (1 - confidence_of(sigmas)) / 2
    from scipy.special import chdtri  # slow to import, and rarely needed

    low, high = (float(chdtri(degrees, 1 - share)) / degrees for share in (tail, 1 - tail))
    return low, high


def values_by(
    rows: Sequence[Row], value: str, *columns: str
) -> Mapping[tuple[float | int | str, ...], list[float]]:
    """The values of a column, in the rows' order, for each combination of some others'."""
    found: dict[tuple[float | int | str, ...], list[float]] = {}
    for row in rows:
        found.setdefault(tuple(row[column] for column in columns), []).append(float(row[value]))
    return found
