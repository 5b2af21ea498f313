r"""The mean transform y = f(x) + k: an invertible residual network.

f = f_T∘…∘f_1 with f_t(x) = x + g_t(x) and Lip(g_t) ≤ L = coefficient^layers < 1, so each block has
an inverse (Behrmann et al., *Invertible Residual Networks*, ICML 2019), and

    (1 − L)^T ≤ ‖f(a) − f(b)‖/‖a − b‖ ≤ (1 + L)^T.

Activations are 1-Lipschitz. The weights are brought below their bound after every step, and so obey
it at every time; see operator_norm.py. The last layer of each block begins at 0: f begins as the
identity, and so continues a fixed spread. The density of y needs no Jacobian and no inverse of f,
and the entropy of the noise does not depend on f.

A transform that only enlarges is a smaller noise: its mean gain E‖f(x) − f(x′)‖/E‖x − x′‖ over
pairs of data is measured, and may be divided away.
"""

from itertools import pairwise
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.errors import SpecMismatch
from workers.networks.dense import LEAK, dense
from workers.networks.layers import Conv2d, draw
from workers.spec.learned import Activation, ConvTransform, MeanTransform, MlpTransform
from workers.spread.learned.operator_norm import clip_conv, clip_dense

_PAIRS = 256
_KERNEL = 3


class Transform(nn.Module):
    """f, for rows of data of one shape."""

    gain: Tensor

    def __init__(
        self, spec: MeanTransform, shape: tuple[int, ...], generator: torch.Generator
    ) -> None:
        super().__init__()
        self._normalise = spec.normalise_gain
        self.blocks = nn.ModuleList(_block(spec, shape, generator) for _ in range(spec.blocks))
        self.register_buffer("gain", torch.ones((), device=generator.device))
        self._live_gain: Tensor | None = None
        self._pairs: Tensor | None = None
        self.bound()

    def forward(self, x: Tensor) -> Tensor:
        """f(x) for x of shape (..., D)."""
        y = self._raw(x)
        if not self._normalise:
            return y
        gain = self.gain if self._live_gain is None else self._live_gain
        return y / gain

    def observe(self, rows: Tensor, seed: int) -> None:
        """Keep pairs of the training data, N×D, over which the gain is measured."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(len(rows), (2, _PAIRS), generator=generator).to(rows.device)
        pairs = rows[chosen]
        self._pairs = pairs.float() / 255 if rows.dtype == torch.uint8 else pairs

    def mean_gain(self) -> Tensor:
        """E‖f(x) − f(x′)‖/E‖x − x′‖ before normalisation, over the pairs that were observed."""
        if self._pairs is None:
            raise RuntimeError("the gain is measured on data: call observe() first")
        before = (self._pairs[0] - self._pairs[1]).norm(dim=-1).mean()
        first, second = self._raw(self._pairs)
        gain: Tensor = (first - second).norm(dim=-1).mean() / before
        return gain

    def begin_step(self) -> None:
        """Before a step that learns f: the gain becomes a function of the weights."""
        if self._normalise:
            self._live_gain = self.mean_gain()

    @torch.no_grad()
    def bound(self) -> None:
        """After a step: bring every layer below its bound, and measure the gain."""
        for block in self.blocks:
            assert isinstance(block, _Block)
            block.bound()
        self._live_gain = None
        if self._pairs is not None:
            self.gain.copy_(self.mean_gain())

    def _raw(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


class _Block(nn.Module):
    """g_t: layers with an activation between them, each of norm at most the coefficient."""

    def __init__(self, layers: list[nn.Module], activation: Activation, coefficient: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._activation: Activation = activation
        self._coefficient = coefficient
        last = layers[-1]
        assert isinstance(last, nn.Linear | nn.Conv2d)
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)

    def forward(self, h: Tensor) -> Tensor:
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            h = layer(h)
            if index < last:
                h = activate(self._activation, h)
        return h

    def bound(self) -> None:
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                clip_conv(layer.weight, self._coefficient)
            elif isinstance(layer, nn.Linear):
                clip_dense(layer.weight, self._coefficient)


class _Pictures(_Block):
    """A block of convolutions, on rows H·W·C."""

    def __init__(
        self,
        layers: list[nn.Module],
        activation: Activation,
        coefficient: float,
        picture: tuple[int, int, int],
    ) -> None:
        super().__init__(layers, activation, coefficient)
        self._picture = picture

    def forward(self, h: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        maps = h.reshape(-1, *self._picture).permute(0, 3, 1, 2)
        return super().forward(maps).permute(0, 2, 3, 1).reshape(h.shape)


def activate(activation: Activation, h: Tensor) -> Tensor:
    """A function whose slope is never above 1."""
    match activation:
        case "elu":
            return functional.elu(h)
        case "relu":
            return functional.relu(h)
        case "leaky_relu":
            return functional.leaky_relu(h, LEAK)
        case "tanh":
            return h.tanh()
        case _:
            assert_never(activation)


def picture_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of pictures of shape (H, W) or (H, W, C); raises SpecMismatch for vectors."""
    if len(shape) not in (2, 3):
        raise SpecMismatch(
            "/trainer/learned_spread/mean_transform/kind",
            "convolutions need pictures, and these data are vectors; choose mlp",
        )
    return shape[0], shape[1], shape[2] if len(shape) == 3 else 1


def widths(spec: MeanTransform, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Widths of a block from input to output: values of a row, or channels of a picture."""
    match spec:
        case MlpTransform():
            dimensions = 1
            for side in shape:
                dimensions *= side
            return (dimensions, *spec.hidden, dimensions)
        case ConvTransform():
            colours = picture_of(shape)[2]
            return (colours, *(spec.channels,) * (spec.layers - 1), colours)
        case _:
            assert_never(spec)


def _block(spec: MeanTransform, shape: tuple[int, ...], generator: torch.Generator) -> _Block:
    steps = pairwise(widths(spec, shape))
    match spec:
        case MlpTransform():
            dense_layers: list[nn.Module] = [dense(i, o, generator) for i, o in steps]
            return _Block(dense_layers, spec.activation, spec.coefficient)
        case ConvTransform():
            layers: list[nn.Module] = [_convolution(i, o, generator) for i, o in steps]
            return _Pictures(layers, spec.activation, spec.coefficient, picture_of(shape))
        case _:
            assert_never(spec)


def _convolution(inputs: int, outputs: int, generator: torch.Generator) -> Conv2d:
    device = generator.device
    layer = Conv2d(inputs, outputs, _KERNEL, padding=_KERNEL // 2, device=device)
    draw(layer, inputs * _KERNEL**2, generator)
    return layer
