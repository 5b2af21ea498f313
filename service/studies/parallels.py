"""Parallel coordinates: every trial as a line through its tuned values to what came of it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import NoAnswerYet
from service.studies.curves import Axis, known_metric, mode_of
from service.studies.standings import Standings


@dataclass(frozen=True, slots=True)
class Line:
    """A trial: its place on each axis in [0, 1], None where it has not the parameter.

    ``height`` is the place of its value, ``rank`` counts from 0 for the best. ``is_stopped`` ones
    did not run to their end.
    """

    trial: int
    configuration: int
    values: Mapping[str, Any]
    places: tuple[float | None, ...]
    value: float
    height: float
    rank: int
    is_stopped: bool


@dataclass(frozen=True, slots=True)
class Parallels:
    """All trials that have a value; ``range`` are the least and the largest."""

    axes: tuple[Axis, ...]
    metric: str
    range: tuple[float, float]
    lines: tuple[Line, ...]


def parallels(standings: Standings, metric: str | None) -> Parallels:
    """The lines for a metric, the objective where it is None.

    Raises InvalidQuery for an unknown metric, NoAnswerYet where no trial has a value.
    """
    request = standings.study.request
    name = known_metric(standings, metric)
    axes = tuple(Axis(pointer, dimension) for pointer, dimension in request.space.items())
    usable = [one for one in standings.outcomes if math.isfinite(one.value(name))]
    if not usable:
        raise NoAnswerYet(f"no trial has reported {name}; {len(standings.outcomes)} have begun")
    sign = -1.0 if mode_of(request, name) == "max" else 1.0
    by_rank = sorted(usable, key=lambda one: (sign * one.value(name), one.trial.number))
    ranks = {one.trial.number: rank for rank, one in enumerate(by_rank)}
    low = min(one.value(name) for one in usable)
    high = max(one.value(name) for one in usable)
    lines = tuple(
        Line(
            trial=one.trial.number,
            configuration=one.trial.configuration,
            values=one.trial.values,
            places=tuple(_place(axis, one.trial.values) for axis in axes),
            value=one.value(name),
            height=(one.value(name) - low) / (high - low) if high > low else 0.5,
            rank=ranks[one.trial.number],
            is_stopped=not one.is_whole,
        )
        for one in usable
    )
    return Parallels(axes, name, (low, high), lines)


def _place(axis: Axis, values: Mapping[str, Any]) -> float | None:
    if axis.pointer not in values:
        return None
    value = values[axis.pointer]
    options = axis.dimension.options()
    if not axis.has_levels or options is None:
        return axis.u(value)
    texts = [json.dumps(option, sort_keys=True) for option in options]
    return texts.index(json.dumps(value, sort_keys=True)) / max(len(options) - 1, 1)
