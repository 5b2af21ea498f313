"""How the scale of the noise moves over the run."""

import math
from typing import assert_never

from workers.spec import FixedSpread, ScaleSteps


def scale_at(spec: FixedSpread, epoch: float) -> float:
    """Standard deviation of the noise after ``epoch`` epochs; see ScaleSchedule for the forms."""
    schedule = spec.schedule
    if schedule is None or epoch >= schedule.until_epoch:
        return spec.scale
    if isinstance(schedule, ScaleSteps):
        return next(step.scale for step in schedule.steps if epoch < step.until_epoch)
    first, last, u = schedule.initial_scale, spec.scale, epoch / schedule.until_epoch
    match schedule.kind:
        case "linear":
            return first + (last - first) * u
        case "cosine":
            return last + (first - last) * (1 + math.cos(math.pi * u)) / 2
        case "geometric":
            return first * math.exp(u * math.log(last / first))
        case _:
            assert_never(schedule.kind)


def settled_epoch(spec: FixedSpread) -> int:
    """The epoch from which the scale no longer moves."""
    return 0 if spec.schedule is None else spec.schedule.until_epoch
