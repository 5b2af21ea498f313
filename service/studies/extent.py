"""How many configurations, trials and epochs a study has at most, as its request says."""

import math

from service.studies.configuring import grid
from service.studies.objective import most_epochs
from service.studies.population import rungs
from service.studies.request import GridSearch, Pbt, StudyRequest
from workers.kinds import is_open_ended

_GRID_COUNTED = 10_000


def configurations(request: StudyRequest) -> int:
    """How many configurations the search tries at most."""
    if not isinstance(request.search, GridSearch):
        return request.budget.trials
    most = min(request.budget.trials, _GRID_COUNTED)
    dimensions = request.space.values()
    if not any(dimension.when for dimension in dimensions):
        return min(math.prod(len(dimension.options() or ()) for dimension in dimensions), most)
    return sum(1 for _, _ in zip(grid(request.space), range(most), strict=False))


def takeovers(request: StudyRequest) -> int:
    """How many members of a population go on from others' checkpoints, each as a trial of its own;
    0 of other studies."""
    scheduler = request.scheduler
    if not isinstance(scheduler, Pbt):
        return 0
    size = request.budget.trials
    each = min(math.ceil(size * scheduler.quantile), size // 2)
    return each * len(rungs(scheduler.interval_epochs, most_epochs(request)))


def trials(request: StudyRequest) -> tuple[int, int]:
    """How many trials the search and the confirmation have at most, without takeovers."""
    found = configurations(request)
    confirmed = min(request.confirmation.top, found)
    return found * len(request.seeds), confirmed * len(request.confirmation.seeds)


def epochs(request: StudyRequest) -> tuple[int, int] | None:
    """How many epochs the search and the confirmation have at most, without takeovers; None where
    a run ends when it has converged."""
    if is_open_ended(request.spec):
        return None
    search, confirmation = trials(request)
    most, limit = most_epochs(request), request.budget.max_epochs
    return min(search * most, limit or search * most), confirmation * most
