"""A job that was really trained: its records are in a job store, its files in a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.results import Results
from service.sampling import Sampling
from tests.contract.jobstore import making
from workers.artifacts import LocalStore, chunk_key
from workers.events import RECORD
from workers.run import Run, StopFlag, execute
from workers.spec import TrainSpec


@dataclass(frozen=True, slots=True)
class Trained:
    """What the tests ask."""

    job_id: str
    jobs: JobStore
    artifacts: LocalStore
    results: Results
    sampling: Sampling


def picture_spec() -> TrainSpec:
    return spec(
        {"name": "mnist-10k"}, {"batch_size": 3000}, network={"hidden": [8], "latent_dim": 2}
    )


def convolution_spec() -> TrainSpec:
    network = {"kind": "conv", "channels": [2, 2], "latent_dim": 2}
    return spec({"name": "digits"}, {"batch_size": 600}, network=network)


def vector_spec() -> TrainSpec:
    return spec(
        {"kind": "two-moons", "samples": 100},
        {"batch_size": 30},
        network={"hidden": [8], "latent_dim": 2},
    )


def spec(dataset: dict[str, Any], trainer: dict[str, Any], network: dict[str, Any]) -> TrainSpec:
    """Three epochs of a small network, with a checkpoint and a grid of each."""
    return TrainSpec.model_validate(
        {
            "dataset": dataset,
            "trainer": {
                "kind": "delta_vae",
                "network": {"kind": "mlp", **network},
                "epochs": 3,
                "grid_every_epochs": 1,
                **trainer,
            },
            "checkpoint_every_epochs": 1,
        }
    )


def train(folder: Path, of: TrainSpec) -> Trained:
    """Run one attempt to its end and take its records in."""
    jobs, artifacts = JobStore.open("sqlite://"), LocalStore(folder / "artifacts")
    job = making.running(jobs, of=of)
    run = Run(
        job_id=job.id, attempt=1, spec=of, artifacts_uri=artifacts.uri, cache_dir=folder / "data"
    )
    outcome = execute(run, StopFlag())
    assert (outcome.reason, outcome.detail) == ("completed", None)
    for chunk in range(outcome.chunks or 0):
        lines = artifacts.get(chunk_key(run.prefix, chunk)).splitlines()
        jobs.ingest(job.id, 1, chunk, [RECORD.validate_json(line) for line in lines])
    jobs.settle(job, JobState.SUCCEEDED, Reason.COMPLETED, outcome.message)
    results = Results(jobs, artifacts)
    sampling = Sampling(results, artifacts, folder / "data")
    return Trained(job.id, jobs, artifacts, results, sampling)
