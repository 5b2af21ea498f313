import math
from itertools import pairwise

import pytest
import torch

from workers.spec import GaussianSpread, LaplaceSpread, ScaleSchedule
from workers.spread import Gaussian, Laplace, Spread, scale_at, spread_of

SPREADS = [Gaussian(), Laplace()]
SCALE = 0.7


def draws(spread: Spread, count: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread.sample_noise((count,), SCALE, generator).double()


@pytest.mark.parametrize("spread", SPREADS)
def test_the_density_integrates_to_one(spread: Spread) -> None:
    grid = torch.linspace(-30, 30, 600_001, dtype=torch.float64)
    density = spread.log_prob(grid[:, None], torch.tensor([0.3], dtype=torch.float64), SCALE).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("spread", SPREADS)
def test_the_scale_is_the_standard_deviation_of_the_draws(spread: Spread) -> None:
    k = draws(spread, 200_000)
    # Var(k²) = E k⁴ − σ⁴ = 5σ⁴ for Laplace and 2σ⁴ for Gaussian: the larger bounds both.
    assert abs(k.mean().item()) < 6 * SCALE / math.sqrt(len(k))
    assert abs(k.square().mean().item() - SCALE**2) < 6 * math.sqrt(5 / len(k)) * SCALE**2
    assert abs((k > 0).double().mean().item() - 0.5) < 6 * 0.5 / math.sqrt(len(k))


@pytest.mark.parametrize("spread", SPREADS)
def test_the_draws_have_the_density_that_is_scored(spread: Spread) -> None:
    """Quantile by quantile: the share of draws in a cell is the density's integral over it."""
    k = draws(spread, 200_000)
    edges = torch.tensor([-2.0, -1.0, -0.3, -0.05, 0.0, 0.1, 0.5, 1.5, 2.5], dtype=torch.float64)
    for low, high in pairwise(edges):
        grid = torch.linspace(low.item(), high.item(), 4001, dtype=torch.float64)
        density = spread.log_prob(grid[:, None], torch.zeros(1, dtype=torch.float64), SCALE).exp()
        p = torch.trapezoid(density, grid).item()
        share = ((k >= low) & (k < high)).double().mean().item()
        assert abs(share - p) < 6 * math.sqrt(p * (1 - p) / len(k))


@pytest.mark.parametrize("spread", SPREADS)
def test_the_entropy_is_minus_the_mean_log_density(spread: Spread) -> None:
    dimensions = 3
    k = draws(spread, 60_000).reshape(-1, dimensions)
    surprise = -spread.log_prob(k, torch.zeros(dimensions, dtype=torch.float64), SCALE)
    error = 6 * surprise.std().item() / math.sqrt(len(surprise))
    assert abs(surprise.mean().item() - spread.entropy(dimensions, SCALE)) < error


@pytest.mark.parametrize("spread", SPREADS)
def test_the_cost_is_minus_the_sum_of_the_log_densities(spread: Spread) -> None:
    generator = torch.Generator().manual_seed(2)
    y = torch.randn(4, 5, generator=generator)
    mean = torch.randn(3, 4, 5, generator=generator)
    expected = -spread.log_prob(y, mean, SCALE).sum().item()
    assert spread.cost(y, mean, SCALE).item() == pytest.approx(expected, rel=1e-5)


def test_laplace_draws_are_finite_even_at_the_ends_of_the_uniform() -> None:
    k = draws(Laplace(), 2_000_000, seed=5)
    assert bool(k.isfinite().all())
    assert k.abs().max().item() > 8 * SCALE  # the tails are not cut off near by


def test_the_same_generator_seed_gives_the_same_noise() -> None:
    for spread in SPREADS:
        assert torch.equal(draws(spread, 1000), draws(spread, 1000))
        assert not torch.equal(draws(spread, 1000), draws(spread, 1000, seed=2))


def test_a_spec_names_its_noise() -> None:
    assert isinstance(spread_of(GaussianSpread(kind="gaussian")), Gaussian)
    assert isinstance(spread_of(LaplaceSpread(kind="laplace")), Laplace)


@pytest.mark.parametrize(
    ("kind", "middle"), [("linear", 1.25), ("cosine", 1.25), ("geometric", 1.0)]
)
def test_a_scale_schedule_goes_from_its_first_to_its_last_value(kind: str, middle: float) -> None:
    schedule = ScaleSchedule.model_validate({"kind": kind, "initial_scale": 2.0, "until_epoch": 10})
    spec = GaussianSpread(kind="gaussian", scale=0.5, schedule=schedule)
    assert scale_at(spec, 0) == pytest.approx(2.0)
    assert scale_at(spec, 5) == pytest.approx(middle)
    assert scale_at(spec, 10) == 0.5
    assert scale_at(spec, 99.5) == 0.5
    path = [scale_at(spec, epoch / 4) for epoch in range(41)]
    assert path == sorted(path, reverse=True)
