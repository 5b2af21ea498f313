"""Sweeps, as they are answered."""

from datetime import datetime
from typing import Literal

from api.bodies.base import Body

SweepState = Literal["none", "running", "done", "failed"]
FindingKind = Literal["job", "attempt", "data_set", "unfinished", "probe", "cache"]


class TotalBody(Body):
    """All findings of a kind."""

    kind: FindingKind
    """job: objects under the id of no job; attempt: checkpoints and files of ended attempts that
    no row knows; data_set: uploaded content that no name and no job refers to; unfinished: writes
    that were begun and not ended; probe: tests of the store that were cut off; cache: files in
    the service's cache of data sets."""
    count: int
    """Objects or files."""
    size_bytes: int


class FindingBody(Body):
    """One thing that nobody needs."""

    kind: FindingKind
    name: str
    """Key, prefix or file name."""
    why: str
    """Why nobody needs it."""
    count: int
    """Objects or files."""
    size_bytes: int


class SweepBody(Body):
    """The sweep that was asked for last, by somebody or by the service itself."""

    number: int
    """Counts from 1 since the start of the service; 0 where there was none."""
    state: SweepState
    dry_run: bool
    """Whether it only finds, and removes nothing."""
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    """Why it failed; what it has found until then stands, and is removed unless it is a dry run."""
    count: int
    """Objects and files found so far."""
    size_bytes: int
    """Their bytes."""
    totals: list[TotalBody]
    findings: list[FindingBody]
    """The first findings, at most 200; the totals count all."""
