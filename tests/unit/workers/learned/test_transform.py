import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from workers.spec.learned import Activation, MeanTransform
from workers.spread.learned.operator_norm import clip_conv, clip_dense, conv_norm, dense_norm
from workers.spread.learned.transform import Transform, activate

SPEC: TypeAdapter[MeanTransform] = TypeAdapter(MeanTransform)
SHAPE = (6, 5, 2)
MLP = {"kind": "mlp", "hidden": [20, 20], "blocks": 2}
CONV = {"kind": "conv", "channels": 6, "layers": 3, "blocks": 2}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def transform(**fields: Any) -> Transform:
    return Transform(SPEC.validate_python(fields), SHAPE, generator(1)).requires_grad_(
        requires_grad=False
    )


def steep(**fields: Any) -> Transform:
    """A transform with weights far beyond what is allowed, brought below its bounds.

    They are positive, so that what one layer enlarges most, the next one does too.
    """
    made = transform(**fields)
    with torch.no_grad():
        for parameter in made.parameters():
            drawn = torch.randn(parameter.shape, generator=generator(2)).abs()
            parameter.copy_(3 * drawn if parameter.dim() > 1 else 0.1 * drawn)
    made.bound()
    return made


def dense_matrix(kernel: Tensor, height: int, width: int) -> Tensor:
    """The matrix of a convolution with zero padding on a picture of this size."""
    inputs = kernel.shape[1] * height * width
    pictures = torch.eye(inputs, dtype=torch.float64).view(-1, kernel.shape[1], height, width)
    return torch.nn.functional.conv2d(pictures, kernel, padding=1).flatten(1).T


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (3, 2), (2, 5)])
def test_the_bound_of_a_convolution_holds_and_is_close(outputs: int, inputs: int) -> None:
    for seed in range(4):
        kernel = torch.randn(outputs, inputs, 3, 3, generator=generator(seed), dtype=torch.float64)
        exact = torch.linalg.matrix_norm(dense_matrix(kernel, 9, 7), 2).item()
        assert exact <= conv_norm(kernel)
        large = torch.linalg.matrix_norm(dense_matrix(kernel, 16, 16), 2).item()
        assert large <= conv_norm(kernel) < 1.15 * large


def test_the_bound_of_a_convolution_holds_between_the_points_of_its_grid() -> None:
    """The kernel whose wave is largest midway between two frequencies of the grid."""
    between = math.pi / 16
    x = torch.arange(-1, 2, dtype=torch.float64)
    kernel = torch.cos(between * x)[:, None] * torch.cos(between * x)[None]
    frequency = torch.linspace(-math.pi, math.pi, 2001, dtype=torch.float64)
    phases = torch.exp(-1j * frequency[:, None] * x)
    waves = phases @ kernel.to(phases.dtype) @ phases.T
    assert waves.abs().max().item() <= conv_norm(kernel[None, None])


def test_the_norm_of_a_dense_layer_is_that_of_its_svd_and_clipping_is_the_nearest_matrix() -> None:
    for shape in ((7, 4), (4, 7), (5, 5)):
        weight = torch.randn(shape, generator=generator(3))
        u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
        assert dense_norm(weight) == pytest.approx(s.max().item(), rel=1e-6)
        clipped = weight.clone()
        clip_dense(clipped, 0.8)
        expected = (u * s.clamp_max(0.8)) @ v
        torch.testing.assert_close(clipped.double(), expected, atol=1e-4, rtol=0)
        assert torch.linalg.matrix_norm(clipped.double(), 2).item() <= 0.8
        again = clipped.clone()
        clip_dense(again, 0.8)
        assert torch.equal(again, clipped)


def test_clipping_a_kernel_brings_the_dense_matrix_below_the_bound() -> None:
    kernel = torch.randn(4, 3, 3, 3, generator=generator(3))
    clip_conv(kernel, 0.9)
    exact = torch.linalg.matrix_norm(dense_matrix(kernel.double(), 12, 12), 2).item()
    assert 0.75 < exact <= 0.9


@pytest.mark.parametrize("fields", [MLP, CONV])
def test_it_begins_as_the_identity(fields: dict[str, Any]) -> None:
    x = torch.rand(3, 60, generator=generator(4))
    assert torch.equal(transform(**fields)(x), x)


