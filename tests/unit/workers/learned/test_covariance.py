import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from workers.divergence import LowRankGaussian
from workers.spread import Gaussian, Laplace, Spread
from workers.spread.learned import LearnedNoise, Psi
from workers.spread.learned.covariance import (
    LowRank,
    equal_entropy_scale,
    principal_components,
)

D, R, C, S = 5, 2, 1.3, 0.6
NOISES = [Gaussian(), Laplace()]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def low_rank(dimensions: int = D, rank: int = R, components: int | None = None) -> LowRank:
    return LowRank(dimensions, rank, C, components, generator(1))


def learned(noise: Spread, covariance: LowRank | None = None) -> LearnedNoise:
    return LearnedNoise(noise, Psi(covariance or low_rank(), None))


def test_on_gaussian_noise_the_density_is_that_of_the_dense_covariance() -> None:
    covariance = low_rank()
    spread = learned(Gaussian(), covariance)
    q = covariance.basis().detach()
    torch.testing.assert_close(q.T @ q, torch.eye(R))
    mean = torch.randn(D, generator=generator(2))
    y = torch.randn(7, D, generator=generator(3))
    dense = torch.distributions.MultivariateNormal(mean, S**2 * torch.eye(D) + C**2 * q @ q.T)
    torch.testing.assert_close(spread.log_prob(y, mean, S), dense.log_prob(y))
    assert spread.entropy(D, S) == pytest.approx(dense.entropy().item(), rel=1e-6)
    other = LowRankGaussian(mean, S, C * q)
    torch.testing.assert_close(
        other.log_prob(y), spread.log_prob(y, mean, S).double(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("noise", NOISES)
def test_draws_have_the_covariance_and_the_entropy_of_the_density(noise: Spread) -> None:
    covariance = low_rank()
    spread, q = learned(noise, covariance), covariance.basis().detach().double()
    k = spread.sample_noise((200_000, D), S, generator(4)).double()
    expected = S**2 * torch.eye(D) + C**2 * q @ q.T
    # Var k_i k_j is at most 6 C_ii C_jj: a value's kurtosis is at most that of Laplace noise.
    bound = 6 * (6 * torch.outer(expected.diagonal(), expected.diagonal()) / len(k)).sqrt()
    assert bool(((k.T.cov() - expected).abs() < bound).all())
    surprise = -spread.log_prob(k.float(), torch.zeros(D), S).double()
    error = 6 * surprise.std().item() / math.sqrt(len(k))
    assert abs(surprise.mean().item() - spread.entropy(D, S)) < error


@pytest.mark.parametrize("noise", NOISES)
def test_the_density_integrates_to_one(noise: Spread) -> None:
    spread = learned(noise, low_rank(2, 1))
    side = torch.linspace(-18, 18, 1201)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1)
    density = spread.log_prob(grid, torch.tensor([0.2, -0.1]), S).double().exp()
    total = density.sum() * (side[1] - side[0]).double() ** 2
    assert total.item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("noise", NOISES)
def test_the_cost_is_minus_the_sum_of_the_log_densities(noise: Spread) -> None:
    spread = learned(noise)
    y, mean = torch.randn(4, D, generator=generator(2)), torch.randn(3, 4, D, generator=generator())
    expected = -spread.log_prob(y, mean, S).sum().item()
    assert spread.cost(y, mean, S).item() == pytest.approx(expected, rel=1e-5)


def test_the_entropy_does_not_depend_on_the_directions() -> None:
    one, other = (LowRank(D, R, C, None, generator(seed)) for seed in (1, 2))
    assert not torch.equal(one.basis(), other.basis())
    assert learned(Laplace(), one).entropy(D, S) == learned(Laplace(), other).entropy(D, S)


def test_the_rival_has_equal_entropy() -> None:
    assert equal_entropy_scale(0.5, 2.0, 20, 784) == pytest.approx(0.518, abs=5e-4)
    for noise in NOISES:
        rival = LearnedNoise(noise, Psi(None, None, (R, C)))
        assert rival.entropy(D, S) == pytest.approx(learned(noise).entropy(D, S))
        k = rival.sample_noise((100_000, 2), S, generator(1)).double()
        scale = equal_entropy_scale(S, C, R, 2)
        assert abs(k.square().mean().item() - scale**2) < 6 * math.sqrt(5 / k.numel()) * scale**2


def ascend(covariance: LowRank, value: Callable[[Tensor], Tensor], steps: int) -> None:
    """Gradient ascent on the manifold by Adam."""
    optimizer = torch.optim.Adam(covariance.parameters(), lr=0.02)
    psi = Psi(covariance, None)
    for _ in range(steps):
        psi.begin_step()
        optimizer.zero_grad()
        (-value(covariance.basis())).backward()
        psi.project_gradient()
        optimizer.step()
        psi.end_step()


def test_with_fixed_residuals_the_best_directions_are_those_of_least_residual() -> None:
    """Ky Fan: E dᵀΣ⁻¹d is largest where Q spans the least eigenvectors of E[ddᵀ]."""
    spectrum = torch.tensor([0.1, 0.4, 1.0, 1.5, 2.0])
    turn = torch.linalg.qr(torch.randn(D, D, generator=generator(5)))[0]
    d = torch.randn(4000, D, generator=generator(6)) * spectrum.sqrt() @ turn.T
    covariance = low_rank()
    spread = learned(Gaussian(), covariance)
    ascend(covariance, lambda _: spread.cost(d, torch.zeros_like(d), S) / len(d), 400)
    least = torch.linalg.eigh(d.T @ d)[1][:, :R]
    cosines = torch.linalg.svdvals(covariance.basis().detach().T @ least)
    assert cosines.min().item() > 0.999


def test_a_step_keeps_the_directions_orthonormal_and_only_turns_their_span() -> None:
    covariance = low_rank()
    target = torch.randn(D, R, generator=generator(8))
    psi = Psi(covariance, None)
    psi.begin_step()
    (covariance.basis() * target).sum().backward()
    psi.project_gradient()
    gradient = covariance.directions.grad
    assert gradient is not None
    inside = covariance.directions.detach().T @ gradient
    torch.testing.assert_close(inside, torch.zeros(R, R), atol=1e-6, rtol=0)
    with torch.no_grad():
        covariance.directions.add_(gradient)
    psi.end_step()
    q = covariance.basis()
    torch.testing.assert_close(q.T @ q, torch.eye(R), atol=1e-6, rtol=0)
    assert not q.requires_grad
    # What is orthonormal already stays as it is.
    before = q.clone()
    covariance.retract()
    torch.testing.assert_close(covariance.basis(), before, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_directions_can_be_kept_among_the_principal_components(dtype: torch.dtype) -> None:
    spectrum = torch.tensor([40.0, 25.0, 12.0, 2.0, 1.0, 0.5])
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator(3)))[0]
    rows = 128 + torch.randn(5000, 6, generator=generator(4)) * spectrum @ turn.T
    rows = rows.clamp(0, 255).to(dtype)
    v = principal_components(rows, 3, seed=1)
    x = rows.double() - rows.double().mean(0)
    expected = torch.linalg.eigh(x.T @ x)[1].flip(1)[:, :3].float()
    cosines = (v * expected).sum(0).abs()
    assert cosines.min().item() > 0.999
    covariance = low_rank(6, 2, components=3)
    covariance.observe(rows, 1)
    q = covariance.basis()
    torch.testing.assert_close(v @ (v.T @ q), q, atol=1e-5, rtol=0)
    torch.testing.assert_close(q.T @ q, torch.eye(2), atol=1e-5, rtol=0)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation has made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.values = max(self.values, out.numel())
        return out


@pytest.mark.parametrize("noise", NOISES)
def test_nothing_of_size_d_by_d_is_ever_made(noise: Spread) -> None:
    """At D = 12288 and R = 100 the directions themselves are the largest thing."""
    dimensions, rank = 12_288, 100
    covariance = low_rank(dimensions, rank)
    spread = learned(noise, covariance)
    with Largest() as seen:
        y = spread.sample_noise((3, dimensions), S, generator())
        covariance.requires_grad_(requires_grad=True)
        spread.cost(y, torch.zeros_like(y), S).backward()
        spread.log_prob(y, torch.zeros(dimensions), S)
        spread.entropy(dimensions, S)
        covariance.project_gradient()
        covariance.retract()
    assert seen.values == dimensions * rank
