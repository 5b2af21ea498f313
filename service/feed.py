"""Tells followers inside this process that a job has news; the news itself is in the job store."""

import asyncio
import itertools
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

News = Literal["urgent", "ordinary", "timeout"]


class Follower:
    """One follower of one job, bound to the event loop that made it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._urgent = False

    def wake(self, urgent: bool) -> None:
        """In its event loop: there is news."""
        self._urgent = self._urgent or urgent
        self._woken.set()

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


def _wake(followers: Iterable[Follower], urgent: bool) -> None:
    for follower in followers:
        follower.wake(urgent)


class Feed:
    """Who follows which job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[str, set[Follower]] = {}
        self._numbers = itertools.count(1)
        self._marks: dict[str, int] = {}  # of jobs that somebody follows

    def notify(self, job_id: str, urgent: bool) -> None:
        """Wake the job's followers, from any thread; after the change is committed."""
        with self._lock:
            if job_id not in self._followers:
                return
            self._marks[job_id] = next(self._numbers)
            by_loop = defaultdict(list)
            for follower in self._followers[job_id]:
                by_loop[follower.loop].append(follower)
        for loop, followers in by_loop.items():
            # A loop that closed while the job went on has nobody left to tell.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, followers, urgent)

    def mark(self, job_id: str) -> int:
        """A number that is another one after each news of a followed job; 0 where nobody
        follows."""
        with self._lock:
            return self._marks.get(job_id, 0)

    @contextmanager
    def follow(self, job_id: str) -> Iterator[Follower]:
        """A follower for the length of the block."""
        follower = Follower()
        with self._lock:
            if job_id not in self._followers:
                # News that came while nobody followed were counted by nobody.
                self._followers[job_id], self._marks[job_id] = set(), next(self._numbers)
            self._followers[job_id].add(follower)
        try:
            yield follower
        finally:
            with self._lock:
                followers = self._followers[job_id]
                followers.discard(follower)
                if not followers:
                    del self._followers[job_id], self._marks[job_id]

    def followed(self) -> tuple[str, ...]:
        """Ids of the jobs that somebody follows."""
        with self._lock:
            return tuple(self._followers)

    def count(self) -> int:
        """Followers of all jobs."""
        with self._lock:
            return sum(len(followers) for followers in self._followers.values())
