"""The thread that tidies up: it removes what deleted jobs have left, and sweeps when asked."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from service.errors import NotLeading, NotReady, SweepRunning
from service.retention import Deletions
from service.sweep import Report, Sweep
from workers.errors import StoreError

log = logging.getLogger(__name__)

EXPIRY_INTERVAL_S = 10.0
FOLLOWING_INTERVAL_S = 1.0  # while another service leads
RETRY_S = 5.0  # after the store or the database did not answer
PAUSE_S = 0.005  # between two steps, for whoever waits for the database
STOP_S = 10.0
FIRST_SWEEP_S = 600.0  # or a service that is restarted often would never sweep by itself


class Sweeper:
    """Works in a thread of its own from ``start`` to ``stop``; it may be cut off anywhere.

    ``trouble`` says what kept it from its work the last time. Where another service leads, that one
    tidies up: ``leads`` says so.
    """

    def __init__(
        self,
        deletions: Deletions,
        sweep: Sweep,
        interval_s: float,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._deletions = deletions
        self._sweep = sweep
        self._interval_s = interval_s
        self._leads = leads
        self._lock = threading.Lock()
        self._wanted: Report | None = None
        self._last: Report | None = None
        self._swept_at = time.monotonic() - max(interval_s - FIRST_SWEEP_S, 0.0)
        self._stopping = threading.Event()
        # It holds nothing that would be lost with it, so the process need not wait for it.
        self._thread = threading.Thread(target=self._work, name="sweeper", daemon=True)
        self.trouble: str | None = None

    def start(self) -> None:
        """Begin, with what was cut off."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is under way."""
        self._stopping.set()
        self._deletions.news.set()
        self._thread.join(STOP_S)

    @property
    def is_alive(self) -> bool:
        """Whether the thread is at work."""
        return self._thread.is_alive()

    @property
    def deleted_jobs(self) -> int:
        """Jobs deleted since the start."""
        return self._deletions.deleted

    @property
    def reclaimed_bytes(self) -> int:
        """Bytes removed since the start, of deleted jobs and by sweeps."""
        return self._deletions.reclaimed_bytes + self._sweep.reclaimed_bytes

    def request(self, dry_run: bool) -> Report:
        """Ask for a sweep; the one that is under way, if it is of the same kind.

        Raises SweepRunning when another kind is under way, NotLeading where another service
        sweeps.
        """
        if not self._leads():
            raise NotLeading("another service sweeps; GET /readyz says which: ask that one")
        with self._lock:
            last = self._last
            if last is not None and last.state == "running":
                if last.dry_run != dry_run:
                    raise SweepRunning
                return last
            number = 1 if last is None else last.number + 1
            self._last = self._wanted = Report(number, dry_run, datetime.now(UTC))
        self._deletions.news.set()
        return self._last

    def last(self) -> Report | None:
        """The sweep that was asked for last; None before the first since the start."""
        return self._last

    def _work(self) -> None:
        is_claimed = False
        while not self._stopping.is_set():
            self._deletions.news.clear()
            if not self._leads():
                self._deletions.news.wait(FOLLOWING_INTERVAL_S)
                continue
            try:
                with contextlib.suppress(StoreError):  # a store that is away says so below
                    if not is_claimed:
                        self._sweep.claim()
                        is_claimed = True
                self._tidy()
                if self._wanted is None and self._is_due():
                    with contextlib.suppress(SweepRunning):  # somebody has just asked for one
                        self.request(dry_run=False)
                if self._wanted is not None:
                    self._run(self._wanted)
                if self._deletions.denied not in (None, self.trouble):
                    log.warning("tidying up: %s", self._deletions.denied)
                self.trouble = self._deletions.denied
            except (StoreError, NotReady) as error:
                self.trouble = str(error)
                log.warning("tidying up: %s", error)
                self._stopping.wait(RETRY_S)  # news would only fail again
                continue
            except Exception:
                self.trouble = "tidying up failed; the log says why"
                log.exception("tidying up failed")
                self._stopping.wait(RETRY_S)
                continue
            self._deletions.news.wait(EXPIRY_INTERVAL_S)

    def _is_due(self) -> bool:
        return 0 < self._interval_s < time.monotonic() - self._swept_at

    def _tidy(self) -> None:
        """Remove what has expired and what was deleted, down to the last row."""
        self._deletions.delete_expired()
        for _ in self._deletions.remove():
            if self._stopping.wait(PAUSE_S):
                return

    def _run(self, report: Report) -> None:
        """One sweep; what is deleted meanwhile does not wait for its end."""
        self._wanted = None
        self._swept_at = time.monotonic()
        error: str | None = "it was cut off; the service's log says why"
        try:
            for _ in self._sweep.steps(report):
                if self._stopping.wait(PAUSE_S):
                    error = "the service was stopped"
                    return
                if self._deletions.news.is_set():
                    self._deletions.news.clear()
                    self._tidy()
            error = report.denied
        except (StoreError, NotReady) as cause:
            error = str(cause)
            raise
        finally:
            report.ended_at, report.error = datetime.now(UTC), error
            report.state = "done" if error is None else "failed"
        log.info(
            "sweep %d%s: %d objects, %d bytes",
            report.number,
            " (dry run)" if report.dry_run else "",
            sum(report.counts.values()),
            sum(report.sizes.values()),
        )
