"""Tells followers inside this process that a job has news; the news itself is in the job store."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

News = Literal["urgent", "ordinary", "timeout"]


class Follower:
    """One follower of one job, bound to the event loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._urgent = False

    def wake(self, urgent: bool) -> None:
        """From any thread: there is news."""

        def set_flags() -> None:
            self._urgent = self._urgent or urgent
            self._woken.set()

        # A loop that closed while the job went on has nobody left to tell.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(set_flags)

    async def wait(self, timeout_s: float) -> News:
        """Until there is news, or for so long; a change of state is ``urgent``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            return "timeout"
        news: News = "urgent" if self._urgent else "ordinary"
        self._woken.clear()
        self._urgent = False
        return news


class Feed:
    """Who follows which job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[str, set[Follower]] = {}

    def notify(self, job_id: str, urgent: bool) -> None:
        """Wake the job's followers, from any thread; after the change is committed."""
        with self._lock:
            followers = tuple(self._followers.get(job_id, ()))
        for follower in followers:
            follower.wake(urgent)

    @contextmanager
    def follow(self, job_id: str) -> Iterator[Follower]:
        """A follower for the length of the block."""
        follower = Follower()
        with self._lock:
            self._followers.setdefault(job_id, set()).add(follower)
        try:
            yield follower
        finally:
            with self._lock:
                followers = self._followers[job_id]
                followers.discard(follower)
                if not followers:
                    del self._followers[job_id]

    def followed(self) -> tuple[str, ...]:
        """Ids of the jobs that somebody follows."""
        with self._lock:
            return tuple(self._followers)

    def count(self) -> int:
        """Followers of all jobs."""
        with self._lock:
            return sum(len(followers) for followers in self._followers.values())
