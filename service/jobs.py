"""Jobs and attempts as values, and the table of what may follow what."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from workers.events import Exit
from workers.spec import JobSpec, Start

if TYPE_CHECKING:  # a study's driver imports this, and does without torch
    from workers.kinds import AnySpec


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

# A lost attempt sends a running job back to the queue; failed and cancelled are left by a retry. A
# trial that waits or is paused has succeeded when its study wants no more of it.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, *FINAL_STATES}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.PAUSED, *FINAL_STATES}),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}


class Reason(StrEnum):
    """Why a job is in its state; stable words for programs."""

    # queued
    SUBMITTED = "submitted"
    WAITING_FOR_RESOURCES = "waiting_for_resources"
    WAITING_FOR_CLUSTER = "waiting_for_cluster"
    RECOVERING = "recovering"
    RESUMED = "resumed"
    RETRIED = "retried"
    # running
    STARTING = "starting"
    TRAINING = "training"
    CANCELLING = "cancelling"
    PAUSING = "pausing"
    RESUMING = "resuming"
    # paused; it is the word of workers.events.OutcomeReason too
    PAUSED = "paused"
    AT_RUNG = "at_rung"
    # ended; the words of workers.events.OutcomeReason
    COMPLETED = "completed"
    STOPPED_EARLY = "stopped_early"
    STOPPED_BY_STUDY = "stopped_by_study"
    POSTERIOR_COLLAPSE = "posterior_collapse"
    DEAD_LATENTS = "dead_latents"
    CONVERGED = "converged"
    ITERATION_LIMIT = "iteration_limit"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    DIVERGED = "diverged"
    INVALID = "invalid"
    TOO_FEW_ROWS = "too_few_rows"
    TOO_MANY_COMPONENTS = "too_many_components"
    CONSTANT_COLUMNS = "constant_columns"
    RANK_DEFICIENT = "rank_deficient"
    COLLAPSED_COMPONENT = "collapsed_component"
    NOT_A_NUMBER = "not_a_number"
    DATA_UNAVAILABLE = "data_unavailable"
    EXTRACTOR_UNAVAILABLE = "extractor_unavailable"
    OUT_OF_MEMORY = "out_of_memory"
    STORE_UNREACHABLE = "store_unreachable"
    STORE_FULL = "store_full"
    STORE_NOT_SHARED = "store_not_shared"
    TIME_LIMIT = "time_limit"
    VERSION_MISMATCH = "version_mismatch"
    WORKER_LOST = "worker_lost"
    CLUSTER_LOST = "cluster_lost"
    SERVICE_STOPPED = "service_stopped"
    INTERNAL_ERROR = "internal_error"


BY_STUDY = frozenset({Reason.STOPPED_BY_STUDY, Reason.POSTERIOR_COLLAPSE, Reason.DEAD_LATENTS})
"""Why a trial has succeeded that did not come to its own end."""


class _Request(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Limits(_Request):
    """Bounds on a job, over all its attempts."""

    max_wall_s: float | None = Field(default=None, gt=0, le=31_536_000)
    """Seconds of training, over all attempts, after which the job fails with ``time_limit``. Time
    in the queue or paused does not count, and a retry begins to count anew."""
    max_attempts: int = Field(default=3, ge=1, le=100)
    """Attempts that may be lost to crashes, lack of memory, or a store that is full or away before
    the job fails; restarts of the service itself do not count, and a retry begins to count anew."""


KEEP_MIN_S, KEEP_MAX_S = 60.0, 315_360_000.0  # a minute, ten years
KeepS = Annotated[float, Field(ge=KEEP_MIN_S, le=KEEP_MAX_S)]


class Retention(_Request):
    """How long a job is kept after its end; then it is deleted with its artifacts."""

    succeeded_s: KeepS | None = None
    """Seconds that it is kept once it has succeeded; null: as the installation says."""
    failed_s: KeepS | None = None
    """Seconds that it is kept once it has failed; null: as the installation says."""
    cancelled_s: KeepS | None = None
    """Seconds that it is kept once it was cancelled; null: as the installation says."""

    def of(self, state: JobState) -> float | None:
        """The seconds for a job that has ended so; None where nothing is said."""
        match state:
            case JobState.SUCCEEDED:
                return self.succeeded_s
            case JobState.FAILED:
                return self.failed_s
            case JobState.CANCELLED:
                return self.cancelled_s
            case _:
                return None


AS_INSTALLED = Retention()

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Labels = Annotated[
    dict[Label, LabelValue],
    # Other keys are refused; pydantic does not say so in the JSON Schema by itself.
    Field(max_length=32, json_schema_extra={"additionalProperties": False}),
]


class JobRequest(_Request):
    """What a user submits."""

    name: str = Field(default="", max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    """For people; need not be unique."""
    labels: Labels = Field(default_factory=dict)
    """For finding jobs again: GET /v1/jobs?label=team=a."""
    priority: int = Field(default=0, ge=-100, le=100)
    """A higher one starts sooner; equal ones start in the order of submission."""
    limits: Limits = Limits()
    """Bounds on the job."""
    retention: Retention = Retention()
    """How long it is kept after its end."""
    spec: JobSpec
    """What is computed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. ``eta_s`` is None while nothing is known."""

    step: int
    total_steps: int
    epoch: float
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a job.

    ``executor_id`` names the process that runs it and ``session`` the cluster that it lives in;
    ``next_chunk`` is the cursor of ingestion. ``pid`` and ``host`` are known once it has started.
    ``heard_at`` is the time of its last record, whatever it was but a piece of its log, and
    ``last_step`` the step that it told of last; ``exit`` is what was seen of the end of a lost
    process.
    """

    job_id: str
    number: int
    executor_id: str
    session: str
    created_at: datetime
    next_chunk: int = 0
    pid: int | None = None
    host: str | None = None
    resumed_from: str | None = None
    resumed_from_step: int | None = None
    started_at: datetime | None = None
    first_step_at: datetime | None = None
    ended_at: datetime | None = None
    reason: Reason | None = None
    message: str | None = None
    heard_at: datetime | None = None
    last_step: int | None = None
    peak_rss_bytes: int | None = None
    exit: Exit | None = None


