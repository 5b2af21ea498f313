"""Equation 12 by the ordinary trainers: `vae` and `delta_vae` with linear networks on a line."""

import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from service.cluster.inline import InlineCluster
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.results import Results
from tests.factories import request
from tests.harness import make_service
from workers.artifacts import LocalStore
from workers.data import Dataset, load
from workers.events import Checkpoint, Metrics
from workers.spec import ToyDataset, TrainSpec
from workers.train import train

SCALE = 0.5
NOISE = {"kind": "gaussian", "scale": SCALE}
TRAINERS = {
    "vae": {"kind": "vae", "observation": NOISE},
    "delta_vae": {"kind": "delta_vae", "spread": NOISE},
}


def spec_of(trainer: str) -> TrainSpec:
    """The README's two jobs, on fewer data."""
    return TrainSpec.model_validate(
        {
            "dataset": {"kind": "line", "samples": 2000},
            "trainer": {
                **TRAINERS[trainer],
                "network": {"kind": "linear", "latent_dim": 1},
                "optimizer": {"learning_rate": 0.03, "schedule": {"kind": "cosine"}},
                "evaluate_every_epochs": 60,
                "grid_every_epochs": 60,
            },
            "checkpoint_every_epochs": 60,
            "checkpoint_at_epochs": [],
        }
    )


def trained(spec: TrainSpec, data: Dataset) -> tuple[Tensor, float]:
    """θ of x = θz + b, and the total variance of samples."""
    theta, variance = torch.zeros(0), 0.0
    for event in train(spec, data):
        if isinstance(event, Checkpoint):
            [theta] = [value for name, value in event.weights.items() if _is_decoder(name, value)]
        if isinstance(event, Metrics):
            variance = event.values.get("sample_total_variance", variance)
    return theta.flatten().double(), variance


def _is_decoder(name: str, value: Tensor) -> bool:
    return name.startswith("decoder.") and value.ndim == 2


@pytest.fixture(scope="module")
def line() -> Dataset:
    dataset = spec_of("vae").dataset
    assert isinstance(dataset, ToyDataset)
    return load(dataset, Path())


def optima(line: Dataset) -> tuple[dict[str, float], Tensor]:
    """Lengths of θ on these very data, and its direction.

    λ of their covariance, less σ² with noise on the model alone.
    """
    values, vectors = torch.linalg.eigh(line.train.double().T.cov(correction=0))
    true = float(values[-1])
    return {"vae": math.sqrt(true - SCALE**2), "delta_vae": math.sqrt(true)}, vectors[:, -1]


def tolerance(lengths: dict[str, float]) -> float:
    """A tenth of what lies between the two, which is far from either."""
    return (lengths["delta_vae"] - lengths["vae"]) / 10


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_vae_is_too_short_and_the_delta_vae_is_not(trainer: str, line: Dataset) -> None:
    lengths, direction = optima(line)
    allowed = tolerance(lengths)
    theta, variance = trained(spec_of(trainer), line)
    assert float(theta.norm()) == pytest.approx(lengths[trainer], abs=allowed)
    across = float((theta - (theta @ direction) * direction).norm())
    assert across < allowed
    # What the job shows of it, from 1024 latents, whose mean square has the variance 2/1024.
    chance = 6 * math.sqrt(2 / 1024)
    assert variance == pytest.approx(lengths[trainer] ** 2, rel=chance + 2 * allowed)


def test_as_a_job_of_the_service_it_leaves_the_same_answer(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path, line: Dataset
) -> None:
    service = make_service(jobs, artifacts, tmp_path, InlineCluster())
    try:
        job = service.run_to_end(service.submit(request(spec_of("delta_vae"))))
    finally:
        service.cluster.close()
    assert (job.state, job.reason) == (JobState.SUCCEEDED, Reason.COMPLETED)
    last = Results(jobs, artifacts).checkpoint(job.id, "latest")
    weights = safetensors.torch.load(artifacts.get(f"{last.prefix}/weights.safetensors"))
    [theta] = [value for name, value in weights.items() if _is_decoder(name, value)]
    lengths, _ = optima(line)
    assert float(theta.double().norm()) == pytest.approx(
        lengths["delta_vae"], abs=tolerance(lengths)
    )
