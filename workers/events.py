"""What training says while it runs.

``train()`` yields :data:`Event` values, which hold tensors and bytes. ``run.execute`` publishes
their content in the artifact store and writes down a :data:`Record` of each: JSON, one line, the
form in which an event crosses to the service and is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

if TYPE_CHECKING:  # who reads records, does without torch
    import torch

# --- in the training process -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing to tell but that training goes on; at least one event comes every second."""

    step: int
    epoch: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Named numbers after ``step`` optimiser steps; ``epoch`` may be fractional."""

    step: int
    epoch: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A snapshot whose tensors training no longer touches.

    ``weights`` is what a generator needs (the moving average's weights where there is one),
    ``train_state`` what resuming needs besides the spec. ``is_named`` marks an epoch that the
    spec names, which is never thinned out; ``replaces`` one that takes the place of a checkpoint of
    the same step, left by a stop while that step was evaluated.
    """

    step: int
    epoch: float
    weights: Mapping[str, "torch.Tensor"]
    train_state: Mapping[str, "torch.Tensor"]
    metrics: Mapping[str, float]
    is_best: bool
    is_named: bool
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """Samples at the run's fixed latents, as a PNG."""

    step: int
    epoch: float
    png: bytes


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of the run, such as a plot; its name is its path below the job's artifacts."""

    step: int
    epoch: float
    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence the user should read, with a stable code."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a training that was not interrupted by an error."""

    step: int
    epoch: float
    reason: Literal[
        "completed", "stopped_early", "converged", "iteration_limit", "interrupted", "at_rung"
    ]
    message: str


Event = Tick | Metrics | Checkpoint | Grid | Artifact | Notice | Finished


# --- on the wire and in the database ---------------------------------------------------------


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    at: AwareDatetime


class StartedRecord(_Record):
    """The attempt's process has its data and model and begins.

    ``total_steps`` counts steps of rounds that learn the spread too, ``steps_per_epoch`` does not.
    """

    kind: Literal["started"] = "started"
    pid: int
    host: str
    total_steps: int
    steps_per_epoch: int
    resumed_from_step: int | None = None
    resumed_from_epoch: float | None = None


class FirstStepRecord(_Record):
    """The first optimiser step of the attempt is done."""

    kind: Literal["first_step"] = "first_step"
    step: int


class ProgressRecord(_Record):
    """How far training is; not kept as an event, only the job's progress moves.

    ``peak_rss_bytes`` is the most memory that the attempt's process had so far.
    """

    kind: Literal["progress"] = "progress"
    step: int
    epoch: float
    peak_rss_bytes: int | None = None


class MetricsRecord(_Record):
    """See :class:`Metrics`."""

    kind: Literal["metrics"] = "metrics"
    step: int
    epoch: float
    values: dict[str, float]


class CheckpointRecord(_Record):
    """A published checkpoint. ``digest`` and ``size_bytes`` are those of the weights file."""

    kind: Literal["checkpoint"] = "checkpoint"
    id: str
    step: int
    epoch: float
    prefix: str
    digest: str
    size_bytes: int
    metrics: dict[str, float]
    is_best: bool


class CheckpointRemovedRecord(_Record):
    """The keep policy removed a checkpoint's files: all of it, or its train state only."""

    kind: Literal["checkpoint_removed"] = "checkpoint_removed"
    id: str
    what: Literal["all", "train_state"]


class ArtifactRecord(_Record):
    """A published file. Grids are artifacts named ``grids/<step>.png``, with their step."""

    kind: Literal["artifact"] = "artifact"
    name: str
    key: str
    media_type: str
    digest: str
    size_bytes: int
    step: int | None = None
    epoch: float | None = None


class NoticeRecord(_Record):
    """See :class:`Notice`."""

    kind: Literal["notice"] = "notice"
    code: str
    message: str


class LogRecord(_Record):
    """A chunk of what the attempt's process ``rank`` said; its lines are in the artifact store.

    ``size_bytes`` is the chunk's; ``removed`` are the chunks [first, stop) of the process that
    were removed to make room.
    """

    kind: Literal["log"] = "log"
    rank: int = 0
    chunk: int
    lines: int
    size_bytes: int
    removed: tuple[int, int] | None = None


Record = (
    StartedRecord
    | FirstStepRecord
    | ProgressRecord
    | MetricsRecord
    | CheckpointRecord
    | CheckpointRemovedRecord
    | ArtifactRecord
    | NoticeRecord
    | LogRecord
)
RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])

OutcomeReason = Literal[
    "completed",
    "stopped_early",
    "stopped_by_study",
    "posterior_collapse",
    "dead_latents",
    "converged",
    "iteration_limit",
    "interrupted",
    "cancelled",
    "paused",
    "at_rung",
    "diverged",
    "invalid",
    "too_few_rows",
    "too_many_components",
    "constant_columns",
    "rank_deficient",
    "collapsed_component",
    "not_a_number",
    "data_unavailable",
    "extractor_unavailable",
    "out_of_memory",
    "store_unreachable",
    "store_full",
    "store_not_shared",
    "time_limit",
    "version_mismatch",
    "worker_lost",
    "cluster_lost",
    "service_stopped",
    "internal_error",
]


class Exit(BaseModel):
    """What is known of the end of an attempt's process, by who saw it; None is not known.

    ``signal`` and ``code`` are the kernel's word. ``detail`` is the cluster's. ``oom_kills`` is how
    many processes the kernel of that machine ended for want of memory around this end, and
    ``by_memory_monitor`` says that Ray's memory monitor ended this one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    signal: str | None = None
    code: int | None = None
    detail: str | None = None
    oom_kills: int | None = None
    by_memory_monitor: bool = False


class Outcome(BaseModel):
    """How an attempt ended: its last object, written once.

    The attempt writes it, or, when the attempt's process is gone, the watcher in its place; the
    store lets only the first of them succeed. ``chunks`` is the number of event chunks written
    before it (None where the watcher does not know), ``exit`` what the watcher saw of the end of
    a process that was lost.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: OutcomeReason
    message: str
    step: int = 0
    at: AwareDatetime
    chunks: int | None = None
    detail: str | None = None
    exit: Exit | None = None


def read_outcome(content: bytes) -> Outcome:
    """The outcome that stands in the store; one that nobody can read has ended its attempt too."""
    try:
        return Outcome.model_validate_json(content)
    except ValidationError:
        return Outcome(
            reason="internal_error", message="Its outcome is unreadable.", at=datetime.now(UTC)
        )
