"""What /metrics shows, for Prometheus: one registry for each application."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from api.dependencies import Services


class HttpFigures:
    """Counts requests by route template, method and status."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "spreadtrain_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "spreadtrain_http_response_start_seconds",
            "Seconds until an answer begins.",
            ("method", "route"),
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=self.registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


class ServiceFigures(Collector):
    """Jobs by state, the age of the queue, followers: asked for when Prometheus asks."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """See the class."""
        figures = self._services.health.figures()
        jobs = GaugeMetricFamily("spreadtrain_jobs", "Jobs by state.", labels=("state",))
        for state, count in figures.jobs_by_state.items():
            jobs.add_metric((str(state),), count)
        yield jobs
        yield GaugeMetricFamily(
            "spreadtrain_oldest_queued_seconds",
            "Age of the job that has waited longest; 0 when none waits.",
            value=figures.oldest_queued_s or 0.0,
        )
        yield GaugeMetricFamily(
            "spreadtrain_event_followers",
            "Open event streams.",
            value=self._services.feed.count(),
        )
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
