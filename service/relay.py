"""Tells followers here of news that another service has stored."""

import logging
import threading

from service.errors import NotReady
from service.feed import Feed
from service.jobstore import JobStore

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.2


class Relay:
    """Looks at the jobs that are followed here, in a thread of its own, from start to stop."""

    def __init__(self, jobs: JobStore, feed: Feed) -> None:
        self._jobs = jobs
        self._feed = feed
        self._seen: dict[str, tuple[int, int]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="relay", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def look(self) -> None:
        """Wake the followers of every job that has changed since the last look; a new version is
        urgent, and so is a job that is gone. Raises NotReady."""
        followed = self._feed.followed()
        marks = self._jobs.marks(followed) if followed else {}
        for job_id in followed:
            before, now = self._seen.get(job_id), marks.get(job_id)
            # Who began to follow since the last look has read the job after that.
            if now != before:
                is_urgent = now is None or before is None or now[1] != before[1]
                self._feed.notify(job_id, urgent=is_urgent)
        self._seen = marks

    def _work(self) -> None:
        trouble = ""
        while not self._stopping.wait(LOOK_INTERVAL_S):
            try:
                self.look()
                trouble = ""
            except NotReady as error:
                if str(error) != trouble:  # once, not five times a second
                    log.warning("events of other services: %s", error)
                trouble = str(error)
            except Exception as error:
                if repr(error) != trouble:
                    log.exception("events of other services could not be looked for")
                trouble = repr(error)
