"""Whether the service can do its work, part by part, and its figures."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from service.cluster.base import Cluster, ClusterDown
from service.errors import NotReady
from service.feed import Feed
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.leadership import Alone, Leading
from service.sweeper import Sweeper
from service.watcher import Watcher
from workers.artifacts import ArtifactStore
from workers.errors import StoreError

WATCHER_SILENCE_S = 30.0
PROBE_INTERVAL_S = 5.0  # the store is probed at most this often, however often it is asked
PROBE_PATIENCE_S = 5.0  # a probe that takes longer holds up nobody


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that the service needs; ``detail`` says what is wrong, or how it is."""

    name: str
    ready: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """All parts; ready when each is."""

    ready: bool
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """Numbers of the database: the same from each service on it."""

    jobs_by_state: Mapping[JobState, int]
    unfinished: Mapping[tuple[JobState, Reason], int]
    oldest_queued_s: float | None


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """Numbers of this process. ``last_round_at`` is a time.monotonic()."""

    leads: bool
    last_round_at: float
    has_trouble: bool
    has_store_trouble: bool
    deleted_jobs: int
    reclaimed_bytes: int


class _Probe:
    """One look at a part, in a thread of its own: a process that ends does not wait for it."""

    def __init__(self, look: Callable[[], Part]) -> None:
        self.begun_at = time.monotonic()
        self._look = look
        self._part: Part | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._work, name="probe", daemon=True).start()

    def _work(self) -> None:
        try:
            self._part = self._look()
        finally:
            self._ended.set()

    def is_over(self, interval_s: float) -> bool:
        """Whether it has ended, and began longer ago than that."""
        return self._ended.is_set() and time.monotonic() - self.begun_at > interval_s

    def seen(self, patience_s: float) -> Part | None:
        """What it has seen; None where that takes longer than so many seconds from its begin, and
        where the look itself has failed."""
        self._ended.wait(max(0.0, self.begun_at + patience_s - time.monotonic()))
        return self._part


class Health:
    """Asks each part."""

    def __init__(
        self,
        jobs: JobStore,
        artifacts: ArtifactStore,
        cluster: Cluster,
        watcher: Watcher,
        feed: Feed,
        sweeper: Sweeper,
        leading: Leading | None = None,
    ) -> None:
        self._leading = leading or Alone()
        self._jobs = jobs
        self._artifacts = artifacts
        self._cluster = cluster
        self._watcher = watcher
        self._feed = feed
        self._sweeper = sweeper
        self._asking = threading.Lock()
        self._probe: _Probe | None = None

    def report(self) -> Readiness:
        """The state of every part now."""
        storage = self._ask_storage()
        parts = (
            self._ask("database", self._jobs.ping),
            storage,
            self._ask("ray", self._ask_cluster),
            self._ask_watcher(storage),
            self._ask("queue", self._ask_queue),
            self._ask_sweeper(),
            *self._ask_leader(),
        )
        return Readiness(ready=all(part.ready for part in parts), parts=parts)

    def queue_figures(self) -> QueueFigures:
        """Numbers of the database, for monitoring; raises NotReady."""
        return QueueFigures(
            jobs_by_state=self._jobs.count_by_state(),
            unfinished=self._jobs.count_unfinished(),
            oldest_queued_s=self._oldest_queued_s(),
        )

    def process_figures(self) -> ProcessFigures:
        """Numbers of this process, for monitoring; asks nobody."""
        return ProcessFigures(
            leads=self._leading.leads(),
            last_round_at=self._watcher.last_round_at,
            has_trouble=self._watcher.trouble is not None,
            has_store_trouble=self._watcher.store_trouble is not None,
            deleted_jobs=self._sweeper.deleted_jobs,
            reclaimed_bytes=self._sweeper.reclaimed_bytes,
        )

    def _ask(self, name: str, question: Callable[[], str | None]) -> Part:
        try:
            return Part(name, True, question() or "ok")
        except (NotReady, StoreError, ClusterDown) as error:
            return Part(name, False, str(error))

    def _ask_storage(self) -> Part:
        with self._asking:
            # One probe at a time: those of a silent store would take up all threads.
            if self._probe is None or self._probe.is_over(PROBE_INTERVAL_S):
                self._probe = _Probe(lambda: self._ask("storage", self._probe_storage))
            probe = self._probe
        storage = probe.seen(PROBE_PATIENCE_S)
        if storage is None and probe.is_over(0.0):
            return Part("storage", False, "the artifact store cannot be asked; the log says why")
        if storage is None:
            silence_s = time.monotonic() - probe.begun_at
            return Part(
                "storage",
                False,
                f"the artifact store has not answered for {silence_s:.0f} s; check its server and "
                "the network",
            )
        # One object may be denied where the probe is not.
        if storage.ready and (trouble := self._watcher.store_trouble) is not None:
            return Part("storage", False, str(trouble))
        return storage

    def _probe_storage(self) -> str:
        self._artifacts.check()
        return self._artifacts.capabilities().sentence()

    def _ask_cluster(self) -> str:
        capacity = self._cluster.capacity()
        return f"{capacity.cpus:g} cores, {capacity.gpus:g} GPUs"

    def _ask_watcher(self, storage: Part) -> Part:
        silence_s = time.monotonic() - self._watcher.last_round_at
        if silence_s > WATCHER_SILENCE_S and not storage.ready:
            return Part("watcher", True, f"has waited for the storage for {silence_s:.0f} s")
        if silence_s > WATCHER_SILENCE_S:
            return Part("watcher", False, f"no round for {silence_s:.0f} s; restart the service")
        trouble = self._watcher.trouble
        return Part("watcher", trouble is None, trouble or "ok")

    def _ask_leader(self) -> tuple[Part, ...]:
        try:
            found = self._leading.leader()
        except NotReady as error:
            return (Part("leader", False, str(error)),)
        return () if found is None else (Part("leader", *found),)

    def _ask_sweeper(self) -> Part:
        # What keeps it for now is the store or the database, which say so themselves.
        if not self._sweeper.is_alive:
            return Part("sweeper", False, "it is not at work; restart the service, and see its log")
        return Part("sweeper", True, self._sweeper.trouble or "ok")

    def _ask_queue(self) -> str:
        oldest_s = self._oldest_queued_s()
        return "empty" if oldest_s is None else f"the oldest job has waited for {oldest_s:.0f} s"

    def _oldest_queued_s(self) -> float | None:
        oldest = self._jobs.oldest_queued_at()
        return None if oldest is None else (datetime.now(UTC) - oldest).total_seconds()
