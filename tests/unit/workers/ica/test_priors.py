import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from workers.ica.erfcx import erfcx
from workers.ica.priors import Laplace, Mixture, Prior, Priors, bimodal, logistic, student_t

SKEWED = Mixture("mixture", (0.7, 0.3), (-0.5, 1.2), (0.3, 0.05))
ALL = [
    *(Laplace(), Laplace(0.3), logistic(), student_t(3), student_t(5), bimodal(), SKEWED),
    logistic().softened(0.2),
]
NAMES = [f"{prior.name}-{i}" for i, prior in enumerate(ALL)]
CAVITIES = [(m, v) for m in (-7.0, -0.4, 0.0, 0.03, 2.0, 9.0) for v in (1e-4, 0.01, 0.3, 4.0)]


def density(prior: Prior, z: np.ndarray) -> np.ndarray:
    at = torch.from_numpy(z)
    return prior.tilted(at, torch.zeros_like(at)).log_z.exp().numpy()


def moments(prior: Prior, m: float, v: float) -> tuple[float, float, float]:
    """log Ẑ, mean and variance by the trapezoid rule; the prior's bend at 0 is a node."""
    half = np.concatenate([np.linspace(0, 1, 6_001), np.linspace(0, 40, 20_001)])
    near = m + math.sqrt(v) * np.linspace(-12, 12, 6_001)
    z = np.unique(np.concatenate([-half, half, near]))
    log = np.log(np.maximum(density(prior, z), 1e-300)) - (z - m) ** 2 / (2 * v)
    top = log.max()
    weight = np.exp(log - top)
    total = np.trapezoid(weight, z)
    mean = np.trapezoid(weight * z, z) / total
    variance = np.trapezoid(weight * (z - mean) ** 2, z) / total
    return math.log(total) + top - math.log(2 * math.pi * v) / 2, mean, variance


@pytest.mark.parametrize("prior", ALL, ids=NAMES)
def test_tilted_moments_agree_with_quadrature(prior: Prior) -> None:
    for m, v in CAVITIES:
        log_z, mean, variance = moments(prior, m, v)
        m_, v_ = torch.tensor([m], dtype=torch.float64), torch.tensor([v], dtype=torch.float64)
        found = prior.tilted(m_, v_)
        assert found.log_z.item() == pytest.approx(log_z, abs=2e-6)
        assert found.mean(m_, v_).item() == pytest.approx(mean, abs=2e-6 * math.sqrt(v))
        assert found.variance(v_).item() == pytest.approx(variance, rel=2e-5)


@pytest.mark.parametrize("prior", ALL, ids=NAMES)
def test_single_precision_keeps_four_digits_of_the_moments(prior: Prior) -> None:
    m, v = torch.tensor(CAVITIES).T.contiguous()
    single, double = prior.tilted(m, v), prior.tilted(m.double(), v.double())
    scale = 1 / v.double().sqrt()
    assert ((single.slope - double.slope).abs() / scale).max() < 2e-4
    assert ((single.curvature - double.curvature).abs() / scale**2).max() < 2e-4
    assert ((single.log_z - double.log_z).abs() / (1 + double.log_z.abs())).max() < 1e-5


@pytest.mark.parametrize("prior", ALL, ids=NAMES)
def test_slope_and_curvature_are_derivatives_of_log_z(prior: Prior) -> None:
    m = torch.linspace(-3.01, 3, 41, dtype=torch.float64)
    v, h = torch.full_like(m, 0.2), 1e-4
    above, here, below = (prior.tilted(m + step, v) for step in (h, 0.0, -h))
    # central differences err by h² times the third derivative, and by rounding over h
    slope = (above.log_z - below.log_z) / (2 * h)
    curvature = -(above.slope - below.slope) / (2 * h)
    torch.testing.assert_close(here.slope, slope, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(here.curvature, curvature, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prior", [*ALL[:3], *ALL[4:6], ALL[7]])
def test_a_named_prior_has_mass_one_mean_zero_and_unit_variance(prior: Prior) -> None:
    z = np.linspace(-200, 200, 400_001)
    p = density(prior, z)
    assert np.trapezoid(p, z) == pytest.approx(1, abs=1e-6)
    assert np.trapezoid(p * z, z) == pytest.approx(0, abs=1e-6)
    assert np.trapezoid(p * z**2, z) == pytest.approx(1, abs=1e-3)


def test_scale_mixtures_are_the_densities_they_stand_for() -> None:
    z = np.linspace(-8, 8, 1001)
    scale = math.sqrt(3) / math.pi
    np.testing.assert_allclose(
        density(logistic(), z), stats.logistic.pdf(z, scale=scale), rtol=1e-5
    )
    for degrees in (3, 5):
        scale = math.sqrt((degrees - 2) / degrees)
        expected = stats.t.pdf(z, degrees, scale=scale)
        np.testing.assert_allclose(density(student_t(degrees), z), expected, rtol=1e-3)


@pytest.mark.parametrize("prior", [Laplace(), student_t(5), SKEWED], ids=lambda p: p.name)
def test_a_softened_prior_is_the_one_with_noise_integrated_out(prior: Prior) -> None:
    width = 0.4
    shrink = 1 / math.sqrt(1 + width**2)
    z = np.linspace(-3, 3, 13)
    fine = np.linspace(-25, 25, 50_001)
    p = density(prior, fine)
    # p(z) = ∫ p₀(u)·N(z; shrink·u, (shrink·width)²) du
    kernel = stats.norm.pdf(z[:, None], loc=shrink * fine, scale=shrink * width)
    expected = np.trapezoid(kernel * p, fine, axis=1)
    np.testing.assert_allclose(density(prior.softened(width), z), expected, rtol=1e-6)


@pytest.mark.parametrize("prior", ALL, ids=NAMES)
def test_draws_have_the_density(prior: Prior) -> None:
    n = 4000
    draws = prior.sample(n, np.random.default_rng(0))
    z = np.linspace(-300, 300, 200_001)
    steps = np.diff(z) * (density(prior, z)[1:] + density(prior, z)[:-1]) / 2
    cumulative = np.interp(np.sort(draws), z, np.concatenate([[0], steps.cumsum()]))
    distance = np.abs(cumulative - (np.arange(n) + 0.5) / n).max()
    assert distance < stats.kstwobign.isf(1e-6) / math.sqrt(n)


def test_priors_that_differ_are_applied_row_by_row() -> None:
    each = (Laplace(), bimodal(), Laplace(), student_t(3))
    m = torch.linspace(-2, 2, 20, dtype=torch.float64).view(4, 5)
    v = torch.full_like(m, 0.1)
    whole = Priors(each).tilted(m, v)
    for i, prior in enumerate(each):
        row = prior.tilted(m[i], v[i])
        assert torch.equal(whole.log_z[i], row.log_z)
        assert torch.equal(whole.slope[i], row.slope)
        assert torch.equal(whole.curvature[i], row.curvature)


def test_student_t_without_a_variance_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 2 degrees"):
        student_t(2)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 4e-7), (torch.float64, 2e-14)])
def test_erfcx_agrees_with_scipy(dtype: torch.dtype, bound: float) -> None:
    x = torch.cat([torch.linspace(0, 30, 50_001), torch.logspace(1, 4, 2001)]).to(dtype)
    expected = special.erfcx(x.double().numpy())
    assert np.abs(erfcx(x).double().numpy() / expected - 1).max() < bound
