import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, get_args

import pytest
import scipy.integrate
import scipy.special
import torch
from pydantic import ValidationError

from workers.divergence import require_valid_noise
from workers.spec import (
    FixedSpread,
    GaussianMixtureSpread,
    GaussianSpread,
    LaplaceSpread,
    LogisticSpread,
    MixtureComponent,
    Noise,
    ScaleSchedule,
    ScaleSteps,
    StudentTSpread,
)
from workers.spread import (
    Gaussian,
    GaussianMixture,
    Laplace,
    Logistic,
    PerPixel,
    Spread,
    StudentT,
    draw_noise,
    scale_at,
    settled_epoch,
    spread_of,
)
from workers.spread.tailed import mixture_parts

COMPONENTS = (
    MixtureComponent(weight=7, relative_scale=1),
    MixtureComponent(weight=3, relative_scale=2),
)
SPREADS = [Gaussian(), Laplace(), Logistic(), StudentT(8.0), GaussianMixture(COMPONENTS)]
OWN: Mapping[type, Mapping[str, Any]] = {
    StudentTSpread: {"degrees_of_freedom": 8.0},
    GaussianMixtureSpread: {"components": COMPONENTS},
}
# Every kind that a spec can name, from the union itself: a new one is tested, or fails here.
SPECS: list[Noise] = [
    kind(kind=get_args(kind.model_fields["kind"].annotation)[0], **OWN.get(kind, {}))
    for kind in get_args(Noise)
]
SCALE = 0.7
KINDS = list(zip(SPECS, SPREADS, strict=True))


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
    # Var(k²) = E k⁴ − σ⁴ = 5σ⁴ for Laplace, which has the largest of these.
    assert abs(k.mean().item()) < 6 * SCALE / math.sqrt(len(k))
    assert abs(k.square().mean().item() - SCALE**2) < 6 * math.sqrt(5 / len(k)) * SCALE**2
    assert abs((k > 0).double().mean().item() - 0.5) < 6 * 0.5 / math.sqrt(len(k))


@pytest.mark.parametrize("spread", SPREADS)
def test_the_draws_have_the_density_that_is_scored(spread: Spread) -> None:
    require_density(draws(spread, 200_000), spread)


def require_density(k: torch.Tensor, spread: Spread) -> None:
    """Quantile by quantile: the share of draws in a cell is the density's integral over it."""
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


