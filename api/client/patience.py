"""How long a service is waited for that does not answer, as while it restarts."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from api.client.errors import ApiError, Unreachable

PATIENCE_S = 60.0
RETRY_S = 0.5
T = TypeVar("T")


@dataclass(slots=True)
class Patience:
    """Waits up to ``limit_s`` from the first failed attempt since the service was last heard, so
    that a first failure is always followed by another attempt.

    ``told`` is called once for each such time, before the first wait. Nothing waits beyond
    ``deadline``, a time of the clock.
    """

    limit_s: float = PATIENCE_S
    told: Callable[[], None] | None = None
    deadline: float | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _failing_since: float | None = field(default=None, init=False)

    @property
    def left_s(self) -> float | None:
        """Seconds to the deadline, 0 behind it; None without one."""
        return None if self.deadline is None else max(self.deadline - self.clock(), 0.0)

    def heard(self) -> None:
        """Note that the service answers."""
        self._failing_since = None

    def bear(self, error: Unreachable | ApiError) -> None:
        """Wait before the next attempt; raises the error for a refusal that stays, and once the
        patience or the time is over."""
        if isinstance(error, ApiError) and not error.problem.retryable:
            raise error
        if self.left_s == 0:
            raise error
        now = self.clock()
        if self._failing_since is None:
            self._failing_since = now
            if self.told is not None:
                self.told()
        elif now - self._failing_since > self.limit_s:
            raise error
        asked_s = error.retry_after_s if isinstance(error, ApiError) else None
        # Not beyond the end of the patience, where one more attempt is due.
        rest_s = max(self._failing_since + self.limit_s - now, 0.0)
        self.pause(max(RETRY_S, min(asked_s or 0.0, rest_s)))

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the deadline."""
        left_s = self.left_s
        self.sleep(seconds if left_s is None else min(seconds, left_s))

    def answer(self, ask: Callable[[], T]) -> T:
        """What ``ask`` gives, which is called again while the service does not answer."""
        while True:
            try:
                found = ask()
            except (Unreachable, ApiError) as error:
                self.bear(error)
            else:
                self.heard()
                return found
