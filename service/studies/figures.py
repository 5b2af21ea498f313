"""Numbers about all studies, for monitoring."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.jobs import FINAL_STATES, JobState, Reason
from service.jobstore import JobStore


@dataclass(frozen=True, slots=True)
class StudyFigures:
    """``trials`` are by outcome: the reason of those that have ended, else their state."""

    studies_by_state: Mapping[JobState, int]
    trials_by_outcome: Mapping[str, int]


def study_figures(jobs: JobStore) -> StudyFigures:
    """Of the studies that are not deleted. Every state is there, the reasons as they come.

    Raises NotReady.
    """
    found = jobs.studies.count_by_state()
    outcomes = {state.value: 0 for state in JobState if state not in FINAL_STATES}
    for (state, reason), count in jobs.studies.count_trials().items():
        outcome = _outcome(state, reason)
        outcomes[outcome] = outcomes.get(outcome, 0) + count
    return StudyFigures({state: found.get(state, 0) for state in JobState}, outcomes)


def _outcome(state: JobState, reason: Reason) -> str:
    return reason.value if state in FINAL_STATES else state.value
