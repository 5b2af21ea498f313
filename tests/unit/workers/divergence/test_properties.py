"""What holds of every divergence: data processing, zero only for equals, known orders."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.unit.workers.divergence.distributions import APART, KINDS, ORIGIN, generator, low_rank
from workers.divergence import (
    Density,
    Kind,
    LowRankGaussian,
    ProductLaplace,
    between,
    discrete_divergence,
    spread_discrete,
    uniform_channel,
)
from workers.divergence.between import closed_form

IN_CLOSED_FORM: tuple[Kind, ...] = ("kl", "reverse_kl", "hellinger2", "chi2")
CHEAP = settings(max_examples=25, deadline=None)


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
@pytest.mark.parametrize(
    ("p", "q"),
    [
        (low_rank(1, ORIGIN, 0.7, 2), low_rank(2, APART, 0.8, 1)),
        (ProductLaplace(ORIGIN, 0.6), ProductLaplace(APART, 0.8)),
    ],
)
def test_what_is_left_out_lowers_every_divergence(p: Density, q: Density, kind: Kind) -> None:
    require_lower(kind, (p, q), (without_last(p), without_last(q)))


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