ForkStart = Start
"""What a fork takes over from its parent's checkpoint."""


@dataclass(frozen=True, slots=True)
class Parent:
    """Where a fork comes from: a checkpoint of another job.

    ``prefix`` is where the fork keeps its own copy, so that the parent may thin or be deleted;
    ``digest`` is of the checkpoint's weights.
    """

    job_id: str
    checkpoint_id: str
    prefix: str
    digest: str
    start: Start


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is stored.

    ``version`` rises with every change of state, wish or labels, not with progress.
    ``cancel_requested`` and ``pause_requested`` are wishes; the state follows when nothing of the
    attempt is left. A queued job does not start before ``not_before``. Attempts below
    ``counts_from`` were before the last retry and do not count against the limits. A job with a
    ``study_id`` is a trial of that study, whose driver starts it. ``owner`` may change it, None
    where no key was needed; ``reserved_bytes`` is the room that it may need, by its estimate.
    Its attempts continue the trace of ``traceparent``, where its submission was traced.
    """

    id: str
    name: str
    labels: Mapping[str, str]
    priority: int
    limits: Limits
    spec: "AnySpec"
    spec_digest: str
    state: JobState
    reason: Reason
    message: str
    version: int
    created_at: datetime
    updated_at: datetime
    cancel_requested: bool = False
    pause_requested: bool = False
    attempt: int = 0
    counts_from: int = 0
    not_before: datetime | None = None
    progress: Progress | None = None
    ended_at: datetime | None = None
    parent: Parent | None = None
    retention: Retention = AS_INSTALLED
    study_id: str | None = None
    owner: str | None = None
    reserved_bytes: int | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of a job: what its attempts recorded, and each change of its state.

    ``kind`` is that of a :data:`workers.events.Record`, or ``state``; ``seq`` counts from 1
    within the job without gaps.
    """

    seq: int
    at: datetime
    attempt: int
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A published checkpoint. ``prefix`` is where its files are; ``digest`` is of its weights."""

    id: str
    attempt: int
    step: int
    epoch: float
    prefix: str
    digest: str
    size_bytes: int
    metrics: Mapping[str, float]
    is_best: bool
    has_train_state: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ArtifactInfo:
    """A published file of a job; grids are the ones with a step and the prefix ``grids/``."""

    name: str
    key: str
    attempt: int
    media_type: str
    digest: str
    size_bytes: int
    step: int | None
    epoch: float | None
    created_at: datetime


class MetricPoint(NamedTuple):
    """One value of one metric: a tuple, as a curve has thousands of them."""

    step: int
    epoch: float
    value: float
    at: datetime


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; None does not filter. ``label`` is (key, value or None for any)."""

    state: JobState | None = None
    trainer: str | None = None
    dataset: str | None = None
    label: tuple[str, str | None] | None = None
    study: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, newest first; ``next_cursor`` is None on the last."""

    jobs: tuple[Job, ...]
    next_cursor: str | None
