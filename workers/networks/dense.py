"""Dense layers, drawn from a generator of our own and not the process's."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.01  # slope of LeakyReLU below zero, as in the authors' code


class Layers(nn.Module):
    """Dense layers with LeakyReLU(0.01) between them; a single one is an affine map."""

    def __init__(self, widths: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(dense(i, o, generator) for i, o in pairwise(widths))

    def forward(self, h: Tensor) -> Tensor:
        """(..., widths[0]) to (..., widths[-1])."""
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            h = layer(h)
            if index < last:
                h = functional.leaky_relu(h, LEAK, inplace=True)
        return h


def dense(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A dense layer drawn from U(±1/√inputs)."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device=generator.device)
    draw(layer, inputs, generator)
    return layer


@torch.no_grad()
def draw(
    layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, inputs: float, generator: torch.Generator
) -> None:
    """Draw weights and biases from U(±1/√inputs), for ``inputs`` values that reach one output."""
    bound = 1 / math.sqrt(inputs)
    layer.weight.uniform_(-bound, bound, generator=generator)
    if layer.bias is not None:
        layer.bias.uniform_(-bound, bound, generator=generator)
