"""The service that is fuzzed: everything real, over the inline cluster, with things to ask for."""

import contextlib
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import Services, create_app
from api.main import running_services
from service.cluster.inline import InlineCluster
from service.errors import StateConflict
from service.jobs import JobFilter, JobState
from service.jobstore import JobStore
from service.settings import Settings
from tests.trials import (
    KIND,
    SCALE,
    add_trial,
    confirm,
    ended,
    running_study,
    trained_trial,
)
from workers.artifacts import LocalStore

LOCAL = "http://localhost"
# A posted job may be of any size that the schema allows. A small installation refuses the large
# ones, as every installation does with what it has not: so none takes minutes or fills the disk.
# 350 MiB of it is what every process needs before its first tensor, 410 MiB with scikit-learn.
MEMORY_BYTES = 450 << 20
DISK_MAX_BYTES = 2 << 30
SPARE_JOBS = 4
FRESH = timedelta(seconds=1)  # a posted job may train for so long

_SMALL: dict[str, Any] = {
    "kind": "delta_vae",
    "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
    "batch_size": 25,
    "epochs": 2,
}
PICTURES: dict[str, Any] = {
    "name": "pictures",
    "labels": {"team": "a"},
    "spec": {
        "dataset": {"name": "digits"},
        "trainer": {**_SMALL, "batch_size": 400, "grid_every_epochs": 1},
        "checkpoint_every_epochs": 1,
    },
}
VECTORS: dict[str, Any] = {
    "name": "vectors",
    "spec": {"dataset": {"kind": "two-moons", "samples": 100}, "trainer": _SMALL},
}
ON_AN_UPLOAD: dict[str, Any] = {
    "name": "on an upload",
    "spec": {"dataset": {"name": "used"}, "trainer": _SMALL},
}
LONG: dict[str, Any] = {
    "name": "long",
    "spec": {**VECTORS["spec"], "trainer": {**_SMALL, "epochs": 100_000}},
}
MIXED: dict[str, Any] = {
    "name": "mixed",
    "spec": {
        "dataset": {"kind": "laplace-ica", "dimensions": 3, "components": 2, "samples": 200},
        "trainer": {"kind": "ica", "components": 2},
        "checkpoint_every_iterations": 2,
    },
}
NOISES: dict[str, Any] = {
    "name": "noises",
    "spec": {
        "dataset": {"kind": "two-moons", "samples": 300},
        "trainer": {**_SMALL, "quality": {"samples": 100, "components": 2}},
    },
    "space": {KIND: {"choice": ["gaussian", "laplace"]}, SCALE: {"loguniform": [0.05, 1.0]}},
    "objective": {"metric": "kid", "mode": "min"},
    "budget": {"trials": 3},
}
TOO_LONG: dict[str, Any] = {**LONG, "name": "too long", "limits": {"max_wall_s": 0.1}}


@dataclass(frozen=True)
class Fuzzed:
    """A service at work, and what there is to ask for.

    ``known`` maps the beginning of a path of the OpenAPI document, up to a parameter, to values of
    that parameter that lead to something; a whole path goes before its beginning. ``kept`` are
    those that no request may delete, as others ask for them; ``spare`` and ``spare_studies`` may
    be deleted in their place.
    """

    app: FastAPI
    services: Services
    folder: Path
    known: Mapping[str, Sequence[str]]
    kept: frozenset[str]
    spare: Sequence[str]
    spare_studies: Sequence[str]

    def values(self, path: str, parameter: str) -> list[str]:
        """Values of a path's parameter; AssertionError where there are none."""
        beginning = path[: path.index(f"{{{parameter}}}") + len(parameter) + 2]
        if path in self.known and path.count("{") == 1:
            beginning = path
        assert beginning in self.known, (
            f"nothing is known for {beginning}: make something that it leads to in {__name__}"
        )
        return list(self.known[beginning])

    def restrain(self) -> None:
        """Stop all jobs that have not ended but a fresh one."""
        active = [
            job
            for state in (JobState.QUEUED, JobState.RUNNING)
            for job in self.services.training.list(JobFilter(state=state), None, 100).jobs
        ]
        active.sort(key=lambda job: job.created_at)
        if active and datetime.now(UTC) - active[-1].created_at < FRESH:
            active.pop()
        for job in active:
            with contextlib.suppress(StateConflict):  # it has ended meanwhile
                if job.id in self.kept:  # the paused one, resumed
                    self.services.training.pause(job.id)
                else:
                    self.services.training.cancel(job.id)

        for state in (JobState.QUEUED, JobState.RUNNING):
            for study, _ in self.services.studying.list(state, None, 100).studies:
                with contextlib.suppress(StateConflict):
                    self.services.studying.cancel(study.id)

    def disk_bytes(self) -> int:
        """What it keeps on disk; AssertionError beyond what a test may."""
        size_bytes = 0
        for folder, _, names in os.walk(self.folder):  # passes over folders that go meanwhile
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    size_bytes += (Path(folder) / name).stat().st_size
        assert size_bytes < DISK_MAX_BYTES, f"the fuzzed service keeps {size_bytes:,} bytes"
        return size_bytes


def upload(seed: int = 0) -> bytes:
    """A small data set of vectors, as a file."""
    content = io.BytesIO()
    np.savez(content, data=np.random.default_rng(seed).normal(size=(60, 3)))
    return content.getvalue()


