import math

import pytest
import torch

from tests.unit.workers.divergence.distributions import APART, KINDS, ORIGIN, generator, low_rank
from workers.divergence import (
    Density,
    Kind,
    LowRankGaussian,
    ProductLaplace,
    between,
    estimate_divergence,
)
from workers.divergence.between import closed_form
from workers.divergence.gaussian import kl


@pytest.mark.parametrize("rank", [0, 1, 2, 5])
def test_woodbury_agrees_with_the_dense_covariance(rank: int) -> None:
    ours = low_rank(1, APART, 0.7, rank)
    covariance = 0.49 * torch.eye(3, dtype=torch.float64) + ours.factor @ ours.factor.T
    dense = torch.distributions.MultivariateNormal(APART, covariance)
    y = torch.randn(20, 3, generator=generator(2), dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(y), dense.log_prob(y))
    assert ours.entropy() == pytest.approx(dense.entropy().item())
    other = low_rank(3, ORIGIN, 0.4, 2)
    second = 0.16 * torch.eye(3, dtype=torch.float64) + other.factor @ other.factor.T
    expected = torch.distributions.kl_divergence(
        dense, torch.distributions.MultivariateNormal(ORIGIN, second)
    )
    assert kl(ours, other) == pytest.approx(expected.item())


def test_draws_have_the_covariance_of_the_density() -> None:
    ours = low_rank(1, APART, 0.7, 2)
    y = ours.sample(50_000, generator())
    covariance = 0.49 * torch.eye(3, dtype=torch.float64) + ours.factor @ ours.factor.T
    # Var of a product of two Gaussians is at most 2 C_ii C_jj.
    bound = 6 * (2 * torch.outer(covariance.diagonal(), covariance.diagonal()) / len(y)).sqrt()
    assert bool(((y.T.cov() - covariance).abs() < bound).all())


PAIRS: dict[str, tuple[Density, Density]] = {
    "shifted gaussians": (
        low_rank(1, ORIGIN, 0.7, 2),
        LowRankGaussian(APART, 0.7, low_rank(1, ORIGIN, 0.7, 2).factor),
    ),
    "gaussians": (low_rank(1, ORIGIN, 0.7, 2), low_rank(2, APART, 0.8, 1)),
    "laplace": (ProductLaplace(ORIGIN, 0.6), ProductLaplace(APART, 0.6)),
    "laplace of two scales": (ProductLaplace(ORIGIN, 0.6), ProductLaplace(APART, 0.8)),
    "laplace on a line": (ProductLaplace(ORIGIN[:1], 0.6), ProductLaplace(APART[:1], 0.6)),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("kind", KINDS)
def test_estimates_agree_with_the_closed_forms(kind: Kind, pair: str) -> None:
    p, q = PAIRS[pair]
    exact = closed_form(kind, p, q)
    if exact is not None and math.isinf(exact):
        return  # an estimate is finite whatever it is of
    found = estimate_divergence(kind, p, q, 40_000, generator(7))
    assert found.standard_error > 0
    if exact is None:
        # No second way but another seed: the standard errors must cover the difference.
        again = estimate_divergence(kind, p, q, 40_000, generator(8))
        error = math.hypot(found.standard_error, again.standard_error)
        assert abs(found.value - again.value) < 6 * error
    else:
        assert abs(found.value - exact) < 6 * found.standard_error
        assert between(kind, p, q, generator=generator()).standard_error == 0


def quadrature(p: Density, q: Density, power: float = 2) -> float:
    """∫ p^a q^(1 − a) − 1 in one dimension, a the power: χ², and −H² at a = ½."""
    y = torch.linspace(-60, 60, 1_200_001, dtype=torch.float64)[:, None]
    log_density = power * p.log_prob(y) + (1 - power) * q.log_prob(y)
    return float(torch.trapezoid(log_density.exp(), y[:, 0])) - 1


def on_a_line(mean: float, scale: float, *factor: float) -> LowRankGaussian:
    one = torch.tensor([mean], dtype=torch.float64)
    return LowRankGaussian(one, scale, torch.tensor([factor], dtype=torch.float64))


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (on_a_line(0.3, 0.7), on_a_line(-0.4, 0.6)),
        (on_a_line(0.3, 0.5, 0.4), on_a_line(-0.4, 0.6, 0.3)),
        (on_a_line(0.3, 0.5), on_a_line(0.3, 0.9, 0.3, 0.2)),
        (ProductLaplace(ORIGIN[:1], 0.6), ProductLaplace(APART[:1], 0.4)),
        (ProductLaplace(APART[:1], 0.3), ProductLaplace(ORIGIN[:1], 0.5)),
    ],
)
def test_chi_squared_of_different_scales_is_the_integral_of_its_definition(
    p: Density, q: Density
) -> None:
    assert closed_form("chi2", p, q) == pytest.approx(quadrature(p, q), rel=1e-6)


