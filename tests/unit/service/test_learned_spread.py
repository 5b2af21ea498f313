"""A learned spread as a user meets it: a fork of a fixed one, its progress, artifacts, samples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.drawings import ReconstructionRequest, SampleRequest
from service.jobs import Job, JobState
from service.results import Results
from service.sampling import Sampling
from tests.factories import request, tiny_spec
from tests.harness import Service
from workers.spec import TrainSpec

LEARNED = {
    **{"every_epochs": 2, "noise_steps": 20, "encoder_steps": 5, "learning_rate": 0.05},
    "covariance": {"kind": "low_rank", "rank": 1},
    "mean_transform": {"kind": "mlp", "hidden": [4], "blocks": 1},
}


def changed(parent: Job, **trainer: Any) -> TrainSpec:
    content = parent.spec.model_dump()
    content["trainer"] |= trainer
    return TrainSpec.model_validate(content)


def test_a_fixed_spread_is_forked_learned_and_sampled(service: Service, tmp_path: Path) -> None:
    spec = tiny_spec(epochs=2, spread={"kind": "gaussian", "scale": 0.2}, grid_every_epochs=1)
    parent = service.run_to_end(service.submit(request(spec)))
    asked = request(changed(parent, epochs=6, learned_spread=LEARNED))
    plan, fixed = (service.training.dry_run(r) for r in (asked, request(spec)))
    # Two directions times one, and dense layers 2 → 4 → 2.
    assert plan.parameters == fixed.parameters + 24
    job = service.run_to_end(
        service.forks.begin(parent.id, "latest", "train_state", asked, None)[0]
    )
    assert (job.state, job.message) == (JobState.SUCCEEDED, "Trained for 6 epochs.")
    assert job.progress is not None
    # Four steps an epoch, of which the parent took two; one round after epoch 4.
    assert (job.progress.step, job.progress.total_steps, job.progress.epoch) == (49, 49, 6.0)
    results = Results(service.jobs, service.artifacts)
    names = [artifact.name for artifact in service.jobs.artifacts(job.id)]
    assert [name for name in names if name.startswith("directions/")] == [
        "directions/00000012.png",
        "directions/00000041.png",
        "directions/00000045.png",
        "directions/00000049.png",
    ]
    series = results.metrics(job.id, None, 10)
    assert {"information_nats", "information_limit_nats", "spread_gain"} <= series.keys()
    sampling = Sampling(results, service.artifacts, tmp_path)
    latest = sampling.source(job.id, "latest")
    noisy, clean = (
        np.array(
            sampling.draw(latest.checkpoint, SampleRequest(n=500, seed=0, spread=spread)).rows()
        )
        for spread in (True, False)
    )
    spreads = np.linalg.eigvalsh(np.cov((noisy - clean).T))
    # .2 across the direction, and along it √(.2² + .8²), both moved a little by f.
    assert 0.5 < spreads[0] / 0.04 < 2
    assert 0.5 < spreads[1] / 0.68 < 2
    found = sampling.reconstruct(latest, ReconstructionRequest(n=3, seed=0), 1000)
    assert found.is_transformed
    assert found.noise_scale == pytest.approx(np.sqrt(0.04 + 0.64 / 2))
