"""Population-based training in a ledger whose configurations never change.

A member of the population trains to a rung, every ``interval_epochs``, and waits there for the
others. One that takes over another's checkpoint goes on as a new configuration: its jobs are forks
of the other's, and its values say the whole schedule of the scale that led to it. So a
configuration's spec, trained by itself from its first step, computes what the population did.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.studies.request import Pbt, StudyRequest
from workers.spec import TrainSpec

SCALE = "/trainer/spread/scale"
SCHEDULE = "/trainer/spread/schedule"
NAMED_MAX = 64  # checkpoint_at_epochs of a spec, which has each rung


@dataclass(frozen=True, slots=True)
class Stretch:
    """A scale, and the epoch at which it began."""

    from_epoch: int
    scale: float


def is_population(request: StudyRequest) -> bool:
    """Whether the configurations of a study are schedules of the scale."""
    return isinstance(request.scheduler, Pbt)


def rungs(interval_epochs: int, epochs: int) -> list[int]:
    """The epochs after which members take over one another's checkpoints; the last is none."""
    return list(range(interval_epochs, epochs, interval_epochs))


def named_epochs(spec: TrainSpec, interval_epochs: int) -> tuple[int, ...]:
    """The epochs with a checkpoint of their own of a spec in a population: each rung has one."""
    found = {*spec.checkpoint_at_epochs, *rungs(interval_epochs, spec.trainer.epochs)}
    return tuple(sorted(found))


def next_rung(interval_epochs: int, epochs: int, epoch: int) -> int:
    """How far a member trains that stands at an epoch."""
    return min((epoch // interval_epochs + 1) * interval_epochs, epochs)


def taken_over(other: Mapping[str, Any], values: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """The configuration that goes on from another one's checkpoint with other ``values``."""
    before = other[SCHEDULE]["steps"] if SCHEDULE in other else []
    steps = [*before, {"scale": other[SCALE], "until_epoch": epoch}]
    return {**values, SCHEDULE: {"kind": "steps", "steps": steps}}


def schedule(values: Mapping[str, Any]) -> tuple[Stretch, ...]:
    """The scales that led to a configuration, in their order."""
    steps = values[SCHEDULE]["steps"] if SCHEDULE in values else []
    begins = [0, *(step["until_epoch"] for step in steps)]
    scales = [*(step["scale"] for step in steps), values[SCALE]]
    return tuple(Stretch(*one) for one in zip(begins, scales, strict=True))


def begun_at(values: Mapping[str, Any]) -> int:
    """The epoch at which the jobs of a configuration begin."""
    steps = values[SCHEDULE]["steps"] if SCHEDULE in values else []
    return int(steps[-1]["until_epoch"]) if steps else 0
