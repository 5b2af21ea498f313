r"""Spread noise p(y|x): y = f(x) + k, with a scale that may move from step to step.

A spread is valid where its density is positive everywhere and its characteristic function has no
zeros but countably many (section 2 of *Spread Divergence*, Zhang et al., ICML 2020); all of these
are. ``scale`` is the standard deviation σ of k for every kind.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

# The largest float32 below 1: uniform draws from [-it, it] keep log(1 - |u|) finite.
LARGEST_BELOW_1 = 1 - 2**-24


class Spread(ABC):
    """A noise distribution with a scale that may move from step to step."""

    def transform(self, x: Tensor) -> Tensor:
        """f(x) in y = f(x) + k, of x and of g(z) alike; a fixed spread leaves them as they are."""
        return x

    @abstractmethod
    def sample_noise(
        self, shape: Sequence[int], scale: float, generator: torch.Generator
    ) -> Tensor:
        """Float32 draws of k on the generator's device."""

    @abstractmethod
    def log_prob(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """log p(y|mean) in nats, summed over the last dimension."""

    @abstractmethod
    def cost(self, y: Tensor, mean: Tensor, scale: float) -> Tensor:
        """−log p(y|mean) in nats, summed over everything: one fused reduction."""

    @abstractmethod
    def entropy(self, dimensions: int, scale: float) -> float:
        """H(K) in nats of the noise in ``dimensions`` dimensions."""
