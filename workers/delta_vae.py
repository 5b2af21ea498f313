r"""The δ-VAE's objective, its estimators, and the plain VAE's beside it.

The implicit model p(x) = ∫ δ(x − g(z)) p(z) dz has no density, so its KL divergence to the data is
undefined. Spreading both with the same noise, y = x + k, gives p(y|z) = p_K(y − g(z)) and a finite
divergence (section 5 of *Spread Divergence*, Zhang et al., ICML 2020); up to the data's own entropy
it is the mean over x and k of −log p(y), which the ELBO bounds:

    ELBO(y) = E_q(z|y)[log p(y|z)] − KL(q(z|y) ‖ N(0, I)).

Not the δ-VAE of Razavi et al. 2019. Estimators, with z ~ q(z|y), ε the noise of the latent:

=============  ========================  ===============================================
naive          y = x + k, log p(y|z)     exact
antithetic     x + k and x − k, one ε    exact, less variance, twice the cost
clean_target   y = x + k, log p(x|z)     biased: drops E tr ∂g(z(y))/∂y; loses variance
plain          z ~ q(z|x), log p(x|z)    the VAE: noise on the model only
=============  ========================  ===============================================

Several workers hold parts of one batch: each draws the noise of the whole batch, takes its rows and
divides its sums by the whole batch's number, so that terms and gradients add up over the workers
to those of one.

With importance samples K > 1 the loss is the tighter bound E log (1/K) Σ_k p(y, z_k)/q(z_k|y).
Where the spread is learned, f(x) and f(g(z)) stand for x and g(z), see workers/spread/learned/.
Letters: x clean, y spread, z latent; N data, M rows of y, L latent draws for each, D, Z dimensions.
"""

import math
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

from workers.networks import Autoencoder, Posterior
from workers.parallel import Share
from workers.spec import DeltaVae, TrainerSpec, Vae
from workers.spread import Spread

Estimator = Literal["naive", "antithetic", "clean_target", "plain"]


@dataclass(frozen=True, slots=True)
class Objective:
    """How a step's loss is estimated.

    ``noise_samples`` are draws of the spread noise for each datum (of the latent for ``plain``),
    ``importance_samples`` latents in one bound.
    """

    estimator: Estimator
    noise_samples: int = 1
    importance_samples: int = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """Scalars in nats per datum: ``loss`` is minimised, −ELBO = ``reconstruction`` + ``kl``.

    Of a share of a batch they are its part of the batch's means.
    """

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor

    def detach(self) -> "Terms":
        """The values without the graph that they came from."""
        return Terms(self.loss.detach(), self.reconstruction.detach(), self.kl.detach())


NAIVE = Objective("naive")


def objective_at(trainer: TrainerSpec, epoch: float) -> Objective:
    """What a trainer minimises after ``epoch`` epochs."""
    estimator: Estimator
    match trainer:
        case DeltaVae():
            estimator = "plain" if epoch < trainer.warm_up_epochs else trainer.estimator
        case Vae():
            estimator = "plain"
        case _:
            assert_never(trainer)
    return Objective(estimator, trainer.noise_samples, trainer.importance_samples)


def estimate_terms(
    model: Autoencoder,
    x: Tensor,
    spread: Spread,
    scale: float,
    objective: Objective,
    generator: torch.Generator,
    share: Share | None = None,
) -> Terms:
    """One unbiased draw of the objective on a batch (see the module's table).

    x of shape (N, D) is the ``share`` of the batch, by default all of it.
    """
    share = share or Share.whole(x.shape[0])
    y, target, draws = _spread_batch(x, share, spread, scale, objective, generator)
    q = model.encode(y)
    importance = objective.importance_samples
    noise = _latent_noise(q, share, draws * importance, objective, generator)
    # (draws · K, M, D), or (M, D) for one
    mean = spread.transform(model.decode(q.sample(noise)))
    rows = rows_of(objective) * share.total  # M, were this worker alone
    kl = q.total_kl() / rows
    if importance == 1:
        reconstruction = spread.cost(target, mean, scale) / (draws * rows)
        return Terms(reconstruction + kl, reconstruction, kl)
    log_p = spread.log_prob(target, mean, scale)
    bound = importance_bound(log_p, q, noise, importance).sum() / (draws * rows)
    return Terms(-bound, -log_p.sum() / (draws * importance * rows), kl)


def rows_of(objective: Objective) -> int:
    """Rows of y for each datum."""
    match objective.estimator:
        case "plain":
            return 1
        case "antithetic":
            return 2 * objective.noise_samples
        case "naive" | "clean_target":
            return objective.noise_samples
        case _:
            assert_never(objective.estimator)


def importance_bound(log_p: Tensor, q: Posterior, noise: Tensor, importance: int) -> Tensor:
    """log (1/K) Σ_k p(y|z_k) p(z_k)/q(z_k|y), shape (L, M).

    ``log_p`` is log p(y|z), (L·K, M), at z = μ + s·noise, noise (L·K, M, Z): then
    log p(z) − log q(z|y) = ½‖noise‖² − ½‖z‖² + Σ log s.
    """
    log_ratio = (noise.square() - q.sample(noise).square()).sum(-1) / 2 + q.log_std.sum(-1)
    draws, rows = log_p.shape
    log_weights = (log_p + log_ratio).view(draws // importance, importance, rows)
    return torch.logsumexp(log_weights, 1) - math.log(importance)


def _spread_batch(
    x: Tensor,
    share: Share,
    spread: Spread,
    scale: float,
    objective: Objective,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, int]:
    """What the encoder sees, (M, D); what log p is taken of, (M, D); latent draws for each row."""
    samples = objective.noise_samples
    x = spread.transform(x)
    if objective.estimator == "plain":
        return x, x, samples
    k = spread.sample_noise((samples, share.total, x.shape[1]), scale, generator)
    if samples > 1:
        x = x.repeat(samples, 1)
    k = share.of(k, 1).reshape(x.shape)
    match objective.estimator:
        case "naive":
            y = k.add_(x)
            return y, y, 1
        case "antithetic":
            y = torch.cat((x + k, x - k))
            return y, y, 1
        case "clean_target":
            return k.add_(x), x, 1
        case _:
            assert_never(objective.estimator)


def _latent_noise(
    q: Posterior, share: Share, draws: int, objective: Objective, generator: torch.Generator
) -> Tensor:
    """Standard normal noise of shape (draws, M, Z); an antithetic pair shares it.

    A single draw is of shape (M, Z): two-dimensional products save a hundredth of a step.
    """
    rows, latent_dim = q.mean.shape
    repeats = 1 if objective.estimator == "plain" else objective.noise_samples
    if objective.estimator == "antithetic":
        rows //= 2
    noise = torch.empty((draws * repeats, share.total, latent_dim), device=generator.device)
    noise = share.of(noise.normal_(generator=generator), 1)
    noise = noise.reshape((rows, latent_dim) if draws == 1 else (draws, rows, latent_dim))
    return torch.cat((noise, noise), -2) if objective.estimator == "antithetic" else noise
