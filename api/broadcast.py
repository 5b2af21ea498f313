"""What followers of jobs are told: read and written out once for all who are at the same event.

A thousand followers of ten jobs are then ten questions a second to the database instead of two
thousand, and a text is made once instead of a hundred times.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from api import bodies, render
from service.feed import Feed
from service.jobs import FINAL_STATES, JobEvent
from service.results import Results

# What a slow follower has in its socket's buffer at most, beside 64 KiB; a thousand may be slow.
BATCH = 100
# A look is shared for no longer, so that what nobody has told of is seen all the same.
LASTS_S = 1.0
KEPT = 64  # looks; followers that catch up are each at a place of their own


@dataclass(frozen=True, slots=True)
class Look:
    """A job's next events behind some event, at most ``BATCH``, and where it stood then: one state
    of the database. ``pieces`` are the events as they are sent, ``whole`` all of them in one.
    ``progress`` and ``end`` are as they are sent, None where there is none."""

    events: Sequence[JobEvent]
    pieces: Sequence[bytes]
    whole: bytes
    progress: bytes | None
    end: bytes | None

    @property
    def is_last(self) -> bool:
        """Whether there were no more events than these."""
        return len(self.events) < BATCH


@dataclass(frozen=True, slots=True)
class _Shared:
    mark: int
    began_at: float
    task: "asyncio.Task[Look]"


class Broadcast:
    """Looks at jobs for their followers; one that is under way is waited for by all who want it."""

    def __init__(self, results: Results, feed: Feed) -> None:
        self._results = results
        self._feed = feed
        self._shared: dict[tuple[str, int], _Shared] = {}

    async def look(self, job_id: str, after: int) -> Look:
        """What there is behind event ``after``; never less than what the feed has told of before.

        Raises JobNotFound, NotReady.
        """
        now, mark = time.monotonic(), self._feed.mark(job_id)
        shared = self._shared.get((job_id, after))
        if shared is None or not self._is_good(shared, mark, now):
            task = asyncio.create_task(run_in_threadpool(self._read, job_id, after))
            shared = _Shared(mark, now, task)
            self._shared.pop((job_id, after), None)
            self._shared[job_id, after] = shared
            self._forget(now)
        # Who is cancelled while it waits, must not end the others' look.
        return await asyncio.shield(shared.task)

    def _is_good(self, shared: _Shared, mark: int, now: float) -> bool:
        return (
            shared.mark == mark
            and now - shared.began_at < LASTS_S
            and shared.task.get_loop() is asyncio.get_running_loop()
            and not (shared.task.done() and _has_failed(shared.task))
        )

    def _forget(self, now: float) -> None:
        """The oldest come first."""
        for key, shared in list(self._shared.items()):
            if len(self._shared) <= KEPT and now - shared.began_at < LASTS_S:
                return
            del self._shared[key]

    def _read(self, job_id: str, after: int) -> Look:
        job, events = self._results.tail(job_id, after, BATCH)
        pieces = [numbered(render.event_body(event)) for event in events]
        progress = render.progress_body(job.progress)
        end = None
        if job.state in FINAL_STATES:
            end = plain(
                "end",
                bodies.EndBody(state=job.state.value, reason=job.reason.value, message=job.message),
            )
        return Look(
            events=events,
            pieces=pieces,
            whole=b"".join(pieces),
            progress=None if progress is None else plain("progress", progress),
            end=end,
        )


def _has_failed(task: "asyncio.Task[Look]") -> bool:
    return task.cancelled() or task.exception() is not None


def plain(kind: str, data: BaseModel) -> bytes:
    """An event without a number, as it is sent."""
    return format_sse_event(event=kind, data_str=data.model_dump_json())


def numbered(body: bodies.EventBody) -> bytes:
    """An event of a job, as it is sent."""
    return format_sse_event(event=body.kind, data_str=body.model_dump_json(), id=str(body.seq))
