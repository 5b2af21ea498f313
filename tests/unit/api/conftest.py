import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import Services, create_app
from api.broadcast import Broadcast
from api.main import running_services
from service.access.access import Access
from service.attempts import Attempts
from service.catalogue import Catalogue
from service.cluster.inline import InlineCluster
from service.explaining import Explaining
from service.feed import Feed
from service.forking import Forks
from service.health import Health
from service.jobs import Job
from service.jobstore import JobStore
from service.logs import Logs
from service.measured_store import MeasuredStore
from service.measures import Measures
from service.mixing import Mixing
from service.results import Results
from service.retention import Deletions, KeepingRules
from service.sampling import Sampling
from service.settings import Settings
from service.studies.answers import Answers
from service.studies.presets import Presets
from service.studies.promoting import Promotions
from service.studies.running import Studies
from service.studies.submitting import Studying
from service.studies.trying import Trying
from service.sweep import Sweep
from service.sweeper import Sweeper
from service.training import Training
from service.watcher import Watcher
from tests.factories import request
from tests.harness import make_datasets
from tests.serving import served
from workers.artifacts import LocalStore

DIGITS = {
    "name": "digits",
    "labels": {"team": "a"},
    "spec": {
        "dataset": {"name": "digits"},
        "trainer": {
            "kind": "delta_vae",
            "network": {"kind": "mlp", "hidden": [16], "latent_dim": 4},
            "epochs": 3,
            "batch_size": 200,
            "grid_every_epochs": 1,
        },
        "checkpoint_at_epochs": [1, 2],
    },
}
LOCAL = "http://localhost"


@dataclass(frozen=True)
class Running:
    """A service at work, seen from inside the process."""

    app: FastAPI
    http: TestClient
    services: Services
    trained: str  # id of a job that has succeeded
    settings: Settings


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("running")
    settings = Settings(data_dir=folder, max_upload_bytes=4 << 20)
    measures = Measures()
    jobs = JobStore.open("sqlite://", measures.database.seen)
    artifacts = MeasuredStore(LocalStore(folder / "artifacts"), measures.storage)
    with (
        contextlib.closing(jobs),
        contextlib.closing(InlineCluster()) as cluster,
        running_services(settings, jobs, artifacts, cluster, measures=measures) as services,
    ):
        app = create_app(services, settings)
        with TestClient(app, base_url=LOCAL) as http:
            job_id = http.post("/v1/jobs", json=DIGITS).json()["id"]
            events = http.get(
                f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}
            ).text
            assert '"state":"succeeded"' in events
            yield Running(app, http, services, job_id, settings)


@pytest.fixture(scope="session")
def url(running: Running) -> Iterator[str]:
    """The address of a real server in front of the same services."""
    with served(running.app) as address:
        yield address


@pytest.fixture
def quiet_url(quiet: "Quiet") -> Iterator[str]:
    """The address of a real server in front of the quiet service."""
    with served(quiet.app) as address:
        yield address


@dataclass(frozen=True)
class Quiet:
    """A service whose watcher does nothing: jobs stay as the test puts them."""

    app: FastAPI
    http: TestClient
    jobs: JobStore
    feed: Feed
    artifacts: LocalStore
    settings: Settings

    def submit(self, **fields: Any) -> str:
        """The id of a new job."""
        body = request(**fields).model_dump(mode="json")
        answer = self.http.post("/v1/jobs", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def change(self, job_id: str, change: Callable[[JobStore, Job], object]) -> None:
        """Change a job as the watcher would, and tell its followers."""
        change(self.jobs, self.jobs.get(job_id))
        self.feed.notify(job_id, urgent=True)


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Quiet]:
    settings = Settings(data_dir=tmp_path, max_body_bytes=100_000, max_upload_bytes=64 << 20)
    cluster, feed = InlineCluster(), Feed()
    artifacts = LocalStore(tmp_path / "artifacts")
    with contextlib.closing(JobStore.open("sqlite://")) as jobs:
        attempts = Attempts(
            jobs,
            artifacts,
            cluster,
            feed,
            tmp_path,
            cancel_grace_s=settings.cancel_grace_s,
            start_timeout_s=settings.start_timeout_s,
        )
        results = Results(jobs, artifacts)
        datasets = make_datasets(jobs, artifacts, tmp_path)
        studies = Studies(jobs, cluster, attempts, Trying(jobs, datasets, artifacts))
        watcher = Watcher(jobs, cluster, attempts, studies)
        training = Training(jobs, artifacts, cluster, feed, datasets, watcher.wake)
        sampling = Sampling(results, artifacts, tmp_path)
        rules = KeepingRules(settings.retention)
        deletions = Deletions(jobs, artifacts, feed, rules, sampling.forget)
        sweeper = Sweeper(deletions, Sweep(jobs, artifacts, datasets, tmp_path, 60), 0)
        logs = Logs(jobs, artifacts)
        health = Health(jobs, artifacts, cluster, watcher, feed, sweeper)
        forks, answers = Forks(jobs, artifacts, training, results), Answers(jobs)
        services = Services(
            training=training,
            forks=forks,
            results=results,
            logs=logs,
            sampling=sampling,
            mixing=Mixing(results, sampling),
            datasets=datasets,
            catalogue=Catalogue(),
            feed=feed,
            broadcast=Broadcast(results, feed),
            health=health,
            explaining=Explaining(jobs, cluster, logs, health.report),
            deletions=deletions,
            sweeper=sweeper,
            studying=Studying(jobs, training, deletions, feed, watcher.wake),
            answers=answers,
            promotions=Promotions(jobs, training, forks, answers),
            presets=Presets(datasets),
            access=Access(jobs),
        )
        app = create_app(services, settings)
        with TestClient(app, base_url=LOCAL, raise_server_exceptions=False) as http:
            yield Quiet(app, http, jobs, feed, artifacts, settings)