@pytest.mark.parametrize("fields", [MLP, CONV])
def test_fixed_point_iteration_inverts_it(fields: dict[str, Any]) -> None:
    f = steep(**fields).double()
    x = torch.randn(4, 60, generator=generator(5), dtype=torch.float64)
    y = f(x)
    assert (y - x).norm() > 0.3 * x.norm()
    for block in reversed(list(f.blocks)):
        h = y
        for _ in range(120):  # 0.729^120 < 1e-16
            h = y - block(h)
        y = h
    torch.testing.assert_close(y, x, atol=1e-9, rtol=0)


@pytest.mark.parametrize("fields", [MLP, CONV, {**MLP, "activation": "tanh", "coefficient": 0.99}])
def test_gradient_ascent_does_not_break_the_lipschitz_bound(fields: dict[str, Any]) -> None:
    """Random pairs are far from the bound; an attack comes near it, and no further."""
    f = steep(**fields)
    bound = fields.get("coefficient", 0.9) ** 3
    for block in f.blocks:
        a = torch.randn(8, 60, generator=generator(6)).requires_grad_()
        d = torch.randn(8, 60, generator=generator(7)).requires_grad_()
        optimizer = torch.optim.Adam([a, d], lr=0.05)
        first = last = 0.0
        for _ in range(150):
            optimizer.zero_grad()
            short = 0.01 * d / d.norm(dim=1, keepdim=True)
            ratios = (block(a + short) - block(a)).norm(dim=1) / short.norm(dim=1)
            (-ratios.sum()).backward()
            optimizer.step()
            last = ratios.max().item()
            first = first or last
        assert last > 1.2 * first
        assert last <= bound * (1 + 1e-3)  # differences of float32 values 0.01 apart
        assert last > 0.3 * bound


@pytest.mark.parametrize("fields", [MLP, CONV])
def test_distances_stay_within_the_bounds_of_all_blocks(fields: dict[str, Any]) -> None:
    f = steep(**fields).double()
    a, b = torch.randn(2, 500, 60, generator=generator(8), dtype=torch.float64)
    ratio = (f(a) - f(b)).norm(dim=1) / (a - b).norm(dim=1)
    lip = 0.9**3
    assert ratio.max().item() <= (1 + lip) ** 2
    assert ratio.min().item() >= (1 - lip) ** 2


@pytest.mark.parametrize("name", ["elu", "relu", "leaky_relu", "tanh"])
def test_no_activation_is_steeper_than_1(name: Activation) -> None:
    x = torch.linspace(-10, 10, 20_001, dtype=torch.float64).requires_grad_()
    activate(name, x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max().item() <= 1


@pytest.mark.parametrize("name", ["selu", "gelu", "silu"])
def test_activations_that_are_steeper_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} has slopes up to 1"):
        SPEC.validate_python({**MLP, "activation": name})


def test_the_gain_is_measured_on_data_and_can_be_divided_away() -> None:
    rows = torch.randn(400, 60, generator=generator(9))
    plain, normal = steep(**MLP), steep(**MLP, normalise_gain=True)
    for f in (plain, normal):
        f.observe(rows, 1)
        f.bound()
    gain = plain.mean_gain().item()
    assert abs(gain - 1) > 0.02
    a, b = torch.randn(2, 4000, 60, generator=generator(10))
    measured = ((plain(a) - plain(b)).norm(dim=1).mean() / (a - b).norm(dim=1).mean()).item()
    assert gain == pytest.approx(measured, rel=0.05)
    torch.testing.assert_close(normal(a) * gain, plain(a), rtol=1e-5, atol=1e-5)


def test_a_step_that_learns_sees_how_the_gain_depends_on_the_weights() -> None:
    """Enlarging everything then gains nothing: the mean distance does not move."""
    f = steep(**MLP, normalise_gain=True)
    rows = torch.randn(400, 60, generator=generator(9))
    f.observe(rows, 1)
    f.bound()
    f.requires_grad_(requires_grad=True)
    f.begin_step()
    assert f._pairs is not None
    first, second = f(f._pairs)
    (first - second).norm(dim=-1).mean().backward()
    for parameter in f.parameters():
        if parameter.grad is not None:
            assert parameter.grad.abs().max().item() < 1e-4
