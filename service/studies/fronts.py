"""Two metrics against one another: the configurations that none surpasses in both."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import FieldError, InvalidQuery, NoAnswerYet
from service.studies.curves import known_metric, mode_of
from service.studies.ranking import Mode, pareto
from service.studies.standings import Standings

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Front:
    """Points of configurations and which are on the front, in the order of the first metric.

    ``searched`` are on the search's seeds, so that the front looks better than it is; ``fresh``
    are means of those that were confirmed, with a front of their own.
    """

    metrics: tuple[str, str]
    modes: tuple[Mode, Mode]
    values: Mapping[int, Mapping[str, Any]]
    searched: Mapping[int, Point]
    front: tuple[int, ...]
    fresh: Mapping[int, Point]
    fresh_front: tuple[int, ...]


def front(standings: Standings, second: str | None) -> Front:
    """The front of the objective and a second metric, the study's own where it is None.

    Raises InvalidQuery where there is none, or nobody knows whether less or more of it is better,
    and NoAnswerYet where no trial has both.
    """
    request = standings.study.request
    objective = request.objective
    if second is None:
        if request.second_objective is None:
            raise _bad("must name a metric, as the study has no second objective")
        second = request.second_objective.metric
    second = known_metric(standings, second, "second")
    mode = mode_of(request, second)
    if mode is None or second == objective.metric:
        raise _bad("must name another metric, of which less or more is better")
    both = (standings.searched(objective.metric), standings.searched(second))
    searched = _together(*both)
    if not searched:
        raise NoAnswerYet(f"no trial that ran to its end has {objective.metric} and {second}")
    fresh = _together(*(_means(standings.fresh(metric)) for metric in (objective.metric, second)))
    modes = (objective.mode, mode)
    return Front(
        metrics=(objective.metric, second),
        modes=modes,
        values=standings.values,
        searched=searched,
        front=pareto(searched, modes),
        fresh=fresh,
        fresh_front=pareto(fresh, modes),
    )


def _bad(problem: str) -> InvalidQuery:
    return InvalidQuery(f"/query/second {problem}.", (FieldError("/query/second", problem),))


def _means(fresh: Mapping[int, Mapping[int, float]]) -> dict[int, float]:
    return {
        number: math.fsum(by_seed.values()) / len(by_seed)
        for number, by_seed in fresh.items()
        if by_seed
    }


def _together(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, Point]:
    return {
        number: (first[number], second[number])
        for number in sorted(first.keys() & second.keys())
        if math.isfinite(first[number]) and math.isfinite(second[number])
    }