@pytest.mark.parametrize("ratio", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("weight", [0.01, 0.5, 0.99])
def test_the_entropy_of_a_mixture_is_its_integral_however_far_its_scales_are(
    ratio: float, weight: float
) -> None:
    components = (
        MixtureComponent(weight=weight, relative_scale=1e3 / ratio),
        MixtureComponent(weight=1 - weight, relative_scale=1e3),
    )
    weights, taus = mixture_parts(components)

    def summand(k: float) -> float:
        p = sum(
            w * math.exp(-((k / tau) ** 2) / 2) / (tau * math.sqrt(2 * math.pi))
            for w, tau in zip(weights, taus, strict=True)
        )
        return -2 * p * math.log(p)

    ends = sorted({0.0, *(tau * by for tau in taus for by in (0.1, 1, 3, 6, 12, 37))})
    expected = sum(
        scipy.integrate.quad(summand, low, high, epsabs=1e-12, limit=200)[0]
        for low, high in pairwise(ends)
        if high <= 37 * max(taus)
    )
    assert GaussianMixture(components).entropy(1, 1.0) == pytest.approx(expected, abs=1e-8)


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
    for spec, spread in zip(SPECS, SPREADS, strict=True):
        assert type(spread_of(spec)) is type(spread)


@pytest.mark.parametrize(("spec", "spread"), KINDS)
def test_noise_for_pictures_has_the_density_of_the_noise_in_training(
    spec: Noise, spread: Spread
) -> None:
    k = draw_noise(spec, SCALE, 50_000, 2, seed=3, stream=1)
    require_density(torch.from_numpy(k).double().flatten(), spread)
    few = draw_noise(spec, SCALE, 7, 2, seed=3, stream=1)
    assert (few == k[:7]).all()
    assert (draw_noise(spec, SCALE, 7, 2, seed=3, stream=2) != few).all()


def characteristic(spec: Noise, w: torch.Tensor) -> torch.Tensor:
    """E cos ωk at the standard deviation 1, as the tables of the modules say it."""
    match spec:
        case GaussianSpread():
            return (-w.square() / 2).exp()
        case LaplaceSpread():
            return 1 / (1 + w.square() / 2)
        case LogisticSpread():
            t = (math.sqrt(3) * w).clamp_min(1e-9)
            return 2 * t * (-t).exp() / (1 - (-2 * t).exp())
        case StudentTSpread(degrees_of_freedom=nu):
            u = (math.sqrt(nu - 2) * w).clamp_min(1e-9)
            bessel = torch.from_numpy(scipy.special.kv(nu / 2, u.numpy()))
            return u ** (nu / 2) * bessel / (math.gamma(nu / 2) * 2 ** (nu / 2 - 1))
        case GaussianMixtureSpread():
            return (7 * (-w.square() / 1.9 / 2).exp() + 3 * (-w.square() * 4 / 1.9 / 2).exp()) / 10


@pytest.mark.parametrize(("spec", "spread"), KINDS)
def test_every_kind_of_noise_is_a_valid_spread(spec: Noise, spread: Spread) -> None:
    zero = torch.zeros(1, dtype=torch.float64)

    def density(x: torch.Tensor) -> torch.Tensor:
        return spread.log_prob(x[:, None], zero, 1.0).exp()

    require_valid_noise(spec.kind, 1.0, density, lambda w: characteristic(spec, w))
    grid = torch.linspace(-200, 200, 400_001, dtype=torch.float64)
    for w in (0.3, 1.0, 2.5):
        expected = torch.trapezoid(density(grid) * (w * grid).cos(), grid).item()
        found = characteristic(spec, torch.tensor([w], dtype=torch.float64)).item()
        assert found == pytest.approx(expected, abs=1e-6)


def test_a_student_t_without_a_standard_deviation_is_refused_by_name() -> None:
    for nu in (2.0, 1.0, 0.0, -3.0):
        with pytest.raises(ValidationError, match="Student-t with fewer has no standard deviation"):
            StudentTSpread(kind="student_t", degrees_of_freedom=nu)


def test_noise_per_pixel_scales_each_dimension_and_keeps_the_overall_scale() -> None:
    given = (1.0, 2.0, 4.0)
    r = torch.tensor(given).double() / math.sqrt(7)
    for spec in SPECS:
        wide = spread_of(spec.model_copy(update={"pixel_scales": given}))
        assert isinstance(wide, PerPixel)
        k = wide.sample_noise((60_000, 3), SCALE, torch.Generator().manual_seed(1)).double()
        for i in range(3):
            require_density(k[:, i] / r[i], spread_of(spec))
        surprise = -wide.log_prob(k, torch.zeros(3, dtype=torch.float64), SCALE)
        error = 6 * surprise.std().item() / math.sqrt(len(surprise))
        assert abs(surprise.mean().item() - wide.entropy(3, SCALE)) < error
        y, mean = k[:4].float(), torch.zeros(2, 4, 3)
        expected = -wide.log_prob(y, mean, SCALE).sum().item()
        assert wide.cost(y, mean, SCALE).item() == pytest.approx(expected, rel=1e-5)
        drawn = draw_noise(
            spec.model_copy(update={"pixel_scales": given}), SCALE, 500, 3, seed=0, stream=1
        )
        plain = draw_noise(spec, SCALE, 500, 3, seed=0, stream=1)
        assert drawn == pytest.approx(plain * r.numpy(), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "middle"), [("linear", 1.25), ("cosine", 1.25), ("geometric", 1.0)]
)
def test_a_scale_schedule_goes_from_its_first_to_its_last_value(kind: str, middle: float) -> None:
    schedule = ScaleSchedule.model_validate({"kind": kind, "initial_scale": 2.0, "until_epoch": 10})
    spec: FixedSpread = GaussianSpread(kind="gaussian", scale=0.5, schedule=schedule)
    assert scale_at(spec, 0) == pytest.approx(2.0)
    assert scale_at(spec, 5) == pytest.approx(middle)
    assert scale_at(spec, 10) == 0.5
    assert scale_at(spec, 99.5) == 0.5
    path = [scale_at(spec, epoch / 4) for epoch in range(41)]
    assert path == sorted(path, reverse=True)


def test_steps_hold_each_scale_until_its_epoch_and_rise() -> None:
    steps = [{"scale": 0.9, "until_epoch": 2}, {"scale": 0.1, "until_epoch": 5}]
    schedule = ScaleSteps.model_validate({"kind": "steps", "steps": steps})
    spec: FixedSpread = GaussianSpread(kind="gaussian", scale=0.5, schedule=schedule)
    found = [scale_at(spec, epoch) for epoch in (0, 1.99, 2, 4.99, 5, 9)]
    assert found == [0.9, 0.9, 0.1, 0.1, 0.5, 0.5]
    assert settled_epoch(spec) == 5
    with pytest.raises(ValidationError, match="rising"):
        ScaleSteps.model_validate({"kind": "steps", "steps": steps[::-1]})
