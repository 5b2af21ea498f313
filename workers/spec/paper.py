"""The figures of the paper, each as a job of its own."""

from typing import Literal

from pydantic import Field

from workers.spec.base import SpecModel

FigureName = Literal[
    "eq12", "1", "2", "3", "4a", "4b", "5", "6", "efficiency", "mixture", "mle-existence"
]


class Paper(SpecModel):
    """A figure of the paper, computed anew: its picture, its numbers, and which claims hold.

    A job of it takes no data set, unless the figure shows one, and trains no model to draw from. It
    leaves the artifacts figure.png, figure.csv and figure.json.
    """

    kind: Literal["paper"]
    figure: FigureName
    """Which one: a figure's number, ``eq12`` for equation 12, ``efficiency`` for appendix F,
    ``mixture`` for E, ``mle-existence`` for F.1."""
    scale: Literal["quick", "paper"] = "quick"
    """``quick`` takes minutes at most; ``paper`` has the paper's sizes, or as many draws."""
    repetitions: int | None = Field(default=None, ge=1, le=10_000)
    """How often what is random is repeated, or by what its draws are multiplied; null leaves that
    to figure and scale."""
    first_repetition: int = Field(default=0, ge=0, le=1_000_000)
    """The number of the first repetition, of figures 4a and 4b: several jobs can share them, and
    their numbers be joined."""
