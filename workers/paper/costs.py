"""What a figure needs, by arithmetic, and what it can be asked with."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from workers import costs
from workers.costs import Estimate
from workers.data import Dataset, DatasetInfo, held_out_count
from workers.errors import SpecMismatch
from workers.paper.arms import SHOWN
from workers.paper.base import Asked, Figure
from workers.paper.figures import FIGURES, SHARED, TAKING_DATA
from workers.paper.samples_figure import SamplesFigure
from workers.spec import PaperSpec, TrainSpec

_PROCESS_BYTES = 450 * 2**20  # Python, torch, scikit-learn and Matplotlib before the first row
_WORK_BYTES = 400 * 2**20  # the largest arrays that a part has at once
_STATE_BYTES = 4096  # of a checkpoint's files, beside
_PART_BYTES = 16 * 1024  # its rows
_FILES_BYTES = 2 * 2**20  # the picture, the numbers
_LONG_S = 6 * 3600.0  # from here on a figure is better shared
_DAY_S = 24 * 3600.0


def figure_of(spec: PaperSpec) -> Figure:
    """The figure that a spec names."""
    return FIGURES[spec.trainer.figure]


def asked_of(spec: PaperSpec, data: Dataset | None = None) -> Asked:
    """What a spec asks of its figure; without the data for what is only counted."""
    trainer = spec.trainer
    asked = Asked(
        scale=trainer.scale,
        repetitions=trainer.repetitions,
        first_repetition=trainer.first_repetition,
        seed=spec.seed,
        gpus=spec.resources.gpus_per_worker,
    )
    if data is None or spec.dataset is None:
        return asked
    return replace(asked, data=data.train, shape=data.info.shape)


def resolve(spec: PaperSpec, info: DatasetInfo) -> PaperSpec:
    """The spec with the data digest filled in.

    Raises SpecMismatch, its pointer relative to the spec, for what a figure cannot be asked.
    """
    trainer, resources = spec.trainer, spec.resources
    if resources.workers > 1:
        shared = " Share its repetitions among several jobs instead: first_repetition."
        raise SpecMismatch(
            "/resources/workers",
            "must be 1: the parts of a figure are computed one after the other."
            + (shared if trainer.figure in SHARED else ""),
        )
    if resources.gpus_per_worker and trainer.figure not in TAKING_DATA:
        raise SpecMismatch(
            "/resources/gpus_per_worker",
            f"must be 0: figure {trainer.figure} is computed on the CPU; leave it out",
        )
    if trainer.first_repetition and trainer.figure not in SHARED:
        raise SpecMismatch(
            "/trainer/first_repetition",
            f"must be 0: one job computes all of figure {trainer.figure}; "
            f"{' and '.join(sorted(SHARED))} can be shared",
        )
    if spec.dataset is not None and trainer.figure not in TAKING_DATA:
        raise SpecMismatch(
            "/dataset", f"figure {trainer.figure} draws its own data; leave the data set out"
        )
    for _ in _trainings(spec, info):  # raises where its data are none that the figure can show
        pass
    if spec.dataset is None:
        return spec
    return spec.model_copy(
        update={"dataset": spec.dataset.model_copy(update={"digest": info.digest})}
    )


def _trainings(spec: PaperSpec, info: DatasetInfo) -> Iterator[tuple[TrainSpec, DatasetInfo]]:
    """What a figure trains one after the other, on data of which only the shape is there."""
    figure, asked = figure_of(spec), asked_of(spec)
    if spec.dataset is not None:
        count = info.count - held_out_count(info.count, spec.dataset.held_out_fraction)
        form = torch.empty(count, info.dimensions, dtype=torch.uint8, device="meta")
        asked = replace(asked, data=form, shape=info.shape)
    if isinstance(figure, SamplesFigure):
        yield from figure.trainings(asked)


def total_parts(spec: PaperSpec) -> int:
    """How many parts the figure has."""
    return len(figure_of(spec).parts(asked_of(spec)))


def estimate(spec: PaperSpec, info: DatasetInfo) -> Estimate:
    """What the run will need; by arithmetic, nothing is allocated."""
    parts, rows = total_parts(spec), total_parts(spec) * _PART_BYTES
    trainings = [*_trainings(spec, info)]
    of_training = max(
        (costs.estimate(*training).worker_memory_bytes for training in trainings), default=0
    )
    shown = SHOWN * sum(of.dimensions for _, of in (*trainings, *trainings[:1]))
    kept = min(spec.keep_checkpoints, parts) + 3
    memory = max(_PROCESS_BYTES + _WORK_BYTES, of_training) + 2 * info.size_bytes + 4 * rows
    return Estimate(
        parameters=0,
        worker_memory_bytes=memory,
        steps=parts,
        storage_bytes=kept * 2 * (rows + shown + _STATE_BYTES) + _FILES_BYTES,
    )


def thread_s(spec: PaperSpec) -> float | None:
    """Seconds of one thread that all parts take; None where some were never measured."""
    seconds = [part.thread_s for part in figure_of(spec).parts(asked_of(spec))]
    measured = [known for known in seconds if known is not None]
    return sum(measured) if len(measured) == len(seconds) else None


def advice(spec: PaperSpec) -> tuple[str, ...]:
    """What to know before a figure is asked for that takes long."""
    seconds, trainer = thread_s(spec), spec.trainer
    if seconds is None or seconds < _LONG_S or trainer.figure not in SHARED:
        return ()
    single = spec.model_copy(update={"trainer": trainer.model_copy(update={"repetitions": 1})})
    jobs = total_parts(spec) // total_parts(single)
    takes = f"This is about {_in_words(seconds)} of one thread, and one job computes on one."
    if jobs == 1:
        return (takes,)
    first, last = trainer.first_repetition, trainer.first_repetition + jobs - 1
    return (
        f"{takes} Share it: submit {jobs} jobs with repetitions 1 and first_repetition {first} to "
        f"{last}, of {_in_words(seconds / jobs)} each, and join what they leave with "
        "`spreadtrain join-figure`.",
    )


def _in_words(seconds: float) -> str:
    if seconds >= _DAY_S:
        return f"{seconds / _DAY_S:.1f} days"
    return f"{seconds / 3600:.1f} hours"
