"""The whole service but for HTTP, over a cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.attempts import Attempts
from service.cluster.base import Cluster
from service.datasets import Datasets
from service.feed import Feed
from service.forking import Forks
from service.jobs import FINAL_STATES, Job, JobRequest
from service.jobstore import JobStore
from service.results import Results
from service.studies.running import Studies
from service.studies.trying import Trying
from service.training import Training
from service.watcher import Watcher
from tests.looking import looks
from workers.artifacts import ArtifactStore
from workers.intake import Limits


@dataclass
class Service:
    """Services with a watcher that is not started: tests run its rounds, or start it."""

    jobs: JobStore
    artifacts: ArtifactStore
    cluster: Cluster
    datasets: Datasets
    training: Training
    forks: Forks
    watcher: Watcher
    attempts: Attempts

    def submit(self, request: JobRequest) -> Job:
        return self.training.submit(request)[0]

    def run_until(self, job: Job, is_there: Callable[[Job], bool], timeout_s: float = 120) -> Job:
        """Rounds until the job is there."""
        now = job
        for _ in looks(timeout_s):
            self.watcher.round()
            now = self.jobs.get(job.id)
            if is_there(now):
                return now
        raise AssertionError(f"the job stays {now.state}: {now.message}")

    def run_to_end(self, job: Job) -> Job:
        return self.run_until(job, lambda now: now.state in FINAL_STATES)


def make_datasets(jobs: JobStore, artifacts: ArtifactStore, folder: Path) -> Datasets:
    return Datasets(
        jobs, artifacts, folder, folder / "incoming", Limits(64 << 20), max_upload_bytes=64 << 20
    )


def make_service(
    jobs: JobStore,
    artifacts: ArtifactStore,
    cache_dir: Path,
    cluster: Cluster,
    start_timeout_s: float = 5,
    store_interval_s: float = 0,
    cancel_grace_s: float = 5,
    fid_weights: str = "",
    leads: Callable[[], bool] = lambda: True,
) -> Service:
    feed = Feed()
    attempts = Attempts(
        jobs,
        artifacts,
        cluster,
        feed,
        cache_dir,
        cancel_grace_s=cancel_grace_s,
        start_timeout_s=start_timeout_s,
        store_interval_s=store_interval_s,
        fid_weights=fid_weights,
    )
    datasets = make_datasets(jobs, artifacts, cache_dir)
    studies = Studies(jobs, cluster, attempts, Trying(jobs, datasets, artifacts))
    watcher = Watcher(jobs, cluster, attempts, studies, leads=leads)
    training = Training(jobs, artifacts, cluster, feed, datasets, watcher.wake, fid_weights)
    forks = Forks(jobs, artifacts, training, Results(jobs, artifacts))
    return Service(jobs, artifacts, cluster, datasets, training, forks, watcher, attempts)
