"""EP against two slower ways that are obviously right: a grid over z, and importance sampling."""

import math

import pytest
import torch
from torch import Tensor

from tests.unit.workers.ica.drawing import X, Z, mixture, random
from workers.ica.choosing import GAUSSIAN
from workers.ica.ep import point, posterior
from workers.ica.priors import Laplace, Prior, Priors, bimodal, logistic, student_t
from workers.ica.shard import Shard
from workers.ica.sums import Model, expect, log_evidence

SWEEPS = 30
# C = v(AᵀA)⁻¹ for a 2-source A at about the noise of the benchmarks, and at five times its sd
COVARIANCE = torch.tensor([[0.006, 0.002], [0.002, 0.009]], dtype=torch.float64)
# Largest error of EP's means in noise sds, at this noise and at five times it: EP is an
# approximation, and these are what was measured, rounded up to the next 2·10^-k.
PRIORS: list[tuple[Prior, float, float]] = [
    (Laplace(), 2e-5, 2e-4),
    (logistic(), 2e-9, 2e-5),
    (student_t(3), 2e-7, 2e-4),
    (bimodal(), 2e-5, 2e-3),
]


def by_grid(prior: Prior, s: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean, covariance and log evidence of two sources on a grid of 801² points."""
    steps = torch.linspace(-8, 8, 801, dtype=torch.float64)
    axes = [s[i] + steps * covariance[i, i].sqrt() for i in range(2)]
    logs = [prior.tilted(axis, torch.zeros_like(axis)).log_z for axis in axes]
    z = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    gap = z - s
    precision = torch.linalg.inv(covariance)
    joint = logs[0][:, None] + logs[1][None] - ((gap @ precision) * gap).sum(-1) / 2
    area = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    log_norm = torch.logdet(2 * math.pi * covariance) / 2
    evidence = torch.logsumexp(joint.flatten(), 0) + area.log() - log_norm
    share = torch.softmax(joint.flatten(), 0)
    flat = z.reshape(-1, 2)
    mean = share @ flat
    centred = flat - mean
    return mean, (share[:, None] * centred).T @ centred, evidence.item()


@pytest.mark.parametrize(("prior", "near", "far"), PRIORS, ids=[prior.name for prior, *_ in PRIORS])
@pytest.mark.parametrize("noise", [1.0, 5.0])
def test_ep_agrees_with_quadrature(prior: Prior, near: float, far: float, noise: float) -> None:
    covariance, bound = COVARIANCE * noise**2, near if noise == 1 else far
    s = torch.tensor([[0.02, -0.3, 1.5, -0.1, 4.0], [-0.05, 0.1, -0.02, 2.0, -3.0]]).double()
    found = posterior(s, covariance, Priors((prior, prior)), SWEEPS)
    for n in range(s.shape[1]):
        mean, cov, evidence = by_grid(prior, s[:, n], covariance)
        sd = covariance.diagonal().sqrt()
        assert ((found.mean[:, n] - mean).abs() / sd).max() < bound
        assert ((found.covariance[..., n] - cov).abs() / torch.outer(sd, sd)).max() < 2 * bound
        assert abs(found.log_evidence[n].item() - evidence) < bound


def test_ep_agrees_with_long_importance_sampling() -> None:
    draws = 200_000
    mixing, variance = mixture()[1], 0.04
    model = Model(mixing, variance, Priors((Laplace(),) * Z))
    s = random(Z, 40, seed=1)
    covariance = model.projected_covariance()
    found = posterior(s, covariance, model.priors, SWEEPS)
    noise = torch.linalg.cholesky(covariance) @ random(Z, draws, seed=2)
    for n in range(s.shape[1]):
        z = s[:, n, None] + noise
        weight = torch.exp(-math.sqrt(2) * (z.abs().sum(0) - s[:, n].abs().sum()))
        share = weight / weight.sum()
        mean = z @ share
        error = ((z - mean[:, None]).square() @ share.square()).sqrt()  # of a ratio of means
        assert ((found.mean[:, n] - mean).abs() < 6 * error + 2e-4).all()
        mean_weight = weight.mean()
        log_evidence_ = mean_weight.log() - math.sqrt(2) * s[:, n].abs().sum() - Z * math.log(2) / 2
        relative = weight.std() / mean_weight / math.sqrt(draws)
        assert abs(found.log_evidence[n] - log_evidence_) < 6 * relative + 2e-4


def test_small_noise_tends_to_no_noise() -> None:
    s, priors = random(Z, 30), Priors((Laplace(), logistic(), bimodal()))
    exact = point(s, priors)
    near = posterior(s, 1e-10 * torch.eye(Z, dtype=torch.float64), priors, 2)
    torch.testing.assert_close(near.mean, exact.mean, atol=1e-8, rtol=0)
    torch.testing.assert_close(near.log_evidence, exact.log_evidence, atol=1e-4, rtol=0)


def test_warm_sites_stay_where_they_are() -> None:
    s, priors = random(2, 50), Priors((Laplace(), Laplace()))
    cold = posterior(s, COVARIANCE, priors, SWEEPS)
    warm = posterior(s, COVARIANCE, priors, 1, cold.sites)
    torch.testing.assert_close(warm.mean, cold.mean, atol=1e-12, rtol=0)
    torch.testing.assert_close(warm.log_evidence, cold.log_evidence, atol=1e-11, rtol=0)


def test_negative_site_precisions_leave_a_proper_posterior() -> None:
    s = 3 * random(2, 400)
    for covariance in (COVARIANCE, 100 * COVARIANCE, 1000 * COVARIANCE):
        found = posterior(s, covariance, Priors((student_t(3), student_t(3))), SWEEPS)
        assert found.mean.isfinite().all()
        assert found.sites.precision.min() < 0
        assert (torch.linalg.eigvalsh(found.covariance.permute(2, 0, 1)) > 0).all()


def test_single_precision_sums_agree_with_double() -> None:
    rows, mixing = mixture()
    shard = Shard.of(rows)
    model = Model(mixing, 0.04, Priors((Laplace(),) * Z))
    single, double = (expect(shard, model, 2, t) for t in (torch.float32, torch.float64))
    for name in ("score", "ym", "mm", "vv"):
        torch.testing.assert_close(
            getattr(single, name), getattr(double, name), atol=2e-5, rtol=2e-5
        )
    assert single.evidence == pytest.approx(double.evidence, abs=1e-5)


@pytest.mark.parametrize("prior", [Laplace(), logistic(), bimodal()], ids=lambda p: p.name)
@pytest.mark.parametrize("variance", [0.04, 0.5])
def test_the_score_is_the_gradient_of_the_log_evidence(prior: Prior, variance: float) -> None:
    rows, mixing = mixture(100)
    shard, scatter = Shard.of(rows), Shard.of(rows).scatter()

    def evidence(a: Tensor) -> float:
        model = Model(a, variance, Priors((prior,) * Z))
        return log_evidence(expect(shard, model, SWEEPS, torch.float64), model, scatter)

    model = Model(mixing, variance, Priors((prior,) * Z))
    sums = expect(shard, model, SWEEPS, torch.float64)
    inside = sums.score - torch.eye(Z, dtype=torch.float64)
    direction, h = random(Z, Z, seed=3), 1e-5
    along = mixing @ direction
    numeric = (evidence(mixing + h * along) - evidence(mixing - h * along)) / (2 * h)
    assert (inside * direction).sum().item() == pytest.approx(numeric, rel=1e-5)
    # and outside of A's columns, E[ymᵀ]/v
    span, _ = torch.linalg.qr(mixing)
    along = random(X, Z, seed=4)
    along -= span @ (span.T @ along)
    numeric = (evidence(mixing + h * along) - evidence(mixing - h * along)) / (2 * h)
    assert ((sums.ym * along).sum() / variance).item() == pytest.approx(numeric, rel=1e-5)


def test_the_evidence_of_gaussian_sources_is_the_closed_form() -> None:
    rows, mixing = mixture(200)
    shard, scatter = Shard.of(rows), Shard.of(rows).scatter()
    model = Model(mixing, 0.3, Priors((GAUSSIAN,) * Z))
    found = log_evidence(expect(shard, model, 1, torch.float64), model, scatter)
    covariance = mixing @ mixing.T + 0.3 * torch.eye(X, dtype=torch.float64)
    expected = -(
        torch.logdet(2 * math.pi * covariance) + (torch.linalg.inv(covariance) @ scatter).trace()
    )
    assert found == pytest.approx(expected.item() / 2, abs=1e-10)
