import math

import pytest
import torch
from torch import Tensor

from workers.divergence import (
    LowRankGaussian,
    ProductLaplace,
    require_valid_noise,
    uniform_channel,
)
from workers.divergence.discrete import require_valid_channel
from workers.errors import InvalidSpread

ORIGIN = torch.zeros(3, dtype=torch.float64)


def test_noise_that_is_no_valid_spread_is_refused_by_name() -> None:
    half = math.sqrt(3) * 0.5  # of standard deviation 0.5

    def uniform(x: Tensor) -> Tensor:
        return (x.abs() <= half).double().div(2 * half)

    def its_characteristic(w: Tensor) -> Tensor:
        return torch.sinc(w * half / math.pi)

    with pytest.raises(InvalidSpread, match=r"uniform noise .* not positive everywhere"):
        require_valid_noise("uniform", 0.5, uniform, its_characteristic)
    with pytest.raises(InvalidSpread, match="gaussian noise of scale 0"):
        require_valid_noise("gaussian", 0.0, uniform, its_characteristic)
    with pytest.raises(InvalidSpread, match="scale 0"):
        LowRankGaussian.isotropic(ORIGIN, 0.0)
    with pytest.raises(InvalidSpread, match="scale 0"):
        ProductLaplace(ORIGIN, 0.0)


def test_noise_that_hides_frequencies_is_refused_by_name() -> None:
    """½sinc²(x) + ½√2 sinc²(√2 x) is positive everywhere, and knows no frequency beyond 2√2·π."""

    def density(x: Tensor) -> Tensor:
        first, second = torch.sinc(x).square(), torch.sinc(2**0.5 * x).square()
        return first.div(2) + second.div(2**0.5)

    def triangle(w: Tensor) -> Tensor:
        return torch.clamp(1 - w.abs() / (2 * math.pi), min=0)

    def characteristic(w: Tensor) -> Tensor:
        return (triangle(w) + triangle(w / 2**0.5)).div(2)

    with pytest.raises(InvalidSpread, match=r"band-limited .* zero on an interval"):
        require_valid_noise("band-limited", 1.0, density, characteristic)


def test_a_gaussian_and_a_laplace_are_valid() -> None:
    require_valid_noise(
        "gaussian", 0.5, lambda x: (-2 * x.square()).exp(), lambda w: (-w.square() / 8).exp()
    )
    b = 0.5 / math.sqrt(2)
    require_valid_noise(
        "laplace", 0.5, lambda x: (-x.abs() / b).exp(), lambda w: 1 / (1 + (b * w).square())
    )


def test_channels_that_are_no_valid_spread_are_refused() -> None:
    for channel, what in (
        ([[0.5, 0.5], [0.5, 0.5]], "singular"),
        ([[1.0, 0.1], [0.0, 0.9]], "entry of 0"),
        ([[0.9, 0.1], [0.2, 0.9]], "sum to one"),
        ([[0.9, 0.1]], "square"),
    ):
        with pytest.raises(InvalidSpread, match=what):
            require_valid_channel(torch.tensor(channel, dtype=torch.float64))
    with pytest.raises(InvalidSpread, match="without noise"):
        uniform_channel(3, 0.0)
