r"""Operator norms of layers, never too small, and layers brought below a bound.

Power iteration approaches a norm from below, so a bound made of it does not hold. Here a dense
layer's norm is exact. A convolution of stride 1 with zero padding is a part of the convolution over
the whole plane, whose norm is the largest over all frequencies ω of σ_max(K(ω)), with
K(ω) = Σ_t k_t e^{−iω·t} of shape (out, in): a bound for any size of picture. (Reflecting or
replicating padding is not a part of it, and does break such bounds.) The frequencies are taken on
an N×N grid. For unit u and v, Re e^{iφ}uᴴK(ω)v is a real trigonometric polynomial of
degree n = 1 for 3×3 kernels in each of two variables, and for one of these the largest value on N
equidistant points is at least cos(πn/N) of the largest at all (M. Riesz, 1914). So

    ‖conv‖ ≤ max_grid σ_max(K(ω)) / cos²(πn/N).
"""

import math

import torch
from torch import Tensor

_POINTS = 16
_MARGIN = 1 - 1e-5  # for the rounding of float32 weights


def dense_norm(weight: Tensor) -> float:
    """‖W‖, the largest singular value."""
    return float(_gram(weight.detach().double())[0].amax().clamp_min(0).sqrt())


@torch.no_grad()
def clip_dense(weight: Tensor, bound: float) -> None:
    """Lower the singular values above ``bound`` to it, in place: the nearest such matrix."""
    w = weight.double()
    values, vectors, is_left = _decompose(w)
    sizes = values.clamp_min(1e-300).sqrt()
    if float(sizes.amax()) <= bound:
        return
    factors = (bound * _MARGIN / sizes).clamp_max(1)
    shrink = (vectors * factors) @ vectors.T
    weight.copy_(shrink @ w if is_left else w @ shrink)


def conv_norm(kernel: Tensor) -> float:
    """An upper bound of the norm of a convolution with zero padding, kernel (out, in, k, k)."""
    k = kernel.detach().double()
    degree = k.shape[-1] // 2
    waves = torch.fft.rfft2(k, s=(_POINTS, _POINTS)).flatten(2).permute(2, 0, 1)
    largest = _gram(waves)[0].amax().clamp_min(0).sqrt()
    return float(largest) / math.cos(math.pi * degree / _POINTS) ** 2


@torch.no_grad()
def clip_conv(kernel: Tensor, bound: float) -> None:
    """Scale the kernel, in place, so that the convolution's norm is at most ``bound``."""
    norm = conv_norm(kernel)
    if norm > bound:
        kernel.mul_(bound * _MARGIN / norm)


def _gram(w: Tensor) -> tuple[Tensor, bool]:
    """Eigenvalues of the smaller of WWᴴ and WᴴW, of the last two dimensions."""
    is_left = w.shape[-2] <= w.shape[-1]
    return torch.linalg.eigvalsh(w @ w.mH if is_left else w.mH @ w), is_left


def _decompose(w: Tensor) -> tuple[Tensor, Tensor, bool]:
    is_left = w.shape[0] <= w.shape[1]
    values, vectors = torch.linalg.eigh(w @ w.T if is_left else w.T @ w)
    return values, vectors, is_left
