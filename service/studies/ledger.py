"""Studies and trials as values, and the table of what may follow what.

The ledger in the database is the truth about a study. A trial is a job, whose state is the trial's:
it is stored, with its job, before anything starts it; each of its results is stored before a
scheduler sees it. So a driver that dies loses nothing, and the next one repeats nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from service.jobs import JobState, Reason
from service.studies.request import StudyRequest


class StudyReason(StrEnum):
    """Why a study is in its state; stable words for programs."""

    # queued
    SUBMITTED = "submitted"
    RECOVERING = "recovering"
    RESUMED = "resumed"
    RETRIED = "retried"
    EXTENDED = "extended"
    # running
    STARTING = "starting"
    SEARCHING = "searching"
    CONFIRMING = "confirming"
    CANCELLING = "cancelling"
    PAUSING = "pausing"
    # paused, ended
    PAUSED = "paused"
    COMPLETED = "completed"
    SPACE_EXHAUSTED = "space_exhausted"
    TIME_LIMIT = "time_limit"
    EPOCH_LIMIT = "epoch_limit"
    CANCELLED = "cancelled"
    DRIVER_LOST = "driver_lost"
    NO_RESULT = "no_result"
    INTERNAL_ERROR = "internal_error"


# As of jobs, but a study that has succeeded is left by an extension of its budget.
STUDY_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {JobState.RUNNING, JobState.PAUSED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.RUNNING: frozenset(
        {
            *(JobState.QUEUED, JobState.PAUSED),
            *(JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED),
        }
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset({JobState.QUEUED}),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}


class Phase(StrEnum):
    """What a trial is for: to find the best, or to say without bias how good they are."""

    SEARCH = "search"
    CONFIRMATION = "confirmation"


@dataclass(frozen=True, slots=True)
class Study:
    """A study as it is stored.

    ``request`` is the resolved one, with the budget as it was last extended. ``attempt`` is the
    number of its driver: what an earlier driver still writes is refused. ``version`` rises with
    every change of state, wish or budget. ``owner`` may change it, None where no key was needed;
    ``reserved_bytes`` is the room that all its trials may need, by their estimates.
    """

    id: str
    request: StudyRequest
    is_overridden: bool
    state: JobState
    reason: StudyReason
    message: str
    version: int
    created_at: datetime
    updated_at: datetime
    attempt: int = 0
    cancel_requested: bool = False
    pause_requested: bool = False
    ended_at: datetime | None = None
    owner: str | None = None
    reserved_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StudyPage:
    """One page of a list of studies, newest first, each with the number of its trials so far;
    ``next_cursor`` is None on the last."""

    studies: tuple[tuple[Study, int], ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class NewTrial:
    """A trial that is to be stored: the configuration's number, its values, and the seed.

    Trials of one configuration differ in the seed. The number of a configuration is its place in
    the order in which the searcher gave them.
    """

    configuration: int
    values: Mapping[str, Any]
    seed: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial as it is stored; state, reason and message are those of its job, and ``last_event``
    is the number of the last of its events."""

    study_id: str
    number: int
    configuration: int
    values: Mapping[str, Any]
    seed: int
    phase: Phase
    job_id: str
    state: JobState
    reason: Reason
    message: str
    created_at: datetime
    last_event: int
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What a trial has reported after so many epochs.

    ``seq`` counts the results of a study from 1 without gaps, in the order in which its scheduler
    is told of them.
    """

    seq: int
    trial: int
    epoch: int
    metrics: Mapping[str, float]
    at: datetime
