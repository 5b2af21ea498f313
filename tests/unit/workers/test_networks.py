import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from workers.checkpoint import DatasetFacts, encode_weights, parse_description
from workers.data import Dataset, DatasetInfo
from workers.events import Checkpoint, Grid
from workers.generate import Generator
from workers.networks import Autoencoder
from workers.networks.batch_norm import EPSILON, BatchNorm
from workers.spec import ConvNetwork, TrainSpec
from workers.train import train

CPU = torch.device("cpu")


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(shape: tuple[int, ...], **changes: Any) -> Autoencoder:
    network = {"kind": "conv", "channels": [4, 6], "latent_dim": 3, **changes}
    return Autoencoder(
        ConvNetwork.model_validate(network),
        shape,
        output="identity",
        log_std_bound=8.0,
        generator=random(),
    )


# --- convolutions ---------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("shape", [(28, 28), (12, 20, 3), (4, 4, 1), (64, 64, 3)])
def test_maps_come_out_in_the_right_sizes(shape: tuple[int, ...], kernel_size: int) -> None:
    model = model_of(shape, kernel_size=kernel_size)
    y = torch.rand(2, model.dimensions, generator=random())
    q = model.encode(y)
    assert q.mean.shape == q.log_std.shape == (2, 3)
    assert model.decode(q.mean).shape == y.shape
    assert model.decode(torch.zeros(5, 2, 3)).shape == (5, 2, model.dimensions)
    assert model.decode(torch.zeros(5, 0, 3)).shape == (5, 0, model.dimensions)


def test_rows_are_pictures_in_row_major_order_with_the_channels_last() -> None:
    """Against torch's own layers in the usual order of axes."""
    model = model_of((8, 12, 3), batch_norm=False)
    y = torch.rand(5, 8, 12, 3, generator=random(1))
    h = y.permute(0, 3, 1, 2).contiguous()
    for layer in model.encoder.layers:
        layer = layer.get_submodule("convolution")
        assert isinstance(layer, nn.Conv2d)
        kernel, bias = layer.weight.contiguous(), layer.bias
        h = torch.conv2d(h, kernel, bias, stride=2, padding=2).relu()
    flat = h.permute(0, 2, 3, 1).flatten(1)
    head = model.encoder.get_submodule("head")
    torch.testing.assert_close(
        model.encode(y.flatten(1)).mean, head(flat)[:, :3], rtol=1e-4, atol=1e-5
    )
    z = torch.randn(4, 3, generator=random(2))
    h = model.decoder.get_submodule("head")(z).relu().view(4, 2, 3, 6).permute(0, 3, 1, 2)
    for layer in model.decoder.layers:
        layer = layer.get_submodule("convolution")
        assert isinstance(layer, nn.ConvTranspose2d)
        kernel, bias = layer.weight.contiguous(), layer.bias
        h = torch.conv_transpose2d(h.contiguous(), kernel, bias, 2, 2, 1).relu()
    last = model.decoder.get_submodule("last")
    expected = last(h.contiguous()).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(model.decode(z), expected, rtol=1e-4, atol=1e-5)


def test_a_first_layer_s_outputs_are_as_large_in_a_decoder_as_in_an_encoder() -> None:
    """Weights are drawn for the number of inputs that reach one output."""
    wide = ConvNetwork.model_validate({"kind": "conv", "channels": [64, 64], "batch_norm": False})
    model = Autoencoder(
        wide, (32, 32, 64), output="identity", log_std_bound=8.0, generator=random()
    )
    h = torch.randn(4, 64, 16, 16, generator=random(1))
    down = model.encoder.layers[1].get_submodule("convolution")(h)[..., 2:-2, 2:-2]
    up = model.decoder.layers[0].get_submodule("convolution")(h)[..., 2:-2, 2:-2]
    assert 0.8 < (up.std() / down.std()).item() < 1.25


def test_evaluating_uses_running_statistics_and_ends_with_its_block() -> None:
    model = model_of((8, 8))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    y = torch.rand(6, 64, generator=random())
    with model.evaluating(), torch.no_grad():
        alone = model.encode(y[:1]).mean
        torch.testing.assert_close(model.encode(y).mean[:1], alone)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert model.training
    model.encode(y)
    moved = [name for name, b in model.named_buffers() if not torch.equal(b, before[name])]
    assert len(moved) == 4  # two layers of the encoder


def colours() -> Dataset:
    """64×64 pictures of one colour each."""
    rows = torch.randint(0, 256, (60, 1, 3), generator=random(3)).expand(60, 4096, 3)
    info = DatasetInfo(
        name="colours",
        title="",
        shape=(64, 64, 3),
        count=60,
        is_image=True,
        digest="sha256:" + "0" * 64,
        available=True,
        detail="",
    )
    pictures = rows.to(torch.uint8).flatten(1)
    return Dataset(info, pictures[:54], pictures[54:])


def test_colour_pictures_train_to_grids_and_samples_in_colour(tmp_path: Path) -> None:
    data = colours()
    network = {"kind": "conv", "channels": [4, 4, 4], "latent_dim": 3}
    spec = TrainSpec.model_validate(
        {
            "dataset": {"name": "colours"},
            "trainer": {
                "kind": "delta_vae",
                "network": network,
                "epochs": 2,
                "batch_size": 18,
            },
        }
    )
    events = [*train(spec, data)]
    grid = [event for event in events if isinstance(event, Grid)][-1]
    picture = Image.open(io.BytesIO(grid.png))
    assert picture.mode == "RGB"
    assert picture.size == (8 * 66 + 2, 8 * 66 + 2)
    checkpoint = [event for event in events if isinstance(event, Checkpoint)][-1]
    path = tmp_path / "weights.safetensors"
    encode_weights(checkpoint, spec, data.info, path)
    assert parse_description(path).dataset == DatasetFacts.of(data.info)
    samples = Generator.load(path).sample(64)
    assert samples.shape == (64, 64, 64, 3)
    # The grid's tiles are the samples of the run's seed.
    tile = np.asarray(picture)[2:66, 2:66]
    assert np.array_equal(tile, np.rint(samples[0] * 255).astype(np.uint8))


