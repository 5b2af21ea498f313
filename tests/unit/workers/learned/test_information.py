import math

import pytest
import torch

from workers.spread import Gaussian, Laplace, Spread
from workers.spread.learned import information


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("spread", [Gaussian(), Laplace()])
def test_noise_that_mixes_up_nothing_leaves_all_information_and_a_flood_none(
    spread: Spread,
) -> None:
    x = 100 * torch.arange(20.0)[:, None]
    for scale, expected in ((0.5, math.log(20)), (1e6, 0.0)):
        noise = spread.sample_noise((20, 1), scale, generator())
        found = information(spread, x, noise, scale).item() / 20
        assert found == pytest.approx(expected, abs=1e-3)


def test_many_data_of_a_gaussian_have_the_information_of_its_channel() -> None:
    """½ log(1 + signal/noise) for each dimension, less what 2000 data cannot show."""
    x = torch.randn(2000, 2, generator=generator(1)) * torch.tensor([1.0, 0.3])
    noise = Gaussian().sample_noise((2000, 2), 0.5, generator(2))
    found = information(Gaussian(), x, noise, 0.5).item() / 2000
    expected = (math.log(1 + 1 / 0.25) + math.log(1 + 0.09 / 0.25)) / 2
    assert found == pytest.approx(expected, abs=0.08)


def test_shares_of_the_rows_add_up() -> None:
    x = torch.randn(9, 3, generator=generator(1))
    noise = Laplace().sample_noise((9, 3), 0.4, generator(2))
    whole = information(Laplace(), x, noise, 0.4)
    parts = [
        information(Laplace(), x, noise[part], 0.4, part)
        for part in (slice(0, 4), slice(4, 4), slice(4, 9))
    ]
    torch.testing.assert_close(sum(parts), whole)
