"""Arms of an experiment: trainings that differ in what is compared, at the same seeds.

One arm at one seed is one part. At a seed all arms begin with the same weights, see the data in the
same order, and are measured with the same latents against the same held-out data, which training
never sees: so their differences are paired. Training and measures are the house's own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.build import QUALITY_ROWS, empty_model, resolve
from workers.data import Dataset, DatasetInfo
from workers.decoding import decode, draw_latents
from workers.errors import SpecMismatch
from workers.events import Artifact, Checkpoint, Metrics
from workers.paper.base import Asked, Keep, Part, Row
from workers.quality import Report
from workers.seeds import SeedStream
from workers.spec import TrainSpec
from workers.spec.base import SEED_MAX
from workers.train import train
from workers.train_state import SPREAD

SHOWN = 24  # pictures of each arm
DATA = "data"  # what the held-out pictures are kept as
FRECHET = "frechet_pca"  # the measure that is declared first
_HELD_OUT = 5  # one of so many data is held out, at most
_NAME = "pictures"
# Of the last metrics, beside the measures of quality: a plain companion, and what f does to x.
_COMPANIONS = ("sample_total_variance", "data_total_variance", "spread_gain")


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arm's trainer has of its own, as in a spec; ``title`` names it in words."""

    name: str
    title: str
    trainer: Mapping[str, Any]
    thread_s: float | None = None  # of one training at scale ``quick``, on one thread


@dataclass(frozen=True, slots=True)
class Setting:
    """What all arms share: their trainer's other fields, and how much of the data is used.

    ``train`` and ``reference`` are the most data that are trained on and held out. ``rounds`` is
    for the arm that learns its spread. ``reduces`` halves pictures while both sides are above 32,
    as far as they can be.
    """

    train: int
    reference: int
    repetitions: int
    trainer: Mapping[str, Any]
    rounds: Mapping[str, Any]
    reduces: bool = False


@dataclass(frozen=True, slots=True)
class Pictures:
    """Rows of pictures, N×D uint8 in an order that says nothing, and the shape of one."""

    rows: Tensor
    shape: tuple[int, ...]

    def split(self, setting: Setting) -> Dataset:
        """The data of a training: the first rows are held out, the next ones trained on.

        Slices, so that a large file that is mapped stays where it is. Raises SpecMismatch.
        """
        held = min(setting.reference, len(self.rows) // _HELD_OUT)
        count = held + min(setting.train, len(self.rows) - held)
        least = _HELD_OUT * QUALITY_ROWS
        if count < least:
            raise SpecMismatch(
                "/dataset", f"the figure needs at least {least} pictures, not {count}; give more"
            )
        rows, shape = self.rows[:count], self.shape
        while setting.reduces and min(shape[:2]) > 32 and not any(side % 16 for side in shape[:2]):
            rows, shape = _halved(rows, shape)
        info = DatasetInfo(_NAME, _NAME, shape, count, True, "", True, "")
        return Dataset(info, rows[held:], rows[:held])


def _halved(rows: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """Means over 2×2 pixels, rounded to 8 bits."""
    height, width = shape[0] // 2, shape[1] // 2
    blocks = rows.view(len(rows), height, 2, width, 2, -1).float().mean((2, 4))
    return blocks.round().to(torch.uint8).flatten(1), (height, width, *shape[2:])


@dataclass(frozen=True, slots=True)
class Training:
    """One arm at one seed; ``source`` is asked for the pictures when it runs."""

    arm: Arm
    setting: Setting
    source: Callable[[], Pictures]
    repetition: int
    seed: int
    asked: Asked

    def spec(self, data: Dataset) -> TrainSpec:
        """The job that it trains; it is measured, drawn and kept at its end only."""
        trainer = {**self.setting.trainer, **self.arm.trainer}
        end = trainer["epochs"]
        held_out_fraction = len(data.held_out) / data.info.count
        return TrainSpec.model_validate(
            {
                "seed": self.seed,
                "dataset": {"name": _NAME, "held_out_fraction": held_out_fraction},
                "trainer": {"evaluate_every_epochs": end, "grid_every_epochs": end, **trainer},
                "resources": {"gpus_per_worker": min(1, self.asked.gpus)},
                "checkpoint_every_epochs": end,
                "checkpoint_at_epochs": [],
            }
        )

    def run(self) -> Iterator[Row | Keep | None]:
        """One row of measures, and samples of the first repetition. Raises SpecMismatch."""
        data = self.source().split(self.setting)
        spec = resolve(self.spec(data), data.info)
        metrics: Mapping[str, float] = {}
        weights: Mapping[str, Tensor] = {}
        report: Report | None = None
        for event in train(spec, data):
            match event:
                case Metrics(values=values):
                    metrics = values
                case Checkpoint():
                    weights = event.weights
                case Artifact(name=name, content=content) if name.startswith("quality/"):
                    report = Report.model_validate_json(content)
            yield None
        assert report is not None  # the spec asks for one at the end
        yield self._row(len(data.train), metrics, report)
        if self.repetition == 0:
            yield Keep(DATA, data.held_out[:SHOWN].reshape(-1, *data.info.shape).clone())
            samples = self._samples(spec, data.info, weights)
            yield Keep(self.arm.name, (samples * 255).round().to(torch.uint8))

    def _row(self, train: int, metrics: Mapping[str, float], report: Report) -> Row:
        declared = report.measures[FRECHET]
        return {
            "arm": self.arm.name,
            "repetition": self.repetition,
            "features": declared.space,
            "train": train,
            "samples": declared.samples,
            "reference": declared.reference,
            **{name: measure.value for name, measure in report.measures.items()},
            **{name: metrics[name] for name in _COMPANIONS if name in metrics},
        }

    def _samples(self, spec: TrainSpec, info: DatasetInfo, weights: Mapping[str, Tensor]) -> Tensor:
        """Samples of values in [0, 1] at latents that all arms share, (SHOWN, *shape)."""
        generator = torch.Generator().manual_seed(0)
        model = empty_model(spec, info.shape, is_image=True, generator=generator)
        own = {name: value for name, value in weights.items() if not name.startswith(SPREAD)}
        model.load_state_dict(own)
        latents = draw_latents(SHOWN, model.latent_dim, self.asked.seed)
        return torch.from_numpy(decode(model.eval(), latents)).reshape(-1, *info.shape)


def arm_parts(
    arms: Sequence[Arm], setting: Setting, asked: Asked, source: Callable[[], Pictures], name: str
) -> list[Part]:
    """One part for each seed and arm; ``name`` tells the seeds of one figure from another's."""
    seeds = SeedStream(asked.seed, name)
    return [
        Part(
            f"arm={arm.name} repetition={repetition}",
            Training(arm, setting, source, repetition, seeds.at(repetition) & SEED_MAX, asked).run,
            arm.thread_s if asked.scale == "quick" else None,
        )
        for repetition in range(asked.repetitions or setting.repetitions)
        for arm in arms
    ]
