"""What is gathered of the end of an attempt's process while it is watched."""

import re

from service.cluster.base import Sighting
from service.cluster.exits import ExitWatch, signal_name
from service.cluster.memory import oom_kills
from workers.events import Exit

_OF_ANOTHER_WORKER = re.compile(r"worker [1-9]")


class Evidence:
    """Of one attempt; ``is_here`` says that its processes are on this machine, whose kernel is
    asked. Close it, as it holds the process open."""

    def __init__(self, *, is_here: bool) -> None:
        self._is_here = is_here
        self._oom_kills = oom_kills()
        self._process: ExitWatch | None = None

    def see(self, sighting: Sighting) -> None:
        """Watch the process that is to be seen."""
        if self._is_here and self._process is None and sighting.pid is not None:
            self._process = ExitWatch(sighting.pid)

    def of(self, sighting: Sighting) -> Exit:
        """What is known of the end, now that the process is lost."""
        status = None
        # With another worker of a gang this process is ended too: that tells nothing.
        if self._process is not None and not _OF_ANOTHER_WORKER.match(sighting.detail or ""):
            status = self._process.status()
        now = oom_kills()
        kills = None
        if self._is_here and self._oom_kills is not None and now is not None:
            kills = now - self._oom_kills
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