# --- batch normalisation --------------------------------------------------------------------


def drawn(rows: int) -> Tensor:
    channels = torch.tensor([1.0, 30.0, 0.01]).view(1, 3, 1, 1)
    return torch.randn(rows, 3, 5, 4, generator=random(4)) * channels + 3 * channels


def layer_of(reduce: Callable[[Tensor], Tensor] | None) -> BatchNorm:
    layer = BatchNorm(3, CPU, reduce)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
        layer.bias.copy_(torch.tensor([0.1, 0.0, -4.0]))
    return layer


def reference() -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
        layer.bias.copy_(torch.tensor([0.1, 0.0, -4.0]))
    return layer


def used(layer: nn.Module, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Output, and gradient of the input, for a loss in which every value counts differently."""
    x = x.clone().requires_grad_()
    out = layer(x)
    ((out - target).square() * target).sum().backward()
    assert x.grad is not None
    return out.detach(), x.grad


def close(ours: Tensor | None, theirs: Tensor | None) -> None:
    assert ours is not None
    assert theirs is not None
    scale = theirs.abs().max().item()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * scale)


def compare(ours: BatchNorm, theirs: nn.BatchNorm2d) -> None:
    close(ours.running_mean, theirs.running_mean)
    close(ours.running_variance, theirs.running_var)


@pytest.mark.parametrize("reduce", [None, lambda total: total], ids=["native", "reduced"])
def test_on_one_worker_batch_normalisation_is_torch_s_own(
    reduce: Callable[[Tensor], Tensor] | None,
) -> None:
    ours, theirs = layer_of(reduce), reference()
    for step in range(3):
        x, target = drawn(8) * (step + 1), drawn(8).cos()
        for mine, its in zip(used(ours, x, target), used(theirs, x, target), strict=True):
            close(mine, its)
        close(ours.weight.grad, theirs.weight.grad)
        close(ours.bias.grad, theirs.bias.grad)
        compare(ours, theirs)
    ours.eval()
    theirs.eval()
    close(ours(drawn(2)), theirs(drawn(2)))
    compare(ours, theirs)


class Crew:
    """Sums over threads that call it in step."""

    def __init__(self, size: int) -> None:
        self._barrier = Barrier(size)
        self._given: dict[int, Tensor] = {}

    def member(self, rank: int) -> Callable[[Tensor], Tensor]:
        def reduce(tensor: Tensor) -> Tensor:
            self._given[rank] = tensor.clone()
            self._barrier.wait(10)
            tensor.copy_(torch.stack([self._given[r] for r in sorted(self._given)]).sum(0))
            self._barrier.wait(10)
            return tensor

        return reduce


def test_over_workers_batch_normalisation_is_that_of_the_whole_batch() -> None:
    """Three workers with five, no and three rows, whose means differ."""
    x, target = drawn(8), drawn(8).cos()
    x[:5] += 2
    crew, theirs = Crew(3), reference()
    layers = [layer_of(crew.member(rank)) for rank in range(3)]
    parts = [slice(0, 5), slice(5, 5), slice(5, 8)]
    with ThreadPoolExecutor(3) as pool:
        results = [*pool.map(used, layers, [x[p] for p in parts], [target[p] for p in parts])]
    out, gradient = used(theirs, x, target)
    close(torch.cat([result[0] for result in results]), out)
    close(torch.cat([result[1] for result in results]), gradient)
    weights = [layer.weight.grad for layer in layers if layer.weight.grad is not None]
    biases = [layer.bias.grad for layer in layers if layer.bias.grad is not None]
    close(torch.stack(weights).sum(0), theirs.weight.grad)
    close(torch.stack(biases).sum(0), theirs.bias.grad)
    for layer in layers:
        compare(layer, theirs)
        assert torch.equal(layer.running_variance, layers[0].running_variance)


def test_one_value_for_each_channel_becomes_the_shift() -> None:
    layer = layer_of(None)
    out = layer(torch.tensor([7.0, -2.0, 0.0]).view(1, 3, 1, 1))
    # x γ/√ε + (β − μ γ/√ε) with |γ| ≤ 2, in float32.
    rounding = 2 * 7.0 / EPSILON**0.5 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(out.flatten(), layer.bias.detach(), rtol=0, atol=rounding)
    assert layer.running_variance.isfinite().all()


def test_the_type_of_the_input_is_kept() -> None:
    for reduce in (None, lambda total: total):
        layer = layer_of(reduce)
        x = drawn(8)
        out = layer(x.bfloat16())
        assert out.dtype == torch.bfloat16
        # Statistics are those of the rounded values, in float32; only the result is rounded.
        exact = layer_of(reduce)
        torch.testing.assert_close(out.float(), exact(x.bfloat16().float()), rtol=2**-8, atol=2**-8)
        for name in ("running_mean", "running_variance"):
            torch.testing.assert_close(getattr(layer, name), getattr(exact, name))
