"""What /metrics shows, for Prometheus: one registry for each application.

What the database says is the same from every service process on it, and has the label
``source="database"``: take its maximum over processes. All else is each process's own: take its
sum.
"""

import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from api.dependencies import Services
from service.errors import NotReady
from service.health import QueueFigures
from service.jobs import JobState, Reason

DATABASE = "database"
# Shown even when no job is so, that a graph has its zeros.
_USUAL: Mapping[tuple[JobState, Reason], int] = {
    (JobState.QUEUED, Reason.SUBMITTED): 0,
    (JobState.QUEUED, Reason.WAITING_FOR_RESOURCES): 0,
    (JobState.RUNNING, Reason.TRAINING): 0,
    (JobState.PAUSED, Reason.PAUSED): 0,
}


class HttpFigures:
    """Counts requests by route template, method and status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "spreadtrain_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "spreadtrain_http_response_start_seconds",
            "Seconds until an answer begins.",
            ("method", "route"),
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


class ServiceFigures(Collector):
    """The queue as the database has it, and how this process stands: asked for when Prometheus
    asks. While the database is away, the rest is shown all the same."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """See the class."""
        health = self._services.health
        try:
            queue = health.queue_figures()
        except NotReady:
            queue = None
        yield GaugeMetricFamily(
            "spreadtrain_database_up",
            "Whether the database answered this process just now.",
            value=float(queue is not None),
        )
        if queue is not None:
            yield from _of_queue(queue)
        yield GaugeMetricFamily(
            "spreadtrain_event_followers",
            "Open event streams.",
            value=self._services.feed.count(),
        )
        yield from self._of_process()

    def _of_process(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        figures = self._services.health.process_figures()
        yield GaugeMetricFamily(
            "spreadtrain_leads",
            "Whether this process watches the jobs; of several on a database, one does.",
            value=float(figures.leads),
        )
        yield GaugeMetricFamily(
            "spreadtrain_watcher_silence_seconds",
            "Seconds since the last round of this process's watcher.",
            value=max(0.0, time.monotonic() - figures.last_round_at),
        )
        troubles = GaugeMetricFamily(
            "spreadtrain_watcher_trouble",
            "1 while the watcher's last round failed, by what failed it.",
            labels=("part",),
        )
        troubles.add_metric(("round",), float(figures.has_trouble))
        troubles.add_metric(("storage",), float(figures.has_store_trouble))
        yield troubles
        yield CounterMetricFamily(
            "spreadtrain_jobs_deleted",
            "Jobs deleted since the start, by hand or because their time was over.",
            value=figures.deleted_jobs,
        )
        yield CounterMetricFamily(
            "spreadtrain_reclaimed_bytes",
            "Bytes removed since the start: artifacts of deleted jobs, and what sweeps found.",
            value=figures.reclaimed_bytes,
        )


def _of_queue(queue: QueueFigures) -> Iterator[GaugeMetricFamily]:
    jobs = GaugeMetricFamily("spreadtrain_jobs", "Jobs by state.", labels=("state", "source"))
    for state, count in queue.jobs_by_state.items():
        jobs.add_metric((state.value, DATABASE), count)
    yield jobs
    unfinished = GaugeMetricFamily(
        "spreadtrain_unfinished_jobs",
        "Jobs that have not ended, by state and reason.",
        labels=("state", "reason", "source"),
    )
    for (state, reason), count in {**_USUAL, **queue.unfinished}.items():
        unfinished.add_metric((state.value, reason.value, DATABASE), count)
    yield unfinished
    oldest = GaugeMetricFamily(
        "spreadtrain_oldest_queued_seconds",
        "Age of the job that has waited longest; 0 when none waits.",
        labels=("source",),
    )
    oldest.add_metric((DATABASE,), queue.oldest_queued_s or 0.0)
    yield oldest
