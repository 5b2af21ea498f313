r"""Batch normalisation over the whole batch, also where several workers hold parts of it.

Per channel, over the n values that a batch has of it on all workers together (Ioffe and Szegedy,
2015):

    out = γ (x − μ)/√(σ² + ε) + β,    μ = Σx/n,    σ² = Σ(x − μ)²/n.

Each worker knows its own n_r, μ_r and σ²_r. One sum over the workers of (n_r, n_r μ_r,
n_r(σ²_r + μ_r²)), in float64 because the last loses digits, gives n, μ and σ². The sum is
differentiable: since the loss is the sum of the workers' parts, the gradient of a summand is the
sum of what the workers' parts send back.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-5
MOMENTUM = 0.1  # weight of the newest batch in the running statistics

Reduce = Callable[[Tensor], Tensor]


class BatchNorm(nn.Module):
    """Batch normalisation of (B, C, H, W); evaluation uses the running statistics.

    ``reduce`` sums a tensor over all workers, in place; None is one worker. A worker may have
    B = 0.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, channels: int, device: torch.device, reduce: Reduce | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, device=device))
        self.bias = nn.Parameter(torch.zeros(channels, device=device))
        self.register_buffer("running_mean", torch.zeros(channels, device=device))
        self.register_buffer("running_variance", torch.ones(channels, device=device))
        self._reduce = reduce

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and type as ``x``; in training, also moves the running statistics."""
        if self.training and (self._reduce is not None or x.numel() == x.shape[1]):
            return self._over_workers(x)
        return torch.batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_variance,
            self.training,
            MOMENTUM,
            EPSILON,
            False,
        )

    def _over_workers(self, x: Tensor) -> Tensor:
        sums = _sums(x)
        if self._reduce is not None:
            sums = sum_over_workers(sums, self._reduce)
        channels = x.shape[1]
        count, mean = sums[-1], sums[:channels] / sums[-1]
        variance = sums[channels:-1] / count - mean.square()
        self._move(mean.detach(), variance.detach(), count.detach())
        scale = self.weight / (variance + EPSILON).sqrt()
        # Centred first: where the mean is large, γx/σ + (β − γμ/σ) would lose digits.
        centred = x.float() - _spread_out(mean)
        out = torch.addcmul(_spread_out(self.bias), centred, _spread_out(scale))
        return out.to(x.dtype)

    @torch.no_grad()
    def _move(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics; the variance's is the unbiased one, as in torch."""
        unbiased = variance * (count / (count - 1).clamp_min(1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), MOMENTUM)
        self.running_variance.lerp_(unbiased.to(self.running_variance.dtype), MOMENTUM)


def _sums(x: Tensor) -> Tensor:
    """Σx and Σx² of each channel and the number of values of one, float64, shape (2C + 1,)."""
    channels = x.shape[1]
    values = x.numel() // channels
    count = torch.full((1,), values, dtype=torch.float64, device=x.device)
    if not values:
        # Still a function of x, so that backward meets the other workers here.
        nothing = x.double().sum((0, 2, 3))
        return torch.cat((nothing, nothing, count))
    variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
    mean, variance = mean.double(), variance.double()
    return torch.cat((mean * values, (variance + mean.square()) * values, count))


def _spread_out(values: Tensor) -> Tensor:
    return values.float().view(1, -1, 1, 1)


class _Sum(torch.autograd.Function):
    """The differentiable sum over workers."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, reduce: Reduce) -> Tensor:
        ctx.reduce = reduce
        return reduce(values.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.reduce(gradients[0].clone()), None


def sum_over_workers(values: Tensor, reduce: Reduce) -> Tensor:
    """The sum of ``values`` over all workers, through which gradients flow."""
    total: Tensor = _Sum.apply(values, reduce)  # type: ignore[no-untyped-call]
    return total
