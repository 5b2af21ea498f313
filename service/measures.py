"""What this process counts and times of its work, for Prometheus.

Every service process counts for itself: sums over processes are those of an installation. What the
database says is the same from each of them, and has the label ``source="database"`` (api.figures).
Labels come from closed sets: states, reasons, kinds of records and trainers, operations. Counters
of trouble stand at 0 from the start: Prometheus sees no increase in a series' first value.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.jobs import Job, JobState, Reason
from service.verdicts import ENDS
from workers.events import FirstStepRecord, ProgressRecord, Record

STORAGE_OPERATIONS = (
    *("put", "put_file", "size", "stream", "list", "delete", "delete_many"),
    *("prune", "discard", "free_bytes", "open_file", "check"),
)
STORAGE_ERRORS = ("away", "full", "not_shared", "other")
_SHORT_S = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_STEP_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_START_S = (0.1, 0.3, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14_400, 86_400)
_DELAY_S = (0.3, 0.6, 1, 1.5, 2, 3, 5, 10, 30, 60, 300)


class Measures:
    """The figures of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.database = DatabaseMeasures(registry)
        self.storage = StorageMeasures(registry)
        self.generators = CacheMeasures(registry)
        self.progress = ProgressMeasures(registry)


class DatabaseMeasures:
    """Transactions: how long they take, and which of them the database failed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "spreadtrain_database_transaction_seconds",
            "Seconds of a transaction, its wait for a connection or the writers' lock included.",
            ("kind",),
            buckets=_SHORT_S,
            registry=registry,
        )
        self._errors = Counter(
            "spreadtrain_database_errors",
            "Transactions that the database failed: unavailable, disk_full, or a defect of ours.",
            ("kind", "error"),
            registry=registry,
        )
        for kind in ("read", "write"):
            for error in ("unavailable", "disk_full", "defect"):
                self._errors.labels(kind, error)

    def seen(self, kind: str, seconds: float, error: str | None) -> None:
        """A transaction is over; see :class:`service.jobstore.database.Observer`."""
        self._seconds.labels(kind).observe(seconds)
        if error is not None:
            self._errors.labels(kind, error).inc()


class StorageMeasures:
    """Calls of this process to the artifact store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "spreadtrain_storage_operation_seconds",
            "Seconds of a call to the artifact store; of a download, until its first bytes.",
            ("operation",),
            buckets=_SHORT_S,
            registry=registry,
        )
        self._errors = Counter(
            "spreadtrain_storage_errors",
            "Calls that the artifact store failed: away, full, not_shared or other.",
            ("operation", "error"),
            registry=registry,
        )
        for operation in STORAGE_OPERATIONS:
            for error in STORAGE_ERRORS:
                self._errors.labels(operation, error)

    def seen(self, operation: str, seconds: float, error: str | None) -> None:
        """A call is over; ``error`` is what the store failed with."""
        self._seconds.labels(operation).observe(seconds)
        self.failed(operation, error)

    def failed(self, operation: str, error: str | None) -> None:
        """Something came of a call later, such as the rest of a download; None is no failure."""
        if error is not None:
            self._errors.labels(operation, error).inc()


class CacheMeasures:
    """The generators that are kept ready to sample from."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._asked = Counter(
            "spreadtrain_generator_requests",
            "Requests for a generator that were answered from memory (hit) or had to load it.",
            ("result",),
            registry=registry,
        )
        for result in ("hit", "miss"):  # shown from the start, so that a rate has a beginning
            self._asked.labels(result)
        self._load = Histogram(
            "spreadtrain_generator_load_seconds",
            "Seconds to load a generator from its checkpoint.",
            buckets=_SHORT_S,
            registry=registry,
        )
        self._evicted = Counter(
            "spreadtrain_generator_evictions",
            "Generators that made room for others.",
            registry=registry,
        )
        self._bytes = Gauge(
            "spreadtrain_generator_cache_bytes",
            "Bytes of the generators that are kept ready.",
            registry=registry,
        )

    def hit(self) -> None:
        """It was there."""
        self._asked.labels("hit").inc()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """It was not there, and is loaded in this block."""
        self._asked.labels("miss").inc()
        with self._load.time():
            yield

    def evicted(self) -> None:
        """One was let go for others."""
        self._evicted.inc()

    def holds(self, size_bytes: int) -> None:
        """So much is kept now."""
        self._bytes.set(size_bytes)


class ProgressMeasures:
    """What this process has seen of jobs as it followed them: on several services, the leader."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._changes = Counter(
            "spreadtrain_job_changes",
            "Jobs that this process moved to a state, by its reason.",
            ("state", "reason"),
            registry=registry,
        )
        self._attempts = Counter(
            "spreadtrain_attempts_ended",
            "Attempts that ended, by reason.",
            ("reason",),
            registry=registry,
        )
        for ended, state in ENDS.items():
            self._attempts.labels(ended)
            # What would be repeated, fails when that was too often.
            self._changes.labels(JobState.FAILED if state is JobState.QUEUED else state, ended)
        self._first_step = Histogram(
            "spreadtrain_submit_to_first_step_seconds",
            "Seconds from a job's submission to the end of its first attempt's first step.",
            ("of",),
            buckets=_START_S,
            registry=registry,
        )
        self._step = Histogram(
            "spreadtrain_step_seconds",
            "Mean seconds of a step, between two reports of an attempt's progress.",
            ("trainer",),
            buckets=_STEP_S,
            registry=registry,
        )
        self._events = Counter(
            "spreadtrain_events",
            "Records of attempts that were taken in, by kind.",
            ("kind",),
            registry=registry,
        )
        self._delay = Histogram(
            "spreadtrain_event_delay_seconds",
            "Seconds from the last record of a chunk, by its node's clock, to its being stored.",
            buckets=_DELAY_S,
            registry=registry,
        )
        self._lock = threading.Lock()
        self._last: dict[tuple[str, int], tuple[int, datetime]] = {}

    def moved(self, state: JobState, reason: Reason) -> None:
        """A job is in another state."""
        self._changes.labels(state, reason).inc()

    def attempt_ended(self, job_id: str, number: int, reason: str) -> None:
        """An attempt is over."""
        self._attempts.labels(reason).inc()
        with self._lock:
            self._last.pop((job_id, number), None)

    def forget(self) -> None:
        """Another process follows the attempts from now on."""
        with self._lock:
            self._last.clear()

    def took_in(self, job: Job, attempt: int, records: Sequence[Record]) -> None:
        """A chunk of the records of one of a job's attempts was stored."""
        for record in records:
            self._events.labels(record.kind).inc()
            match record:
                case FirstStepRecord():
                    if attempt == 1:
                        kind = "job" if job.study_id is None else "trial"
                        waited = record.at - job.created_at
                        self._first_step.labels(kind).observe(waited.total_seconds())
                    self._at_step(job, attempt, record.step, record.at)
                case ProgressRecord():
                    self._at_step(job, attempt, record.step, record.at)
                case _:
                    pass
        if records:
            # Of clocks of two machines; one that is ahead tells nothing of the delay.
            delay = datetime.now(UTC) - records[-1].at
            self._delay.observe(max(0.0, delay.total_seconds()))

    def _at_step(self, job: Job, attempt: int, step: int, at: datetime) -> None:
        """Time the steps since the last report; the first one's own time is part of the start."""
        with self._lock:
            last = self._last.get((job.id, attempt))
            self._last[job.id, attempt] = (step, at)
        if last is not None and step > last[0]:
            seconds = (at - last[1]).total_seconds() / (step - last[0])
            self._step.labels(job.spec.trainer.kind).observe(max(0.0, seconds))
