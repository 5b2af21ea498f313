"""Jobs, as they are answered."""

from datetime import datetime
from typing import Any, Literal

from api.bodies.base import Body

Intent = Literal["cancelled", "paused", "running"]
State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


class ProgressBody(Body):
    """How far a job is."""

    step: int
    """Optimiser steps done; of ``ica`` jobs iterations, of ``paper`` jobs parts of the figure."""
    total_steps: int
    """Steps of the whole run. A fit that ends when it has converged has this many at most, and is
    mostly done long before."""
    fraction: float
    """step / total_steps, from 0 to 1."""
    epoch: float
    """Passes over the data done."""
    eta_s: float | None
    """Seconds to the end at the present speed; null while unknown."""


class QueueBody(Body):
    """Where a waiting job stands."""

    ahead: int
    """Its position: queued jobs that start before this one."""
    not_before: datetime | None
    """It waits until then, as an attempt was lost; null where it does not."""
    starts_at: datetime | None
    """When it starts, as far as paces and durations were measured; null where that is unknown."""
    basis: str
    """What ``starts_at`` rests on, or why it is unknown."""


class AttemptBody(Body):
    """One try at a job."""

    number: int
    reason: str | None
    """Why it ended, a stable word; null while it runs."""
    message: str | None
    """Why it ended, in words."""
    host: str | None
    """Machine on which it ran."""
    pid: int | None
    """Process that ran it."""
    resumed_from_step: int | None
    """Step of the checkpoint from which it went on; null from the beginning."""
    created_at: datetime
    started_at: datetime | None
    """When its process had data and model."""
    first_step_at: datetime | None
    """When its first optimiser step was done."""
    ended_at: datetime | None


class LimitsBody(Body):
    """Bounds on a job."""

    max_wall_s: float | None
    """Seconds of training, since the last retry, after which it fails with ``time_limit``."""
    max_attempts: int
    """Attempts that may be lost, since the last retry, before the job fails."""


class ParentBody(Body):
    """Where a fork comes from."""

    job: str
    """Id of the job that was forked; it may be deleted since."""
    checkpoint: str
    """Id of the checkpoint from which the fork began."""
    digest: str
    """sha256 of that checkpoint's weights file."""
    start: Literal["train_state", "weights"]
    """What was taken over: weights, optimiser and step, or the weights alone."""


class RetentionBody(Body):
    """How long a job asks to be kept after its end; null: as the installation says."""

    succeeded_s: float | None
    """Seconds, once it has succeeded."""
    failed_s: float | None
    """Seconds, once it has failed."""
    cancelled_s: float | None
    """Seconds, once it was cancelled."""


class JobSummary(Body):
    """A job, as it stands in a list."""

    id: str
    name: str
    labels: dict[str, str]
    priority: int
    state: State
    reason: str
    """Why it is in that state, a stable word for programs."""
    message: str
    """The same in words, with what to do."""
    cancel_requested: bool
    """Whether somebody asked to cancel it; the state follows when nothing of it runs any more."""
    pause_requested: bool
    """Whether somebody asked to pause it; the state follows when nothing of it runs any more."""
    trainer: str
    """Kind of trainer."""
    dataset: str | None
    """Name of the data set, or kind of toy; null for a job that takes none."""
    progress: ProgressBody | None
    """Null until the first attempt has started."""
    parent: ParentBody | None
    """Where a fork comes from; null for a job of its own."""
    study: str | None
    """Id of the study of which it is a trial; null for a job of its own."""
    owner: str | None
    """Whose key made it: only that owner and an admin may change it; null where no key was
    needed."""
    spec_digest: str
    """Identity of the computation: equal digests compute the same."""
    version: int
    """Rises with state, wishes and labels; the ETag of the job."""
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    links: dict[str, str]
    """Paths of what belongs to the job."""


class JobBody(JobSummary):
    """A job, whole."""

    limits: LimitsBody
    retention: RetentionBody
    expires_at: datetime | None
    """When an ended job will be deleted; null while it has not ended, and where it is kept for
    ever."""
    queue: QueueBody | None
    """Null unless the job is queued."""
    attempts: list[AttemptBody]
    forks: list[str]
    """Ids of the jobs that were forked from this one, oldest first; at most 100."""
    spec: dict[str, Any]
    """The resolved spec, with every default filled in; its schema is that of a submission's."""


class IntentBody(Body):
    """The answer to a verb: the job as it is, and what will become of it."""

    intent: Intent
    """The state that the job is on its way to."""
    job: JobBody


class JobPage(Body):
    """One page of a list, newest first."""

    jobs: list[JobSummary]
    next_cursor: str | None
    """Give it as ?cursor= to get the next page; null on the last."""


class PlanBody(Body):
    """What a submission would do; nothing is stored."""

    spec: dict[str, Any]
    """The resolved spec, with every default filled in."""
    parameters: int
    """Numbers that training fits."""
    memory_bytes: int
    """Estimated memory of one worker."""
    steps: int
    """Steps of the whole run; of a fit that ends when it has converged, at most."""
    storage_bytes: int
    """Estimated room for checkpoints and grids."""
    duration_s: float | None
    """Estimated seconds of training, of ``paper`` jobs on one thread; null while nothing like it
    was measured."""
    waits_for: str
    """What the job would wait for, in words."""
    advice: list[str]
    """What to know before it is submitted, such as how a long figure is shared."""
    queue: QueueBody
    """Where it would stand."""
