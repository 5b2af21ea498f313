"""Linear ICA as jobs: real uvicorn, real Ray, one worker and two."""

from pathlib import Path
from typing import Any

import numpy as np

from api.client import Client
from tests.e2e.conftest import Start
from tests.e2e.processes import wait_for, wait_until
from workers.generate import Generator


def spec(workers: int = 1, dataset: dict[str, Any] | None = None, **trainer: Any) -> dict[str, Any]:
    drawn = {
        "kind": "laplace-ica",
        "dimensions": 10,
        "components": 5,
        "samples": 20_000,
        "noise_std": 0.2,
        "seed": 1,
    }
    return {
        "dataset": dataset or drawn,
        "trainer": {"kind": "ica", "components": 5, "noise_variance": 0.04, **trainer},
        "resources": {"workers": workers},
    }


def test_a_mixing_matrix_is_found_alone_shared_and_from_an_upload(
    start: Start, tmp_path: Path
) -> None:
    """One service for all, as its start takes longest."""
    client = start(SPREADTRAIN_CPUS="2").client
    alone = client.submit(spec()).wait(240)
    found = alone.ica.mixing()
    assert alone.body.reason == "converged"
    assert found.errors is not None
    assert found.fastica_errors is not None
    assert found.errors.relative < 0.03
    assert found.fastica_errors.relative < 0.03

    shared = client.submit(spec(workers=2)).wait(240)
    assert shared.body.reason == "converged"
    np.testing.assert_allclose(shared.ica.mixing().mixing, found.mixing, atol=2e-5)

    weights = alone.download_weights(tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(Generator.load(weights).sample(9), alone.samples(9))
    table = tmp_path / "data.csv"
    np.savetxt(table, alone.samples(2000, spread=True), delimiter=",")
    client.upload("mixed", table)
    again = client.submit(spec(dataset={"name": "mixed"}, noise_variance=None)).wait(240)
    theirs = again.ica.mixing()
    assert theirs.errors is None
    assert theirs.true_mixing is None
    cosines = np.abs(
        (np.array(theirs.mixing) / np.linalg.norm(theirs.mixing, axis=0)).T
        @ (np.array(found.mixing) / np.linalg.norm(found.mixing, axis=0))
    )
    assert cosines.max(axis=0).min() > 0.99
    names = {artifact.name for artifact in again.artifacts()}
    assert names == {f"plots/{name}.png" for name in ("columns", "convergence", "sources")}
    two_workers_in_a_long_iteration_hear_the_wish_to_pause(client)


def two_workers_in_a_long_iteration_hear_the_wish_to_pause(client: Client) -> None:
    slow = spec(2, method="paper", prior={"kind": "laplace"}, importance_samples=100)
    job = client.submit(slow)
    wait_for(job, lambda job: bool(job.checkpoints()), "a checkpoint")
    job.pause()
    wait_until(lambda: job.refresh().state == "paused", 240, "the job to be paused")
    job.cancel()
    wait_until(lambda: job.refresh().state == "cancelled", 240, "the job to be cancelled")
    assert [attempt.reason for attempt in job.body.attempts] == ["paused"]
