"""Which of several services on one database leads: it alone watches, starts, settles and tidies up.

The leader holds a lease in the database, and renews it in a thread of its own. Every write of its
watcher and sweeper names the lease's number in the same transaction; so one that was stopped, or
cut off, and comes back when its lease is over, can write nothing any more.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from service.errors import NotReady
from service.jobstore import JobStore

log = logging.getLogger(__name__)

RENEWALS = 3  # within one lease
LOOK_INTERVAL_S = 1.0  # of those that follow, at the lease


class Leading(Protocol):
    """Whether this service leads, and who does."""

    def leads(self) -> bool:
        """Whether this service may do now what only the leader does."""
        ...

    def leader(self) -> tuple[bool, str] | None:
        """Whether anybody leads, and a sentence about that; None where there is one service only.

        Raises NotReady.
        """
        ...


class Alone:
    """Leads always: the only service on its database."""

    def leads(self) -> bool:
        """Always."""
        return True

    def leader(self) -> tuple[bool, str] | None:
        """There is nobody else."""
        return None


class Leadership:
    """Takes the lease when it is free, and keeps it, from ``start`` to ``stop``.

    ``service`` is this service's name for people, as host and port. A lease lasts for ``lease_s``
    from its last renewal.
    """

    def __init__(self, jobs: JobStore, service: str, lease_s: float) -> None:
        self._jobs = jobs
        self._service = service
        self._lease_s = lease_s
        self._on_change: Callable[[], None] = lambda: None
        self._number: int | None = None
        self._valid_until = float("-inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._hold, name="leadership", daemon=True)

    def number(self) -> int | None:
        """The number of the lease that this service has, or had last."""
        return self._number

    def leads(self) -> bool:
        """Whether this service has the lease, by a clock that also counts while it is stopped."""
        return time.monotonic() < self._valid_until

    def leader(self) -> tuple[bool, str]:
        """See :class:`Leading`."""
        lease = self._jobs.lease()
        if lease.left_s <= 0:
            return False, f"no service leads; the last one was {lease.service or 'none'}"
        if lease.number == self._number and self.leads():
            return True, f"this service leads, by lease {lease.number}"
        return True, f"{lease.service} leads, by lease {lease.number}"

    def start(self, on_change: Callable[[], None]) -> None:
        """Begin; where nobody leads, this service does when this returns. ``on_change`` is told
        whenever it begins to lead."""
        self._on_change = on_change
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Give the lease back, after all work that needs it has ended."""
        self._stopping.set()
        self._thread.join()
        number, self._valid_until = self._number, float("-inf")
        if number is None:
            return
        try:
            self._jobs.give_back_lease(number)
        except NotReady as error:
            log.warning("the lease ends by itself in %.0f s: %s", self._lease_s, error)

    def _hold(self) -> None:
        interval = min(LOOK_INTERVAL_S, self._lease_s / RENEWALS)
        while not self._stopping.wait(interval):
            try:
                self.look()
            except Exception:  # without this thread nobody would lead, or take the lead
                log.exception("the lease could not be looked at")

    def look(self) -> None:
        """Renew the lease, or take one where there is none; the thread does so again and again."""
        # Counted from before the question: the database's answer may have been long on its way.
        asked_at = time.monotonic()
        try:
            if self._number is not None and self._jobs.renew_lease(self._number, self._lease_s):
                self._valid_until = asked_at + self._lease_s
                return
            if self._number is not None:
                log.warning("lease %d is over; another service may lead now", self._number)
                self._number, self._valid_until = None, float("-inf")
            number = self._jobs.take_lease(self._service, self._lease_s)
        except NotReady as error:
            log.warning("leadership: %s", error)
            return
        if number is not None:
            self._number, self._valid_until = number, asked_at + self._lease_s
            log.info("this service leads, by lease %d", number)
            self._on_change()
