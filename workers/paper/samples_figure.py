"""Figures 5 and 6: arms side by side at the same latents, and which of them is nearer the data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from workers.build import resolve
from workers.data import DatasetInfo
from workers.paper.arms import Arm, Pictures, Setting, Training, arm_parts
from workers.paper.base import Asked, Kept, Part, Row, Scale, Verdict
from workers.paper.paired import arms_summary, is_nearer
from workers.paper.strips import strips_png
from workers.spec import TrainSpec


@dataclass(frozen=True, slots=True)
class Claim:
    """That the samples of one arm are nearer the data than another's.

    ``paper`` is what the paper has of it, in words.
    """

    first: str
    second: str
    text: str
    paper: str


@dataclass(frozen=True, slots=True)
class SamplesFigure:
    """Figure 5 or 6; ``pictures`` are the data of what is asked, and refuse others.

    ``published`` are the paper's numbers of arms. They are of another space: their order compares.
    """

    name: str
    title: str
    source: str
    arms: Callable[[Setting], tuple[Arm, ...]]
    claims: tuple[Claim, ...]
    settings: Mapping[Scale, Setting]
    pictures: Callable[[Asked, Setting], Pictures]
    published: Mapping[str, float] = field(default_factory=dict)

    def parts(self, asked: Asked) -> Sequence[Part]:
        """One for each seed and arm; pictures are asked for by a part that runs."""
        setting = self.settings[asked.scale]
        pictures = partial(self.pictures, asked, setting)
        return arm_parts(self.arms(setting), setting, asked, pictures, f"figure-{self.name}")

    def trainings(self, asked: Asked) -> Iterator[tuple[TrainSpec, DatasetInfo]]:
        """The resolved spec of each arm, and the data that it has; nothing of them is read.

        Raises SpecMismatch for data that the figure cannot show.
        """
        setting = self.settings[asked.scale]
        pictures = self.pictures(asked, setting)
        data = pictures.split(setting)
        for arm in self.arms(setting):
            training = Training(arm, setting, lambda: pictures, 0, 0, asked)
            yield resolve(training.spec(data), data.info), data.info

    def verdicts(self, rows: Sequence[Row]) -> tuple[Verdict, ...]:
        """One for each claim, with what the paper has of it."""
        return tuple(
            Verdict(found.holds, f"{found.text} The paper: {claim.paper}.")
            for claim in self.claims
            for found in (is_nearer(rows, claim.first, claim.second, claim.text),)
        )

    def draw(self, rows: Sequence[Row], kept: Kept) -> bytes:
        """Samples of each arm and of the data, with their measures."""
        return strips_png(self.title, self._shown, rows, kept)

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Mean measures of each arm, the differences that are judged, and the paper's numbers."""
        pairs = [(claim.first, claim.second) for claim in self.claims]
        found = arms_summary(rows, [arm.name for arm in self._shown], pairs)
        return {**found, "published": dict(self.published)}

    @property
    def _shown(self) -> tuple[Arm, ...]:
        """The arms, which have the same names at all scales."""
        return self.arms(self.settings["quick"])
