"""Events and results, as they are answered."""

from datetime import datetime
from typing import Any, Literal

from api.bodies.base import Body
from api.bodies.jobs import State


class EventBody(Body):
    """One event of a job. ``data`` depends on ``kind``."""

    seq: int
    """Counts from 1 within the job, without gaps."""
    at: datetime
    attempt: int
    """The attempt that it belongs to; 0 before the first."""
    kind: str
    """state, started, first_step, metrics, checkpoint, checkpoint_removed, artifact, notice or
    log."""
    data: dict[str, Any]
    """Of a ``log`` event: chunk, lines, size_bytes; and ``entries``, the lines themselves, where
    that kind was asked for."""


class EventPage(Body):
    """Events in their order."""

    events: list[EventBody]
    next_after: int
    """Give it as ?after= to get what comes next."""


class EndBody(Body):
    """Data of the stream's ``end`` event: the job is in its final state."""

    state: State | Literal["deleted"]
    """``deleted`` where the job was deleted before all of its events were sent."""
    reason: str
    message: str


class LogEntryBody(Body):
    """One line of an attempt's log."""

    at: datetime
    """When it was said; of ``output``, to about a second."""
    level: Literal["output", "debug", "info", "warning", "error", "critical", "gap"]
    """``output`` was written to standard output or standard error; a ``gap`` says what is missing.
    """
    text: str
    """Control characters and what is no UTF-8 stand as escapes such as \\x1b."""
    lines: int | None = None
    """Of a gap: lines that are missing; null where nobody knows."""
    size_bytes: int | None = None
    """Of a gap: bytes that are missing."""


class LogLineBody(LogEntryBody):
    """One line of a job's log, and who said it."""

    attempt: int
    rank: int
    """Worker of the attempt; 0 is the first."""


def spoken_by(rank: int) -> str:
    """What stands before a line's text: who said it, unless it was the first worker."""
    return f"[worker {rank}] " if rank > 0 else ""


class LogPageBody(Body):
    """Lines in their order."""

    lines: list[LogLineBody]
    next_after: str
    """Give it as ?after= to get what comes next."""
    has_more: bool
    """Whether there are more lines now."""
    is_ended: bool
    """Whether there will never be more: the job has ended, and these are the last."""


class MetricPointBody(Body):
    """One value of a metric."""

    step: int
    epoch: float
    value: float | None
    """Null where the number was not finite."""
    at: datetime


class MetricsBody(Body):
    """Metrics by name, each in the order of steps."""

    metrics: dict[str, list[MetricPointBody]]


class CheckpointBody(Body):
    """A checkpoint whose weights can be fetched and sampled from."""

    id: str
    attempt: int
    step: int
    epoch: float
    digest: str
    """sha256 of the weights file."""
    size_bytes: int
    """Size of the weights file."""
    metrics: dict[str, float | None]
    is_best: bool
    """Whether it was the best so far when it was written; the last of these is ``best``."""
    has_train_state: bool
    """Whether training can go on from it."""
    created_at: datetime
    links: dict[str, str]


class CheckpointList(Body):
    """Checkpoints by step."""

    checkpoints: list[CheckpointBody]


class ArtifactBody(Body):
    """A file that the job published."""

    name: str
    attempt: int
    media_type: str
    digest: str
    """sha256 of the content."""
    size_bytes: int
    step: int | None
    epoch: float | None
    created_at: datetime
    links: dict[str, str]


class ArtifactList(Body):
    """Files by name."""

    artifacts: list[ArtifactBody]


class GridList(Body):
    """Sample grids in the order of steps."""

    grids: list[ArtifactBody]


class SamplesBody(Body):
    """Samples as numbers."""

    checkpoint: str
    """Id of the checkpoint they come from."""
    step: int
    seed: int
    n: int
    spread: bool
    shape: list[int]
    """Shape of ``samples``: n, then the shape of one datum."""
    samples: list[Any]
    """Nested lists; row i depends on the seed and i alone."""


class ReconstructionsBody(Body):
    """Held-out data and their reconstructions as numbers; row i depends on the seed and i alone."""

    checkpoint: str
    """Id of the checkpoint they come from."""
    step: int
    seed: int
    n: int
    noise_scale: float
    """Standard deviation of the noise in ``y``; 0 where the encoder sees clean data, y = x."""
    shape: list[int]
    """Shape of ``x``, ``y`` and ``g``: n, then the shape of one datum."""
    x: list[Any]
    """The data."""
    y: list[Any]
    """What the encoder saw: the data with noise, never clipped."""
    z: list[list[float]]
    """The means of the posterior at y."""
    g: list[Any]
    """The reconstructions: z decoded."""
    rmse: float
    """Root of the mean square of g − x."""


class InterpolationsBody(Body):
    """Decoded paths between latents as numbers; path i depends on the seed and i alone."""

    checkpoint: str
    """Id of the checkpoint they come from."""
    step: int
    seed: int
    n: int
    steps: int
    between: Literal["prior", "data"]
    path: Literal["spherical", "linear"]
    shape: list[int]
    """Shape of ``g``: n, steps, then the shape of one datum."""
    z: list[list[list[float]]]
    """The latents along each path, both ends included."""
    g: list[Any]
    """The latents decoded."""
    x: list[Any] | None
    """Between data: the two data at the ends of each path."""
