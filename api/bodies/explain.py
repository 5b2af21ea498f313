"""Why a job is as it is, as it is answered."""

from datetime import datetime
from typing import Any, Literal

from api.bodies.base import Body
from api.bodies.jobs import LimitsBody, QueueBody, State


class RuleBody(Body):
    """The rule that decided."""

    name: str
    """A stable word for programs."""
    sentence: str
    """The rule in words."""


class RequestBody(Body):
    """A request that one can send."""

    method: Literal["GET", "POST"]
    path: str
    body: dict[str, Any] | None
    """JSON to send; null for none."""


class ChangeBody(Body):
    """What would change it."""

    sentence: str
    command: str | None
    """The same on the command line; null where there is no command."""
    request: RequestBody | None
    """The same over HTTP; null for what is done outside this service."""


class AskedBody(Body):
    """Resources that a job asks for, all at once."""

    workers: int
    cpus_per_worker: int
    gpus_per_worker: int


class AmountBody(Body):
    """Cores and GPUs."""

    cpus: float
    gpus: float


class HolderBody(Body):
    """A running job and what it holds, or a running study and the places of its trials."""

    job: str
    """The job's id, or the study's."""
    cpus: float
    gpus: float
    since: datetime
    is_ending: bool
    """Whether it is being cancelled or paused."""
    remaining_s: float | None
    """Seconds to its end, by its own pace or that of its like; null where that was not measured."""


class ClaimsBody(Body):
    """The resources in question."""

    asked: AskedBody
    capacity: AmountBody | None
    """All that the cluster has; null while it does not answer."""
    free: AmountBody | None
    """What nobody holds now; null while the cluster does not answer."""
    held: list[HolderBody]
    """Who holds the rest: this service's running jobs and studies."""
    others: AmountBody | None
    """What other programs hold of a joined Ray cluster; null on an own one."""


class SpeedBody(Body):
    """How fast a running job is, in data per second."""

    now: float
    """Lately."""
    before: float | None
    """Median of this attempt before; null while it is too young."""
    like: float | None
    """Median of the last jobs like it on the same machine; null where there were none."""
    like_jobs: int
    """How many of these."""


class ExitBody(Body):
    """What was seen of the end of an attempt's process; null is not known."""

    signal: str | None
    """The signal that ended it, by the kernel's word."""
    code: int | None
    """Its exit code, by the kernel's word."""
    detail: str | None
    """What the cluster says."""


class MemoryBody(Body):
    """Evidence of a lack of memory; null is not known."""

    peak_rss_bytes: int | None
    """The most resident memory of its process."""
    oom_kills: int | None
    """Processes that the kernel of its machine ended for want of memory around its end."""
    by_memory_monitor: bool
    """Whether Ray's memory monitor ended it."""


class LinkBody(Body):
    """One attempt in the chain of causes."""

    attempt: int
    reason: str | None
    """Why it ended, a stable word; null while it runs."""
    message: str | None
    """Why it ended, in words."""
    counts: bool
    """Whether it counts against ``limits.max_attempts``."""
    host: str | None
    pid: int | None
    created_at: datetime
    ended_at: datetime | None
    heard_at: datetime | None
    """When it last said something."""
    resumed_from_step: int | None
    last_step: int | None
    """The last step that it told of."""
    exit: ExitBody | None
    """Null where its process was not lost."""
    memory: MemoryBody
    followed_by: str
    """How the job went on from it."""


class ExplanationBody(Body):
    """Why a job waits, is slow, or has ended so."""

    job: str
    state: State
    reason: str
    since: datetime
    """When it came into this state."""
    headline: str
    """The whole in a sentence or two."""
    rule: RuleBody
    changes: list[ChangeBody]
    """What would change it, the best first; empty where nothing needs to."""
    resources: ClaimsBody | None
    """Null unless the job is queued or running."""
    queue: QueueBody | None
    """Null unless the job is queued."""
    speed: SpeedBody | None
    """Null unless the job trains."""
    limits: LimitsBody
    attempts: list[LinkBody]
    """The chain of causes, the first attempt first."""
    last_lines: list[str]
    """The last lines of the last attempt's log, without tracebacks."""
    links: dict[str, str]
