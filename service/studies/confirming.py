"""The best of a search, trained again on fresh seeds: what can be said of them without bias."""

import math
from collections.abc import Sequence

from service.studies.course import configurations, is_whole
from service.studies.ledger import Trial, TrialResult
from service.studies.ranking import top
from service.studies.readings import Readings
from service.studies.replaying import known
from service.studies.request import StudyRequest


def candidates(
    request: StudyRequest,
    trials: Sequence[Trial],
    results: Sequence[TrialResult],
    readings: Readings,
) -> tuple[int, ...]:
    """The configurations that are confirmed, the best of the search first.

    Only those that came to their own end are compared, by their last results, and of these only
    those whose last result a scheduler was told of: one that it had stopped too late is none.
    """
    of = configurations(trials)
    values: dict[int, float] = {}
    for one in known(trials, results, len(request.seeds)):
        last = one.last([request.objective.metric])
        if last is None or not is_whole(of[one.number], len(request.seeds)):
            continue
        ends = [readings.last_epoch(trial) for trial in of[one.number]]
        if one.history[-1][0] >= min((end for end in ends if end is not None), default=0):
            values[one.number] = last[0] if math.isfinite(last[0]) else math.nan
    return top(values, request.confirmation.top, request.objective.mode)
