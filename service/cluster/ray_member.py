"""One actor of an executor, as the host process sees it.

It is asked, and what it answered last time is looked at: nothing here waits for an actor.
"""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    OutOfMemoryError,
    RayError,
    RaySystemError,
    RpcError,
)

from service.cluster.base import LossCause, Sighting
from service.cluster.processes import is_running
from service.cluster.ray_executor import ExecutorReport

PENDING = Sighting("pending")
ASK_INTERVAL_S = 2.0  # between two questions to one that is at work


class Member:
    """The handle of an actor with what is known of it; ``is_near`` where its process is one of
    this machine's. ``news`` is called, in a thread, when an attempt that it was given has ended, or
    it has.

    ``sighting`` is what it said of itself last; ``failure`` is why it says no more, and ``cause``
    the kind of that.
    """

    def __init__(self, handle: Any, *, is_near: bool, news: Callable[[], None]) -> None:
        self.handle = handle
        self.sighting = PENDING
        self.failure: str | None = None
        self.cause: LossCause = "worker_lost"
        self._is_near = is_near
        self._news = news
        self._begun: Any = None
        self._ended: Any = None
        self._asked: Any = None
        self._asked_early = False
        self._asked_at = float("-inf")
        self._wish: str | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it was given an attempt."""
        return self._begun is not None

    @property
    def is_gone(self) -> bool:
        """Whether nothing of it is left: Ray's word may come before the process has ended."""
        pid = self.sighting.pid
        if self.failure is None:
            return False
        return not (self._is_near and pid is not None and is_running(pid))

    def begin(self, *arguments: Any) -> None:
        """Give it an attempt; see :meth:`service.cluster.ray_executor.Executor.begin`."""
        self.sighting = PENDING
        self._ask(early=True)  # for its process id, as soon as there is one
        self._begun = self.handle.begin.remote(*arguments)
        self._ended = self.handle.end.remote(self._begun)
        self._ended.future().add_done_callback(lambda _: self._news())

    def rest(self) -> None:
        """The attempt is over, and its end was clean."""
        self._begun = self._ended = self._wish = None

    def stop(self, reason: str) -> None:
        """Pass on the wish; one that overtook the beginning would be forgotten with it."""
        if self._begun is not None and not _is_there(self._begun):
            self._wish = reason
        else:
            self.handle.stop.remote(reason)

    def look(self) -> None:
        """Bring what is known up to date."""
        if self.failure is not None:
            return
        begun = self._begun is None or _is_there(self._begun)
        if begun and self._begun is not None:
            self._note(_failure(self._begun))
            if self.failure is None and self._wish is not None:
                self.handle.stop.remote(self._wish)
                self._wish = None
        if self._ended is not None and _is_there(self._ended):
            # Once: of a dead process it may say no more than that it cannot be reached.
            self._asked, self._ended, self._asked_early = self._ended, None, False
        elif self._asked is None and not self._will_tell:
            self._ask(early=not begun)
        if self._asked is not None and _is_there(self._asked):
            self._read()

    @property
    def _will_tell(self) -> bool:
        """Whether it has said lately that it is at work: it tells of the end unasked, and of its
        own with that."""
        if self._ended is None or self.sighting.state != "running":
            return False
        return time.monotonic() - self._asked_at < ASK_INTERVAL_S

    def _ask(self, *, early: bool) -> None:
        """Ask for a report; an early one may not be about the attempt yet."""
        self._asked, self._asked_early = self.handle.report.remote(), early
        self._asked_at = time.monotonic()

    def _read(self) -> None:
        answer, self._asked = self._asked, None
        failure = _failure(answer)
        self._note(failure)
        if failure is not None:
            return
        try:
            report: ExecutorReport = ray.get(answer)
        except ActorUnavailableError:
            return
        seen = Sighting(
            report["state"], report["pid"], report["host"], report["detail"], report["cause"]
        )
        self.sighting = replace(seen, state="pending") if self._asked_early else seen

    def _note(self, failure: RayError | None) -> None:
        """Keep the first failure; Ray's memory monitor says so where it was that."""
        if failure is not None and self.failure is None:
            self.failure = _cause(failure)
            is_memory = isinstance(failure, OutOfMemoryError)
            self.cause = "out_of_memory" if is_memory else self.sighting.cause


def _is_there(answer: Any) -> bool:
    return bool(ray.wait([answer], timeout=0)[0])


def _failure(answer: Any) -> RayError | None:
    """Why an actor has no answer, or None; raises what is Ray's failure, not the actor's."""
    try:
        ray.get(answer)
    except ActorUnavailableError:
        return None
    except (RaySystemError, RpcError):
        raise
    except RayError as error:
        return error
    return None


def _cause(failure: RayError) -> str:
    """What Ray knows of the end, without its addresses, ids and advice."""
    if isinstance(failure, OutOfMemoryError):
        return "Ray ended its process, as the machine was running out of memory"
    exit_type = re.search(r"Worker exit type: (\w+)", str(failure))
    detail = re.search(r"Worker exit detail: ([^.\n]+)", str(failure))
    if exit_type is None or detail is None:
        return f"its process ended ({type(failure).__name__})"
    return (
        "its process was killed, ran out of memory or crashed "
        f"(Ray: {exit_type[1]}, {detail[1].strip()})"
    )
