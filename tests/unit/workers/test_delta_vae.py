import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from workers.delta_vae import Estimator, Objective, estimate_terms, importance_bound, objective_at
from workers.networks import Autoencoder
from workers.spec import DeltaVae, LinearNetwork, MlpNetwork, Vae
from workers.spread import Gaussian, Laplace, Spread

SIGMA2 = 0.4
DATA_VARIANCE = 1.7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(dimensions: int, latent_dim: int) -> Autoencoder:
    return Autoencoder(
        LinearNetwork(kind="linear", latent_dim=latent_dim),
        (dimensions,),
        output="identity",
        log_std_bound=8.0,
        generator=generator(),
    )


def mlp(output: Literal["sigmoid", "identity"] = "identity") -> Autoencoder:
    return Autoencoder(
        MlpNetwork(kind="mlp", hidden=(8,), latent_dim=2),
        (5,),
        output=output,
        log_std_bound=8.0,
        generator=generator(3),
    )


def set_layer(layer: torch.nn.Module, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        assert isinstance(layer, torch.nn.Linear)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


def set_exact(model: Autoencoder, a: Tensor, b: Tensor, sigma2: float) -> None:
    """A decoder Az + b with orthogonal columns, and the encoder that is its exact posterior."""
    set_layer(model.decoder.layers[0], a, b)
    precision = 1 + (a.square().sum(0)) / sigma2  # diagonal: the columns are orthogonal
    w = (a / (sigma2 * precision)).T
    set_layer(
        model.encoder.layers[0],
        torch.cat((w, torch.zeros_like(w))),
        torch.cat((-(w @ b), -precision.log() / 2)),
    )


def mean_terms(
    model: Autoencoder, x: Tensor, spread: Spread, scale: float, objective: Objective, n: int
) -> tuple[Tensor, Tensor]:
    """Mean and standard error of the loss over n draws."""
    source = generator(7)
    with torch.no_grad():
        losses = torch.stack(
            [estimate_terms(model, x, spread, scale, objective, source).loss for _ in range(n)]
        ).double()
    return losses.mean(), losses.std() / math.sqrt(n)


def test_with_the_exact_posterior_the_linear_elbo_is_the_log_evidence() -> None:
    """Golden 11: ELBO = log N(y; b, AAᵀ + σ²I)."""
    d, z = 4, 2
    orthogonal = torch.linalg.qr(torch.randn(d, d, generator=generator(1)))[0][:, :z]
    a = orthogonal * torch.tensor([1.5, 0.6])
    b = torch.randn(d, generator=generator(2))
    model = linear(d, z)
    set_exact(model, a, b, SIGMA2)
    y = torch.randn(200, d, generator=generator(4))
    draws = 400
    mean, error = mean_terms(
        model, y, Gaussian(), math.sqrt(SIGMA2), Objective("plain", noise_samples=draws), 20
    )
    covariance = a @ a.T + SIGMA2 * torch.eye(d)
    evidence = torch.distributions.MultivariateNormal(b, covariance).log_prob(y).mean()
    assert abs(-mean - evidence) < 6 * error + 1e-5


def best_encoder_1d(w: Tensor, objective: str) -> tuple[Tensor, Tensor]:
    """c and t² of q(z|y) = N(cy, t²) that minimise the objective for the decoder x = wz."""
    s2, v = DATA_VARIANCE, SIGMA2
    if objective == "clean_target":
        return w * s2 / ((s2 + v) * (w**2 + v)), v / (v + w**2)
    return w / (w**2 + v), v / (v + w**2)


def exact_loss_1d(w: Tensor, objective: str) -> Tensor:
    """The mean of −ELBO in closed form, up to a constant, at the best encoder for w."""
    s2, v = DATA_VARIANCE, SIGMA2
    c, t2 = best_encoder_1d(w, objective)
    seen = s2 if objective == "plain" else s2 + v
    if objective == "clean_target":
        square = s2 * (1 - w * c) ** 2 + v * (w * c) ** 2
    else:
        square = seen * (1 - w * c) ** 2
    kl = (c**2 * seen + t2 - t2.log()) / 2
    return (square + w**2 * t2) / (2 * v) + kl


def one_dimensional(w: float, c: float, t: float) -> Autoencoder:
    model = linear(1, 1)
    set_layer(model.decoder.layers[0], torch.tensor([[w]]), torch.zeros(1))
    set_layer(model.encoder.layers[0], torch.tensor([[c], [0.0]]), torch.tensor([0.0, math.log(t)]))
    return model


@pytest.mark.parametrize(
    ("estimator", "optimum"),
    [("naive", 1.7), ("antithetic", 1.7), ("plain", 1.3), ("clean_target", 0.97619)],
)
def test_the_gradient_vanishes_at_the_known_optimum_of_the_linear_model(
    estimator: Estimator, optimum: float
) -> None:
    """The three 1-D optima of w² (science section 1): their stationarity, measured by our code.

    At the optimum, encoder included, the expected gradient in every parameter is zero.
    """
    v, s2, w = SIGMA2, DATA_VARIANCE, math.sqrt(optimum)
    c, t2 = best_encoder_1d(torch.tensor(w), estimator)
    model = one_dimensional(w, c.item(), t2.sqrt().item())
    n = 400_000
    x = math.sqrt(s2) * torch.randn(n, 1, generator=generator(11))
    gradients = []
    for index, block in enumerate(x.split(n // 100)):
        model.zero_grad()
        objective = Objective(estimator)
        estimate_terms(
            model, block, Gaussian(), math.sqrt(v), objective, generator(100 + index)
        ).loss.backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    stacked = torch.stack(gradients).double()
    error = stacked.std(0) / math.sqrt(len(stacked))
    assert bool((stacked.mean(0).abs() < 6 * error + 1e-6).all())
    # The test can tell the optima apart: a neighbouring w has a clear slope.
    other = one_dimensional(w * 1.3, c.item(), t2.sqrt().item())
    estimate_terms(
        other, x[:50_000], Gaussian(), math.sqrt(v), Objective(estimator), generator(9)
    ).loss.backward()
    slope = next(other.decoder.parameters()).grad
    assert slope is not None
    assert slope.item() > 0.1


@pytest.mark.parametrize(
    ("estimator", "optimum"),
    [("naive", 1.7), ("antithetic", 1.7), ("plain", 1.3), ("clean_target", 0.97619)],
)
def test_training_the_linear_model_reaches_the_optimum_of_its_estimator(
    estimator: Estimator, optimum: float
) -> None:
    """Adam on fresh draws of the data from one start: w² averages to where its objective leads."""
    model = one_dimensional(1.15, 0.5, 0.6)
    weight = next(model.decoder.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.99))
    source, found = generator(21), []
    for _ in range(1500):
        x = math.sqrt(DATA_VARIANCE) * torch.randn(1024, 1, generator=source)
        optimizer.zero_grad()
        estimate_terms(
            model, x, Gaussian(), math.sqrt(SIGMA2), Objective(estimator), source
        ).loss.backward()
        optimizer.step()
        found.append(weight.item() ** 2)
    blocks = torch.tensor(found[500:]).double().view(10, 100).mean(1)
    error = 6 * blocks.std().item() / math.sqrt(10)
    assert blocks.mean().item() == pytest.approx(optimum, abs=error)
    assert error < 0.1  # the three optima lie further apart


@pytest.mark.parametrize("spread", [Gaussian(), Laplace()])
def test_antithetic_and_naive_agree_in_expectation(spread: Spread) -> None:
    model, x = mlp(), torch.rand(16, 5, generator=generator(5))
    naive, naive_error = mean_terms(model, x, spread, 0.5, Objective("naive"), 3000)
    pairs, pairs_error = mean_terms(model, x, spread, 0.5, Objective("antithetic"), 3000)
    assert abs(naive - pairs) < 6 * math.hypot(naive_error, pairs_error)
    assert pairs_error < naive_error


def test_several_noise_draws_agree_with_one_in_expectation() -> None:
    model, x = mlp(), torch.rand(16, 5, generator=generator(5))
    for estimator in ("naive", "antithetic", "clean_target", "plain"):
        one, error = mean_terms(model, x, Laplace(), 0.5, Objective(estimator), 1000)
        many, smaller = mean_terms(model, x, Laplace(), 0.5, Objective(estimator, 4), 1000)
        assert abs(one - many) < 6 * math.hypot(error, smaller), estimator


def test_the_clean_target_is_another_objective() -> None:
    model, x = mlp(), torch.rand(16, 5, generator=generator(5))
    naive, error = mean_terms(model, x, Laplace(), 0.5, Objective("naive"), 300)
    clean, _ = mean_terms(model, x, Laplace(), 0.5, Objective("clean_target"), 300)
    assert abs(naive - clean) > 20 * error


def test_the_importance_bound_is_tighter_and_one_sample_is_the_elbo() -> None:
    model, x = mlp(), torch.rand(64, 5, generator=generator(5))
    with torch.no_grad():
        q = model.encode(x)
        noise = torch.randn(4000, 64, 2, generator=generator(6))
        log_p = Gaussian().log_prob(x, model.decode(q.sample(noise)), 0.5)
        elbo = log_p.mean(0) - q.kl()
        one = importance_bound(log_p, q, noise, 1)
        error = one.std(0) / math.sqrt(len(one))
        assert bool(((one.mean(0) - elbo).abs() < 6 * error).all())
        previous = elbo
        for k in (5, 50):
            bound = importance_bound(log_p, q, noise, k).mean(0)
            assert bool((bound > previous).all())
            previous = bound


def test_the_importance_weighted_loss_reports_the_elbo_in_its_parts() -> None:
    model, x = mlp(), torch.rand(64, 5, generator=generator(5))
    objective = Objective("naive", noise_samples=2, importance_samples=20)
    terms = estimate_terms(model, x, Gaussian(), 0.5, objective, generator(8))
    assert terms.loss.item() < (terms.reconstruction + terms.kl).item()


def test_the_exact_posterior_makes_every_importance_bound_the_evidence() -> None:
    a, b = torch.tensor([[1.2], [0.0], [0.0]]), torch.tensor([0.1, 0.2, -0.3])
    model = linear(3, 1)
    set_exact(model, a, b, SIGMA2)
    y = torch.randn(50, 3, generator=generator(4))
    with torch.no_grad():
        q = model.encode(y)
        noise = torch.randn(6, 50, 1, generator=generator(1))
        log_p = Gaussian().log_prob(y, model.decode(q.sample(noise)), math.sqrt(SIGMA2))
        bound = importance_bound(log_p, q, noise, 3)
    covariance = a @ a.T + SIGMA2 * torch.eye(3)
    evidence = torch.distributions.MultivariateNormal(b, covariance).log_prob(y)
    torch.testing.assert_close(bound, evidence.expand_as(bound), atol=1e-4, rtol=1e-5)


def test_the_kl_is_that_of_two_gaussians() -> None:
    q = mlp().encode(torch.rand(6, 5, generator=generator(5)))
    ours = torch.distributions.Normal(q.mean, q.std)
    prior = torch.distributions.Normal(torch.zeros(2), torch.ones(2))
    expected = torch.distributions.kl_divergence(ours, prior).sum(-1)
    torch.testing.assert_close(q.kl(), expected)
    torch.testing.assert_close(q.total_kl(), expected.sum())


def test_the_log_standard_deviation_of_the_posterior_is_bounded() -> None:
    model = linear(3, 2)
    model.log_std_bound = 1.5
    q = model.encode(1e4 * torch.randn(20, 3, generator=generator(5)))
    assert q.log_std.abs().max().item() == 1.5
    torch.testing.assert_close(q.std, q.log_std.exp())


def test_a_warm_up_trains_a_plain_vae_first() -> None:
    trainer = DeltaVae(kind="delta_vae", warm_up_epochs=2, estimator="antithetic")
    assert objective_at(trainer, 1.99).estimator == "plain"
    assert objective_at(trainer, 2.0).estimator == "antithetic"
    assert objective_at(Vae(kind="vae"), 50.0).estimator == "plain"


def test_the_closed_form_of_the_one_dimensional_objectives_has_the_golden_optima() -> None:
    grid = torch.linspace(0.5, 1.6, 110_001, dtype=torch.float64)
    for objective, optimum in (("naive", 1.7), ("plain", 1.3), ("clean_target", 0.97619)):
        best = grid[exact_loss_1d(grid, objective).argmin()]
        assert best.item() ** 2 == pytest.approx(optimum, abs=1e-3)
