"""An explanation of jobs over a harness's service, and what its clusters may be like."""

import time

from service.cluster.base import Capacity, ClusterDown, Sighting, Unclaimed
from service.cluster.inline import InlineCluster
from service.explaining import Explaining
from service.feed import Feed
from service.generators import GeneratorCache
from service.health import Health
from service.leadership import Leading
from service.logs import Logs
from service.retention import Deletions, KeepingRules
from service.settings import Settings
from service.sweep import Sweep
from service.sweeper import Sweeper
from tests.harness import Service
from workers.run import Run


def explaining_of(service: Service, leading: Leading | None = None) -> Explaining:
    """What explains the service's jobs; its watcher's rounds are the test's."""
    feed = Feed()
    forget = GeneratorCache(1 << 20).forget
    deletions = Deletions(
        service.jobs, service.artifacts, feed, KeepingRules(Settings().retention), forget
    )
    sweep = Sweep(
        service.jobs, service.artifacts, service.datasets, service.attempts._starter._cache_dir, 60
    )
    health = Health(
        service.jobs,
        service.artifacts,
        service.cluster,
        service.watcher,
        feed,
        Sweeper(deletions, sweep, 0),
        leading,
    )
    service.watcher.last_round_at = time.monotonic()
    logs = Logs(service.jobs, service.artifacts)
    return Explaining(service.jobs, service.cluster, logs, health.report)


class Slow(InlineCluster):
    """Its executors do not appear."""

    def launch(self, executor_id: str, run: Run) -> None:
        pass

    def look(self, executor_id: str) -> Sighting:
        return Sighting("pending")


class Crowded(Slow):
    """A joined cluster whose cores others hold."""

    own = False

    def unclaimed(self) -> Unclaimed | None:
        return Unclaimed(0.0, 0.0)


class Fallen(InlineCluster):
    """A cluster that does not answer once it is down."""

    is_down = False

    def capacity(self) -> Capacity:
        if self.is_down:
            raise ClusterDown("Ray's host process has ended")
        return super().capacity()


class Elsewhere(InlineCluster):
    """Its attempts are processes of the test, which it finds running until they are gone."""

    pid = 0
    is_gone = False

    def launch(self, executor_id: str, run: Run) -> None:
        pass

    def look(self, executor_id: str) -> Sighting:
        if self.is_gone:
            return Sighting("gone", self.pid, "here", "its process was killed or crashed")
        return Sighting("running", self.pid, "here")
