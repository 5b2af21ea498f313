r"""Batch normalisation over the whole batch, also where several workers hold parts of it.

Per channel, over the n values that a batch has of it on all workers together (Ioffe and Szegedy,
2015):

    out = γ (x − μ)/√(σ² + ε) + β,    μ = Σx/n,    σ² = Σ(x − μ)²/n.

Each worker knows its own n_r, μ_r and σ²_r. One sum over the workers of (n_r μ_r,
n_r(σ²_r + μ_r²), n_r), in float64 because the second loses digits, gives n, μ and σ². Backward,
with G = ∂loss/∂out and x̂ = (x − μ)/√(σ² + ε), one more sum, of ΣG and ΣGx̂, gives

    ∂loss/∂x = γ/√(σ² + ε) (G − ΣG/n − x̂ ΣGx̂/n),

while ∂loss/∂β = ΣG and ∂loss/∂γ = ΣGx̂ stay each worker's own parts, as all gradients do. Torch's
kernels for given statistics do the work over the maps, so that it costs little more than torch's
batch normalisation on one worker, and rounds as that does.
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
        reduce = self._reduce or _alone
        mean, variance, count = _statistics(x.detach(), reduce)
        self._move(mean, variance, count)
        out: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, mean, variance, count, reduce
        )
        return out

    @torch.no_grad()
    def _move(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics; the variance's is the unbiased one, as in torch."""
        self.running_mean.lerp_(mean, MOMENTUM)
        self.running_variance.lerp_(variance * (count / max(count - 1, 1)), MOMENTUM)


def _alone(sums: Tensor) -> Tensor:
    return sums


def _statistics(x: Tensor, reduce: Reduce) -> tuple[Tensor, Tensor, float]:
    """μ and σ² of each channel over all workers, float32 of shape (C,), and n."""
    channels = x.shape[1]
    sums = torch.zeros(2 * channels + 1, dtype=torch.float64, device=x.device)
    if values := x.numel() // channels:
        # Of this batch; on the CPU it is the running statistics that say in which type.
        unused, also = torch.zeros(2, channels, device=x.device)
        mean, variance = torch.batch_norm_update_stats(x, unused, also, MOMENTUM)
        mean, variance = mean.double(), variance.double()
        torch.mul(mean, values, out=sums[:channels])
        torch.mul(variance + mean.square(), values, out=sums[channels:-1])
        sums[-1] = values
    sums = reduce(sums)
    count = sums[-1].item()
    mean = sums[:channels] / count
    variance = (sums[channels:-1] / count - mean.square()).clamp_min(0)
    return mean.float(), variance.float(), count


class _Normalise(torch.autograd.Function):
    """(x − μ)/√(σ² + ε) γ + β where μ and σ² are functions of all workers' x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: float,
        reduce: Reduce,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.count, ctx.reduce = count, reduce
        return _given(x, weight, bias, mean, variance)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        to_x, to_weight, to_bias = _backward_given(gradients[0], x, weight, mean, variance)
        sums = ctx.reduce(torch.stack((to_bias, to_weight)).double())
        scale = -weight / (variance + EPSILON).sqrt() / ctx.count
        if x.numel():
            # ΣG and ΣGx̂ as the offset and scale of another normalisation of the same x.
            both = (scale * sums.to(scale.dtype)).unbind()
            to_x = to_x.add_(_given(x, both[1], both[0], mean, variance))
        return to_x, to_weight, to_bias, None, None, None, None


def _given(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """x normalised with these statistics."""
    if not x.numel():
        return x.clone()
    return torch.batch_norm(x, weight, bias, mean, variance, False, MOMENTUM, EPSILON, False)


def _backward_given(
    gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients in x, γ and β where the statistics are constants."""
    if not x.numel():
        return torch.zeros_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
    to_x, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
        gradient, x, weight, mean, variance, None, None, False, EPSILON, [True, True, True]
    )
    return to_x, to_weight, to_bias
