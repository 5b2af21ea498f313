"""What a figure of the paper is: parts to compute, and what is made of their rows.

A figure is pure: it knows no job, store or artifact. Parts are done in order, each by its own
seed, so a run that stops after any of them and goes on ends with the same rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

Scale = Literal["quick", "paper"]
Row = Mapping[str, float | int | str]
"""One line of a figure's CSV."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a figure.

    ``repetitions`` None leaves their number to figure and scale; ``data`` are N×D training data,
    uint8 for pictures of ``shape``, None where the job names none.
    """

    scale: Scale = "quick"
    repetitions: int | None = None
    seed: int = 0
    data: torch.Tensor | None = None
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A unit of work, whose rows are kept over pause, kill and resume once it is done.

    ``name`` is unique within a plan, such as "gamma=0.2 seed=3". ``compute`` is deterministic by
    its own seed and yields rows, and None where there is nothing to tell yet: one or the other at
    least once a second where it can, as a stop is seen between two of them. ``thread_s`` is what
    it takes on one thread, by measurements of like work; None where nobody has measured.
    """

    name: str
    compute: Callable[[], Iterator[Row | None]]
    thread_s: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a figure says of one claim of the paper.

    ``holds`` None is not decided at this scale; ``text`` says what was compared with the paper or
    the closed form, with the numbers.
    """

    holds: bool | None
    text: str

    @property
    def word(self) -> str:
        """``holds`` in words."""
        return {True: "holds", False: "does not hold", None: "not decided"}[self.holds]


class Figure(Protocol):
    """A figure of the paper.

    ``name`` is what a spec calls it, ``title`` says what it shows, ``source`` where it stands in
    the paper.
    """

    @property
    def name(self) -> str:
        """Such as "4a"."""
        ...

    @property
    def title(self) -> str:
        """What it shows."""
        ...

    @property
    def source(self) -> str:
        """Where it stands in the paper."""
        ...

    def parts(self, asked: Asked) -> Sequence[Part]:
        """The work, in order. Cheap, and the same names with and without the data."""
        ...

    def verdicts(self, rows: Sequence[Row]) -> tuple[Verdict, ...]:
        """What the rows of all parts say, one for each claim."""
        ...

    def draw(self, rows: Sequence[Row]) -> bytes:
        """The picture, as PNG."""
        ...

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """The numbers as JSON: means, standard errors."""
        ...
