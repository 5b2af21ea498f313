"""Dense layers, drawn from a generator of our own and not the process's."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.networks.layers import Linear, draw

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


def dense(inputs: int, outputs: int, generator: torch.Generator) -> Linear:
    """A dense layer drawn from U(±1/√inputs)."""
    layer = Linear(inputs, outputs, device=generator.device)
    draw(layer, inputs, generator)
    return layer
