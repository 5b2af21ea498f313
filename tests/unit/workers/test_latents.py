import torch

from workers.latents import units
from workers.networks import Autoencoder
from workers.spec import LinearNetwork


def test_units_are_active_by_their_means_and_informative_by_their_divergence() -> None:
    model = Autoencoder(
        LinearNetwork(kind="linear", latent_dim=3),
        (3,),
        output="identity",
        log_std_bound=8.0,
        generator=torch.Generator().manual_seed(0),
    )
    layer = model.encoder.layers[0]
    assert isinstance(layer, torch.nn.Linear)
    y = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        assert units(model, y) == (0, 0)  # the posterior is the prior
        # Var E[z|y] of about 1, .04 and .0025; with s = 1 the KL is half of it.
        layer.weight[0, 0], layer.weight[1, 1], layer.weight[2, 2] = 1.0, 0.2, 0.05
        assert units(model, y) == (2, 2)
        layer.bias[5] = -1.0  # a narrow posterior at one place says nothing of y
        assert units(model, y) == (2, 3)
