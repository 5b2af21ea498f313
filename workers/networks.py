"""Encoder and decoder of one latent-variable model over data in R^D.

The encoder returns the posterior q(z|y) = N(μ(y), diag s(y)²), the decoder the mean g(z). Shapes:
B batch, D data, Z latent.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.spec import LinearNetwork, MlpNetwork

LEAK = 0.01  # slope of LeakyReLU below zero, as in the authors' code

Network = LinearNetwork | MlpNetwork


@dataclass(frozen=True, slots=True)
class Posterior:
    """q(z|y) = N(mean, diag e^(2·log_std)); both of shape (B, Z)."""

    mean: Tensor
    log_std: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """z = μ + s·noise, for standard normal ``noise`` of shape (..., B, Z)."""
        return torch.addcmul(self.mean, self.std, noise)

    def kl(self) -> Tensor:
        """KL(q ‖ N(0, I)) = ½ Σ (μ² + s² − 1 − 2 log s) in nats, shape (B,)."""
        terms = self.mean.square() + self.std.square() - 2 * self.log_std
        return (terms.sum(-1) - self.mean.shape[-1]) / 2

    def total_kl(self) -> Tensor:
        """The sum of :meth:`kl` over the batch, in one reduction."""
        terms = self.mean.square() + self.std.square() - 2 * self.log_std
        return (terms.sum() - self.mean.numel()) / 2


class Layers(nn.Module):
    """Dense layers with LeakyReLU(0.01) between them; a single one is an affine map."""

    def __init__(self, widths: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_dense(i, o, generator) for i, o in pairwise(widths))

    def forward(self, h: Tensor) -> Tensor:
        """(..., widths[0]) to (..., widths[-1])."""
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            h = layer(h)
            if index < last:
                h = functional.leaky_relu(h, LEAK, inplace=True)
        return h


class Autoencoder(nn.Module):
    """The encoder of q(z|y) and the decoder g."""

    def __init__(
        self,
        network: Network,
        dimensions: int,
        *,
        output: Literal["sigmoid", "identity"],
        log_std_bound: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        encoder, decoder = widths(network, dimensions)
        self.encoder = Layers(encoder, generator)
        self.decoder = Layers(decoder, generator)
        self.dimensions = dimensions
        self.latent_dim = network.latent_dim
        self.is_sigmoid = output == "sigmoid"
        self.log_std_bound = log_std_bound

    def encode(self, y: Tensor) -> Posterior:
        """q(z|y) for y of shape (B, D)."""
        mean, log_std = self.encoder(y).chunk(2, -1)
        log_std = log_std.clamp(-self.log_std_bound, self.log_std_bound)
        return Posterior(mean, log_std, log_std.exp())

    def decode(self, z: Tensor) -> Tensor:
        """g(z): (..., Z) to (..., D)."""
        h: Tensor = self.decoder(z)
        return h.sigmoid_() if self.is_sigmoid else h


def widths(network: Network, dimensions: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Layer widths of encoder and decoder, from input to output."""
    match network:
        case LinearNetwork():
            hidden: tuple[int, ...] = ()
        case MlpNetwork():
            hidden = network.hidden
        case _:
            assert_never(network)
    latent = network.latent_dim
    return (dimensions, *hidden, 2 * latent), (latent, *reversed(hidden), dimensions)


def parameter_count(network: Network, dimensions: int) -> int:
    """Number of weights and biases, by arithmetic alone: nothing is allocated."""
    return sum((i + 1) * o for layers in widths(network, dimensions) for i, o in pairwise(layers))


def _dense(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A dense layer drawn from U(±1/√inputs), from our generator and not the process's."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device=generator.device)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
