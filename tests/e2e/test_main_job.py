"""The main job, as a user has it: real digits, from a spec to pictures over HTTP."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from api.client import JobHandle
from tests.e2e.conftest import Start
from tests.e2e.processes import ROOT, ServiceProcess, spec
from workers.data import load
from workers.generate import Generator
from workers.reconstruct import reconstruct
from workers.spec import NamedDataset

DIGITS = ROOT / "workers" / "datasets" / "mnist10k.npz"
CONFIDENT = 0.9


def classifier(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """A small convolutional classifier of 28×28 digits in [0, 1], seven passes over the data."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(7):
        for rows in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval()


def confidences(
    model: nn.Module, images: torch.Tensor
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    with torch.inference_mode():
        best = model(images).softmax(1).max(1)
    return best.values.numpy(), best.indices.numpy()


def drawn(job: JobHandle) -> list[bytes]:
    return [
        job.samples_png(16, seed=5),
        job.filmstrip_png(n=4),
        job.reconstructions_png(16, seed=5),
        job.interpolations_png(4, seed=5, between="data"),
    ]


def test_a_checkpoint_gives_the_same_bytes_after_a_restart(start: Start) -> None:
    service = start()
    job = service.client.submit(spec(3)).wait(240)
    before = drawn(job)
    array = job.samples(100, seed=5, spread=True)
    service.stop()
    again = start().client.job(job.id)
    assert drawn(again) == before
    np.testing.assert_array_equal(again.samples(100, seed=5, spread=True), array)


def test_the_default_job_draws_digits(lasting: ServiceProcess, tmp_path: Path) -> None:
    job = lasting.client.submit(
        {"dataset": {"name": "mnist-10k"}, "trainer": {"kind": "delta_vae"}}, name="default"
    )
    with np.load(DIGITS, allow_pickle=False) as file:
        images = torch.from_numpy(file["images"]).unsqueeze(1) / 255.0
        labels = torch.from_numpy(file["labels"]).long()
    model = classifier(images[:8000], labels[:8000])
    held_out, predicted = confidences(model, images[8000:])
    assert np.mean(predicted == labels[8000:].numpy()) > 0.95
    assert np.mean(held_out > CONFIDENT) > 0.85

    job.wait(300)
    samples = job.samples(1000, seed=0)
    assert samples.shape == (1000, 28, 28)
    certain, digit = confidences(model, torch.from_numpy(samples).unsqueeze(1))
    assert np.mean(certain > CONFIDENT) >= 0.45
    shares = np.bincount(digit, minlength=10) / len(digit)
    assert shares.min() >= 0.04, shares

    names = {"loss_nats", "held_out_elbo_nats", "noise_entropy_nats", "held_out_excess_nats"}
    assert names <= set(job.metrics())

    weights = job.download_weights(tmp_path / "weights.safetensors")
    offline = Generator.load(weights).sample(64, seed=0)
    np.testing.assert_array_equal(offline, job.samples(64, seed=0))
    np.testing.assert_array_equal(offline[:16], job.samples(16, seed=0))

    found = job.reconstructions(500, seed=0)
    data = load(NamedDataset(name="mnist-10k"), tmp_path)
    again = reconstruct(Generator.load(weights), data.held_out, 500)
    np.testing.assert_array_equal(found.y, again.y)
    np.testing.assert_array_equal(found.g, again.g)
    # The noise has a variance of 0.25; a reconstruction is much nearer to the data.
    assert np.mean((found.y - found.x) ** 2) > 0.24
    assert np.mean((found.g - found.x) ** 2) < 0.05
    _, digit = confidences(model, torch.from_numpy(found.x).unsqueeze(1))
    _, rebuilt = confidences(model, torch.from_numpy(found.g).unsqueeze(1))
    assert np.mean(digit == rebuilt) > 0.8
    paths = job.interpolations(4, seed=0, between="data")
    np.testing.assert_array_equal(paths.z[:, [0, -1]].reshape(8, -1), found.z[:8])
    assert job.reconstructions_png().startswith(b"\x89PNG")


def test_vector_data_train_and_come_back_as_arrays_and_scatter_plots(
    lasting: ServiceProcess,
) -> None:
    client = lasting.client
    for kind, dimensions in (("ring", 2), ("line", 2), ("two-moons", 2), ("surface", 3)):
        trainer = {
            "kind": "delta_vae",
            "network": {"kind": "mlp", "hidden": [32], "latent_dim": 2},
            "spread": {"kind": "gaussian", "scale": 0.1},
            "epochs": 5,
        }
        job = client.submit({"dataset": {"kind": kind, "samples": 500}, "trainer": trainer})
        samples = job.wait(240).samples(200)
        assert samples.shape == (200, dimensions)
        assert np.isfinite(samples).all()
        assert job.samples_png(200).startswith(b"\x89PNG")
