"""A metric against one or two tuned parameters, with its uncertainty, and whether ranks reverse.

Only trials that ran to their end count, and that have the parameters: one that was stopped saw
fewer epochs, and a conditional parameter is not everywhere. Parameters of few values have a mean
at each; others a Gaussian process, at each value of the one beside it (see service.studies.curve).
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import FieldError, InvalidQuery, NoAnswerYet
from service.studies.curve import curve, levels
from service.studies.guard import better
from service.studies.labels import labels
from service.studies.ledger import TrialResult
from service.studies.objective import objectives
from service.studies.population import is_population
from service.studies.ranking import Interval, Mode
from service.studies.request import StudyRequest
from service.studies.rungs import Rung, on_ranks, rungs
from service.studies.space import AnyDimension, Choice, Grid, LogUniform, Uniform
from service.studies.standings import Outcome, Standings

_FEW = 12  # values of a lattice up to which each has its own mean
_PLACES = {1: 101, 2: 33}  # along each parameter, at which a process is shown
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """A parameter, seen as ``levels`` or along its own u in [0, 1]."""

    pointer: str
    dimension: AnyDimension

    @property
    def has_levels(self) -> bool:
        """Whether it has few values, each with its own mean."""
        match self.dimension:
            case Choice() | Grid():
                return True
            case Uniform(steps=int(steps)):
                return steps < _FEW
            case _:
                return False

    @property
    def is_log(self) -> bool:
        """Whether it is seen in its logarithm."""
        return isinstance(self.dimension, LogUniform)

    def u(self, value: Any) -> float:
        """Where a value lies."""
        match self.dimension:
            case LogUniform(loguniform=(low, high)):
                return math.log(value / low) / math.log(high / low)
            case Uniform(uniform=(low, high)):
                return (float(value) - low) / (high - low)
            case _:
                raise TypeError(f"{self.pointer} has no order of its own")

    def places(self, count: int) -> list[float]:
        """Values evenly along u, both ends among them."""
        match self.dimension:
            case LogUniform(loguniform=(low, high)):
                return [float(low * (high / low) ** u) for u in np.linspace(0, 1, count)]
            case Uniform(uniform=(low, high)):
                return [float(low + (high - low) * u) for u in np.linspace(0, 1, count)]
            case _:
                raise TypeError(f"{self.pointer} has no order of its own")


@dataclass(frozen=True, slots=True)
class Level:
    """The mean of trials at some values."""

    values: Mapping[str, Any]
    interval: Interval


@dataclass(frozen=True, slots=True)
class Process:
    """A Gaussian process along ``along``, at fixed values of the other parameter ``where``.

    ``places`` has the values along each; ``mean``, ``low`` and ``high`` have their shape. ``noise``
    is the deviation between trials at one place.
    """

    where: Mapping[str, Any]
    along: tuple[str, ...]
    places: tuple[list[float], ...]
    mean: Array
    low: Array
    high: Array
    noise: float
    trials: int


@dataclass(frozen=True, slots=True)
class CurveAnswer:
    """A metric against parameters; ``points`` are the trials that count.

    ``stopped`` trials did not run to their end, ``without`` did and lack a parameter.
    """

    axes: tuple[Axis, ...]
    metric: str
    mode: Mode | None
    levels: tuple[Level, ...]
    processes: tuple[Process, ...]
    points: tuple[Outcome, ...]
    stopped: int
    without: int
    rungs: tuple[Rung, ...]
    notes: tuple[str, ...]


def curves(
    standings: Standings,
    pointers: Sequence[str],
    metric: str | None,
    results_at: Callable[[Sequence[int], Sequence[int]], Sequence[TrialResult]],
    epochs: Sequence[int],
) -> CurveAnswer:
    """The curve of a metric, the objective where it is None, against one or two parameters.

    ``results_at`` gives what was reported after epochs by trials, ``epochs`` are those that several
    trials have. Raises InvalidQuery for what the study does not tune or measure, NoAnswerYet for
    too few trials.
    """
    request = standings.study.request
    axes = tuple(_axis(request, pointer) for pointer in pointers)
    if len({axis.pointer for axis in axes}) < len(axes):
        raise _bad("parameter", "names one parameter twice")
    name = known_metric(standings, metric)
    whole = [one for one in standings.outcomes if one.is_whole and _is_number(one, name)]
    points = [one for one in whole if all(axis.pointer in one.trial.values for axis in axes)]
    found_levels, processes, notes = _fitted(axes, points, name)
    if not found_levels and not processes:
        raise NoAnswerYet(
            "a curve needs trials that ran to their end at three places at least"
            f"{_of_each_level(axes)}; there are {len(points)} such trials of "
            f"{len(standings.outcomes)}, at {_most_places(axes, points)} place(s) at most"
        )
    mode = mode_of(request, name)
    found_rungs = rungs(standings, name, mode, results_at, epochs)
    ended = sum(one.trial.ended_at is not None for one in standings.outcomes)
    return CurveAnswer(
        axes=axes,
        metric=name,
        mode=mode,
        levels=found_levels,
        processes=processes,
        points=tuple(points),
        stopped=ended - len(whole),
        without=len(whole) - len(points),
        rungs=found_rungs,
        notes=(*notes, *on_ranks(found_rungs), *_of_schedules(standings.study.request)),
    )


def known_metric(standings: Standings, metric: str | None, parameter: str = "metric") -> str:
    """A metric that trials have reported, the objective where none is named.

    It may be named without its features where one kind of them is measured, as an objective may.
    Raises InvalidQuery for one that no trial has, NoAnswerYet where none has any.
    """
    own = [objective.metric for _, objective in objectives(standings.study.request)]
    if metric is None:
        return own[0]
    known = standings.metrics
    if metric in own:
        return metric
    if not known:
        raise NoAnswerYet("no trial has reported anything yet")
    meant = [name for name in known if name == metric or name.startswith(f"{metric}_")]
    if metric in known:
        return metric
    if len(meant) == 1:
        return meant[0]
    raise _bad(parameter, f"is reported by no trial; they have: {', '.join(known) or 'none yet'}")


def mode_of(request: StudyRequest, metric: str) -> Mode | None:
    """Whether less or more of a metric is better; None where that is not known."""
    for objective in (request.objective, request.second_objective):
        if objective is not None and objective.metric == metric:
            return objective.mode
    try:
        return better(metric)
    except KeyError:
        return None


def _axis(request: StudyRequest, pointer: str) -> Axis:
    if pointer not in request.space:
        raise _bad("parameter", f"is not tuned; the study tunes {', '.join(request.space)}")
    return Axis(pointer, request.space[pointer])


def _bad(name: str, problem: str) -> InvalidQuery:
    return InvalidQuery(f"/query/{name} {problem}.", (FieldError(f"/query/{name}", problem),))


def _is_number(one: Outcome, metric: str) -> bool:
    return math.isfinite(one.value(metric))


def _fitted(
    axes: Sequence[Axis], points: Sequence[Outcome], metric: str
) -> tuple[tuple[Level, ...], tuple[Process, ...], list[str]]:
    fixed = [axis for axis in axes if axis.has_levels]
    along = [axis for axis in axes if not axis.has_levels]
    groups: dict[str, list[Outcome]] = {}
    for one in points:
        key = json.dumps([one.trial.values[axis.pointer] for axis in fixed])
        groups.setdefault(key, []).append(one)
    where = {
        key: {axis.pointer: found[0].trial.values[axis.pointer] for axis in fixed}
        for key, found in groups.items()
    }
    if not along:
        means = levels({key: [one.value(metric) for one in of] for key, of in groups.items()})
        ordered = sorted(means, key=lambda key: _place(fixed, where[key]))
        return tuple(Level(where[key], means[key]) for key in ordered), (), []
    processes, notes = [], []
    ordered = sorted(groups, key=lambda key: _place(fixed, where[key]))
    texts = {a.pointer: labels([where[key][a.pointer] for key in ordered]) for a in fixed}
    for number, key in enumerate(ordered):
        try:
            processes.append(_process(along, where[key], groups[key], metric))
        except ValueError:
            at = " and ".join(f"{pointer} {of[number]}" for pointer, of in texts.items())
            notes.append(f"Too few trials for a curve{' at ' if at else ''}{at}.")
    return (), tuple(processes), notes


def _of_each_level(axes: Sequence[Axis]) -> str:
    fixed = [axis.pointer for axis in axes if axis.has_levels]
    return f", for one value of {' and '.join(fixed)}" if fixed else ""


def _most_places(axes: Sequence[Axis], points: Sequence[Outcome]) -> int:
    """The places along the parameters with ranges, beside those values of the others that have
    most of them."""
    places: dict[str, set[str]] = {}
    for one in points:
        key, at = (
            json.dumps([one.trial.values[axis.pointer] for axis in axes if axis.has_levels is are])
            for are in (True, False)
        )
        places.setdefault(key, set()).add(at)
    return max(map(len, places.values()), default=0)


def _place(fixed: Sequence[Axis], values: Mapping[str, Any]) -> tuple[int, ...]:
    """The order of a parameter's own values."""
    found = []
    for axis in fixed:
        options = [json.dumps(option) for option in axis.dimension.options() or ()]
        text = json.dumps(values[axis.pointer])
        found.append(options.index(text) if text in options else len(options))
    return tuple(found)


def _process(
    along: Sequence[Axis], where: Mapping[str, Any], points: Sequence[Outcome], metric: str
) -> Process:
    x = np.array([[axis.u(one.trial.values[axis.pointer]) for axis in along] for one in points])
    y = np.array([one.value(metric) for one in points])
    count = _PLACES[len(along)]
    grid = np.meshgrid(*(np.linspace(0, 1, count) for _ in along), indexing="ij")
    at = np.stack([part.reshape(-1) for part in grid], axis=1)
    found = curve(x, y, at)
    shape = grid[0].shape
    return Process(
        where=where,
        along=tuple(axis.pointer for axis in along),
        places=tuple(axis.places(count) for axis in along),
        mean=found.mean.reshape(shape),
        low=found.low.reshape(shape),
        high=found.high.reshape(shape),
        noise=found.noise,
        trials=len(points),
    )


def _of_schedules(request: StudyRequest) -> tuple[str, ...]:
    if not is_population(request):
        return ()
    return (
        "Trials of pbt are schedules of the scale, not scales: each is shown at its last one, and "
        "how it came there differs.",
    )
