import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.unit.workers.knowing import D, Z, linear_generator
from workers.build import empty_model
from workers.checkpoint import DatasetFacts, Description
from workers.decoding import Networks
from workers.generate import Generator
from workers.networks import Autoencoder
from workers.reconstruct import choose_rows, held_out_rows, reconstruct
from workers.spec import TrainSpec

HELD_OUT = torch.from_numpy(np.random.default_rng(1).normal(size=(80, D)).astype(np.float32))


def weights() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    draw = np.random.default_rng(0).normal
    return draw(size=(D, Z)), draw(size=D), draw(size=(Z, D)), draw(size=Z)


def picture_generator(network: dict[str, Any]) -> tuple[Generator, torch.Tensor]:
    """An untrained generator of 8×8 pictures, and held-out pixels."""
    spec = TrainSpec.model_validate(
        {"dataset": {"name": "digits"}, "trainer": {"kind": "delta_vae", "network": network}}
    )
    generator = torch.Generator().manual_seed(2)
    model: Autoencoder = empty_model(spec, (8, 8), is_image=True, generator=generator)
    facts = DatasetFacts(name="digits", digest="sha256:0", shape=(8, 8), is_image=True)
    pixels = np.random.default_rng(3).integers(0, 256, (70, 64), dtype=np.uint8)
    description = Description(spec=spec, dataset=facts, step=1, epoch=1.0)
    return Generator(description, Networks(spec, 1.0, model.eval())), torch.from_numpy(pixels)


def test_a_reconstruction_is_the_decoded_mean_of_the_posterior_at_y() -> None:
    """Against the two linear maps written out in NumPy."""
    a, b, w, c = weights()
    found = reconstruct(linear_generator((a, b, w, c)), HELD_OUT, 100, seed=4)
    z = found.y.astype(np.float64) @ w.T + c
    np.testing.assert_allclose(found.z, z, atol=1e-5)
    np.testing.assert_allclose(found.g, z @ a.T + b, atol=1e-5)


def test_the_data_are_held_out_ones_as_the_model_sees_them() -> None:
    found = reconstruct(linear_generator(), HELD_OUT, 30, seed=4)
    rows = choose_rows(len(HELD_OUT), 30, 4)
    assert found.x.tobytes() == HELD_OUT.numpy()[rows].tobytes()
    generator, pixels = picture_generator({"kind": "mlp", "hidden": [4], "latent_dim": 2})
    pictures = reconstruct(generator, pixels, 30, seed=4)
    assert pictures.x.shape == (30, 8, 8)
    expected = pixels.numpy()[choose_rows(70, 30, 4)].reshape(30, 8, 8) / np.float32(255)
    np.testing.assert_allclose(pictures.x, expected, rtol=1e-6)
    assert pictures.g.shape == (30, 8, 8)


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "mlp", "hidden": [4], "latent_dim": 2},
        {"kind": "conv", "channels": [2, 3], "latent_dim": 2},
    ],
    ids=["mlp", "conv"],
)
def test_fewer_reconstructions_are_the_first_of_more(network: dict[str, Any]) -> None:
    generator, pixels = picture_generator(network)
    many = reconstruct(generator, pixels, 150, seed=7)
    for n in (1, 16, 64, 65):
        few = reconstruct(generator, pixels, n, seed=7)
        for name in ("x", "y", "z", "g"):
            assert getattr(few, name).tobytes() == getattr(many, name)[:n].tobytes(), (n, name)
    other = reconstruct(generator, pixels, 16, seed=8)
    assert not np.array_equal(other.x, many.x[:16])


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_every_row_comes_once_before_one_comes_again(count: int) -> None:
    chosen = choose_rows(count, 3 * count, seed=5)
    for begin in range(0, 3 * count, count):
        assert sorted(chosen[begin : begin + count]) == list(range(count))
    for n in (0, 1, count, count + 1):
        assert np.array_equal(choose_rows(count, n, seed=5), chosen[:n])


