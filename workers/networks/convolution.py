"""Convolutional encoders and decoders of pictures.

Rows of data are pictures as they are stored, H×W or H×W×C in row-major order; seen as (B, C, H, W)
they are in torch's channels_last layout, in which convolutions are faster on a CPU too, so all
maps and kernels are kept in it and nothing is copied.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.errors import SpecMismatch
from workers.networks.batch_norm import BatchNorm, Reduce
from workers.networks.dense import dense
from workers.networks.layers import Conv2d, ConvTranspose2d, draw
from workers.spec import ConvNetwork


@dataclass(frozen=True, slots=True)
class Map:
    """The size of one layer's output for one picture."""

    channels: int
    height: int
    width: int

    @property
    def values(self) -> int:
        """Number of values."""
        return self.channels * self.height * self.width


@dataclass(frozen=True, slots=True)
class Plan:
    """The maps of encoder and decoder, each from its first input to its last output.

    All but the decoder's last step halve or double the map.
    """

    network: ConvNetwork
    encoder: tuple[Map, ...]
    decoder: tuple[Map, ...]

    @property
    def code(self) -> Map:
        """The smallest map, which the dense layers read and write."""
        return self.encoder[-1]


def plan(network: ConvNetwork, shape: tuple[int, ...]) -> Plan:
    """The maps for data of one shape, (H, W) or (H, W, C); raises SpecMismatch if none fit."""
    if len(shape) not in (2, 3):
        raise SpecMismatch(
            "/trainer/network/kind",
            "a convolutional network needs pictures, and these data are vectors; choose mlp",
        )
    height, width = shape[:2]
    divisor = gcd(height, width)
    halvings = (divisor & -divisor).bit_length() - 1
    if not halvings:
        raise SpecMismatch(
            "/trainer/network/kind",
            f"every layer halves the picture, and {height}×{width} cannot be halved; choose mlp",
        )
    if len(network.channels) > halvings:
        raise SpecMismatch(
            "/trainer/network/channels",
            f"every layer halves the picture, and {height}×{width} can be halved {halvings} "
            f"times; choose at most {halvings} numbers of channels",
        )
    picture = Map(shape[2] if len(shape) == 3 else 1, height, width)
    encoder = [picture]
    for channels in network.channels:
        encoder.append(Map(channels, encoder[-1].height // 2, encoder[-1].width // 2))
    decoder = [encoder[-1]]
    for channels in (*reversed(network.channels[:-1]), max(1, network.channels[0] // 2)):
        decoder.append(Map(channels, 2 * decoder[-1].height, 2 * decoder[-1].width))
    return Plan(network, tuple(encoder), (*decoder, picture))


def counts(plan: Plan) -> tuple[int, int]:
    """Number of trained values, and of running statistics, by arithmetic alone."""
    network, code = plan.network, plan.code.values
    parameters = (code + 1) * 2 * network.latent_dim + (network.latent_dim + 1) * code
    statistics = 0
    normed = (*pairwise(plan.encoder), *pairwise(plan.decoder[:-1]))
    for i, o in (*normed, plan.decoder[-2:]):
        parameters += i.channels * o.channels * network.kernel_size**2 + o.channels
    if network.batch_norm:
        # Scale and shift in place of a bias, and mean and variance beside them.
        parameters += sum(o.channels for _, o in normed)
        statistics = sum(2 * o.channels for _, o in normed)
    return parameters, statistics


def activations(plan: Plan) -> tuple[int, ...]:
    """Values that one row leaves behind in each layer, from the picture to its decoded mean."""
    twice = 2 if plan.network.batch_norm else 1
    inner = [twice * m.values for m in (*plan.encoder[1:], *plan.decoder[1:-1])]
    latent = 3 * plan.network.latent_dim
    at = len(plan.encoder) - 1
    return (
        plan.encoder[0].values,
        *inner[:at],
        latent,
        plan.code.values,
        *inner[at:],
        plan.decoder[-1].values,
    )


class ConvEncoder(nn.Module):
    """Convolutions of stride 2, [batch normalisation,] ReLU; then dense to (mean, log std)."""

    def __init__(self, plan: Plan, generator: torch.Generator, reduce: Reduce | None) -> None:
        super().__init__()
        self._picture, self._code = plan.encoder[0], plan.code
        self.layers = nn.ModuleList(
            _Layer(plan.network, i, o, generator, reduce) for i, o in pairwise(plan.encoder)
        )
        self.head = dense(plan.code.values, 2 * plan.network.latent_dim, generator)

    def forward(self, y: Tensor) -> Tensor:
        """(B, D) to (B, 2Z)."""
        h = _maps(y, self._picture)
        for layer in self.layers:
            h = layer(h)
        code: Tensor = self.head(_rows(h, self._code))
        return code


class ConvDecoder(nn.Module):
    """Dense, ReLU; transposed convolutions of stride 2, [batch normalisation,] ReLU; one more."""

    def __init__(self, plan: Plan, generator: torch.Generator, reduce: Reduce | None) -> None:
        super().__init__()
        self._picture, self._code = plan.decoder[-1], plan.code
        self.head = dense(plan.network.latent_dim, plan.code.values, generator)
        self.layers = nn.ModuleList(
            _Layer(plan.network, i, o, generator, reduce) for i, o in pairwise(plan.decoder[:-1])
        )
        before, picture = plan.decoder[-2:]
        self.last = _convolution(plan.network, before, picture, bias=True, generator=generator)

    def forward(self, z: Tensor) -> Tensor:
        """(..., Z) to (..., D)."""
        rows = z.shape[:-1].numel()
        h = _maps(
            functional.relu(self.head(z.reshape(rows, z.shape[-1])), inplace=True), self._code
        )
        for layer in self.layers:
            h = layer(h)
        return _rows(self.last(h), self._picture).view(*z.shape[:-1], self._picture.values)


class _Layer(nn.Module):
    """A convolution that halves or doubles the map, perhaps batch normalisation, and ReLU."""

    def __init__(
        self,
        network: ConvNetwork,
        before: Map,
        after: Map,
        generator: torch.Generator,
        reduce: Reduce | None,
    ) -> None:
        super().__init__()
        # The shift of batch normalisation stands for the bias, whose gradient would be rounding.
        has_norm = network.batch_norm
        self.convolution = _convolution(
            network, before, after, bias=not has_norm, generator=generator
        )
        self.norm = (
            BatchNorm(after.channels, generator.device, reduce) if has_norm else nn.Identity()
        )

    def forward(self, h: Tensor) -> Tensor:
        return functional.relu(self.norm(self.convolution(h)), inplace=True)


def _convolution(
    network: ConvNetwork, before: Map, after: Map, *, bias: bool, generator: torch.Generator
) -> Conv2d | ConvTranspose2d:
    """A convolution between two maps; its padding makes them fit.

    Between maps of one size a transposed convolution is one with its kernel turned round.

    Drawn from U(±1/√n) for the n values that reach one output; of a transposed convolution of
    stride 2, a quarter of the kernel meets a value.
    """
    size = network.kernel_size
    is_doubling = after.height > before.height
    device = generator.device
    layer: Conv2d | ConvTranspose2d
    if is_doubling:
        layer = ConvTranspose2d(
            before.channels, after.channels, size, 2, size // 2, 1, bias=bias, device=device
        )
    else:
        stride = before.height // after.height
        layer = Conv2d(
            before.channels, after.channels, size, stride, size // 2, bias=bias, device=device
        )
    draw(layer, before.channels * size**2 / (4 if is_doubling else 1), generator)
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return layer


def _maps(rows: Tensor, size: Map) -> Tensor:
    """(B, H·W·C) seen as (B, C, H, W)."""
    return rows.view(rows.shape[0], size.height, size.width, size.channels).permute(0, 3, 1, 2)


def _rows(maps: Tensor, size: Map) -> Tensor:
    """(B, C, H, W) as (B, H·W·C)."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], size.values)
