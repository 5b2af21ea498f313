"""What /metrics shows of studies."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from api.dependencies import Services
from api.figures import DATABASE
from service.errors import NotReady


class StudyFigures(Collector):
    """Studies by state and trials by outcome: asked for when Prometheus asks."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See the class."""
        try:
            figures = self._services.answers.figures()
        except NotReady:  # as spreadtrain_database_up says
            return
        studies = GaugeMetricFamily(
            "spreadtrain_studies", "Studies by state.", labels=("state", "source")
        )
        for state, count in figures.studies_by_state.items():
            studies.add_metric((state.value, DATABASE), count)
        yield studies
        trials = GaugeMetricFamily(
            "spreadtrain_trials",
            "Trials of studies by outcome: why they ended, or the state of those that have not.",
            labels=("outcome", "source"),
        )
        for outcome, count in sorted(figures.trials_by_outcome.items()):
            trials.add_metric((outcome, DATABASE), count)
        yield trials
