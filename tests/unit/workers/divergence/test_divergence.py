import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workers.divergence import (
    Density,
    Kind,
    LowRankGaussian,
    ProductLaplace,
    between,
    discrete_divergence,
    estimate_divergence,
    require_valid_noise,
    spread_discrete,
    uniform_channel,
)
from workers.divergence.between import closed_form
from workers.divergence.discrete import require_valid_channel
from workers.divergence.gaussian import kl
from workers.errors import InvalidSpread

KINDS: tuple[Kind, ...] = get_args(Kind)
CHEAP = settings(max_examples=25, deadline=None)
ORIGIN = torch.zeros(3, dtype=torch.float64)
APART = torch.tensor([0.4, -0.3, 0.2], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def low_rank(seed: int, mean: Tensor, scale: float, rank: int) -> LowRankGaussian:
    factor = torch.randn(len(mean), rank, generator=generator(seed), dtype=torch.float64)
    return LowRankGaussian(mean, scale, factor / 2)


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


distances = st.lists(st.floats(-3, 3), min_size=1, max_size=4)


@CHEAP
@given(distances, st.floats(0.2, 3), st.floats(1.05, 4), st.sampled_from(KINDS))
def test_more_noise_never_raises_a_divergence(
    shift: list[float], scale: float, more: float, kind: Kind
) -> None:
    """Data processing: adding noise to noise is a channel."""
    mean = torch.tensor(shift, dtype=torch.float64)
    values = [
        closed_form(
            kind,
            LowRankGaussian.isotropic(torch.zeros_like(mean), noise),
            LowRankGaussian.isotropic(mean, noise),
        )
        for noise in (scale, scale * more)
    ]
    assert values[0] is not None
    assert values[1] is not None
    assert values[1] <= values[0] * (1 + 1e-9) + 1e-12


IN_CLOSED_FORM: tuple[Kind, ...] = ("kl", "reverse_kl", "hellinger2", "chi2")
apart = st.lists(st.floats(0.1, 2), min_size=1, max_size=3)


def require_lower(
    kind: Kind, before: tuple[Density, Density], after: tuple[Density, Density]
) -> None:
    """Less than before where it was finite: what was sent through the channels did differ."""
    values = [closed_form(kind, *pair) for pair in (before, after)]
    assert values[0] is not None
    assert values[1] is not None
    assert 0 < values[1] < values[0] * (1 - 1e-9) or values[0] == math.inf


@CHEAP
@given(apart, st.floats(0.5, 3), st.floats(1.05, 4), st.sampled_from(IN_CLOSED_FORM))
def test_more_laplace_noise_lowers_every_divergence(
    shift: list[float], b: float, more: float, kind: Kind
) -> None:
    """b′ of b: (1 + b²ω²)/(1 + b′²ω²) is the characteristic function of a delta and a Laplace."""
    mean = torch.tensor(shift, dtype=torch.float64)
    before, after = (
        (ProductLaplace(torch.zeros_like(mean), noise), ProductLaplace(mean, noise))
        for noise in (b, b * more)
    )
    require_lower(kind, before, after)


@CHEAP
@given(
    st.integers(0, 1000),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.floats(0.5, 2),
    st.floats(1.05, 3),
    st.sampled_from(IN_CLOSED_FORM),
)
def test_more_noise_lowers_every_divergence_of_low_rank_gaussians(
    seed: int, ranks: tuple[int, int], scale: float, more: float, kind: Kind
) -> None:
    p, q = low_rank(seed, ORIGIN, scale, ranks[0]), low_rank(seed + 1, APART, scale, ranks[1])
    after = [LowRankGaussian(of.mean, of.scale * more, of.factor) for of in (p, q)]
    require_lower(kind, (p, q), (after[0], after[1]))


@pytest.mark.parametrize("kind", IN_CLOSED_FORM)
@pytest.mark.parametrize("pair", ["gaussians", "laplace of two scales"])
def test_what_is_left_out_lowers_every_divergence(pair: str, kind: Kind) -> None:
    require_lower(kind, PAIRS[pair], (without_last(PAIRS[pair][0]), without_last(PAIRS[pair][1])))


def without_last(of: Density) -> Density:
    """The distribution of all dimensions but the last."""
    if isinstance(of, ProductLaplace):
        return ProductLaplace(of.mean[:-1], of.b)
    assert isinstance(of, LowRankGaussian)
    return LowRankGaussian(of.mean[:-1], of.scale, of.factor[:-1])


weights = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)


def distribution(values: list[float]) -> Tensor:
    p = torch.tensor(values, dtype=torch.float64)
    return p / p.sum()


@CHEAP
@given(weights, weights, st.floats(0.01, 0.99), st.sampled_from(KINDS))
def test_a_channel_never_raises_a_divergence_and_keeps_it_positive(
    p: list[float], q: list[float], error: float, kind: Kind
) -> None:
    before = discrete_divergence(kind, distribution(p), distribution(q))
    channel = uniform_channel(3, error)
    spread = [spread_discrete(distribution(v), channel) for v in (p, q)]
    after = discrete_divergence(kind, *spread)
    assert -1e-12 <= after <= before + 1e-9


@CHEAP
@given(st.floats(0.05, 4), st.sampled_from(KINDS))
def test_a_spread_divergence_is_zero_only_for_equal_distributions(shift: float, kind: Kind) -> None:
    for make in (
        lambda m: ProductLaplace(torch.tensor([m]).double(), 0.7),
        lambda m: LowRankGaussian.isotropic(torch.tensor([m]).double(), 0.7),
    ):
        same = between(kind, make(0.3), make(0.3), n=1000, generator=generator()).value
        assert same == pytest.approx(0, abs=1e-9)
        assert between(kind, make(0.3), make(0.3 + shift), n=1000, generator=generator()).value > 0


@CHEAP
@given(weights, weights)
def test_the_divergences_order_one_another_as_is_known(p: list[float], q: list[float]) -> None:
    """H² ≤ TV ≤ √(2H²), 2TV² ≤ KL ≤ log(1 + χ²), and JS ≤ TV log 2."""
    value = {kind: discrete_divergence(kind, distribution(p), distribution(q)) for kind in KINDS}
    slack = 1e-9
    assert value["hellinger2"] <= value["tv"] + slack
    assert value["tv"] <= math.sqrt(max(2 * value["hellinger2"], 0)) + slack
    assert 2 * value["tv"] ** 2 <= value["kl"] + slack
    assert value["kl"] <= math.log1p(value["chi2"]) + slack
    assert value["js"] <= value["tv"] * math.log(2) + slack


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