@contextlib.contextmanager
def fuzzed_service(folder: Path) -> Iterator[Fuzzed]:
    """A service in ``folder`` with jobs in every lasting state, and data sets."""
    settings = Settings(data_dir=folder, max_upload_bytes=4 << 20)
    jobs, artifacts = JobStore.open("sqlite://"), LocalStore(folder / "artifacts")
    # Before there is a watcher, which would give a driver to what runs.
    studies = [_searched(jobs, artifacts, folder), *(_ended_study(jobs) for _ in range(SPARE_JOBS))]
    with (
        contextlib.closing(jobs),
        contextlib.closing(InlineCluster(memory_bytes=MEMORY_BYTES)) as cluster,
        running_services(settings, jobs, artifacts, cluster) as services,
    ):
        app = create_app(services, settings)
        with TestClient(app, base_url=LOCAL) as http:
            known = _things(http)
            known["/v1/studies/{study_id}"] = [studies[0], _waiting_study(http)]
            spare = [_ended(http, VECTORS, "succeeded") for _ in range(SPARE_JOBS)]
        kept = frozenset((*known["/v1/jobs/{job_id}"], *known["/v1/studies/{study_id}"]))
        yield Fuzzed(app, services, folder, known, kept, spare, studies[1:])


def _things(http: TestClient) -> dict[str, list[str]]:
    """Make what paths can lead to; the values by path."""
    for seed, name in enumerate(("used", "unused")):
        assert http.put(f"/v1/datasets/{name}", content=upload(seed)).status_code == 201
    specs = (PICTURES, VECTORS, ON_AN_UPLOAD, MIXED)
    succeeded = [_ended(http, spec, "succeeded") for spec in specs]
    job = f"/v1/jobs/{succeeded[0]}"
    checkpoints = http.get(f"{job}/checkpoints").json()["checkpoints"]
    of_a_mixture = {
        f"/v1/jobs/{{job_id}}/{what}": [succeeded[-1], succeeded[0]]
        for what in ("mixing", "unmixing", "sources")
    }
    return {
        **of_a_mixture,
        "/v1/jobs/{job_id}": [*succeeded, _ended(http, TOO_LONG, "failed"), _paused(http)],
        "/v1/jobs/{job_id}/checkpoints/{checkpoint}": [
            "latest",
            "best",
            *(checkpoint["id"] for checkpoint in checkpoints),
        ],
        "/v1/jobs/{job_id}/artifacts/{name}": [
            artifact["name"] for artifact in http.get(f"{job}/artifacts").json()["artifacts"]
        ],
        "/v1/datasets/{name}": ["used", "unused", "new", "newer", "digits"],
        "/v1/trainers/{name}": [
            trainer["name"] for trainer in http.get("/v1/trainers").json()["trainers"]
        ],
    }


def _searched(jobs: JobStore, artifacts: LocalStore, folder: Path) -> str:
    """The id of a study that has ended with an answer, and whose best trial has checkpoints."""
    network = {**_SMALL["network"], "output": "identity"}
    spec = {**NOISES["spec"], "trainer": {**NOISES["spec"]["trainer"], "network": network}}
    second = {"metric": "recall", "mode": "max"}
    study = running_study(jobs, spec=spec, second_objective=second)
    values = [{KIND: "laplace", SCALE: round(0.1 + k / 20, 2)} for k in range(10)]
    for number, found in enumerate(values):
        metrics = {"kid_pca": 0.1 + number / 100, "recall_pca": number / 10}
        if number == 0:
            trained_trial(jobs, artifacts, folder, study, number, found, metrics)
        else:
            add_trial(jobs, study, number, found, results={1: metrics, 2: metrics})
    for number in (0, 1):
        of_seeds = [0.1 + number / 5 + k / 100 for k in range(5)]
        confirm(jobs, study, number, values[number], kid_pca=of_seeds, recall_pca=of_seeds)
    return ended(jobs, study).id


def _ended_study(jobs: JobStore) -> str:
    """The id of a study that has ended without a trial."""
    return ended(jobs, running_study(jobs)).id


def _waiting_study(http: TestClient) -> str:
    """The id of a study that is paused before it has begun."""
    path = http.post("/v1/studies", json=NOISES).headers["Location"]
    answer = http.post(f"{path}/pause")
    assert answer.status_code == 202, answer.text
    return str(answer.json()["study"]["id"])


def _ended(http: TestClient, body: Mapping[str, Any], state: str) -> str:
    """The id of a new job, once it has ended in ``state``."""
    answer = http.post("/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    path = answer.headers["Location"]
    http.get(f"{path}/events", headers={"Accept": "text/event-stream"})  # to the end
    assert http.get(path).json()["state"] == state
    return str(answer.json()["id"])


def _paused(http: TestClient) -> str:
    """The id of a new job, once it is paused."""
    path = http.post("/v1/jobs", json=LONG).headers["Location"]
    assert http.post(f"{path}/pause").status_code == 202
    give_up_at = time.monotonic() + 60
    while (job := http.get(path).json())["state"] != "paused":
        assert time.monotonic() < give_up_at, job["message"]
        time.sleep(0.05)
    return str(job["id"])
