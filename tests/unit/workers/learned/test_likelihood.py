"""The mean transform stands twice in the likelihood: y = f(x) + k, and p(y|z) around f(g(z))."""

import pytest
import torch

from workers.delta_vae import NAIVE, estimate_terms
from workers.networks import Autoencoder
from workers.spec import MlpNetwork
from workers.spec.learned import MlpTransform
from workers.spread import Gaussian
from workers.spread.learned import LearnedNoise, Psi
from workers.spread.learned.covariance import LowRank
from workers.spread.learned.transform import Transform

N, D, Z, S, C = 6, 5, 2, 0.3, 1.1


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bent() -> Transform:
    """A transform that is far from the identity, where it begins."""
    made = Transform(MlpTransform(kind="mlp", hidden=(12,), blocks=2), (D,), generator(1))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(generator=generator(2))
    made.bound()
    return made


@pytest.mark.parametrize("rank", [0, 2])
def test_the_loss_is_that_of_y_around_f_of_g_of_z(rank: int) -> None:
    f = bent()
    covariance = LowRank(D, rank, C, None, generator(3)) if rank else None
    spread = LearnedNoise(Gaussian(), Psi(covariance, f))
    network = MlpNetwork(kind="mlp", hidden=(8,), latent_dim=Z)
    model = Autoencoder(network, (D,), output="identity", log_std_bound=8.0, generator=generator(4))
    x = torch.randn(N, D, generator=generator(5))
    with torch.no_grad():
        terms = estimate_terms(model, x, spread, S, NAIVE, generator(6))
        # The same draws in the same order: the noise of the data, and that of the latents.
        draws = generator(6)
        y = f(x) + spread.sample_noise((1, N, D), S, draws)[0]
        q = model.encode(y)
        g = model.decode(q.sample(torch.randn(N, Z, generator=draws)))
        dense = S**2 * torch.eye(D)
        if covariance is not None:
            basis = covariance.basis()
            dense += C**2 * basis @ basis.T
        log_p = torch.distributions.MultivariateNormal(f(g), dense).log_prob(y)
        without = torch.distributions.MultivariateNormal(g, dense).log_prob(y)
    assert terms.reconstruction.item() == pytest.approx(-log_p.mean().item(), rel=1e-5)
    assert terms.reconstruction.item() == pytest.approx(
        spread.cost(y, f(g), S).item() / N, rel=1e-5
    )
    assert terms.loss.item() == pytest.approx((q.kl() - log_p).mean().item(), rel=1e-5)
    assert abs((log_p - without).mean().item()) > 1  # f is no detail of it