@pytest.mark.parametrize("apart", [0.0, 0.3, 2.5])
@pytest.mark.parametrize("b", [0.2, 0.6, 0.6 * (1 + 1e-9), 0.7, 3.0])
def test_hellinger_of_laplace_noise_is_the_integral_of_its_definition(
    b: float, apart: float
) -> None:
    p, q = ProductLaplace(ORIGIN[:1], 0.6), ProductLaplace(ORIGIN[:1] + apart, b)
    expected = -quadrature(p, q, 0.5)
    for first, second in ((p, q), (q, p)):
        found = closed_form("hellinger2", first, second)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_hellinger_of_laplace_noise_is_one_minus_a_product_over_the_dimensions() -> None:
    p, q = ProductLaplace(ORIGIN, 0.6), ProductLaplace(APART, 0.9)
    one = ProductLaplace(ORIGIN[:1], 0.6)
    shares = [-quadrature(one, ProductLaplace(mean, 0.9), 0.5) for mean in APART.split(1)]
    expected = 1 - math.prod(1 - share for share in shares)
    assert closed_form("hellinger2", p, q) == pytest.approx(expected, rel=1e-6)


def test_chi_squared_is_infinite_where_the_first_has_tails_too_heavy_for_the_second() -> None:
    for wide in (math.sqrt(2) * 0.6, 2.0):
        assert closed_form("chi2", on_a_line(0.0, wide), on_a_line(0.1, 0.6)) == math.inf
    assert closed_form("chi2", on_a_line(0.0, 0.6, 0.7), on_a_line(0.1, 0.6)) == math.inf
    for b in (1.2, 3.0):
        p, q = ProductLaplace(ORIGIN, b), ProductLaplace(APART, 0.6)
        assert between("chi2", p, q, generator=generator()).value == math.inf
        assert closed_form("chi2", q, p) != math.inf


@pytest.mark.parametrize("seed", range(5))
def test_chi_squared_of_low_rank_is_that_of_the_dense_covariances(seed: int) -> None:
    p, q = low_rank(seed, ORIGIN, 0.5, 1), low_rank(seed + 10, APART, 0.9, 1)
    eye = torch.eye(3, dtype=torch.float64)
    first, second = (g.scale**2 * eye + g.factor @ g.factor.T for g in (p, q))
    middle = 2 * second - first
    if float(torch.linalg.eigvalsh(middle).min()) <= 0:
        assert closed_form("chi2", p, q) == math.inf
        return
    d = p.mean - q.mean
    expected = (
        second.det() / (first.det() * middle.det()).sqrt() * (d @ middle.inverse() @ d).exp() - 1
    )
    assert closed_form("chi2", p, q) == pytest.approx(float(expected))


def test_jensen_shannon_of_shifted_gaussians_is_the_integral_of_its_definition() -> None:
    p, q = (LowRankGaussian.isotropic(torch.tensor([m]).double(), 0.8) for m in (0.0, 1.5))
    y = torch.linspace(-12, 14, 20_001, dtype=torch.float64)[:, None]
    a, b = p.log_prob(y), q.log_prob(y)
    middle = torch.logaddexp(a, b) - math.log(2)
    density = (a.exp() * (a - middle) + b.exp() * (b - middle)) / 2
    expected = torch.trapezoid(density, y[:, 0]).item()
    assert closed_form("js", p, q) == pytest.approx(expected, rel=1e-9)


def test_the_standard_error_is_that_of_repeated_estimates() -> None:
    p, q = PAIRS["laplace"]
    found = [estimate_divergence("js", p, q, 500, generator(seed)) for seed in range(200)]
    values = torch.tensor([estimate.value for estimate in found])
    reported = sum(estimate.standard_error for estimate in found) / len(found)
    # The standard deviation of a standard deviation of n values is 1/√(2n) of it.
    assert values.std().item() == pytest.approx(reported, rel=6 / math.sqrt(400))
