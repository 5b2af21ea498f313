"""Two arms compared at the same seeds: the mean difference with a Student-t interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from workers.paper.arms import FRECHET
from workers.paper.base import Row, Verdict
from workers.paper.means import Mean
from workers.paper.panels import column, of_kind
from workers.student import CONFIDENCE, reach

# What decides, by name: the distance that is declared first, and one without its bias.
_DECIDING = {FRECHET: "Fréchet distance", "kid_pca": "KID"}


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean of ``count`` differences, and where it lies with the confidence."""

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, differences: Sequence[float]) -> Self | None:
        """mean ± t s/√n, t the quantile of Student's t with n − 1 degrees; None for one alone."""
        mean = Mean.of(differences)
        if mean.standard_error is None:
            return None
        half = reach(mean.standard_error, mean.count)
        return cls(mean.mean, mean.mean - half, mean.mean + half, mean.count)

    @property
    def sign(self) -> int:
        """−1 or 1 where all of it lies on that side of 0, else 0."""
        return -1 if self.high < 0 else 1 if self.low > 0 else 0

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "repetitions": self.count}

    def __str__(self) -> str:
        """Such as -0.9 [-1.5, -0.3]."""
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def difference(rows: Sequence[Row], first: str, second: str, measure: str) -> Interval | None:
    """An arm's measure less another's at the same seed; None with one seed."""
    a, b = (
        {int(row["repetition"]): float(row[measure]) for row in of_kind(rows, "arm", arm)}
        for arm in (first, second)
    )
    if a.keys() != b.keys():
        raise ValueError(f"{first} and {second} have other repetitions")
    return Interval.of([a[repetition] - b[repetition] for repetition in a])


def is_nearer(rows: Sequence[Row], first: str, second: str, claim: str) -> Verdict:
    """The first arm's samples are nearer the data, by both of the deciding distances.

    Undecided unless both intervals of the differences lie on the same side of 0.
    """
    intervals = {name: difference(rows, first, second, name) for name in _DECIDING}
    compared = "; ".join(
        f"{title} {_mean(rows, first, name)} against {_mean(rows, second, name)}"
        + ("" if interval is None else f", difference {interval}")
        for (name, interval), title in zip(intervals.items(), _DECIDING.values(), strict=True)
    )
    found = [interval for interval in intervals.values() if interval is not None]
    text = f"{claim}: {compared}"
    if not found:
        return Verdict(None, f"{text}; one seed has no interval.")
    signs = {interval.sign for interval in found}
    decided = len(signs) == 1 and 0 not in signs
    how = "" if decided else ": undecided at this scale"
    text = (
        f"{text} ({CONFIDENCE:.0%} intervals of paired differences, {found[0].count} seeds){how}."
    )
    return Verdict(signs == {-1} if decided else None, text)


def _mean(rows: Sequence[Row], arm: str, measure: str) -> Mean:
    return Mean.of(column(of_kind(rows, "arm", arm), measure))


def arms_summary(
    rows: Sequence[Row], arms: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Means of every measure of each arm, and the differences that are judged."""
    told = ("features", "train", "samples", "reference")
    found = {}
    for arm in arms:
        of_arm = of_kind(rows, "arm", arm)
        names = [name for name, value in of_arm[0].items() if isinstance(value, float)]
        found[arm] = {name: Mean.of(column(of_arm, name)).body for name in names}
    differences = []
    for first, second in pairs:
        for measure in _DECIDING:
            interval = difference(rows, first, second, measure)
            body = None if interval is None else interval.body
            differences.append(
                {"arm": first, "less": second, "measure": measure, "difference": body}
            )
    told_of = {name: rows[0][name] for name in told}
    return {**told_of, "confidence": CONFIDENCE, "arms": found, "differences": differences}
