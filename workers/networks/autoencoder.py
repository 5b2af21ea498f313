"""Encoder and decoder of one latent-variable model over data in R^D.

The encoder returns the posterior q(z|y) = N(μ(y), diag s(y)²), the decoder the mean g(z). Shapes:
B batch, D data, Z latent. Data are rows of D values, whatever shape one datum has.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal, assert_never

import torch
from torch import Tensor, nn

from workers.networks import convolution
from workers.networks.batch_norm import Reduce
from workers.networks.convolution import ConvDecoder, ConvEncoder
from workers.networks.dense import Layers
from workers.spec import ConvNetwork, LinearNetwork, MlpNetwork

Network = LinearNetwork | MlpNetwork | ConvNetwork


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


class Autoencoder(nn.Module):
    """The encoder of q(z|y) and the decoder g, for data of one shape.

    ``reduce`` sums over the workers that hold parts of a batch, None for one worker. Raises
    SpecMismatch where the network cannot be built for the shape.
    """

    def __init__(
        self,
        network: Network,
        shape: tuple[int, ...],
        *,
        output: Literal["sigmoid", "identity"],
        log_std_bound: float,
        generator: torch.Generator,
        reduce: Reduce | None = None,
    ) -> None:
        super().__init__()
        self.encoder: Layers | ConvEncoder
        self.decoder: Layers | ConvDecoder
        if isinstance(network, ConvNetwork):
            plan = convolution.plan(network, shape)
            self.encoder = ConvEncoder(plan, generator, reduce)
            self.decoder = ConvDecoder(plan, generator, reduce)
        else:
            encoder, decoder = _widths(network, prod(shape))
            self.encoder = Layers(encoder, generator)
            self.decoder = Layers(decoder, generator)
        self.dimensions = prod(shape)
        self.latent_dim = network.latent_dim
        self.is_sigmoid = output == "sigmoid"
        self.log_std_bound = log_std_bound

    def encode(self, y: Tensor) -> Posterior:
        """q(z|y) for y of shape (B, D); float32 whatever the network computes in."""
        mean, log_std = self.encoder(y).float().chunk(2, -1)
        log_std = log_std.clamp(-self.log_std_bound, self.log_std_bound)
        return Posterior(mean, log_std, log_std.exp())

    def decode(self, z: Tensor) -> Tensor:
        """g(z): (..., Z) to (..., D), float32."""
        h: Tensor = self.decoder(z).float()
        return h.sigmoid_() if self.is_sigmoid else h

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """In the block, batch normalisation uses its running statistics and leaves them alone."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)


def _widths(
    network: LinearNetwork | MlpNetwork, dimensions: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
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


def parameter_count(network: Network, shape: tuple[int, ...]) -> int:
    """Number of values that training changes, by arithmetic alone: nothing is allocated.

    Raises SpecMismatch where the network does not fit the shape, as the next two do.
    """
    if isinstance(network, ConvNetwork):
        return convolution.counts(convolution.plan(network, shape))[0]
    layers = _widths(network, prod(shape))
    return sum((i + 1) * o for widths in layers for i, o in pairwise(widths))


def value_count(network: Network, shape: tuple[int, ...]) -> int:
    """Number of values in a weights file: parameters, and running statistics."""
    if isinstance(network, ConvNetwork):
        return sum(convolution.counts(convolution.plan(network, shape)))
    return parameter_count(network, shape)


def activations(network: Network, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Values that one row leaves behind in each layer, from y to g(z)."""
    if isinstance(network, ConvNetwork):
        return convolution.activations(convolution.plan(network, shape))
    encoder, decoder = _widths(network, prod(shape))
    return (*encoder, *decoder)
