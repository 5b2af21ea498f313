"""What is gathered of the end of an attempt's process while it is watched."""

import re
import time
from collections import deque

from service.cluster.base import Sighting
from service.cluster.exits import ExitWatch, signal_name
from service.cluster.memory import oom_kills
from workers.events import Exit

DYING_S = 2.0  # from the kernel's count to the process's end: its memory is given back between
_OF_ANOTHER_WORKER = re.compile(r"worker [1-9]")


class Evidence:
    """Of one attempt; ``is_here`` says that its processes are on this machine, whose kernel is
    asked. Close it, as it holds the process open."""

    def __init__(self, *, is_here: bool) -> None:
        self._is_here = is_here
        self._process: ExitWatch | None = None
        # (when, the kernel's count) while the process lived; the first is the one to compare with.
        self._counts: deque[tuple[float, int]] = deque()
        self._count()

    def see(self, sighting: Sighting) -> None:
        """Watch the process that is to be seen."""
        if not self._is_here or sighting.state == "gone":
            return
        if self._process is None and sighting.pid is not None:
            self._process = ExitWatch(sighting.pid)
        if self._process is None or not self._process.has_ended():
            self._count()

    def of(self, sighting: Sighting) -> Exit:
        """What is known of the end, now that the process is lost."""
        status = None
        # With another worker of a gang this process is ended too: that tells nothing.
        if self._process is not None and not _OF_ANOTHER_WORKER.match(sighting.detail or ""):
            status = self._process.status()
        now = oom_kills()
        kills = None
        if self._is_here and self._counts and now is not None:
            kills = now - self._counts[0][1]
        return Exit(
            signal=signal_name(-status) if status is not None and status < 0 else None,
            code=status if status is not None and status >= 0 else None,
            detail=sighting.detail,
            oom_kills=kills,
            by_memory_monitor=sighting.cause == "out_of_memory",
        )

    def close(self) -> None:
        """Let go of the process."""
        if self._process is not None:
            self._process.close()

    def _count(self) -> None:
        """Note what the process has survived: what the kernel ended before was another one."""
        now = time.monotonic()
        if (kills := oom_kills()) is not None:
            self._counts.append((now, kills))
        while len(self._counts) > 1 and self._counts[1][0] < now - DYING_S:
            self._counts.popleft()


def is_for_memory(exit: Exit) -> bool:
    """Whether the kernel may have ended the process for want of memory.

    It does so by SIGKILL and counts it. A process that ended itself, or by another signal, did not
    end so, whatever was ended beside it.
    """
    return bool(exit.oom_kills) and exit.code is None and exit.signal in (None, "SIGKILL")