def test_every_row_is_chosen_as_often_as_another() -> None:
    count, draws = 10, 5000
    first = [int(choose_rows(count, 1, seed)[0]) for seed in range(draws)]
    share = np.bincount(first, minlength=count) / draws
    assert np.abs(share - 0.1).max() < 6 * math.sqrt(0.1 * 0.9 / draws)


def test_of_mapped_data_only_the_chosen_rows_are_read(tmp_path: Path) -> None:
    """The file is sparse: to read all of it would take 64 GiB of memory."""
    shape = (1 << 26, 1024)
    data = np.memmap(tmp_path / "data", np.uint8, "w+", shape=shape)
    rows = choose_rows(shape[0], 64, seed=3)
    data[rows[5]] = 51
    chosen = held_out_rows(torch.from_numpy(data), 64, seed=3)
    assert chosen.shape == (64, 1024)
    np.testing.assert_allclose(chosen[5], 0.2, rtol=1e-6)
    assert not chosen[:5].any()
    assert (tmp_path / "data").stat().st_blocks * 512 < 1 << 20


SCHEDULE = {"kind": "linear", "initial_scale": 2.0, "until_epoch": 2}


@pytest.mark.parametrize(
    ("spread", "epoch", "scale", "kurtosis"),
    [
        ({"kind": "laplace", "scale": 0.5}, 1.0, 0.5, 6.0),
        ({"kind": "gaussian", "scale": 0.3}, 1.0, 0.3, 3.0),
        ({"kind": "gaussian", "scale": 0.1, "schedule": SCHEDULE}, 1.0, 1.05, 3.0),
        ({"kind": "gaussian", "scale": 0.1, "schedule": SCHEDULE}, 2.0, 0.1, 3.0),
    ],
)
def test_y_is_x_with_the_spread_s_noise_at_the_checkpoint_s_epoch(
    spread: dict[str, Any], epoch: float, scale: float, kurtosis: float
) -> None:
    generator = linear_generator(spread=spread, epoch=epoch)
    assert generator.encoder_noise == pytest.approx(scale)
    found = reconstruct(generator, torch.zeros(5, D), 30_000, seed=6)
    assert not found.x.any()
    k = found.y.astype(np.float64).ravel()
    assert abs(k.mean()) < 6 * scale / math.sqrt(k.size)
    # Var k² = (kurtosis − 1) σ⁴; the fourth power's own spread is that of k⁴: E k⁸ − (E k⁴)².
    assert abs((k**2).mean() / scale**2 - 1) < 6 * math.sqrt((kurtosis - 1) / k.size)
    eighth = {6.0: 2520.0, 3.0: 105.0}[kurtosis]
    error = 6 * math.sqrt((eighth - kurtosis**2) / k.size)
    assert abs((k**4).mean() / scale**4 - kurtosis) < error


def test_the_noise_is_neither_clipped_nor_that_of_the_samples() -> None:
    generator, pixels = picture_generator({"kind": "mlp", "hidden": [4], "latent_dim": 2})
    found = reconstruct(generator, pixels, 70, seed=0)
    assert found.y.min() < -1
    assert found.y.max() > 2
    ours = (found.y - found.x).ravel()
    theirs = (generator.sample(70, 0, spread=True) - generator.sample(70, 0)).ravel()
    assert abs(np.corrcoef(ours, theirs)[0, 1]) < 6 / math.sqrt(ours.size)


@pytest.mark.parametrize(
    "trainer",
    [{"kind": "vae"}, {"kind": "delta_vae", "warm_up_epochs": 2}],
    ids=["vae", "warm-up"],
)
def test_an_encoder_that_is_trained_on_clean_data_gets_clean_data(trainer: dict[str, Any]) -> None:
    generator = linear_generator(weights(), **trainer)
    found = reconstruct(generator, HELD_OUT, 20)
    assert generator.encoder_noise == 0
    assert np.array_equal(found.y, found.x)
    warmed_up = linear_generator(weights(), epoch=2.0, kind="delta_vae", warm_up_epochs=2)
    assert not np.array_equal(reconstruct(warmed_up, HELD_OUT, 20).y, found.x)
