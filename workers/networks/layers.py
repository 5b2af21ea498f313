"""torch's layers without the weights that it draws itself, and how ours are drawn.

torch draws a layer's first weights from the process's generator. A layer that is made on the device
"meta" and then emptied has none either, but that imports sympy: half a second and 37 MiB.
"""

import math

import torch
from torch import nn


class _Undrawn:
    def reset_parameters(self) -> None:
        """Leave the memory as it is; torch's constructors call this, and :func:`draw` follows."""


class Linear(_Undrawn, nn.Linear):
    """A dense layer that is not drawn yet."""


class Conv2d(_Undrawn, nn.Conv2d):
    """A convolution that is not drawn yet."""


class ConvTranspose2d(_Undrawn, nn.ConvTranspose2d):
    """A transposed convolution that is not drawn yet."""


@torch.no_grad()
def draw(
    layer: Linear | Conv2d | ConvTranspose2d, inputs: float, generator: torch.Generator
) -> None:
    """Draw weights and biases from U(±1/√inputs), for ``inputs`` values that reach one output."""
    bound = 1 / math.sqrt(inputs)
    layer.weight.uniform_(-bound, bound, generator=generator)
    if layer.bias is not None:
        layer.bias.uniform_(-bound, bound, generator=generator)
