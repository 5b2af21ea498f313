"""A figure from the files of several jobs that have shared its repetitions."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from workers.paper.base import Figure, Row
from workers.paper.figures import FIGURES, SHARED
from workers.paper.results import NUMBERS, TABLE, rows_in


@dataclass(frozen=True, slots=True)
class Share:
    """What one job has left in ``folder``: some repetitions of a figure, from one seed."""

    folder: Path
    figure: str
    scale: str
    seed: int
    rows: tuple[Row, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From figure.json and figure.csv.

        Raises ValueError for a folder with other content, and OSError.
        """
        try:
            numbers = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
            figure, asked = numbers["figure"], numbers["asked"]
            scale, seed = asked["scale"], int(asked["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / NUMBERS} is not what a job of a figure leaves") from error
        if figure not in SHARED:
            every = " and ".join(sorted(SHARED))
            raise ValueError(f"{folder} has figure {figure}; only {every} are shared by jobs")
        rows = rows_in((folder / TABLE).read_text(encoding="utf-8"))
        if not rows or any("repetition" not in row for row in rows):
            raise ValueError(f"{folder / TABLE} has no repetitions")
        return cls(folder, figure, scale, seed, tuple(rows))

    @property
    def repetitions(self) -> frozenset[int]:
        """Their numbers."""
        return frozenset(int(row["repetition"]) for row in self.rows)

    @property
    def asked(self) -> dict[str, int | str]:
        """As figure.json tells it."""
        return {
            "scale": self.scale,
            "repetitions": len(self.repetitions),
            "first_repetition": min(self.repetitions),
            "seed": self.seed,
        }


def joined(shares: Sequence[Share]) -> tuple[Figure, tuple[Row, ...]]:
    """The figure of some shares, and its rows, which are those of one job for all of them.

    Raises ValueError for shares that do not belong together, or have a repetition twice.
    """
    first = shares[0]
    for share in shares[1:]:
        for what in ("figure", "scale"):
            mine, theirs = getattr(first, what), getattr(share, what)
            if mine != theirs:
                raise ValueError(
                    f"{first.folder} has {what} {mine}, and {share.folder} has {what} {theirs}"
                )
    held: dict[tuple[int, int], Share] = {}
    for seed, repetition, share in _held(shares):
        if (other := held.setdefault((seed, repetition), share)) is not share:
            both = f"{other.folder} and {share.folder} both have"
            raise ValueError(f"{both} repetition {repetition} of seed {seed}")
    ordered = sorted(shares, key=lambda share: (share.seed, min(share.repetitions)))
    return FIGURES[first.figure], tuple(row for share in ordered for row in share.rows)


def _held(shares: Sequence[Share]) -> Iterator[tuple[int, int, Share]]:
    for share in shares:
        for repetition in sorted(share.repetitions):
            yield share.seed, repetition, share
