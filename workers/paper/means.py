"""Means over repetitions, with their standard errors."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from workers.paper.base import Row


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


def values_by(
    rows: Sequence[Row], value: str, *columns: str
) -> Mapping[tuple[float | int | str, ...], list[float]]:
    """The values of a column, in the rows' order, for each combination of some others'."""
    found: dict[tuple[float | int | str, ...], list[float]] = {}
    for row in rows:
        found.setdefault(tuple(row[column] for column in columns), []).append(float(row[value]))
    return found
