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
class Keep:
    """What a figure shows and no CSV holds, such as uint8 pictures (N, *shape).

    ``name`` is unique within a figure.
    """

    name: str
    values: torch.Tensor


Kept = Mapping[str, torch.Tensor]
"""What all parts of a figure kept beside their rows, by name."""
NOTHING: Kept = {}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a figure.

    ``repetitions`` None leaves their number to figure and scale; they are numbered from
    ``first_repetition``, where a figure's work can be shared by them. ``data`` are N×D training
    data, uint8 for pictures of ``shape``, None where the job names none; they are in an order that
    says nothing. ``gpus`` are those of the run: networks are trained on one where there is one.
    """

    scale: Scale = "quick"
    repetitions: int | None = None
    first_repetition: int = 0
    seed: int = 0
    data: torch.Tensor | None = None
    shape: tuple[int, ...] = ()
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A unit of work; what it yields is kept over pause, kill and resume once it is done.

    ``name`` is unique within a plan, such as "gamma=0.2 seed=3". ``compute`` is deterministic by
    its own seed and yields rows, what else is to be kept, and None where there is nothing to tell
    yet: one of them at least once a second where it can, as a stop is seen between two of them.
    ``thread_s`` is what it takes on one thread, by measurements of like work; None where nobody
    has measured.
    """

    name: str
    compute: Callable[[], Iterator[Row | Keep | None]]
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

    def draw(self, rows: Sequence[Row], kept: Kept) -> bytes:
        """The picture, as PNG, from the rows of all parts and what else they kept, by name."""
        ...

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """The numbers as JSON: means, standard errors."""
        ...
