"""Golden numbers: derived by hand, or published."""

import math

import pytest
import torch
from torch import Tensor

from workers.divergence import (
    LowRankGaussian,
    ProductLaplace,
    between,
    discrete_divergence,
    em_step,
    model_noise_optimum,
    spread_discrete,
    uniform_channel,
)
from workers.divergence.gaussian import cross_entropy, kl
from workers.divergence.line import log_evidence
from workers.errors import InvalidSpread

TRUE = torch.tensor([2.0, 1.0, -1.0], dtype=torch.float64)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def column(*values: float) -> Tensor:
    return vector(*values)[:, None]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_two_deltas_under_gaussian_noise() -> None:
    """Equation 27: KL = ‖μp − μq‖²/2σ²."""
    p, q = (LowRankGaussian.isotropic(vector(a, 0.0), math.sqrt(0.5)) for a in (0.0, 1.0))
    assert between("kl", p, q, generator=generator()).value == pytest.approx(1.0)


def test_noise_on_the_model_alone_shortens_its_optimum_and_spread_noise_does_not() -> None:
    """Equation 12."""
    wrong = model_noise_optimum(TRUE, 0.8)
    assert wrong.tolist() == pytest.approx([1.861899, 0.930949, -0.930949], abs=1e-6)
    assert model_noise_optimum(TRUE, 6.0).tolist() == [0, 0, 0]
    data = torch.outer(TRUE, TRUE)
    theta = vector(1.0, 0.5, 0.1)
    for _ in range(2000):
        theta = em_step(theta, data, 0.8)
    assert theta.tolist() == pytest.approx(wrong.tolist(), abs=1e-6)
    for _ in range(2000):
        theta = em_step(theta, data + 0.8 * torch.eye(3), 0.8)
    assert theta.tolist() == pytest.approx(TRUE.tolist(), abs=1e-6)


def test_one_em_step_and_its_freezing_without_noise() -> None:
    theta, data = vector(1.0, 0.5, 0.1), torch.outer(TRUE, TRUE)
    step = em_step(theta, data, 0.8)
    assert step.tolist() == pytest.approx([1.334773, 0.667387, -0.667387], abs=1e-6)
    first = em_step(theta, data, 1e-6)
    assert (em_step(first, data, 1e-6) - first).norm() < 1e-6 * first.norm()
    assert (first - TRUE).norm() > 0.1


@pytest.mark.parametrize(("steps", "error"), [(50, 0.141), (500, 0.0068), (5000, 0.0007)])
def test_slow_annealing_heals_noise_on_the_model(steps: int, error: float) -> None:
    theta, data = vector(1.0, 0.5, 0.1), torch.outer(TRUE, TRUE)
    for i in range(steps):
        theta = em_step(theta, data, 0.8 * (1e-6 / 0.8) ** (i / (steps - 1)))
    relative = float(torch.minimum((theta - TRUE).norm(), (theta + TRUE).norm()) / TRUE.norm())
    assert relative == pytest.approx(error, rel=0.1)


def test_em_never_lowers_the_evidence() -> None:
    theta, data = vector(1.0, 0.5, 0.1), torch.outer(TRUE, TRUE) + 0.3 * torch.eye(3)
    values = []
    for _ in range(100):
        values.append(log_evidence(theta, data, 0.3))
        theta = em_step(theta, data, 0.3)
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.1


@pytest.mark.parametrize(("angle", "expected"), [(0, 2.0), (45, 0.823529), (90, 0.4)])
def test_the_best_direction_of_noise_in_figure_3(angle: float, expected: float) -> None:
    """KL of two lines a + Az and b + Az under noise σ²I + uuᵀ, by the angle of u."""
    turned = math.radians(angle)
    factor = torch.cat((column(1, 0), column(math.cos(turned), math.sin(turned))), 1)
    p = LowRankGaussian(vector(0, 0), 0.5, factor)
    q = LowRankGaussian(vector(0, 1), 0.5, factor)
    assert kl(p, q) == pytest.approx(expected, abs=1e-6)


def test_cross_entropy_alone_prefers_the_wrong_direction() -> None:
    """Golden 4b: the excess −E log q̃ − H(K) is KL + I(X; Y), and I depends on u."""
    found = []
    for u in (column(1, 0), column(0, 1)):
        factor = torch.cat((column(1, 0), u), 1)
        p = LowRankGaussian(vector(0, 0), 0.5, factor)
        q = LowRankGaussian(vector(0, 0.3), 0.5, factor)
        noise = LowRankGaussian(vector(0, 0), 0.5, u)
        found.append((kl(p, q), cross_entropy(p, q) - noise.entropy()))
    assert found[0] == pytest.approx((0.180, 0.474), abs=5e-4)
    assert found[1] == pytest.approx((0.036, 0.841), abs=5e-4)


@pytest.mark.parametrize(("m", "expected"), [(0.3, 0.10653066), (2.0, 2.36900733)])
def test_two_deltas_under_laplace_noise(m: float, expected: float) -> None:
    p, q = (ProductLaplace(vector(a), 0.6) for a in (0.0, m))
    assert between("kl", p, q, generator=generator()).value == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("error", "expected"), [(0.1, 2.64999508), (0.5, 0.54930614)])
def test_disjoint_coins_under_a_channel(error: float, expected: float) -> None:
    channel = uniform_channel(2, error)
    p, q = (spread_discrete(vector(*v), channel) for v in ((1, 0), (0, 1)))
    assert discrete_divergence("kl", p, q) == pytest.approx(expected, abs=1e-8)


def test_three_outcomes_under_a_channel_and_the_singular_channel() -> None:
    p, q = vector(0.7, 0.2, 0.1), vector(0.1, 0.3, 0.6)
    assert discrete_divergence("kl", p, q) == pytest.approx(1.10186814, abs=1e-8)
    channel = uniform_channel(3, 0.2)
    spread = [spread_discrete(v, channel) for v in (p, q)]
    assert discrete_divergence("kl", *spread) == pytest.approx(0.64859520, abs=1e-8)
    with pytest.raises(InvalidSpread, match="singular"):
        uniform_channel(2, 1.0)


def test_mixing_with_noise_instead_of_adding_it_gives_no_gradient() -> None:
    """Appendix E: a·δ_0 + (1 − a)N against a·δ_t + (1 − a)N, for every t ≠ 0.

    Both deltas and the noise are mutually singular: three outcomes.
    """
    a = 0.3
    p, q = vector(a, 0, 1 - a), vector(0, a, 1 - a)
    assert discrete_divergence("kl", p, q) == math.inf
    assert discrete_divergence("tv", p, q) == pytest.approx(a)
    assert discrete_divergence("js", p, q) == pytest.approx(a * math.log(2))


def test_the_spread_likelihood_of_one_datum_is_bounded() -> None:
    """Appendix F.1: N(μ, v) on one datum x has no MLE; spread, the best is μ = x, v = 0."""
    s2 = 0.4
    datum = LowRankGaussian.isotropic(vector(1.3), math.sqrt(s2))

    def likelihood(mean: float, v: float) -> float:
        return -cross_entropy(datum, LowRankGaussian(vector(mean), math.sqrt(s2), column(v**0.5)))

    best = likelihood(1.3, 0.0)
    assert best == pytest.approx(-math.log(2 * math.pi * s2) / 2 - 0.5)
    for mean, v in ((1.2, 0.0), (1.4, 0.0), (1.3, 0.01), (1.3, 1.0), (0.0, 2.0)):
        assert likelihood(mean, v) < best
