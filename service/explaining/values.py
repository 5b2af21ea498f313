"""What an explanation consists of: values only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from service.cluster.base import Capacity, Unclaimed
from service.jobs import Attempt, Job
from service.queueing import Holder, Standing

Action = Literal["cancel", "pause", "resume", "retry", "fork", "spec", "logs", "readyz", "none"]


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule that decided: a stable word for programs, and a sentence."""

    name: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Change:
    """What would change it: a sentence, and what to ask of which job; ``body`` is what to send.

    ``spec`` stands for reading the job's spec, to submit a changed one; ``none`` for something
    that is done outside this service.
    """

    sentence: str
    action: Action = "none"
    job_id: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claims:
    """The resources that a job asks for, what there is and is free, and who holds the rest.

    ``others`` is what others than this service's jobs hold of a joined cluster.
    """

    capacity: Capacity | None
    free_cpus: float | None
    free_gpus: float | None
    holders: Sequence[Holder]
    others: Unclaimed | None


@dataclass(frozen=True, slots=True)
class Speed:
    """Data per second of a running job: lately, before in this attempt, and of its like here.

    The last two are medians, None where there is nothing to compare with.
    """

    now: float
    before: float | None
    like: float | None
    like_jobs: int


@dataclass(frozen=True, slots=True)
class Link:
    """One attempt in the chain of causes; ``followed_by`` says how the job went on from it."""

    attempt: Attempt
    counts: bool
    followed_by: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is as it is. ``last_lines`` are those of its last attempt's log."""

    job: Job
    since: datetime
    headline: str
    rule: Rule
    changes: Sequence[Change]
    claims: Claims | None = None
    standing: Standing | None = None
    speed: Speed | None = None
    chain: Sequence[Link] = ()
    last_lines: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at the facts has found."""

    headline: str
    rule: Rule
    changes: Sequence[Change] = ()
    speed: Speed | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a job and of all that may hold it up; ``troubles`` by part of the service.

    ``is_own`` says that the cluster is on this machine and the service's alone.
    """

    job: Job
    attempts: Sequence[Attempt]
    now: datetime
    troubles: Mapping[str, str]
    claims: Claims | None
    standing: Standing | None
    is_own: bool


def span(seconds: float) -> str:
    """A time in words that are short."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
